package netlab

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// linkState is what an interface loses when it goes down: its IPv6 addresses,
// and in both families the routes that leave by it.
type linkState struct {
	iface  string
	addrs  []netlink.Addr
	routes []netlink.Route
}

// lower notes what the interface has and takes it down.
func (h *Host) lower(iface string) (linkState, error) {
	s := linkState{iface: iface}
	link, err := h.nl.LinkByName(iface)
	if err != nil {
		return s, fmt.Errorf("netlab: take down %s of %s: %w", iface, h.Name, err)
	}
	if s.addrs, err = h.nl.AddrList(link, unix.AF_UNSPEC); err != nil {
		return s, fmt.Errorf("netlab: addresses of %s of %s: %w", iface, h.Name, err)
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		routes, err := h.nl.RouteList(link, family)
		if err != nil {
			return s, fmt.Errorf("netlab: routes of %s of %s: %w", iface, h.Name, err)
		}
		for _, r := range routes {
			if restorable(r) {
				s.routes = append(s.routes, r)
			}
		}
	}
	if err := h.nl.LinkSetDown(link); err != nil {
		return s, fmt.Errorf("netlab: take down %s of %s: %w", iface, h.Name, err)
	}
	return s, nil
}

// restorable picks the routes that somebody wrote by hand. Those of the kernel
// come back with their address; those of a routing program are its own to write
// again, when it has found the link up, and perhaps it no longer wants them.
func restorable(r netlink.Route) bool {
	return r.Protocol == protoStatic || r.Protocol == unix.RTPROT_BOOT
}

func (h *Host) linkUp(iface string) error {
	link, err := h.nl.LinkByName(iface)
	if err == nil {
		err = h.nl.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("netlab: bring up %s of %s: %w", iface, h.Name, err)
	}
	return nil
}

// restore gives an interface back what lower noted.
func (h *Host) restore(s linkState) error {
	link, err := h.nl.LinkByName(s.iface)
	if err != nil {
		return fmt.Errorf("netlab: restore %s of %s: %w", s.iface, h.Name, err)
	}
	for _, a := range s.addrs {
		if a.IP.To4() == nil {
			a.Flags |= unix.IFA_F_NODAD
		}
		if err := h.nl.AddrReplace(link, &a); err != nil {
			return fmt.Errorf("netlab: restore address %s on %s of %s: %w", a.IPNet, s.iface, h.Name, err)
		}
	}
	for _, r := range s.routes {
		r.Flags &= int(netlink.FLAG_ONLINK)
		if err := h.nl.RouteReplace(&r); err != nil {
			return fmt.Errorf("netlab: restore route to %s of %s: %w", r.Dst, h.Name, err)
		}
	}
	return nil
}
