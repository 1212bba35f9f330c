package netlab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// FIB is the set of routes that one owner keeps in the main table of a network
// namespace, told apart from others' by the protocol number. Safe for concurrent
// use.
type FIB struct {
	nl       *netlink.Handle
	protocol uint8
	watch    func(w *fibWatch) error // subscribes inside the namespace
}

// NextHop is one way out. Without Link the kernel finds the interface by the
// address; with it the address need not belong to the link's subnet.
type NextHop struct {
	Addr   netip.Addr
	Link   string
	Weight int // of ECMP; 0 counts as 1
}

// FIBRoute is one route: several next hops share its flows by their hash.
type FIBRoute struct {
	Prefix   netip.Prefix
	Hops     []NextHop
	Metric   int
	Protocol uint8
}

// OpenFIB opens the table of the namespace that the calling thread is in. A
// protocol number from 187 up is nobody else's by the kernel's list.
func OpenFIB(protocol uint8) (*FIB, error) {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlab: open FIB: %w", err)
	}
	return &FIB{nl: nl, protocol: protocol, watch: (*fibWatch).subscribe}, nil
}

// FIB opens the table of the host.
func (h *Host) FIB(protocol uint8) (f *FIB, err error) {
	err = h.Do(func() error {
		f, err = OpenFIB(protocol)
		return err
	})
	if err == nil {
		f.watch = func(w *fibWatch) error { return h.Do(w.subscribe) }
	}
	return f, err
}

// Close lets go of the socket; the routes stay.
func (f *FIB) Close() { f.nl.Close() }

// Replace makes the route to p lead to hops and nothing else.
func (f *FIB) Replace(p netip.Prefix, hops []NextHop) error {
	if len(hops) == 0 {
		return fmt.Errorf("netlab: route to %s: no next hop", p)
	}
	route := &netlink.Route{Dst: ipNet(p.Masked()), Protocol: netlink.RouteProtocol(f.protocol), Table: unix.RT_TABLE_MAIN}
	for _, hop := range hops {
		nh, err := f.nexthop(hop)
		if err != nil {
			return fmt.Errorf("netlab: route to %s: %w", p, err)
		}
		route.MultiPath = append(route.MultiPath, nh)
	}
	if len(hops) == 1 {
		only := route.MultiPath[0]
		route.LinkIndex, route.Gw, route.Flags, route.MultiPath = only.LinkIndex, only.Gw, only.Flags, nil
	}
	if err := f.nl.RouteReplace(route); err != nil {
		return fmt.Errorf("netlab: route to %s: %w", p, err)
	}
	return nil
}

// nexthop translates one way out. The kernel's weight is one less than ours.
func (f *FIB) nexthop(hop NextHop) (*netlink.NexthopInfo, error) {
	nh := &netlink.NexthopInfo{Gw: hop.Addr.AsSlice(), Hops: max(hop.Weight, 1) - 1}
	if hop.Link == "" {
		return nh, nil
	}
	link, err := f.nl.LinkByName(hop.Link)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", hop.Link, err)
	}
	nh.LinkIndex, nh.Flags = link.Attrs().Index, int(netlink.FLAG_ONLINK)
	return nh, nil
}

// Delete removes our route to p. That it is not there is no error: the kernel
// drops routes by itself when their link goes down.
func (f *FIB) Delete(p netip.Prefix) error {
	route := &netlink.Route{Dst: ipNet(p.Masked()), Protocol: netlink.RouteProtocol(f.protocol), Table: unix.RT_TABLE_MAIN}
	if err := f.nl.RouteDel(route); err != nil && err != unix.ESRCH {
		return fmt.Errorf("netlab: delete route to %s: %w", p, err)
	}
	return nil
}

// List returns our routes, ordered by prefix.
func (f *FIB) List() ([]FIBRoute, error) {
	return f.list(&netlink.Route{Protocol: netlink.RouteProtocol(f.protocol)}, netlink.RT_FILTER_PROTOCOL)
}

// list reads both families, by the library's filter.
func (f *FIB) list(filter *netlink.Route, mask uint64) ([]FIBRoute, error) {
	var all []FIBRoute
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		routes, err := f.nl.RouteListFiltered(family, filter, mask)
		if err != nil {
			return nil, fmt.Errorf("netlab: list routes: %w", err)
		}
		for _, r := range routes {
			all = append(all, f.route(r, family))
		}
	}
	slices.SortFunc(all, func(a, b FIBRoute) int { return comparePrefix(a.Prefix, b.Prefix) })
	return all, nil
}

// comparePrefix orders by address, shorter prefixes first.
func comparePrefix(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}

