package edge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rhumb/edge/frame"
	"rhumb/edge/handsock"
	"rhumb/edge/tcprepair"
)

// pretend stands for the kernels of two sites: which of their sockets speaks.
type pretend struct {
	t      *testing.T
	conn   *net.TCPConn // behind all descriptors
	key    handsock.Key
	mu     sync.Mutex
	speaks map[string]bool
	fails  map[string]error // by what is called
}

func (p *pretend) set(site string, speaks bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.speaks[site] = speaks; p.speaks["a"] && p.speaks["b"] {
		p.t.Error("two owners")
	}
	return nil
}

func (p *pretend) owner() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.speaks["a"]:
		return "a"
	case p.speaks["b"]:
		return "b"
	}
	return "nobody"
}

func (p *pretend) kernel() guestKernel {
	return guestKernel{
		examine: func(*os.File) (netip.AddrPort, netip.AddrPort, error) {
			return p.key.VIP, p.key.Client, p.fails["examine"]
		},
		dump: func(f *os.File) (silenced, tcprepair.State, error) {
			if err := p.fails["dump"]; err != nil {
				return nil, tcprepair.State{}, err
			}
			st := tcprepair.State{Local: p.key.VIP, Peer: p.key.Client, SndUna: 1, SndNxt: 2, WriteSeq: 5, Input: []byte("in")}
			return dumpedSock{p, f}, st, p.set("a", false)
		},
		restore: func(st tcprepair.State, q tcprepair.Queues, _ time.Duration) (revivable, error) {
			if string(q.Input) != "in" || string(q.Output) != "out." || st.WriteSeq != 5 {
				p.t.Errorf("restored with %q, %q, %+v", q.Input, q.Output, st)
			}
			return restoredSock{p}, p.fails["restore"]
		},
		wake:  func(*os.File) error { return p.set("a", true) },
		reset: func(*net.TCPConn) error { return p.set("b", false) },
	}
}

type dumpedSock struct {
	p *pretend
	f *os.File
}

func (d dumpedSock) Output() ([]byte, error) { return []byte("out."), d.p.fails["output"] }
func (d dumpedSock) Abort() error            { return d.p.set("a", true) }
func (d dumpedSock) Drop() error             { return errors.Join(d.p.set("a", false), d.f.Close()) }
func (d dumpedSock) Vanish() error           { return errors.Join(d.p.set("a", false), d.f.Close()) }
func (d dumpedSock) Close() error            { return d.f.Close() }

type restoredSock struct{ p *pretend }

func (r restoredSock) File() (*os.File, error) { return r.p.conn.File() }
func (r restoredSock) Close() error            { return nil }
func (r restoredSock) Activate() (*net.TCPConn, error) {
	if err := r.p.fails["activate"]; err != nil {
		return nil, err
	}
	f, err := r.p.conn.File()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), r.p.set("b", true)
}

// actor is a server at a socket: it answers each message by what act says, or as it
// should.
type actor struct {
	conn *handsock.Conn
	p    *pretend
	act  func(handsock.Message) (handsock.Message, bool) // false: hang up
}

func (s actor) run() {
	defer s.conn.Close()
	for {
		m, f, err := s.conn.Receive()
		if err != nil {
			return
		}
		if f != nil {
			f.Close()
		}
		answer, ok := s.act(m)
		if !ok {
			return
		}
		answer.ID = m.ID
		switch answer.Type {
		case 0: // silence
		case handsock.Offer:
			_ = s.conn.Send(answer, s.p.conn)
		default:
			_ = s.conn.Send(answer, nil)
		}
	}
}

// willing is what a server should say.
func (p *pretend) willing(m handsock.Message) (handsock.Message, bool) {
	switch {
	case m.Type == handsock.Offer && !m.Attached:
		return handsock.Message{Type: handsock.Offer, Key: m.Key, Record: []byte("record")}, true
	case m.Type == handsock.Offer && string(m.Record) == "record":
		return handsock.Message{Type: handsock.Ready}, true
	case m.Type == handsock.Commit && p.owner() == "b":
		return handsock.Message{Type: handsock.Active}, true
	}
	return handsock.Message{}, true
}

