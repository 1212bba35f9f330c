package health

import (
	"net/netip"
	"strings"
	"time"

	"rhumb/placement"
)

// cluster is what this vantage has found out of one cluster: a damper for each
// address, folded to one state.
type cluster struct {
	object    placement.ClusterID
	fault     placement.Fault
	addresses []address
}

type address struct {
	addr  netip.AddrPort
	damp  damper
	cause string // of the last bad result
	last  Result
}

func newCluster(p Probe) *cluster {
	c := &cluster{object: p.Object}
	for _, t := range p.Targets {
		c.fault = t.Check.Fault
		c.addresses = append(c.addresses, address{addr: t.Address, damp: newDamper(t.Check.Rise, t.Check.Fall)})
	}
	return c
}

// feed takes a look at one of the addresses; changed when any damper moved.
func (c *cluster) feed(addr netip.AddrPort, r Result, now time.Time) (changed bool) {
	for i := range c.addresses {
		a := &c.addresses[i]
		if a.addr != addr {
			continue
		}
		a.last = r
		if !r.OK {
			a.cause = r.Cause
		}
		return a.damp.feed(r.OK, now)
	}
	return false
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
	case down == len(c.addresses):
		return placement.Down, cause
	case down > 0 && up > 0:
		return placement.Degraded, cause
	case up > 0:
		return placement.Up, ""
	}
	return placement.Unknown, cause
}
