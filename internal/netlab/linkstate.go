package netlab

import (
	"fmt"
	"time"

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

// linkUp brings an interface up; restore may follow when its peer is up too.
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

// settleWithin bounds the wait for the kernel's own follow-up work.
const settleWithin = 3 * time.Second

// settle waits until the kernel has finished what bringing up links sets off. It
// makes interfaces operational, gives them link-local addresses and writes the
// local routes of IPv6 addresses in workers of its own, some milliseconds later;
// until then packets to those addresses are refused.
func settle(hosts []*Host) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(settleWithin)
	for _, h := range hosts {
		for {
			missing, err := h.unsettled()
			if err != nil {
				return err
			}
			if missing == "" {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("netlab: %s is not ready: %s", h.Name, missing)
			}
			<-tick.C
		}
	}
	return nil
}

// unsettled names something that the host still waits for; empty: nothing.
func (h *Host) unsettled() (string, error) {
	local, err := h.localRoutes()
	if err != nil {
		return "", err
	}
	links, err := h.nl.LinkList()
	if err != nil {
		return "", fmt.Errorf("netlab: links of %s: %w", h.Name, err)
	}
	for _, l := range links {
		at := l.Attrs()
		if at.Name != "lo" && !h.declared[at.Name] {
			continue // made by a program in the host, which minds it itself
		}
		if at.RawFlags&unix.IFF_UP == 0 || at.RawFlags&unix.IFF_LOWER_UP == 0 {
			continue // down, or the other end is: nothing will come
		}
		addrs, err := h.nl.AddrList(l, unix.AF_INET6)
		if err != nil {
			return "", fmt.Errorf("netlab: addresses of %s of %s: %w", at.Name, h.Name, err)
		}
		if missing := unready(at, addrs, local); missing != "" {
			return missing, nil
		}
	}
	return "", nil
}

// localRoute is an address that packets are delivered to, at an interface.
type localRoute struct {
	ifindex int
	addr    string
}

// localRoutes lists the IPv6 addresses to which packets are delivered by now.
func (h *Host) localRoutes() (map[localRoute]bool, error) {
	routes, err := h.nl.RouteListFiltered(unix.AF_INET6, &netlink.Route{Table: unix.RT_TABLE_LOCAL}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("netlab: local routes of %s: %w", h.Name, err)
	}
	all := map[localRoute]bool{}
	for _, r := range routes {
		if r.Dst != nil {
			all[localRoute{r.LinkIndex, r.Dst.IP.String()}] = true
		}
	}
	return all, nil
}

// unready says what an interface with carrier lacks.
func unready(at *netlink.LinkAttrs, addrs []netlink.Addr, local map[localRoute]bool) string {
	generated := at.Name == "lo"
	for _, a := range addrs {
		if !local[localRoute{at.Index, a.IP.String()}] {
			return fmt.Sprintf("no local route of %s on %s", a.IP, at.Name)
		}
		// The kernel's own link-local address holds the interface identifier of
		// RFC 4291 appendix A, which no declared one does.
		generated = generated || (a.IP.IsLinkLocalUnicast() && a.IP[11] == 0xff && a.IP[12] == 0xfe)
	}
	if !generated {
		return "no link-local address on " + at.Name
	}
	return ""
}
