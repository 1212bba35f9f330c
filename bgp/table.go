package bgp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// table is the fib of the kernel (CAP_NET_ADMIN). Both families have a table of
// the same number.
type table struct {
	handle   *netlink.Handle
	number   int
	protocol netlink.RouteProtocol
}

var _ fib = (*table)(nil)

// openTable opens a socket of its own which asks the kernel to filter what it
// lists: beside a daemon that writes the Internet into the same table, a listing
// would otherwise carry a million routes each second.
func openTable(number int, protocol uint8) (*table, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err == nil {
		err = h.SetStrictCheck(true)
	}
	if err != nil {
		return nil, fmt.Errorf("bgp: kernel routes: %w", err)
	}
	return &table{handle: h, number: number, protocol: netlink.RouteProtocol(protocol)}, nil
}

// dumpTries bounds how often a listing is begun again because the table changed
// under it.
const dumpTries = 5

// list returns our routes of both families.
func (t *table) list() ([]fibRoute, error) {
	var out []fibRoute
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := t.family(family)
		if err != nil {
			return nil, err
		}
		for _, r := range list {
			if r.Dst == nil {
				continue
			}
			bits, _ := r.Dst.Mask.Size()
			out = append(out, fibRoute{netip.PrefixFrom(addrOf(r.Dst.IP), bits), r.Priority})
		}
	}
	return out, nil
}

// family lists one family; a table which does not exist yet is empty.
func (t *table) family(family int) ([]netlink.Route, error) {
	filter := &netlink.Route{Table: t.number, Protocol: t.protocol}
	for try := 1; ; try++ {
		list, err := t.handle.RouteListFiltered(family, filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
		switch {
		case errors.Is(err, unix.ENOENT):
			return nil, nil
		case errors.Is(err, netlink.ErrDumpInterrupted) && try < dumpTries:
		case err != nil:
			return nil, fmt.Errorf("table %d: %w", t.number, err)
		default:
			// The library looks at the first bit of a filter only; the kernel at all.
			return ours(list, t.protocol), nil
		}
	}
}

// ours keeps the routes of a protocol: an older kernel may list all.
func ours(list []netlink.Route, protocol netlink.RouteProtocol) []netlink.Route {
	out := list[:0]
	for _, r := range list {
		if r.Protocol == protocol {
			out = append(out, r)
		}
	}
	return out
}

// add adds a route; one of ours which is there already is no error.
func (t *table) add(r fibRoute) error {
	err := t.handle.RouteAdd(t.route(r))
	if !errors.Is(err, unix.EEXIST) {
		return wrapRoute(r, err)
	}
	list, err := t.list()
	if err != nil {
		return err
	}
	for _, have := range list {
		if have == r {
			return nil
		}
	}
	return wrapRoute(r, errTaken)
}

// del removes one of ours. The kernel compares the protocol too.
func (t *table) del(r fibRoute) error {
	err := t.handle.RouteDel(t.route(r))
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return wrapRoute(r, err)
}

// wrapRoute names the route in an error.
func wrapRoute(r fibRoute, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("route %s metric %d: %w", r.prefix, r.metric, err)
}

// route is what the kernel gets to see.
func (t *table) route(r fibRoute) *netlink.Route {
	bits := r.prefix.Addr().BitLen()
	return &netlink.Route{Table: t.number, Protocol: t.protocol, Priority: r.metric, Type: unix.RTN_BLACKHOLE,
		Dst: &net.IPNet{IP: r.prefix.Addr().AsSlice(), Mask: net.CIDRMask(r.prefix.Bits(), bits)}}
}
