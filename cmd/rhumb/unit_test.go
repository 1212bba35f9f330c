package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/edge"
	"rhumb/edge/forward"
	"rhumb/internal/config"
	"rhumb/placement"
	"rhumb/placement/store"
)

// TestUnitNames: a process is named after its unit, one of several units is rhumb.
func TestUnitNames(t *testing.T) {
	for want, roles := range map[string][]string{
		"rhumb-bgp": {config.RoleHealth, config.RoleBGP}, "rhumb-dns": {config.RoleAuthDNS}, "rhumb-edge": {config.RoleEdge},
		"rhumb-director": {config.RolePlacement}, "rhumb-console": {config.RoleConsole}, "rhumb": {config.RoleAuthDNS, config.RoleEdge}} {
		if got := unitName(roles); got != want {
			t.Errorf("%v: %s, want %s", roles, got, want)
		}
	}
}

// TestChooseRoles: in the order of start whatever was asked, and no role that the
// node file does not have.
func TestChooseRoles(t *testing.T) {
	cfg := &config.Node{Node: config.Self{Roles: []string{config.RoleBGP, config.RoleHealth, config.RoleAuthDNS}}}
	for _, c := range []struct{ wanted, want []string }{
		{nil, []string{config.RoleHealth, config.RoleAuthDNS, config.RoleBGP}},
		{[]string{config.RoleBGP, config.RoleHealth}, []string{config.RoleHealth, config.RoleBGP}},
		{[]string{config.RoleEdge}, nil},
		{[]string{"chef"}, nil},
	} {
		got, err := chooseRoles(cfg, c.wanted)
		if (err != nil) != (c.want == nil) || (err == nil && !slices.Equal(got, c.want)) {
			t.Errorf("%v: %v, %v; want %v", c.wanted, got, err, c.want)
		}
	}
}

// TestAwaitSnapshot: a role waits for the first snapshot, then until the fleet
// names its site, and not after its context.
func TestAwaitSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &unit{cfg: &config.Node{Node: config.Self{Site: "ams1"}}, current: &placement.Current{}, present: make(chan struct{}),
			log: slog.New(slog.DiscardHandler)}
		put := func(sites ...placement.Site) {
			u.current.Store(&placement.Snapshot{Inventory: &placement.Inventory{Fleet: placement.Fleet{Sites: sites}}})
		}
		got := make(chan *placement.Site, 1)
		go func() { _, site, _ := u.awaitSnapshot(t.Context()); got <- site }()
		first := &firstSnapshot{present: u.present}
		put(placement.Site{Name: "nyc1"})
		first.Apply(t.Context(), u.current.Load())
		first.Apply(t.Context(), u.current.Load()) // and once only
		time.Sleep(3 * lookAgain)
		synctest.Wait()
		if len(got) != 0 {
			t.Fatal("went on with a fleet that does not name its site")
		}
		put(placement.Site{Name: "ams1", Number: 7})
		if site := <-got; site == nil || site.Number != 7 {
			t.Errorf("got %+v", site)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		put()
		if _, _, err := u.awaitSnapshot(ctx); err == nil {
			t.Error("waits on after its end")
		}
	})
}

// TestListening: what was never looked at is not announced; what was seen failing
// is the ladder's business.
func TestListening(t *testing.T) {
	inv := sampleFleet(t)
	u := &unit{cfg: &config.Node{Node: config.Self{Name: "ams1-a", Site: "ams1"}}, current: &placement.Current{}}
	prefix := inv.Prefixes[0].Prefix
	if u.listening(prefix) == nil {
		t.Error("listens before the first snapshot")
	}
	for state, want := range map[placement.State]bool{placement.Unknown: false, placement.Up: true, placement.Down: true} {
		u.current.Store(&placement.Snapshot{Inventory: inv, Verdicts: []placement.Verdict{{Object: placement.ClusterID{Site: "ams1", Name: "dns"}, Own: state}}})
		if err := u.listening(prefix); (err == nil) != want {
			t.Errorf("own vantage says %s: %v", state, err)
		}
	}
	if err := u.listening(netip.MustParsePrefix("198.51.100.0/24")); err != nil {
		t.Errorf("a prefix that is not the fleet's: %v", err)
	}
}

// TestKeepalive: a third of the hold time (RFC 4271, 4.4), in whole seconds.
func TestKeepalive(t *testing.T) {
	for hold, want := range map[time.Duration]time.Duration{9 * time.Second: 3 * time.Second, 10 * time.Second: 3 * time.Second, 3 * time.Second: time.Second} {
		if got := keepalive(hold); got != want {
			t.Errorf("hold %s: keepalive %s, want %s", hold, got, want)
		}
	}
}

