package bgp

import (
	"net/netip"
	"slices"

	"rhumb/bgp/guard"
)

// markerFunction is the middle field of a marker: ASN:1:SITE.
const markerFunction = 1

// maxMarkers bounds the routes remembered of all peers. A router which sends us
// the Internet fills this and no more; what is over is not a witness.
const maxMarkers = 4096

// marker returns the large community which names a site on its routes; asn is
// the fleet's, not of need the site's own.
func marker(asn uint32, site uint16) LargeCommunity {
	return LargeCommunity{asn, markerFunction, uint32(site)}
}

// markers are the routes of other sites that our routers show us: a table of
// its own, from which nothing is ever announced. The zero value is empty. A
// router advertises only what it uses itself (RFC 4271 section 9.1.3), so there
// is mostly nothing to see until our own route stands at gshut.
type markers struct {
	seen []seenRoute // few; in order of arrival
}

type seenRoute struct {
	peer   netip.Addr
	prefix netip.Prefix
	attrs  Attrs
}

// note takes a route in or out. A newer route of the same peer and prefix
// replaces the older, whatever site it comes from.
func (m *markers) note(l Learned) {
	m.seen = slices.DeleteFunc(m.seen, func(s seenRoute) bool {
		return s.peer == l.Peer && s.prefix == l.Route.Prefix
	})
	if l.Withdrawn || len(l.Route.Attrs.LargeCommunities) == 0 || len(m.seen) >= maxMarkers {
		return
	}
	m.seen = append(m.seen, seenRoute{l.Peer, l.Route.Prefix, l.Route.Attrs})
}

// forget drops what a peer showed: its session ended.
func (m *markers) forget(peer netip.Addr) {
	m.seen = slices.DeleteFunc(m.seen, func(s seenRoute) bool { return s.peer == peer })
}

// sightings returns what carries a marker of the fleet.
func (m *markers) sightings(asn uint32) []guard.Sighting {
	var out []guard.Sighting
	for _, s := range m.seen {
		for _, c := range s.attrs.LargeCommunities {
			if c[0] == asn && c[1] == markerFunction {
				out = append(out, guard.Sighting{Prefix: s.prefix, Number: c[2], GShut: s.attrs.GShut()})
			}
		}
	}
	return out
}

// heard takes an event of the engine in.
func (s *Speaker) heard(c Change) {
	if c.Learned != nil {
		s.loop.markers.note(*c.Learned)
	}
	if c.Peer == nil {
		return
	}
	if !c.Peer.Established {
		s.loop.markers.forget(c.Peer.Address)
	}
	i := slices.IndexFunc(s.loop.peers, func(p PeerState) bool { return p.Address == c.Peer.Address })
	switch {
	case i < 0:
		s.loop.peers = append(s.loop.peers, *c.Peer)
		slices.SortFunc(s.loop.peers, func(a, b PeerState) int { return a.Address.Compare(b.Address) })
	case s.loop.peers[i].Established != c.Peer.Established:
		s.log.Info("bgp: peer", "peer", c.Peer.Address, "state", c.Peer.State, "from", s.loop.peers[i].State)
		fallthrough
	default:
		s.loop.peers[i] = *c.Peer
	}
}

func (s *Speaker) established() (n int) {
	for _, p := range s.loop.peers {
		if p.Established {
			n++
		}
	}
	return n
}
