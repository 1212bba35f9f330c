package bgp

import (
	"net/netip"
	"testing"
)

func learned(site uint32, peer netip.Addr, change ...func(*Learned)) Learned {
	l := Learned{Peer: peer, Route: Route{Prefix: anycast, Attrs: Attrs{LargeCommunities: []LargeCommunity{{64499, 1, 7}, {64500, 1, site}}}}}
	for _, c := range change {
		c(&l)
	}
	return l
}

func TestMarkers(t *testing.T) {
	other := netip.MustParseAddr("198.51.100.3")
	unmarked := func(l *Learned) { l.Route.Attrs.LargeCommunities = nil }
	foreign := func(l *Learned) { l.Route.Attrs.LargeCommunities = []LargeCommunity{{64501, 1, 2}, {64500, 2, 2}} }
	gone := func(l *Learned) { l.Withdrawn = true }
	gshut := func(l *Learned) { l.Route.Attrs.Communities = []uint32{GracefulShutdown} }
	var m markers
	steps := []struct {
		name    string
		l       Learned
		changed bool
		sites   []uint32
	}{
		{"a plain route is nothing", learned(2, router, unmarked), false, nil},
		{"another AS, another function", learned(2, router, foreign), false, nil},
		{"a marker", learned(2, router), true, []uint32{2}},
		{"the same prefix of another site replaces it", learned(3, router), true, []uint32{3}},
		{"a second router", learned(2, other), true, []uint32{3, 2}},
		{"at gshut it is seen as such", learned(2, other, gshut), true, []uint32{3, 2}},
		{"taken over by a plain route", learned(3, router, unmarked), true, []uint32{2}},
		{"withdrawn", learned(2, other, gone), true, nil},
		{"withdrawn twice", learned(2, other, gone), false, nil},
	}
	for _, s := range steps {
		if got := m.note(s.l, 64500); got != s.changed {
			t.Errorf("%s: changed %v, want %v", s.name, got, s.changed)
		}
		list := m.sightings()
		if len(list) != len(s.sites) {
			t.Fatalf("%s: sightings %v, want sites %v", s.name, list, s.sites)
		}
		for i, n := range s.sites {
			if list[i].Number != n {
				t.Errorf("%s: site %d, want %d", s.name, list[i].Number, n)
			}
		}
	}
}

func TestMarkersAreBounded(t *testing.T) {
	var m markers
	for i := range maxMarkers + 10 {
		l := learned(2, router)
		l.Route.Prefix = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
		m.note(l, 64500)
	}
	if n := len(m.sightings()); n != maxMarkers {
		t.Errorf("%d sightings kept, want %d", n, maxMarkers)
	}
}

func TestSift(t *testing.T) {
	var passed int
	f := sift(64500, func(Change) { passed++ })
	plain, marked := learned(2, router, func(l *Learned) { l.Route.Attrs.LargeCommunities = nil }), learned(2, router)
	up, down := PeerState{Address: router, Established: true}, PeerState{Address: router}
	for i, c := range []struct {
		c    Change
		want int
	}{{Change{Peer: &up}, 1}, {Change{Learned: &plain}, 1}, {Change{Learned: &marked}, 2}, {Change{Peer: &down}, 3}, {Change{Learned: &plain}, 3}} {
		if f(c.c); passed != c.want {
			t.Errorf("change %d: %d passed, want %d", i, passed, c.want)
		}
	}
}
