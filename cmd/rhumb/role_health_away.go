package main

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"rhumb/placement"
)

// away returns what tells that an address which this process announces is not on the
// host: the speaker takes it off lo once a drain has withdrawn its routes, and what answers
// there then is another site. It is nil where no speaker of ours binds addresses.
func (u *unit) away() func(netip.Addr) bool {
	if u.bound == nil || u.cfg.Mode == placement.Observe {
		return nil
	}
	return func(a netip.Addr) bool {
		s := u.current.Load()
		return s != nil && bindsHere(s.Inventory, u.cfg.Node.Site, a) && !onHost(a)
	}
}

// bindsHere tells whether an address belongs to a prefix that a site announces by itself.
func bindsHere(inv *placement.Inventory, site string, a netip.Addr) bool {
	for i := range inv.Prefixes {
		p := &inv.Prefixes[i]
		if p.Prefix.Contains(a) && p.Mode.Or(inv.RoleMode("bgp")) == placement.Act && slices.Contains(inv.AnnouncingSites(p), site) {
			return true
		}
	}
	return false
}

// onHost tells whether an address is one of this host's: the kernel binds no other (ip(7)),
// unless it is told to by ip_nonlocal_bind.
func onHost(a netip.Addr) bool {
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: a.AsSlice(), Zone: a.Zone()})
	if err == nil {
		err = c.Close()
	}
	return !errors.Is(err, syscall.EADDRNOTAVAIL)
}