// route turns what the kernel says into our words.
func (f *FIB) route(r netlink.Route, family int) FIBRoute {
	out := FIBRoute{Metric: r.Priority, Protocol: uint8(r.Protocol), Prefix: prefixOf(r.Dst, family)}
	hops := r.MultiPath
	if len(hops) == 0 {
		hops = []*netlink.NexthopInfo{{LinkIndex: r.LinkIndex, Gw: r.Gw}}
	}
	for _, nh := range hops {
		hop := NextHop{Weight: nh.Hops + 1}
		hop.Addr, _ = netip.AddrFromSlice(nh.Gw)
		hop.Addr = hop.Addr.Unmap()
		if link, err := f.nl.LinkByIndex(nh.LinkIndex); err == nil {
			hop.Link = link.Attrs().Name
		}
		out.Hops = append(out.Hops, hop)
	}
	return out
}

// prefixOf reads a destination; none at all is the default route.
func prefixOf(n *net.IPNet, family int) netip.Prefix {
	if n == nil {
		return anywhere()[map[int]int{unix.AF_INET: 0, unix.AF_INET6: 1}[family]]
	}
	a, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits)
}

// FIBChange is one change of the main table, by whomever.
type FIBChange struct {
	At   time.Time // when we heard of it
	Gone bool
	FIBRoute
}

// Watch reports the changes of the table until ctx ends, when it closes the
// channel. Read it promptly: the kernel does not wait.
//
// The kernel says nothing of the IPv4 routes which it drops with their link, so
// whenever a link goes down the table is read and compared.
func (f *FIB) Watch(ctx context.Context) (<-chan FIBChange, error) {
	w := &fibWatch{
		fib: f, done: ctx.Done(), out: make(chan FIBChange, 256),
		routes: make(chan netlink.RouteUpdate, 256), links: make(chan netlink.LinkUpdate, 16),
		known: map[netip.Prefix]FIBRoute{},
	}
	if err := f.watch(w); err != nil {
		return nil, fmt.Errorf("netlab: watch FIB: %w", err)
	}
	now, err := f.list(&netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, err
	}
	for _, r := range now {
		w.known[r.Prefix] = r
	}
	go w.run()
	return w.out, nil
}

// fibWatch is one Watch; known belongs to its goroutine.
type fibWatch struct {
	fib    *FIB
	done   <-chan struct{}
	out    chan FIBChange
	routes chan netlink.RouteUpdate
	links  chan netlink.LinkUpdate
	known  map[netip.Prefix]FIBRoute
}

// subscribe opens both sockets in the calling thread's namespace. What happens
// between this and the first listing is reported twice rather than not at all.
func (w *fibWatch) subscribe() error {
	if err := netlink.RouteSubscribeWithOptions(w.routes, w.done, netlink.RouteSubscribeOptions{ReceiveBufferSize: 1 << 20}); err != nil {
		return err
	}
	return netlink.LinkSubscribe(w.links, w.done)
}

// run owns known and out.
func (w *fibWatch) run() {
	defer close(w.out)
	for {
		select {
		case u, ok := <-w.routes:
			if !ok {
				return
			}
			w.routeChanged(u)
		case u, ok := <-w.links:
			if !ok {
				return
			}
			if u.Attrs().Flags&net.FlagUp == 0 {
				w.compare()
			}
		case <-w.done:
			return
		}
	}
}

// say reports a change and keeps known in step.
func (w *fibWatch) say(r FIBRoute, gone bool) {
	if gone {
		delete(w.known, r.Prefix)
	} else {
		w.known[r.Prefix] = r
	}
	select {
	case w.out <- FIBChange{At: time.Now(), Gone: gone, FIBRoute: r}:
	case <-w.done:
	}
}

// routeChanged judges one message of the kernel.
func (w *fibWatch) routeChanged(u netlink.RouteUpdate) {
	if u.Table != unix.RT_TABLE_MAIN {
		return
	}
	r := w.fib.route(u.Route, u.Family)
	_, known := w.known[r.Prefix]
	gone := u.Type == unix.RTM_DELROUTE
	if gone && !known {
		return // already said when its link went down
	}
	w.say(r, gone)
}

// compare says what has gone silently.
func (w *fibWatch) compare() {
	now, err := w.fib.list(&netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return // the next change compares again
	}
	var gone []FIBRoute
	for p, r := range w.known {
		if !slices.ContainsFunc(now, func(n FIBRoute) bool { return n.Prefix == p }) {
			gone = append(gone, r)
		}
	}
	slices.SortFunc(gone, func(a, b FIBRoute) int { return comparePrefix(a.Prefix, b.Prefix) })
	for _, r := range gone {
		w.say(r, true)
	}
}