// TestMovesAreTold: what the log is told of hand-offs, once.
func TestMovesAreTold(t *testing.T) {
	at := time.Unix(100, 0)
	move := func(to, result string, after time.Duration) edge.Move {
		return edge.Move{At: at.Add(after), Took: time.Second, To: to, Result: result}
	}
	moves := []edge.Move{move("nyc1", "ok", 0), move("tyo1", "ok", 0), move("nyc1", "ok", time.Second)}
	events, until := moveEvents(moves[:3], at)
	var got []string
	for _, e := range events {
		got = append(got, e.Text)
	}
	if want := []string{"2 sessions → nyc1: ok", "1 sessions → tyo1: ok"}; !slices.Equal(got, want) || !until.Equal(at.Add(2*time.Second)) {
		t.Errorf("told %q up to %s, want %q", got, until, want)
	}
	if again, _ := moveEvents(moves[:3], until); len(again) != 0 {
		t.Errorf("told twice: %+v", again)
	}
}

// edgeInventory has a service of our own server, one of another's, and one without a VIP.
func edgeInventory() *placement.Inventory {
	own, foreign := netip.MustParseAddrPort("192.0.2.10:80"), netip.MustParseAddrPort("192.0.2.11:443")
	return &placement.Inventory{Fleet: placement.Fleet{
		Sites: []placement.Site{{Name: "ams1", Edge: netip.MustParseAddrPort("198.51.100.1:8055")},
			{Name: "nyc1", Edge: netip.MustParseAddrPort("198.51.100.65:8055")}, {Name: "bare"}},
		Services: []placement.Service{{Name: "vod", Edge: &placement.Edge{Kind: placement.Content, Mode: placement.Act, VIPs: []netip.AddrPort{own}, Root: "/srv"}},
			{Name: "web", Edge: &placement.Edge{Kind: placement.Forward, VIPs: []netip.AddrPort{foreign}}}, {Name: "plain"}}}}
}

// TestEdgeReadsTheInventory: peers, services and VIPs of a site.
func TestEdgeReadsTheInventory(t *testing.T) {
	inv := edgeInventory()
	snap := &placement.Snapshot{Inventory: inv, Plan: &placement.Plan{}}
	if p := edgePeers(snap, placement.Member{EdgeNode: placement.EdgeNode{Name: "ams1"}, Site: "ams1"}); len(p) != 1 || p[0].Name != "nyc1" || p[0].Weight == 0 {
		t.Errorf("peers %+v, want nyc1: not itself, and none without an edge", p)
	}
	if s := contentServices(inv, &unit{cfg: &config.Node{}}); len(s) != 1 || s[0].Name != "vod" || s[0].Root != "/srv" || s[0].Mode != edge.ModeAct {
		t.Errorf("services %+v", s)
	}
	modes := vipModes(inv, "")
	if len(modes) != 2 || fmt.Sprint(modes[netip.MustParseAddrPort("192.0.2.10:80")]) == fmt.Sprint(modes[netip.MustParseAddrPort("192.0.2.11:443")]) {
		t.Errorf("modes %v: one acts, the other only looks", modes)
	}
	for vip, m := range vipModes(inv, placement.Observe) {
		if m != forward.Observe {
			t.Errorf("%s acts on a node that observes", vip)
		}
	}
}

