package health

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"rhumb/placement"
)

// ending is the end of the process behind an address, by the kernel's word. It
// stands until a good look contradicts it, or another process says that it serves.
type ending struct {
	ended bool
	cause string
}

// process takes what the kernel says of the unit which serves some addresses.
func (c *cluster) process(listen []netip.AddrPort, failed bool, cause string, now time.Time) (changed bool) {
	for i := range c.addresses {
		a := &c.addresses[i]
		if !slices.Contains(listen, a.addr) || a.end.ended == failed {
			continue
		}
		a.end = ending{failed, cause}
		changed = changed || failed
		for k := range a.parts {
			if failed {
				a.parts[k].damp.end(now)
			}
		}
	}
	return changed
}

// ended tells whether every address that is down has lost its process.
func (c *cluster) ended() bool {
	down := 0
	for i := range c.addresses {
		a := &c.addresses[i]
		switch {
		case a.end.ended:
			down++
		case a.state(&c.rule).state == placement.Down:
			return false
		}
	}
	return down > 0
}

// second is the second class of evidence for a down that looks have found: clients
// met it too, or the processes are gone.
func (c *cluster) second(now time.Time) placement.Evidence {
	switch {
	case c.passive.bad(now):
		return placement.Passive
	case c.ended() && c.found():
		return placement.Process
	}
	return placement.NoEvidence
}

// found tells whether the looks have found every ended address down by themselves.
func (c *cluster) found() bool {
	return !slices.ContainsFunc(c.addresses, func(a address) bool {
		return a.end.ended && slices.ContainsFunc(a.parts, func(p part) bool { return p.damp.bad < p.damp.fall })
	})
}

func sortedIDs(clusters map[placement.ClusterID]*cluster) []placement.ClusterID {
	return slices.SortedFunc(maps.Keys(clusters), placement.ClusterID.Compare)
}
