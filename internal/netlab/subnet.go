package netlab

import (
	"net/netip"

	"github.com/miekg/dns"
)

// subnetOption is the client subnet option for a network, RFC 7871 section 6.
func subnetOption(p netip.Prefix, scope int) *dns.EDNS0_SUBNET {
	o := &dns.EDNS0_SUBNET{
		Code: dns.EDNS0SUBNET, Family: 1,
		SourceNetmask: uint8(p.Bits()), SourceScope: uint8(scope),
		Address: p.Addr().AsSlice(),
	}
	if p.Addr().Is6() {
		o.Family = 2
	}
	return o
}

// subnetIn finds the client subnet of a message: the network, and the scope a
// server put there.
func subnetIn(m *dns.Msg) (network netip.Prefix, scope int, ok bool) {
	opt := m.IsEdns0()
	if opt == nil {
		return netip.Prefix{}, 0, false
	}
	for _, o := range opt.Option {
		sub, isSubnet := o.(*dns.EDNS0_SUBNET)
		if !isSubnet {
			continue
		}
		a, valid := netip.AddrFromSlice(sub.Address)
		if a = a.Unmap(); sub.Family == 2 && valid {
			a, _ = netip.AddrFromSlice(sub.Address.To16())
		}
		p, err := a.Prefix(int(sub.SourceNetmask))
		if !valid || err != nil {
			return netip.Prefix{}, 0, false
		}
		return p, int(sub.SourceScope), true
	}
	return netip.Prefix{}, 0, false
}

// scopeOf says for which clients a reply holds: those of the scope it gives, not
// narrower than what we asked with (RFC 7871 section 7.3.1). A reply without the
// option, for another network or with scope 0 holds for all.
func (s *resolution) scopeOf(m *dns.Msg) netip.Prefix {
	network, scope, ok := subnetIn(m)
	if !ok || scope == 0 || !s.client.IsValid() || network != s.client {
		return netip.Prefix{}
	}
	p, err := s.client.Addr().Prefix(min(scope, s.client.Bits()))
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// clientNetwork is the network for which a client's query is resolved: the one
// it names itself if it does, else its own address; no longer than the limits.
// A client that names none at all (source 0) gets none, RFC 7871 section 7.1.2.
func (r *Resolver) clientNetwork(q *dns.Msg, from netip.Addr) netip.Prefix {
	if !r.cfg.ECS {
		return netip.Prefix{}
	}
	network := netip.PrefixFrom(from.Unmap(), from.Unmap().BitLen())
	if named, _, ok := subnetIn(q); ok {
		network = named
	}
	limit := r.cfg.ECSBits4
	if network.Addr().Is6() {
		limit = r.cfg.ECSBits6
	}
	p, err := network.Addr().Prefix(min(network.Bits(), limit))
	if err != nil || p.Bits() == 0 {
		return netip.Prefix{}
	}
	return p
}
