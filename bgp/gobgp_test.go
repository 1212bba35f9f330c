package bgp

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	api "github.com/osrg/gobgp/v3/api"
	"github.com/osrg/gobgp/v3/pkg/log"
)

// TestPathRoundTrip holds what is read back from the library equal to what it
// was given; the audit relies on it.
func TestPathRoundTrip(t *testing.T) {
	full := Attrs{Prepend: 3, MED: 50, Communities: []uint32{GracefulShutdown}, NoExport: true,
		LargeCommunities: []LargeCommunity{{64500, 1, 1}, {64500, 1, 2}}}
	with := func(a Attrs, hop string) Attrs { a.NextHop = netip.MustParseAddr(hop); return a }
	tests := []struct {
		name string
		r    Route
	}{
		{"IPv4, bare", Route{Prefix: anycast, Attrs: Attrs{}}},
		{"IPv4, all", Route{Prefix: anycast, Attrs: with(full, "198.51.100.1")}},
		{"IPv6, bare", Route{Prefix: anycast6, Attrs: Attrs{}}},
		{"IPv6, all", Route{Prefix: anycast6, Attrs: with(full, "2001:db8:1::1")}},
		{"RFC 8950 IPv4 with an IPv6 next hop", Route{Prefix: anycast, Attrs: with(full, "2001:db8:1::1")}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := toPath(tt.r, 64500, false)
			if err != nil {
				t.Fatal(err)
			}
			got, err := fromPath(p)
			if err != nil {
				t.Fatal(err)
			}
			if got.Peer.IsValid() || got.Withdrawn || got.Route.Prefix != tt.r.Prefix || !got.Route.Attrs.Equal(tt.r.Attrs) {
				t.Errorf("got %+v, want %+v", got, tt.r)
			}
		})
	}
}

func TestAttrsEqual(t *testing.T) {
	base := Attrs{Prepend: 1, MED: 2, Communities: []uint32{3}, LargeCommunities: []LargeCommunity{{4, 5, 6}}, NextHop: router}
	for name, change := range map[string]func(*Attrs){
		"prepend": func(a *Attrs) { a.Prepend++ }, "MED": func(a *Attrs) { a.MED++ },
		"communities": func(a *Attrs) { a.Communities = nil }, "large communities": func(a *Attrs) { a.LargeCommunities = nil },
		"no export": func(a *Attrs) { a.NoExport = true }, "next hop": func(a *Attrs) { a.NextHop = vip },
	} {
		other := base
		if change(&other); base.Equal(other) {
			t.Errorf("%s makes no difference", name)
		}
	}
	if !(Attrs{}).Equal(Attrs{NextHop: netip.IPv4Unspecified()}) {
		t.Error("no next hop and an unspecified one mean the same")
	}
}

func TestBestOf(t *testing.T) {
	path := func(prefix netip.Prefix, hop string, gone bool) *api.Path {
		p, err := toPath(Route{Prefix: prefix, Attrs: Attrs{NextHop: netip.MustParseAddr(hop)}}, 64500, gone)
		if err != nil {
			t.Fatal(err)
		}
		p.NeighborIp = hop
		return p
	}
	got := bestOf([]*api.Path{path(anycast6, "2001:db8:1::1", true), path(anycast, "198.51.100.11", false), path(anycast, "198.51.100.1", false)})
	if len(got) != 2 || got[0].Prefix != anycast || len(got[0].NextHops) != 2 || got[0].NextHops[0] != netip.MustParseAddr("198.51.100.1") {
		t.Fatalf("best %v", got)
	}
	if got[1].Prefix != anycast6 || len(got[1].NextHops) != 0 {
		t.Errorf("a withdrawn prefix has next hops: %v", got[1])
	}
}

func TestLogAdapter(t *testing.T) {
	var b bytes.Buffer
	l := &logAdapter{slog.New(slog.NewTextHandler(&b, nil))}
	l.Warn("no listener", log.Fields{"Topic": "Peer", "Key": "198.51.100.2", "Error": "refused"})
	l.Fatal("goes on", nil) // a library must not end the process
	l.Info("detail", nil)
	out := b.String()
	if !strings.Contains(out, `msg="bgp: no listener" err=refused peer=198.51.100.2`) || strings.Contains(out, "detail") || strings.Contains(out, "Topic") {
		t.Errorf("log:\n%s", out)
	}
}

func TestStartRefusesBadSettings(t *testing.T) {
	for name, c := range map[string]GoBGPConfig{
		"no AS":           {RouterID: router},
		"no router id":    {ASN: 64500},
		"IPv6 router id":  {ASN: 64500, RouterID: netip.MustParseAddr("2001:db8::1")},
		"a wrong peer":    {ASN: 64500, RouterID: router, Peers: []Peer{{ASN: 64501}}},
		"graceful resume": {ASN: 64500, RouterID: router, Peers: []Peer{{Address: router, ASN: 64501, GracefulRestart: true}}},
	} {
		if _, err := StartGoBGP(t.Context(), c); err == nil {
			t.Errorf("%s: started", name)
		}
	}
}
