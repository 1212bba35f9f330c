package bgp

import (
	"net"
	"net/netip"
	"slices"
	"time"

	api "github.com/osrg/gobgp/v3/api"
	"github.com/osrg/gobgp/v3/pkg/apiutil"
	wire "github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// toPath builds what the library takes. The next hop of an IPv6 route travels
// in MP_REACH_NLRI (RFC 4760 section 3).
func toPath(r Route, asn uint32, withdraw bool) (*api.Path, error) {
	hop := r.Attrs.NextHop
	nlri, attrs := nlriOf(r.Prefix), []wire.PathAttributeInterface{wire.NewPathAttributeOrigin(0)}
	if r.Prefix.Addr().Is4() && !hop.Is6() {
		if !hop.IsValid() {
			hop = netip.IPv4Unspecified()
		}
		attrs = append(attrs, wire.NewPathAttributeNextHop(hop.String()))
	} else {
		if !hop.IsValid() {
			hop = netip.IPv6Unspecified()
		}
		attrs = append(attrs, wire.NewPathAttributeMpReachNLRI(hop.String(), []wire.AddrPrefixInterface{nlri}))
	}
	return apiutil.NewPath(nlri, withdraw, append(attrs, optional(r.Attrs, asn)...), time.Now())
}

// nlriOf returns the prefix as the wire carries it (RFC 4271 section 4.3).
func nlriOf(p netip.Prefix) wire.AddrPrefixInterface {
	if p.Addr().Is4() {
		return wire.NewIPAddrPrefix(uint8(p.Bits()), p.Addr().String())
	}
	return wire.NewIPv6AddrPrefix(uint8(p.Bits()), p.Addr().String())
}

// optional returns the attributes which are there only when set. An AS path is
// given for prepending alone: eBGP adds our AS once more on its own.
func optional(a Attrs, asn uint32) []wire.PathAttributeInterface {
	var out []wire.PathAttributeInterface
	if a.Prepend > 0 {
		path := slices.Repeat([]uint32{asn}, a.Prepend)
		out = append(out, wire.NewPathAttributeAsPath([]wire.AsPathParamInterface{
			wire.NewAs4PathParam(wire.BGP_ASPATH_ATTR_TYPE_SEQ, path)}))
	}
	if a.MED > 0 {
		out = append(out, wire.NewPathAttributeMultiExitDisc(a.MED))
	}
	communities := slices.Clone(a.Communities)
	if a.NoExport {
		communities = append(communities, noExport)
	}
	if len(communities) > 0 {
		out = append(out, wire.NewPathAttributeCommunities(communities))
	}
	if len(a.LargeCommunities) > 0 {
		var large []*wire.LargeCommunity
		for _, c := range a.LargeCommunities {
			large = append(large, wire.NewLargeCommunity(c[0], c[1], c[2]))
		}
		out = append(out, wire.NewPathAttributeLargeCommunities(large))
	}
	return out
}

// fromPath reads what the library gives. Peer is invalid for our own routes.
func fromPath(p *api.Path) (Learned, error) {
	nlri, err := apiutil.GetNativeNlri(p)
	if err != nil {
		return Learned{}, err
	}
	prefix, err := netip.ParsePrefix(nlri.String())
	if err != nil {
		return Learned{}, err
	}
	attrs, err := apiutil.GetNativePathAttributes(p)
	if err != nil {
		return Learned{}, err
	}
	out := Learned{Route: Route{Prefix: prefix, Attrs: readAttrs(attrs)}, Withdrawn: p.IsWithdraw, ID: p.Identifier}
	if a, err := netip.ParseAddr(p.NeighborIp); err == nil && !a.IsUnspecified() {
		out.Peer = a.Unmap()
	}
	return out, nil
}

// readAttrs reads path attributes. Of a learned route, Prepend is the length of
// the AS path; of our own it is the number of copies we put there.
func readAttrs(attrs []wire.PathAttributeInterface) Attrs {
	var a Attrs
	for _, attr := range attrs {
		switch v := attr.(type) {
		case *wire.PathAttributeAsPath:
			for _, s := range v.Value {
				a.Prepend += len(s.GetAS())
			}
		case *wire.PathAttributeMultiExitDisc:
			a.MED = v.Value
		case *wire.PathAttributeNextHop:
			a.NextHop = addrOf(v.Value)
		case *wire.PathAttributeMpReachNLRI:
			a.NextHop = addrOf(v.Nexthop)
		case *wire.PathAttributeCommunities:
			a.readCommunities(v.Value)
		case *wire.PathAttributeLargeCommunities:
			for _, c := range v.Values {
				a.LargeCommunities = append(a.LargeCommunities, LargeCommunity{c.ASN, c.LocalData1, c.LocalData2})
			}
		}
	}
	a.NextHop = specified(a.NextHop)
	slices.Sort(a.Communities)
	slices.SortFunc(a.LargeCommunities, func(x, y LargeCommunity) int { return slices.Compare(x[:], y[:]) })
	return a
}

// readCommunities keeps NO_EXPORT apart, as Attrs does.
func (a *Attrs) readCommunities(list []uint32) {
	for _, c := range list {
		if c == noExport {
			a.NoExport = true
			continue
		}
		a.Communities = append(a.Communities, c)
	}
}

// addrOf converts; an address of neither length gives the zero Addr.
func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