// TestStateMetrics: what alerts are made of, and that nothing outlives its cause.
func TestStateMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	now := time.Unix(2000, 0)
	s := seen{view: &store.View{}, now: now}
	reg.MustRegister(newStateMetrics(func() seen { return s }))
	if families, err := reg.Gather(); err != nil || len(families) != 1 {
		t.Errorf("before anything is known: %d metrics, %v; want the build's alone", len(families), err)
	}
	inv := sampleFleet(t)
	inv.Freeze = placement.Freeze{Audit: placement.Audit{Reason: "x"}}
	inv.Drains = []placement.Drain{{Site: "ams1", Audit: placement.Audit{Until: time.Unix(3000, 0)}}, {Site: "nyc1"}}
	s.snapshot = &placement.Snapshot{Name: placement.Name{Plan: 1042, Votes: 17}, Inventory: inv,
		Verdicts: []placement.Verdict{{Object: placement.SiteID("ams1"), State: placement.Down}},
		Alarms:   []placement.Alarm{{Kind: "FailOpenActive", Object: "www"}}}
	s.view = &store.View{Revision: 9, Inventory: inv, Leader: "nyc1-a", Heartbeat: now.Add(-4 * time.Second), Since: now.Add(-3 * time.Second)}
	for want, n := range map[string]float64{
		"rhumb_snapshot_plan_revision": 1042, "rhumb_snapshot_votes_revision": 17, "rhumb_frozen": 1,
		"rhumb_leader nyc1-a": 1, "rhumb_site_state ams1 down": 1, "rhumb_site_state ams1 up": 0,
		"rhumb_fail_open www cdn.demo.test.": 1, "rhumb_fail_open eu cdn.demo.test.": 0, "rhumb_drain_expiry_timestamp_seconds ams1": 3000,
		"rhumb_state_age_seconds director": 4, "rhumb_state_age_seconds store": 3,
	} {
		words := strings.Fields(want)
		if got := value(t, reg, words[0], words[1:]...); got != n {
			t.Errorf("%s is %v, want %v", want, got, n)
		}
	}
	s.view = &store.View{Revision: 10, Inventory: &placement.Inventory{}, Connected: true}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if n := f.GetName(); n == "rhumb_leader" || n == "rhumb_drain_expiry_timestamp_seconds" {
			t.Errorf("%s is still there", n)
		}
	}
	if value(t, reg, "rhumb_frozen") != 0 || value(t, reg, "rhumb_state_age_seconds", "store") != 0 {
		t.Error("still frozen, or still away")
	}
}

// TestStatusLine: what systemd shows.
func TestStatusLine(t *testing.T) {
	for want, n := range map[string]placement.Node{
		"waits for the first snapshot":            {},
		"snapshot 1042.17, 2 zones, 31 queries/s": {Snapshot: "1042.17", DNS: &placement.DNSStatus{QPS: 31.2, Zones: make([]placement.ZoneStatus, 2)}},
		"snapshot 1042.17, 1/2 peers, 7 sessions, directs the fleet, 1 alarms": {Snapshot: "1042.17", Leader: true, Alarms: make([]placement.Alarm, 1),
			BGP:  &placement.BGPStatus{Peers: []placement.PeerStatus{{State: "established"}, {State: "idle"}}},
			Edge: &placement.EdgeStats{Sessions: 4, Foreign: 3}},
	} {
		if got := statusLine(&n); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// freePort is a port of 127.0.0.1 that was free a moment ago, for UDP and TCP.
func freePort(t *testing.T) netip.AddrPort {
	t.Helper()
	// Below the ports which the kernel gives to connections: one of those would be
	// somebody's own before the server listens.
	for range 100 {
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(10_000+rand.IntN(20_000)))
		if l, err := net.Listen("tcp", at.String()); err == nil {
			l.Close()
			return at
		}
	}
	t.Fatal("no free port on 127.0.0.1")
	return netip.AddrPort{}
}

// TestServeAlone: a name server without etcd starts, says what it is, lives on
// through a SIGHUP, and ends with its context, leaving nothing behind.
func TestServeAlone(t *testing.T) {
	defer signal.Stop(hangups()) // the signals below must not end the tests, whatever the unit does
	dir := t.TempDir()
	file := filepath.Join(dir, "node.yaml")
	text := fmt.Sprintf("version: 1\nnode: {name: a, site: ams1, roles: [authdns], data_dir: %s/data}\nlisten: {low: [%q], admin: %s/run}\nstore: file\n", dir, freePort(t), dir)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.LoadNode(file)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var log logBuffer
	done := make(chan error, 1)
	go func() { done <- serve(ctx, file, cfg, cfg.Node.Roles, slog.New(slog.NewTextHandler(&log, nil))) }()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "run", "rhumb-dns.sock"))
	}}}
	eventually(t, "metrics", func() bool {
		resp, err := client.Get("http://localhost/metrics")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return strings.Contains(string(b), `rhumb_build_info{`) && strings.Contains(string(b), "rhumb_events_dropped_total 0")
	})
	hup := func(want string) {
		t.Helper()
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		eventually(t, want, func() bool { return strings.Contains(log.String(), want) })
	}
	hup("the node file is as it was")
	if err := os.WriteFile(file, []byte(text+"mode: observe\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	hup("the node file has changed; restart")
	if err := os.WriteFile(file, []byte(text+"nonsense: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	hup("the node file is wrong; the unit goes on")
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("does not end")
	}
}
