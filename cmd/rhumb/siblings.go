package main

import (
	"net/netip"
	"slices"
	"sync/atomic"

	"rhumb/edge"
	"rhumb/health"
	"rhumb/internal/config"
	"rhumb/placement"
)

// aliveSocket is where the health role of a machine watches the other units.
const aliveSocket = "alive.sock"

// addPresence lets the health role in another process of this machine watch this
// unit, so that its end is known at once and not by probes. A unit which serves
// nobody has nothing to say.
func addPresence(u *unit) {
	if u.has(config.RoleHealth) || !u.has(config.RoleAuthDNS) && !u.has(config.RoleEdge) {
		return
	}
	s := &serves{u: u, roles: u.roles}
	u.add("presence", health.NewPresence(u.socket(aliveSocket), u.name, s.addresses).Run)
}

// serves tells which addresses a unit serves; asked ten times a second, it looks
// through the services once a snapshot.
type serves struct {
	u     *unit
	roles []string
	last  atomic.Pointer[served]
}

type served struct {
	inventory *placement.Inventory
	addresses []netip.AddrPort
}

// addresses are those of the name server's listeners and of our own content server.
func (s *serves) addresses() []netip.AddrPort {
	var inv *placement.Inventory
	if snap := s.u.current.Load(); snap != nil {
		inv = snap.Inventory
	}
	if last := s.last.Load(); last != nil && last.inventory == inv {
		return last.addresses
	}
	now := &served{inventory: inv}
	if slices.Contains(s.roles, config.RoleAuthDNS) {
		now.addresses = slices.Concat(s.u.cfg.Listen.Low, s.u.cfg.Listen.Top)
	}
	if slices.Contains(s.roles, config.RoleEdge) && inv != nil {
		for _, c := range contentServices(inv, s.u) {
			if c.Mode == edge.ModeAct {
				now.addresses = append(now.addresses, c.VIPs...)
			}
		}
	}
	s.last.Store(now)
	return now.addresses
}

// fitness is what the health role looks at on this machine.
func (u *unit) fitness() *health.Fitness {
	f := &health.Fitness{Dir: u.cfg.Node.DataDir}
	if u.cfg.BGP != nil {
		for _, p := range u.cfg.BGP.Peers {
			f.Routers = append(f.Routers, p.Addr)
		}
	}
	return f
}
