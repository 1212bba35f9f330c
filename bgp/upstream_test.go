package bgp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rhumb/placement"
)

func TestPathNote(t *testing.T) {
	by := Probe{Fall: 3, Rise: 2}.or()
	tests := []struct {
		name  string
		looks string // + answered, - not
		down  string // after each look
	}{
		{"one lost", "+-+-+-", "uuuuuu"},
		{"fall in a row", "---", "uud"},
		{"an answer begins anew", "--+--+---", "uuuuuuuud"},
		{"rise in a row", "---+-++", "uuddddu"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var p path
			var got strings.Builder
			for i, c := range tt.looks {
				was := p.down
				if changed := p.note(by, c == '+', "lost"); changed != (was != p.down) {
					t.Errorf("look %d: changed %v", i, changed)
				}
				got.WriteByte("ud"[map[bool]int{true: 1}[p.down]])
			}
			if got.String() != tt.down {
				t.Errorf("%s: %s, want %s", tt.looks, got.String(), tt.down)
			}
		})
	}
	var p path
	for i := range 2 * pathWindow {
		p.note(by, i%4 != 0, "lost")
	}
	if got := p.loss(); got < 0.2 || got > 0.3 {
		t.Errorf("a quarter lost: %v", got)
	}
}

// towardEngine is a fakeEngine with two peers which can be told apart.
type towardEngine struct {
	*fakeEngine
	mu     sync.Mutex
	gone   netip.Addr // a peer whose session is down
	toward map[netip.Addr]placement.Step
}

func (e *towardEngine) Toward(_ context.Context, p netip.Addr, s placement.Step) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.toward[p] = s
	return nil
}

func (e *towardEngine) PeerState(ctx context.Context) (State, error) {
	st, err := e.fakeEngine.PeerState(ctx)
	e.mu.Lock()
	defer e.mu.Unlock()
	st.Peers = nil
	for _, p := range []netip.Addr{router, router2} {
		st.Peers = append(st.Peers, PeerState{Address: p, Established: p != e.gone})
	}
	return st, err
}

func (e *towardEngine) at(p netip.Addr) placement.Step {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.toward[p]
}

var router2 = netip.MustParseAddr("198.51.100.3")

// lossy answers for two upstreams; its map says which lose everything.
type lossy struct {
	mu  sync.Mutex
	bad map[netip.Addr]bool // by source
}

func (l *lossy) look(_ context.Context, p Probe) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bad[p.From] {
		return errors.New("no answer")
	}
	return nil
}

func (l *lossy) set(from netip.Addr, bad bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bad[from] = bad
}

// TestUpstreams has one of two upstreams lose packets, then both, then the
// session of the good one end.
func TestUpstreams(t *testing.T) {
	from1, from2 := netip.MustParseAddr("198.51.100.11"), netip.MustParseAddr("198.51.100.12")
	tests := []struct {
		name string
		act  placement.Step
		mode placement.Mode
		bad  []netip.Addr
		gone bool // the session with the second, after the first was lowered
		want placement.Step
		say  string
	}{
		{"advice by default", placement.Announce, placement.Act, []netip.Addr{from1}, false, placement.Announce, "prepend advised"},
		{"prepend there", placement.Prepend, placement.Act, []netip.Addr{from1}, false, placement.Prepend, "prepend there"},
		{"nothing there", placement.Withdrawn, placement.Act, []netip.Addr{from1}, false, placement.Withdrawn, "withdrawn there"},
		{"observe only advises", placement.Withdrawn, placement.Observe, []netip.Addr{from1}, false, placement.Announce, "withdrawn advised"},
		{"the last upstream stays", placement.Withdrawn, placement.Act, []netip.Addr{from2, from1}, false, placement.Announce, "withdrawn advised"},
		{"the good one goes: the bad one is all there is", placement.Withdrawn, placement.Act, []netip.Addr{from1}, true, placement.Announce, "withdrawn advised"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := &towardEngine{fakeEngine: newFakeEngine(), toward: make(map[netip.Addr]placement.Step)}
				net := &lossy{bad: make(map[netip.Addr]bool)}
				s := New(Config{Site: "ams", SiteNumber: 1, Node: "ams1", ASN: 64500, Engine: e, Look: net.look, Mode: tt.mode, Peers: []Peer{
					{Address: router, Local: from1, Probe: &Probe{Act: tt.act}}, {Address: router2, Probe: &Probe{From: from2, Act: tt.act}}}})
				ctx, stop := context.WithCancel(t.Context())
				done := make(chan error)
				go func() { done <- s.Run(ctx) }()
				time.Sleep(2 * time.Second)
				for _, from := range tt.bad {
					net.set(from, true)
					time.Sleep(time.Second)
				}
				if tt.gone {
					if got := e.at(router); got != tt.act {
						t.Errorf("before: %v", got)
					}
					e.mu.Lock()
					e.gone = router2
					e.mu.Unlock()
					time.Sleep(1500 * time.Millisecond)
				}
				if got := e.at(router); got != tt.want {
					t.Errorf("toward the peer with the bad path: %v, want %v", got, tt.want)
				}
				st := s.Status()
				if i := slices.IndexFunc(st.Peers, func(p placement.PeerStatus) bool { return p.Address == router }); !strings.Contains(st.Peers[i].Error, tt.say) {
					t.Errorf("status says %q, want %q", st.Peers[i].Error, tt.say)
				}
				for _, from := range tt.bad {
					net.set(from, false)
				}
				time.Sleep(4 * time.Second)
				if got := e.at(router); got != placement.Announce {
					t.Errorf("with all well again: %v", got)
				}
				stop()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestLook knocks at a door that opens, one that is refused, and one that is silent.
func TestLook(t *testing.T) {
	open, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	opened := open.Addr().(*net.TCPAddr).AddrPort()
	shut, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := shut.Addr().(*net.TCPAddr).AddrPort()
	shut.Close()
	defer open.Close()
	home := netip.MustParseAddr("127.0.0.3")
	tests := []struct {
		name    string
		targets []netip.AddrPort
		from    netip.Addr
		ok      bool
	}{
		{"it opens", []netip.AddrPort{opened}, netip.Addr{}, true},
		{"a refusal is an answer", []netip.AddrPort{refused}, home, true},
		{"no such source", []netip.AddrPort{opened}, netip.MustParseAddr("192.0.2.99"), false},
		{"no target, no answer", nil, netip.Addr{}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := Look(t.Context(), Probe{Targets: tt.targets, From: tt.from, Every: 5 * time.Second})
			if (err == nil) != tt.ok {
				t.Errorf("%v, want ok %v", err, tt.ok)
			}
		})
	}
}
