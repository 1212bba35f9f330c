package bgp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink"

	"rhumb/placement"
)

// Host holds the anycast addresses of a node.
type Host interface {
	// Bind makes an address ours; one which is there already is no error.
	Bind(netip.Addr) error
	// Unbind takes back what Bind added; what was there before stays.
	Unbind(netip.Addr) error
	// Bound tells whether the address is there now, whoever put it.
	Bound(netip.Addr) (bool, error)
}

// Loopback binds addresses to the interface lo by netlink (CAP_NET_ADMIN). It
// may be used from several goroutines.
type Loopback struct {
	mu  sync.Mutex
	own map[netip.Addr]bool // added by us
}

var _ Host = (*Loopback)(nil)

// NewLoopback returns a Host which has bound nothing yet.
func NewLoopback() *Loopback { return &Loopback{own: make(map[netip.Addr]bool)} }

// Bind adds the address with a full-length mask.
func (l *Loopback) Bind(a netip.Addr) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.AddrAdd(lo, hostAddr(a))
	}
	switch {
	case errors.Is(err, syscall.EEXIST):
		return nil
	case err != nil:
		return fmt.Errorf("bgp: bind %s on lo: %w", a, err)
	}
	l.own[a] = true
	return nil
}

// Unbind removes the address if Bind added it.
func (l *Loopback) Unbind(a netip.Addr) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.own[a] {
		return nil
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.AddrDel(lo, hostAddr(a))
	}
	if err != nil && !errors.Is(err, syscall.EADDRNOTAVAIL) {
		return fmt.Errorf("bgp: unbind %s from lo: %w", a, err)
	}
	delete(l.own, a)
	return nil
}

// Bound asks the kernel.
func (l *Loopback) Bound(a netip.Addr) (bool, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return false, fmt.Errorf("bgp: addresses of lo: %w", err)
	}
	list, err := netlink.AddrList(lo, netlink.FAMILY_ALL)
	if err != nil {
		return false, fmt.Errorf("bgp: addresses of lo: %w", err)
	}
	return slices.ContainsFunc(list, func(n netlink.Addr) bool { return addrOf(n.IP) == a }), nil
}

// hostAddr returns the address as /32 or /128.
func hostAddr(a netip.Addr) *netlink.Addr {
	return &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}}
}

// addresses returns what is served within a prefix at this site: the addresses
// of its clusters, the VIPs of services, and those given to the node.
func (s *Speaker) addresses(r *route) []netip.Addr {
	var out []netip.Addr
	keep := func(a netip.Addr) {
		if r.prefix.Prefix.Contains(a) {
			out = append(out, a)
		}
	}
	for _, a := range s.cfg.Addresses {
		keep(a)
	}
	inv := s.loop.now.snapshot.Inventory
	if site := inv.Site(s.cfg.Site); site != nil {
		eachAddress(site, inv.Services, keep)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// eachAddress calls keep with the addresses which the site may serve.
func eachAddress(site *placement.Site, services []placement.Service, keep func(netip.Addr)) {
	for _, c := range site.Clusters {
		for _, a := range c.Addresses {
			keep(a.Addr())
		}
	}
	for i := range services {
		if e := services[i].Edge; e != nil {
			for _, v := range e.VIPs {
				keep(v.Addr())
			}
		}
	}
}

// expect binds the addresses of a prefix which this site is meant to announce, as
// soon as it is known: health looks at them before anything is announced, and
// without them it would find every cluster on them down. So it does at a node that is
// drained alone: the site goes on.
func (s *Speaker) expect(r *route) {
	goes := r.want.Intent && r.want.Want == placement.Withdrawn && !r.alone && !s.retired(r)
	if r.expected || goes || r.mode != placement.Act || s.cfg.Host == nil {
		return
	}
	r.expected = true
	for _, a := range s.addresses(r) {
		s.failed(a.String(), s.cfg.Host.Bind(a))
	}
}

// prepare binds a prefix's addresses, before it is announced, and says what is
// still missing. In mode observe it binds nothing.
func (s *Speaker) prepare(r *route) string {
	if s.cfg.Host != nil && r.mode == placement.Act {
		for _, a := range s.served(r) {
			if ok, err := s.cfg.Host.Bound(a); ok && err == nil {
				continue
			}
			if err := s.cfg.Host.Bind(a); err != nil {
				return err.Error()
			}
		}
	}
	return s.lacking(r)
}

// lacking says why clients of a prefix could not be served here, or nothing.
func (s *Speaker) lacking(r *route) string {
	if s.cfg.Host != nil && r.mode == placement.Act {
		list := s.served(r)
		if len(s.addresses(r)) == 0 && r.gone && r.told < placement.Withdrawn {
			return "" // the clusters were deleted with it: what is bound goes on, as it did
		}
		if len(list) == 0 {
			return "no address of the prefix is known"
		}
		for _, a := range list {
			if ok, err := s.cfg.Host.Bound(a); err != nil || !ok {
				return a.String() + " is not on lo"
			}
		}
	}
	if s.cfg.Listening != nil {
		if err := s.cfg.Listening(r.prefix.Prefix); err != nil {
			return err.Error()
		}
	}
	return ""
}

// unbind takes a withdrawn prefix's addresses off lo, unless another prefix
// which is still announced holds them too. Those in use stay if keep says so;
// the result tells whether one did.
func (s *Speaker) unbind(r *route, keep bool) (kept bool) {
	if s.cfg.Host == nil {
		return false
	}
	r.expected = false
	for _, a := range s.served(r) {
		switch {
		case slices.ContainsFunc(s.loop.routes, func(o *route) bool {
			return o != r && o.told < placement.Withdrawn && o.prefix.Prefix.Contains(a)
		}):
		case keep && s.cfg.InUse(a):
			kept = true
		default:
			s.failed(a.String(), s.cfg.Host.Unbind(a))
		}
	}
	return kept
}

// retired tells whether a prefix is retired. Its addresses stay on lo for as long as a
// cluster of the site has them: they are looked at all the while, and a cluster found
// dead for want of one would take its other prefixes with it.
func (s *Speaker) retired(r *route) bool {
	return s.loop.now != nil && s.loop.now.snapshot.Inventory.Retired(r.prefix.Prefix) != nil
}

// retiredAddresses are those of silent prefixes which a new snapshot calls retired, by
// the snapshot in force.
func (s *Speaker) retiredAddresses(next *placement.Snapshot) (out []netip.Addr) {
	for _, r := range s.loop.routes {
		if s.loop.now != nil && r.told == placement.Withdrawn && r.mode == placement.Act && next.Inventory.Retired(r.prefix.Prefix) != nil {
			out = append(out, s.addresses(r)...)
		}
	}
	return out
}

// unbindLeft takes those off lo which no cluster has any more; those in use stay.
func (s *Speaker) unbindLeft(before []netip.Addr) {
	for _, a := range before {
		needed := slices.ContainsFunc(s.loop.routes, func(r *route) bool {
			return r.told < placement.Withdrawn && r.prefix.Prefix.Contains(a) || slices.Contains(s.addresses(r), a)
		})
		if s.cfg.Host != nil && !needed && !s.cfg.InUse(a) {
			s.failed(a.String(), s.cfg.Host.Unbind(a))
		}
	}
}

// unbindAll is the end: nothing of ours stays on lo, but for what sessions of
// other processes on this host go on with. Whoever starts next finds it there.
func (s *Speaker) unbindAll() {
	for _, r := range s.loop.routes {
		if s.unbind(r, true) {
			s.log.Info("bgp: addresses stay on lo: sessions are still served", "prefix", r.prefix.Prefix)
		}
	}
}
