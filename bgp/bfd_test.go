package bgp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/bgp/bfd"
)

// Two ends on the loopback, where TTL 255 arrives and no privilege is needed.
var (
	bfdHere  = netip.MustParseAddr("127.0.54.1")
	bfdThere = netip.MustParseAddr("127.0.54.2")
)

// resets notes which sessions were reset, and why.
type resets struct {
	mu   sync.Mutex
	list []string
	err  error
	more chan string
}

func (r *resets) ResetPeer(_ context.Context, peer netip.Addr, why string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, peer.String()+" "+why)
	if r.more != nil {
		r.more <- why
	}
	return r.err
}

func (r *resets) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.list...)
}

// quickPeer beats often, and is missed late: one of the two ends may get no CPU for as long
// as a busy machine likes, and a beat which did not come says then what no test meant.
func quickPeer(local, peer netip.Addr) Peer {
	return Peer{Address: peer, Local: local, ASN: 64501, BFD: PeerBFD{Interval: 50 * time.Millisecond, Multiplier: 40}}
}

func newBFD(t *testing.T, engine Resetter, peers ...Peer) (*BFD, *bytes.Buffer, *prometheus.Registry) {
	t.Helper()
	log, reg := &bytes.Buffer{}, prometheus.NewRegistry()
	b, err := NewBFD(BFDConfig{Peers: peers, Engine: engine, Registerer: reg, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return b, log, reg
}

// TestBFDWantsNothing: without a watched peer there is no BFD, and its methods
// do nothing.
func TestBFDWantsNothing(t *testing.T) {
	b, _, _ := newBFD(t, &resets{}, Peer{Address: bfdThere, ASN: 64501})
	if b != nil || b.State(bfdThere) != "" {
		t.Fatalf("%+v", b)
	}
	b.Alive(time.Second)
	b.Leave()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Run(ctx); err != nil {
		t.Error(err)
	}
}

// TestBFDResets: which changes end the BGP session (RFC 5882 sections 3.2, 4.3
// and 10).
func TestBFDResets(t *testing.T) {
	for _, c := range []struct {
		name   string
		change bfd.Change
		want   string
	}{
		{"the first Up", bfd.Change{From: bfd.Init, To: bfd.Up, Remote: bfd.Up}, ""},
		{"never Up: BGP is left alone", bfd.Change{From: bfd.Init, To: bfd.Down, Diag: bfd.Expired}, ""},
		{"silence", bfd.Change{From: bfd.Up, To: bfd.Down, Diag: bfd.Expired, Remote: bfd.Down}, "127.0.54.2 BFD down: expired"},
		{"the peer hears nothing", bfd.Change{From: bfd.Up, To: bfd.Down, Diag: bfd.NeighborDown, Remote: bfd.Down}, "127.0.54.2 BFD down: neighbor"},
		{"RFC 5882 3.2 AdminDown", bfd.Change{From: bfd.Up, To: bfd.Down, Diag: bfd.NeighborDown, Remote: bfd.AdminDown}, ""},
		{"an older run of the session", bfd.Change{From: bfd.Up, To: bfd.Down, Diag: bfd.Expired, Remote: bfd.Down, Ups: 7}, ""},
		{"nobody we know", bfd.Change{Peer: router, From: bfd.Up, To: bfd.Down, Diag: bfd.Expired, Remote: bfd.Down}, ""},
	} {
		engine := &resets{}
		b, log, _ := newBFD(t, engine, quickPeer(bfdHere, bfdThere))
		if !c.change.Peer.IsValid() {
			c.change.Peer = bfdThere
		}
		var told []BFDEvent
		b.told = func(e BFDEvent) { told = append(told, e) }
		b.handle(t.Context(), c.change)
		if len(told) != 1 || told[0].Peer != c.change.Peer || told[0].To != c.change.To.String() || told[0].Diag != c.change.Diag.String() || told[0].Failed != (c.want != "") {
			t.Errorf("%s: told %+v", c.name, told)
		}
		if got := strings.Join(engine.all(), ", "); got != c.want {
			t.Errorf("%s: reset %q, want %q", c.name, got, c.want)
		}
		if !strings.Contains(log.String(), "to="+c.change.To.String()) {
			t.Errorf("%s: not logged: %s", c.name, log)
		}
	}
}

// TestBFDResetFails: an engine which cannot reset is an error in the log, no more.
func TestBFDResetFails(t *testing.T) {
	b, log, _ := newBFD(t, &resets{err: errors.New("no such session")}, quickPeer(bfdHere, bfdThere))
	b.handle(t.Context(), bfd.Change{Peer: bfdThere, From: bfd.Up, To: bfd.Down, Diag: bfd.Expired, Remote: bfd.Down})
	if !strings.Contains(log.String(), "no such session") {
		t.Error(log)
	}
}

// run runs a BFD until the test ends or stop is called.
func (b *BFD) run(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// TestBFDEndToEnd: two of them on the loopback; the one which stops beating is
// reset by the other, once, and the metrics say so.
func TestBFDEndToEnd(t *testing.T) {
	engine := &resets{more: make(chan string, 8)}
	a, _, reg := newBFD(t, engine, quickPeer(bfdHere, bfdThere))
	b, _, _ := newBFD(t, &resets{}, quickPeer(bfdThere, bfdHere))
	a.run(t)
	stop := b.run(t)
	a.Alive(time.Hour)
	b.Alive(time.Hour)
	for end := time.Now().Add(time.Minute); a.State(bfdThere) != "up" || b.State(bfdHere) != "up"; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("here %s, there %s", a.State(bfdThere), b.State(bfdHere))
		}
	}
	stop()
	select {
	case why := <-engine.more:
		if why != "BFD down: expired" {
			t.Error(why)
		}
	case <-time.After(time.Minute):
		t.Fatal("not reset")
	}
	have := series(t, reg)
	for _, want := range []string{`rhumb_bfd_state{peer="127.0.54.2" state="down"} 1`, `rhumb_bfd_transitions_total{diag="expired" peer="127.0.54.2"} 1`,
		`rhumb_bfd_rx_dropped_total{reason="ttl"} 0`} {
		if !strings.Contains(have, want+"\n") {
			t.Errorf("the metrics lack %s:\n%s", want, have)
		}
	}
	if n := strings.Count(have, "rhumb_bfd_state{"); n != 1 {
		t.Errorf("in %d states at once:\n%s", n, have)
	}
}

// series writes counters and gauges as lines.
func series(t *testing.T, reg prometheus.Gatherer) string {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			fmt.Fprintf(&out, "%s{%s} %v\n", f.GetName(), strings.Join(labels, " "), m.GetCounter().GetValue()+m.GetGauge().GetValue())
		}
	}
	return out.String()
}

