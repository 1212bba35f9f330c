package placement

import "net/netip"

// RTT is a round trip that the operator has measured: from the clients of a prefix, or
// from a site, to a site.
type RTT struct {
	// Prefix stands for the class of its first address. It is invalid where Near is set:
	// a site, for the clients that are nearest to it.
	Prefix netip.Prefix `json:"prefix,omitzero"`
	Near   string       `json:"near,omitempty"`
	Site   string       `json:"site"`
	Cost   Cost         `json:"cost"`
}

// Measured are the round trips of a fleet by class: they beat distances.
type Measured struct {
	classes map[rttKey]*rttMean
	sites   map[[2]string]Cost
}

type rttKey struct {
	class uint16
	site  string
}

// rttMean is of all prefixes of one class.
type rttMean struct {
	sum, n int64
	first  netip.Prefix
}

// Measure sorts the round trips of a fleet by the classes of a table, which may be nil.
func (f *Fleet) Measure(ct *ClassTable) *Measured {
	m := &Measured{classes: make(map[rttKey]*rttMean), sites: make(map[[2]string]Cost)}
	for _, r := range f.RTT {
		if r.Near != "" {
			m.sites[[2]string{r.Near, r.Site}] = r.Cost
			continue
		}
		class, _ := ct.Class(r.Prefix.Addr())
		if class == NoClass {
			continue
		}
		key := rttKey{class, r.Site}
		if m.classes[key] == nil {
			m.classes[key] = &rttMean{first: r.Prefix}
		}
		m.classes[key].sum += int64(r.Cost)
		m.classes[key].n++
	}
	return m
}

// Cost is what a class measures to a site, and by what; by is empty where nothing was
// measured. Of several prefixes of the class the mean counts. From a site it is the way
// by that: near is the class's nearest, at the given distance.
func (m *Measured) Cost(class uint16, site, near string, distance Cost) (c Cost, by string) {
	if mean := m.classes[rttKey{class, site}]; mean != nil {
		return Cost((mean.sum + mean.n/2) / mean.n), mean.first.String()
	}
	if c, ok := m.sites[[2]string{near, site}]; ok && near != site {
		return distance + c, near
	}
	return 0, ""
}

// Nearest is the site that lies nearest to a place, and how far; the first of equals.
func (f *Fleet) Nearest(at Position) (site string, c Cost) {
	for i := range f.Sites {
		if d := DistanceCost(at, f.Sites[i].At); site == "" || d < c {
			site, c = f.Sites[i].Name, d
		}
	}
	return site, c
}
