package bgp

import (
	"net/netip"
	"slices"

	"rhumb/bgp/guard"
)

// markerFunction is the middle field of a marker: ASN:1:SITE.
const markerFunction = 1

// maxMarkers bounds the sightings remembered: far more than sites times
// prefixes of any fleet, far less than the Internet.
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
	peer     netip.Addr
	id       uint32
	sighting guard.Sighting
}

// note takes a route in or out. A newer route of the same peer, prefix and path
// replaces the older, whatever site it comes from. It tells whether anything
// changed: routes without a marker mostly pass without a trace.
func (m *markers) note(l Learned, asn uint32) bool {
	before := len(m.seen)
	m.seen = slices.DeleteFunc(m.seen, func(s seenRoute) bool {
		return s.peer == l.Peer && s.id == l.ID && s.sighting.Prefix == l.Route.Prefix
	})
	changed := len(m.seen) != before
	if l.Withdrawn {
		return changed
	}
	for _, c := range l.Route.Attrs.LargeCommunities {
		if c[0] == asn && c[1] == markerFunction && len(m.seen) < maxMarkers {
			m.seen = append(m.seen, seenRoute{l.Peer, l.ID, guard.Sighting{Prefix: l.Route.Prefix, Number: c[2], GShut: l.Route.Attrs.GShut()}})
			changed = true
		}
	}
	return changed
}

// forget drops what a peer showed: its session ended.
func (m *markers) forget(peer netip.Addr) {
	m.seen = slices.DeleteFunc(m.seen, func(s seenRoute) bool { return s.peer == peer })
}

// sightings returns what is seen now.
func (m *markers) sightings() []guard.Sighting {
	out := make([]guard.Sighting, 0, len(m.seen))
	for _, s := range m.seen {
		out = append(out, s.sighting)
	}
	return out
}

// sift returns a callback for the engine which passes on what the loop needs to
// know: all about peers, and of routes only those which change a sighting. A
// router which sends us the Internet must not keep the loop busy.
func sift(asn uint32, pass func(Change)) func(Change) {
	var seen markers
	return func(c Change) {
		if c.Learned != nil && !seen.note(*c.Learned, asn) {
			return
		}
		if c.Peer != nil && !c.Peer.Established {
			seen.forget(c.Peer.Address)
		}
		pass(c)
	}
}

// heard takes an event of the engine in.
func (s *Speaker) heard(c Change) {
	if c.Learned != nil {
		s.loop.markers.note(*c.Learned, s.cfg.MarkerASN)
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

// established counts the peers which hear us.
func (s *Speaker) established() (n int) {
	for _, p := range s.loop.peers {
		if p.Established {
			n++
		}
	}
	return n
}