// TestBFDLeave: the end which leaves is not reset.
func TestBFDLeave(t *testing.T) {
	engine := &resets{}
	a, log, _ := newBFD(t, engine, quickPeer(bfdHere, bfdThere))
	b, _, _ := newBFD(t, &resets{}, quickPeer(bfdThere, bfdHere))
	stopA, stopB := a.run(t), b.run(t)
	a.Alive(time.Hour)
	b.Alive(time.Hour)
	for end := time.Now().Add(time.Minute); a.State(bfdThere) != "up"; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never up")
		}
	}
	b.Leave()
	stopB()
	for end := time.Now().Add(time.Minute); a.State(bfdThere) != "down"; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never down")
		}
	}
	stopA()
	if list := engine.all(); len(list) > 0 {
		t.Errorf("reset %v\n%s", list, log)
	}
}

// stuckEngine hangs in each call of the audit while it is told to.
type stuckEngine struct {
	*fakeEngine
	resets
	hang chan chan struct{} // what the next audit waits for
}

func (e *stuckEngine) PeerState(ctx context.Context) (State, error) {
	select {
	case until := <-e.hang:
		<-until
	default:
	}
	return e.fakeEngine.PeerState(ctx)
}

// TestHungLoopFallsSilent: a speaker whose loop hangs in its engine is dead to
// its peers, though its process lives; when the loop runs again it is back.
func TestHungLoopFallsSilent(t *testing.T) {
	engine := &stuckEngine{fakeEngine: newFakeEngine(), hang: make(chan chan struct{})}
	s := New(Config{Site: "ams1", SiteNumber: 1, Node: "ams1-a", ASN: 64500, Engine: engine, FIBWait: time.Millisecond,
		Peers: []Peer{quickPeer(bfdHere, bfdThere)}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	peer, log, _ := newBFD(t, &resets{}, quickPeer(bfdThere, bfdHere))
	stop := peer.run(t)
	peer.Alive(time.Hour)
	await := func(state string) {
		t.Helper()
		for end := time.Now().Add(time.Minute); peer.State(bfdHere) != state; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("the peer sees %s, want %s", peer.State(bfdHere), state)
			}
		}
	}
	await("up")
	release := make(chan struct{})
	engine.hang <- release
	began := time.Now()
	await("down")
	if took := time.Since(began); took < aliveFor-aliveEvery {
		t.Errorf("silent after %v: sooner than the loop had promised to be back", took)
	}
	close(release)
	await("up")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	await("down")
	stop()
	if text := log.String(); !strings.Contains(text, "diag=expired") || !strings.Contains(text, "remote=admin-down") {
		t.Errorf("first it hung, then it left:\n%s", text)
	}
}
