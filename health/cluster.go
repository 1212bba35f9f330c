package health

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"rhumb/placement"
)

// cluster is what this vantage has found out of one cluster: a damper for each
// address, folded to one state.
type cluster struct {
	object    placement.ClusterID
	fault     placement.Fault // what a failure of the check proves
	addresses []address
}

type address struct {
	addr  netip.AddrPort
	damp  damper
	cause string // of the last bad result
	// ended tells that the unit behind it is gone, by the kernel's word, and that no
	// good look has contradicted it since.
	ended bool
}

func newCluster(p Probe) *cluster {
	c := &cluster{object: p.Object}
	for _, t := range p.Targets {
		if c.find(t.Address) != nil {
			continue
		}
		c.fault = t.Check.Fault
		c.addresses = append(c.addresses, address{addr: t.Address, damp: newDamper(t.Check.Rise, t.Check.Fall, p.HalfLife)})
	}
	return c
}

// inherit takes over what was found out before about the same addresses: a
// configuration which adds a server must not forget that the others are down. An
// address judged by other counts starts anew.
func (c *cluster) inherit(before *cluster) {
	if before == nil {
		return
	}
	for i := range c.addresses {
		a := &c.addresses[i]
		if old := before.find(a.addr); old != nil && old.damp.rise == a.damp.rise && old.damp.fall == a.damp.fall {
			half := a.damp.flaps.halfLife
			*a = *old
			a.damp.flaps.halfLife = half
		}
	}
}

func (c *cluster) find(addr netip.AddrPort) *address {
	for i := range c.addresses {
		if c.addresses[i].addr == addr {
			return &c.addresses[i]
		}
	}
	return nil
}

// feed takes a look at one of the addresses; changed when its damper moved.
func (c *cluster) feed(addr netip.AddrPort, r Result, now time.Time) (changed bool) {
	a := c.find(addr)
	if a == nil {
		return false
	}
	second := c.second()
	if r.OK {
		a.ended = false
	} else if !a.ended {
		a.cause = r.Cause
	}
	return a.damp.feed(r.OK, now) || c.second() != second
}

// process takes what the kernel says of the unit which serves some addresses.
func (c *cluster) process(listen []netip.AddrPort, failed bool, cause string, now time.Time) (changed bool) {
	for i := range c.addresses {
		a := &c.addresses[i]
		if !slices.Contains(listen, a.addr) {
			continue
		}
		a.ended = failed
		if failed {
			a.cause = cause
			changed = a.damp.end(now) || changed
		}
	}
	return changed
}

// ended tells whether every address that is down has lost its process.
func (c *cluster) ended() bool {
	down := 0
	for i := range c.addresses {
		switch a := &c.addresses[i]; {
		case a.damp.state != placement.Down:
		case !a.ended:
			return false
		default:
			down++
		}
	}
	return down > 0
}

// second is the second class of evidence for a down: the process is gone, and the
// looks have found out by themselves.
func (c *cluster) second() placement.Evidence {
	if !c.ended() {
		return placement.NoEvidence
	}
	for i := range c.addresses {
		if a := &c.addresses[i]; a.damp.state == placement.Down && a.damp.bad < a.damp.fall {
			return placement.NoEvidence
		}
	}
	return placement.Process
}

func sortedIDs(clusters map[placement.ClusterID]*cluster) []placement.ClusterID {
	return slices.SortedFunc(maps.Keys(clusters), placement.ClusterID.Compare)
}

// state folds the addresses: all up is up, some down is degraded, none up is
// down. An address that was never judged is not down: the cluster stays unknown
// until one answer or all failures are in.
func (c *cluster) state() (s placement.State, cause string) {
	var causes []string
	up, down := 0, 0
	for i := range c.addresses {
		switch a := &c.addresses[i]; a.damp.state {
		case placement.Up:
			up++
		case placement.Down:
			down++
			causes = append(causes, a.addr.String()+": "+a.cause)
		}
	}
	cause = strings.Join(causes, "; ")
	switch {
	case down > 0 && down == len(c.addresses):
		return placement.Down, cause
	case down > 0 && up > 0:
		return placement.Degraded, cause
	case up > 0:
		return placement.Up, ""
	}
	return placement.Unknown, cause
}
