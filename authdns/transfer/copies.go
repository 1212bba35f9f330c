package transfer

import (
	"maps"
	"slices"
	"time"
)

// Copy is a zone that is copied, for metrics.
type Copy struct {
	Zone      string
	Unserved  bool
	Confirmed time.Time // zero: never
	// Results are what came of asking primaries, in order: axfr, failed, ixfr, none.
	Results []Sent
}

// Copies lists the zones that are copied, by name; none of a nil In.
func (in *In) Copies() []Copy {
	if in == nil {
		return nil
	}
	in.mu.Lock()
	zones := make([]*copied, 0, len(in.zones))
	for _, name := range slices.Sorted(maps.Keys(in.zones)) {
		zones = append(zones, in.zones[name])
	}
	in.mu.Unlock()
	out := make([]Copy, 0, len(zones))
	for _, z := range zones {
		out = append(out, z.copy())
	}
	return out
}

// copy is what is known of one zone.
func (z *copied) copy() Copy {
	z.mu.Lock()
	defer z.mu.Unlock()
	c := Copy{Zone: z.want.Name, Unserved: z.held.Unserved != "", Confirmed: z.held.Confirmed}
	for _, result := range slices.Sorted(maps.Keys(z.results)) {
		c.Results = append(c.Results, Sent{c.Zone, result, z.results[result]})
	}
	return c
}

// count notes what came of asking; mu is held.
func (z *copied) count(result string) {
	if z.results == nil {
		z.results = make(map[string]uint64)
	}
	z.results[result]++
}