// TestGuestMoves plays hand-offs between two agents whose servers and kernels do what
// they should, or not: exactly one owner, or an audible end.
func TestGuestMoves(t *testing.T) {
	no := errors.New("not today")
	type reply func(handsock.Message) (handsock.Message, bool)
	at := func(typ handsock.Type, what reply) func(*pretend) reply {
		return func(p *pretend) reply {
			return func(m handsock.Message) (handsock.Message, bool) {
				if m.Type == typ {
					return what(m)
				}
				return p.willing(m)
			}
		}
	}
	abort := func(handsock.Message) (handsock.Message, bool) {
		return handsock.Message{Type: handsock.Abort, Text: "no"}, true
	}
	silence := func(handsock.Message) (handsock.Message, bool) { return handsock.Message{}, true }
	hangUp := func(handsock.Message) (handsock.Message, bool) { return handsock.Message{}, false }
	stranger := func(m handsock.Message) (handsock.Message, bool) {
		m.Key.Client = netip.AddrPortFrom(m.Key.Client.Addr(), 9)
		return handsock.Message{Type: handsock.Offer, Key: m.Key}, true
	}
	for name, tc := range map[string]struct {
		a, b  func(*pretend) reply // nil: willing
		fails string
		owner string
		why   string // in the error, empty: it moved
	}{
		"moves":                   {owner: "b"},
		"a refuses":               {a: at(handsock.Offer, abort), owner: "a", why: "refused: no"},
		"a is silent":             {a: at(handsock.Offer, silence), owner: "a", why: "no answer"},
		"a hangs up":              {a: at(handsock.Offer, hangUp), owner: "a", why: "ended its connection"},
		"a gives another":         {a: at(handsock.Offer, stranger), owner: "a", why: "answered a wish"},
		"a hangs up after commit": {a: at(handsock.Commit, hangUp), owner: "b"},
		"not movable":             {fails: "examine", owner: "a", why: "not today"},
		"not dumped":              {fails: "dump", owner: "a", why: "not today"},
		"queue not read":          {fails: "output", owner: "a", why: "not today"},
		"not restored":            {fails: "restore", owner: "a", why: "not today"},
		"not activated":           {fails: "activate", owner: "a", why: "not today"},
		"b refuses":               {b: at(handsock.Offer, abort), owner: "a", why: "server: no"},
		"b is silent":             {b: at(handsock.Offer, silence), owner: "a", why: "no answer"},
		"b hangs up":              {b: at(handsock.Offer, hangUp), owner: "a", why: "ended its connection"},
		"b hangs up after commit": {b: at(handsock.Commit, hangUp), owner: "nobody"},
		"b refuses after commit":  {b: at(handsock.Commit, abort), owner: "nobody"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPretend(t)
			if tc.fails != "" {
				p.fails[tc.fails] = no
			}
			a, b := newHosts(t, p)
			for host, act := range map[*Agent]func(*pretend) reply{a: tc.a, b: tc.b} {
				do := reply(p.willing)
				if act != nil {
					do = act(p)
				}
				p.join(host, do)
			}
			err := a.guests.give(t.Context(), a.view.Load().guests[p.key.VIP], guestKey(), "b", func() {})
			if (err == nil) != (tc.why == "") || err != nil && !strings.Contains(err.Error(), tc.why) {
				t.Errorf("%v, want %q", err, tc.why)
			}
			for end := time.Now().Add(time.Minute); p.owner() != tc.owner && time.Now().Before(end); time.Sleep(time.Millisecond) {
			}
			if got := p.owner(); got != tc.owner {
				t.Errorf("owner is %s, want %s", got, tc.owner)
			}
		})
	}
}

// TestPushLeavesDoubts: the push of a drain does not wait for a hand-off that nobody confirms.
func TestPushLeavesDoubts(t *testing.T) {
	p := newPretend(t)
	a, b := newHosts(t, p)
	var deaf atomic.Bool
	deaf.Store(true)
	heard := a.links.handle
	a.links.handle = func(l *link, f frame.Frame) {
		if f.Type != frame.Active || !deaf.Load() {
			heard(l, f)
		}
	}
	p.join(a, p.willing)
	p.join(b, p.willing)
	a.cfg.Flows = func([]netip.AddrPort) ([]frame.Key, error) { return []frame.Key{guestKey()}, nil }
	d := &drain{to: []string{"b"}, tries: newPulls()}
	a.guests.push(t.Context(), d)
	if n := a.Handing()[0].Moving; n != 1 || d.moved.Load()+d.kept.Load() != 0 {
		t.Errorf("%d sessions on the move, %d moved, %d kept: the push has waited", n, d.moved.Load(), d.kept.Load())
	}
	deaf.Store(false)
	for end := time.Now().Add(time.Minute); d.moved.Load() == 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	if p.owner() != "b" || d.moved.Load() != 1 {
		t.Errorf("owner is %s, %d moved", p.owner(), d.moved.Load())
	}
}

