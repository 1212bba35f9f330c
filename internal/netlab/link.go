package netlab

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// protoStatic marks the routes of a Node's declaration, as RTPROT_STATIC does
// for those an administrator wrote.
const protoStatic = unix.RTPROT_STATIC

// port is one end of a veth pair: a name inside a namespace.
type port struct {
	ns   int // descriptor of the network namespace
	name string
}

// addVeth makes a veth pair with both ends where they belong from the start.
func addVeth(nl *netlink.Handle, a, b port) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = a.name
	attrs.Namespace = netlink.NsFd(a.ns)
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: b.name, PeerNamespace: netlink.NsFd(b.ns)}
	if err := nl.LinkAdd(pair); err != nil {
		return fmt.Errorf("netlab: make link %s-%s: %w", a.name, b.name, err)
	}
	return nil
}

// port names an interface to be made in the host's namespace.
func (h *Host) port(name string) port {
	return port{ns: int(h.keeper.net.Fd()), name: name}
}

// raise gives the interface its addresses and brings it up.
func (h *Host) raise(name string, addrs []netip.Prefix) error {
	link, err := h.nl.LinkByName(name)
	if err != nil {
		return fmt.Errorf("netlab: find %s of %s: %w", name, h.Name, err)
	}
	for _, p := range addrs {
		if err := h.addAddress(link, p); err != nil {
			return err
		}
	}
	if err := h.nl.LinkSetUp(link); err != nil {
		return fmt.Errorf("netlab: bring up %s of %s: %w", name, h.Name, err)
	}
	return nil
}

// addAddress adds an address or leaves it as it is. Duplicate address detection is
// off in the namespace; the flag says so for the address as well.
func (h *Host) addAddress(link netlink.Link, p netip.Prefix) error {
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := h.nl.AddrReplace(link, a); err != nil {
		return fmt.Errorf("netlab: address %s on %s of %s: %w", p, link.Attrs().Name, h.Name, err)
	}
	return nil
}

// AddAddress adds an address to an interface of the running host, such as an
// anycast address on lo, and returns when packets to it are taken.
func (h *Host) AddAddress(iface string, p netip.Prefix) error {
	link, err := h.nl.LinkByName(iface)
	if err != nil {
		return fmt.Errorf("netlab: find %s of %s: %w", iface, h.Name, err)
	}
	if err := h.addAddress(link, p); err != nil {
		return err
	}
	return settle([]*Host{h})
}

// RemoveAddress takes an address away again.
func (h *Host) RemoveAddress(iface string, p netip.Prefix) error {
	link, err := h.nl.LinkByName(iface)
	if err == nil {
		err = h.nl.AddrDel(link, &netlink.Addr{IPNet: ipNet(p)})
	}
	if err != nil {
		return fmt.Errorf("netlab: remove %s from %s of %s: %w", p, iface, h.Name, err)
	}
	return nil
}

// addRoutes writes the declared static routes. Next hops are taken to be on
// their link, because ends may be unnumbered.
func (h *Host) addRoutes(routes []Route) error {
	for _, r := range routes {
		if err := h.addRoute(r); err != nil {
			return err
		}
	}
	return nil
}

func (h *Host) addRoute(r Route) error {
	link, err := h.nl.LinkByName(r.Link)
	if err != nil {
		return fmt.Errorf("netlab: route to %s at %s: find %s: %w", r.Prefix, h.Name, r.Link, err)
	}
	route := &netlink.Route{
		LinkIndex: link.Attrs().Index, Dst: ipNet(r.Prefix), Priority: r.Metric,
		Protocol: protoStatic, Scope: netlink.SCOPE_LINK,
	}
	if r.Via.IsValid() {
		route.Gw, route.Scope = r.Via.AsSlice(), netlink.SCOPE_UNIVERSE
		route.Flags = int(netlink.FLAG_ONLINK)
	}
	if err := h.nl.RouteReplace(route); err != nil {
		return fmt.Errorf("netlab: route to %s via %s at %s: %w", r.Prefix, r.Link, h.Name, err)
	}
	return nil
}

// ipNet is a prefix in the words of the netlink library.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