func newPretend(t *testing.T) *pretend {
	ln := listenLoopback(t)
	t.Cleanup(func() { ln.Close() })
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &pretend{t: t, conn: c.(*net.TCPConn), key: handsock.Key(guestKey()), speaks: map[string]bool{"a": true}, fails: map[string]error{}}
}

// join connects a server and waits until its agent knows it.
func (p *pretend) join(a *Agent, act func(handsock.Message) (handsock.Message, bool)) {
	p.t.Helper()
	go actor{p.enter(a, "stream"), p, act}.run()
}

// enter connects a server of some service.
func (p *pretend) enter(a *Agent, service string) *handsock.Conn {
	p.t.Helper()
	var c *handsock.Conn
	for end := time.Now().Add(time.Minute); c == nil; time.Sleep(time.Millisecond) {
		var err error
		if c, err = handsock.Dial(a.cfg.Handoff.Socket); err != nil && time.Now().After(end) {
			p.t.Fatal(err)
		}
	}
	if err := c.Send(handsock.Message{Type: handsock.Ready, Text: service}, nil); err != nil {
		p.t.Fatal(err)
	}
	if m, _, err := c.Receive(); err != nil || m.Type != handsock.Ready {
		p.t.Fatalf("greeted by %+v, %v", m, err)
	}
	p.t.Cleanup(func() { c.Close() })
	return c
}

// newHosts makes two agents that reach each other, over one pretended kernel. Each may be changed before it runs.
func newHosts(t *testing.T, p *pretend, change ...func(*Agent)) (a, b *Agent) {
	t.Helper()
	dir, pool := t.TempDir(), x509.NewCertPool()
	doors := []net.Listener{listenLoopback(t), listenLoopback(t)}
	var out []*Agent
	pairs := []tls.Certificate{pairFor(t, dir, "a", 2, time.Now().Add(time.Hour)), pairFor(t, dir, "b", 3, time.Now().Add(time.Hour))}
	for _, pair := range pairs {
		pool.AddCert(pair.Leaf)
	}
	names := []string{"a", "b"}
	for i, name := range names {
		h, err := New(Config{Site: name, Control: netip.MustParseAddrPort(doors[i].Addr().String()), Log: slog.New(slog.DiscardHandler),
			TLS:      &tls.Config{Certificates: []tls.Certificate{pairs[i]}, RootCAs: pool, ClientCAs: pool},
			Peers:    []Peer{{Name: names[1-i], Control: netip.MustParseAddrPort(doors[1-i].Addr().String()), Weight: 1}},
			Services: []Service{{Name: "stream", Kind: KindHandoff, Mode: ModeAct, VIPs: []netip.AddrPort{guestKey().VIP}}},
			Handoff:  Handoff{Socket: filepath.Join(dir, name+".sock"), Patience: 2 * time.Second}})
		if err != nil {
			t.Fatal(err)
		}
		h.guests.kernel, h.patience, h.links.patience = p.kernel(), 20*time.Second, time.Minute
		for _, f := range change {
			f(h)
		}
		out = append(out, h)
		h.host(t, doors[i])
	}
	return out[0], out[1]
}

// host runs what a hand-off of a guest needs.
func (a *Agent) host(t *testing.T, door net.Listener) {
	ctx, cancel := context.WithCancel(context.Background())
	a.links.handle = func(l *link, f frame.Frame) { a.handle(ctx, l, f) }
	var wg sync.WaitGroup
	wg.Go(func() { _ = a.links.serve(ctx, door) })
	wg.Go(func() { _ = a.guests.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		a.wg.Wait()
	})
}
