package edge

import (
	"bytes"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	dto "github.com/prometheus/client_model/go"

	"rhumb/edge/frame"
	"rhumb/edge/handsock"
)

// gossip notes where packets are sent after a session.
type gossip struct {
	noStrays
	mu    sync.Mutex
	words []string
}

func (g *gossip) Moved(_ frame.Key, to string)  { g.note("moved " + to) }
func (g *gossip) Stayed(_ frame.Key, at string) { g.note("stayed " + at) }

func (g *gossip) note(s string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.words = append(g.words, s)
}

func (g *gossip) all() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return strings.Join(g.words, ", ")
}

// otherVIP is that of a second service, whose servers have no say in sessions of the first.
func otherVIP() netip.AddrPort { return netip.MustParseAddrPort("192.0.2.11:443") }

// doubtfulHosts are two agents with ledgers and two services; what a does with packets is noted.
func doubtfulHosts(t *testing.T, change ...func(*Agent)) (p *pretend, a, b *Agent, heard *gossip) {
	t.Helper()
	p, heard = newPretend(t), &gossip{}
	dir := t.TempDir()
	ready := func(h *Agent) {
		var err error
		if h.ledger, err = openLedger(filepath.Join(dir, h.cfg.Site), "boot"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.ledger.close() })
		if h.cfg.Site == "a" {
			h.strays = heard
		}
		if err := h.SetServices(append(h.cfg.Services, Service{Name: "other", Kind: KindHandoff, Mode: ModeAct, VIPs: []netip.AddrPort{otherVIP()}})); err != nil {
			t.Fatal(err)
		}
	}
	a, b = newHosts(t, p, append([]func(*Agent){ready}, change...)...)
	return p, a, b, heard
}

// question asks an agent and returns the answer.
func question(t *testing.T, c *handsock.Conn, m handsock.Message) handsock.Message {
	t.Helper()
	if err := c.Send(m, nil); err != nil {
		t.Fatal(err)
	}
	answer, f, err := c.Receive()
	if err != nil || f != nil {
		t.Fatalf("answered by %+v, %v, %v", answer, f, err)
	}
	return answer
}

// doubts counts how often questions ended so.
func doubts(t *testing.T, a *Agent, result string) float64 {
	t.Helper()
	var m dto.Metric
	if err := a.m.guests.doubts.WithLabelValues(result).Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

// row is the last of a session in a ledger.
func (l *ledger) row(k frame.Key) ledgerState {
	var ends [36]byte
	putEnd(ends[:], k.Client)
	putEnd(ends[18:], k.VIP)
	l.mu.Lock()
	defer l.mu.Unlock()
	if b := l.search(func(b []byte) bool { return bytes.Equal(b[44:80], ends[:]) }); b != nil {
		return ledgerState(b[4])
	}
	return ledgerNone
}

// TestDoubtIsSettled: a giver's server whose agent went away after commit asks the next one, which asks the taker: who has
// noted it has it, who would have noted it and has not never had it, and nobody else can tell. It may ask twice.
func TestDoubtIsSettled(t *testing.T) {
	const epoch, gen = 1 << 50, 3
	for name, tc := range map[string]struct {
		state   ledgerState
		gen     uint32 // of what the taker noted
		forgot  bool
		ticket  func(*ticket)
		text    string // instead
		want    handsock.Type
		result  string
		packets string
	}{
		"it speaks there":             {state: ledgerActive, gen: gen, want: handsock.Active, result: doubtAway, packets: "moved b, moved b"},
		"it was about to":             {state: ledgerBegun, gen: gen, want: handsock.Active, result: doubtAway, packets: "moved b, moved b"},
		"it could not":                {state: ledgerNever, gen: gen, want: handsock.Again, result: doubtBack},
		"it never came":               {want: handsock.Again, result: doubtBack},
		"another hand-off went there": {state: ledgerActive, gen: gen + 1, want: handsock.Again, result: doubtBack},
		"the taker has forgotten":     {forgot: true, want: handsock.Active, result: doubtLost, packets: "stayed b, stayed b"},
		"another file":                {ticket: func(x *ticket) { x.msg.Payload = []byte("12345678") }, want: handsock.Active, result: doubtLost, packets: "stayed b, stayed b"},
		"a taker without memory":      {ticket: func(x *ticket) { x.msg.Payload = nil }, want: handsock.Active, result: doubtLost, packets: "stayed b, stayed b"},
		"of another service":          {state: ledgerActive, gen: gen, ticket: func(x *ticket) { x.msg.Key.VIP = otherVIP() }, want: handsock.Active, result: doubtLost},
		"no ticket":                   {state: ledgerActive, gen: gen, text: "b and nothing else", want: handsock.Active, result: doubtLost},
	} {
		t.Run(name, func(t *testing.T) {
			p, a, b, heard := doubtfulHosts(t)
			x := ticket{to: "b", msg: frame.Frame{Key: guestKey(), Epoch: epoch, Generation: gen, Payload: slices.Clone(b.ledger.word())}}
			if tc.ticket != nil {
				tc.ticket(&x)
			}
			if tc.state != ledgerNone {
				b.ledger.begin(ledgerRow{key: x.msg.Key, epoch: epoch, gen: tc.gen, id: 9})
				b.ledger.end(x.msg.Key, epoch, tc.gen, tc.state)
			}
			if tc.forgot {
				b.ledger.mu.Lock()
				b.ledger.horizon = epoch
				b.ledger.mu.Unlock()
			}
			c := p.enter(a, "stream")
			for range 2 {
				if got := question(t, c, handsock.Message{Type: handsock.Commit, ID: 77, Text: or(tc.text, x.text())}); got.Type != tc.want || got.ID != 77 {
					t.Errorf("answered by %+v, want %s", got, tc.want)
				}
			}
			if got := heard.all(); got != tc.packets {
				t.Errorf("packets: %q, want %q", got, tc.packets)
			}
			if n := doubts(t, a, tc.result); n != 2 {
				t.Errorf("%v counted as %s", n, tc.result)
			}
			if gone := !a.tab.gaveAt(x.msg.Key).IsZero(); gone != (tc.result == doubtAway) {
				t.Errorf("known to be given away: %t", gone)
			}
		})
	}
}

// TestDoubtWaitsForItsHandOff: where the hand-off goes on in this process it comes to its end before anybody is asked.
func TestDoubtWaitsForItsHandOff(t *testing.T) {
	p, a, b, _ := doubtfulHosts(t)
	x := ticket{to: "b", msg: frame.Frame{Key: guestKey(), Epoch: 1 << 50, Generation: 3, Payload: slices.Clone(b.ledger.word())}}
	if !a.guests.claim(guestKey(), "stream") {
		t.Fatal("claimed by nobody")
	}
	c := p.enter(a, "stream")
	if err := c.Send(handsock.Message{Type: handsock.Commit, ID: 77, Text: x.text()}, nil); err != nil {
		t.Fatal(err)
	}
	y := x
	y.msg.Key.Client = netip.MustParseAddrPort("203.0.113.8:50000")
	for i := range uint64(5) { // later ones, of a session that is not on the move
		if got := question(t, c, handsock.Message{Type: handsock.Commit, ID: 100 + i, Text: y.text()}); got.Type != handsock.Again || got.ID != 100+i {
			t.Fatalf("answered by %+v", got)
		}
	}
	b.ledger.begin(ledgerRow{key: guestKey(), epoch: 1 << 50, gen: 3, id: 9})
	a.guests.unclaim(guestKey())
	if got, _, err := c.Receive(); err != nil || got.Type != handsock.Active || got.ID != 77 {
		t.Errorf("answered by %+v, %v", got, err)
	}
}

// TestUnsureIsSettled: a taker's server whose agent went away before commit is told by the next one whether it speaks,
// from what that has noted; a server of another service is told nothing of it.
func TestUnsureIsSettled(t *testing.T) {
	for name, tc := range map[string]struct {
		state   ledgerState
		service string
		want    handsock.Type
		result  string
	}{
		"it speaks":          {ledgerActive, "stream", handsock.Commit, doubtTaken},
		"it was about to":    {ledgerBegun, "stream", handsock.Abort, doubtDrop},
		"it could not":       {ledgerNever, "stream", handsock.Abort, ""},
		"it never was":       {ledgerNone, "stream", handsock.Abort, ""},
		"of another service": {ledgerActive, "other", handsock.Abort, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p, _, b, _ := doubtfulHosts(t)
			if tc.state != ledgerNone {
				b.ledger.begin(ledgerRow{key: guestKey(), epoch: 1 << 50, gen: 3, id: 9})
				b.ledger.end(guestKey(), 1<<50, 3, tc.state)
			}
			c := p.enter(b, tc.service)
			for range 2 {
				if got := question(t, c, handsock.Message{Type: handsock.Ready, ID: 9}); got.Type != tc.want || got.ID != 9 {
					t.Errorf("answered by %+v, want %s", got, tc.want)
				}
			}
			for _, result := range []string{doubtTaken, doubtDrop} {
				want := 0.0
				if result == tc.result {
					want = 2
				}
				if n := doubts(t, b, result); n != want {
					t.Errorf("%v counted as %s, want %v", n, result, want)
				}
			}
		})
	}
}

// TestUnsureWaitsForItsHandOff: what is noted counts when the hand-off has come to its end.
func TestUnsureWaitsForItsHandOff(t *testing.T) {
	p, _, b, _ := doubtfulHosts(t)
	b.ledger.begin(ledgerRow{key: guestKey(), epoch: 1 << 50, gen: 3, id: 9})
	if !b.guests.claim(guestKey(), "stream") {
		t.Fatal("claimed by nobody")
	}
	c := p.enter(b, "stream")
	if err := c.Send(handsock.Message{Type: handsock.Ready, ID: 9}, nil); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(20) {
		if got := question(t, c, handsock.Message{Type: handsock.Ready, ID: 100 + i}); got.ID != 100+i {
			t.Fatalf("answered by %+v", got)
		}
	}
	b.ledger.end(guestKey(), 1<<50, 3, ledgerActive)
	b.guests.unclaim(guestKey())
	if got, _, err := c.Receive(); err != nil || got.Type != handsock.Commit || got.ID != 9 {
		t.Errorf("answered by %+v, %v", got, err)
	}
}

// TestMoveIsNoted: a taker notes what it is about to do before the session speaks, and what became of it before anybody
// hears of that; and the giver's server gets a ticket by which the next agent finds it.
func TestMoveIsNoted(t *testing.T) {
	for name, tc := range map[string]struct {
		fails  string
		answer handsock.Type // of the taker's server to commit
		points string
		state  ledgerState
		owner  string
	}{
		"moves":                  {"", handsock.Active, "begun 1 a, spoken 1 b, noted 2 b, said 2 b", ledgerActive, "b"},
		"not activated":          {"activate", 0, "begun 1 a", ledgerNever, "a"},
		"b refuses after commit": {"", handsock.Abort, "begun 1 a, spoken 1 b, noted 2 b, said 2 b", ledgerBegun, "nobody"},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			points, held := []string{}, ""
			var p *pretend
			var a, b *Agent
			p, a, b, _ = doubtfulHosts(t, func(h *Agent) {
				if h.cfg.Site != "b" {
					return
				}
				h.guests.at = func(point string) {
					owner := "a" // silent there, but nobody's else
					if p.owner() == "b" {
						owner = "b"
					}
					mu.Lock()
					defer mu.Unlock()
					points = append(points, fmt.Sprintf("%s %d %s", point, h.ledger.row(guestKey()), owner))
				}
			})
			if tc.fails != "" {
				p.fails[tc.fails] = fmt.Errorf("not today")
			}
			p.join(a, func(m handsock.Message) (handsock.Message, bool) {
				if m.Type == handsock.Commit {
					mu.Lock()
					held = m.Text
					mu.Unlock()
				}
				return p.willing(m)
			})
			p.join(b, func(m handsock.Message) (handsock.Message, bool) {
				if m.Type == handsock.Commit {
					return handsock.Message{Type: tc.answer}, true
				}
				return p.willing(m)
			})
			_ = a.guests.give(t.Context(), a.view.Load().guests[guestKey().VIP], guestKey(), "b", func() {})
			is := func() string {
				mu.Lock()
				defer mu.Unlock()
				return fmt.Sprintf("%s: %d, %s, ticket %t", strings.Join(points, ", "), b.ledger.row(guestKey()), p.owner(), held != "")
			}
			want := fmt.Sprintf("%s: %d, %s, ticket true", tc.points, tc.state, tc.owner)
			for end := time.Now().Add(time.Minute); is() != want && time.Now().Before(end); time.Sleep(time.Millisecond) {
			}
			if got := is(); got != want {
				t.Errorf("points, then what is noted and who the owner is: %s, want %s", got, want)
			}
			mu.Lock()
			defer mu.Unlock()
			x, err := readTicket(held)
			if err != nil || x.to != "b" || x.msg.Key != guestKey() || !bytes.Equal(x.msg.Payload, b.ledger.word()) {
				t.Fatalf("ticket %q: %+v, %v", held, x, err)
			}
			if took, denies := b.ledger.took(x.msg), b.ledger.denies(x.msg); took != (tc.state != ledgerNever) || denies == took {
				t.Errorf("by its ticket it was taken %t, denied %t", took, denies)
			}
			if gone := !a.tab.gaveAt(guestKey()).IsZero(); gone != (tc.owner != "a") {
				t.Errorf("known to be given away: %t", gone)
			}
			answer := handsock.Active
			if tc.state == ledgerNever {
				answer = handsock.Again
			}
			if got := question(t, p.enter(a, "stream"), handsock.Message{Type: handsock.Commit, ID: 77, Text: held}); got.Type != answer {
				t.Errorf("who asks by its ticket hears %s, want %s", got.Type, answer)
			}
		})
	}
}

// TestDeclineIsRemembered: a taker without a ledger remembers exactly the offer that it declined, for a giver who did not hear
// of that; of any other it knows nothing.
func TestDeclineIsRemembered(t *testing.T) {
	p := newPretend(t)
	a, b := newHosts(t, p)
	p.join(a, p.willing)
	p.join(b, func(m handsock.Message) (handsock.Message, bool) {
		if m.Type == handsock.Offer {
			return handsock.Message{Type: handsock.Abort, Text: "no"}, true
		}
		return p.willing(m)
	})
	if err := a.guests.give(t.Context(), a.view.Load().guests[guestKey().VIP], guestKey(), "b", func() {}); err == nil {
		t.Fatal("it moved")
	}
	b.guests.declined.mu.Lock()
	was := b.guests.declined.by[guestKey()]
	b.guests.declined.mu.Unlock()
	c := p.enter(a, "stream")
	for gen, want := range map[uint32]handsock.Type{was.gen: handsock.Again, was.gen + 1: handsock.Active} {
		x := ticket{to: "b", msg: frame.Frame{Key: guestKey(), Epoch: max(was.epoch, 1), Generation: max(gen, 1)}}
		if got := question(t, c, handsock.Message{Type: handsock.Commit, ID: 77, Text: x.text()}); got.Type != want {
			t.Errorf("generation %d, declined %d: answered by %s, want %s", gen, was.gen, got.Type, want)
		}
	}
}

// TestJudgedAtOnce: of what one server asks only so much is found out at once; the rest
// waits in its socket, and is not refused.
func TestJudgedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, c := &lobby{a: &Agent{}}, &caller{judged: make(chan struct{}, 2)}
		var running, answered atomic.Int32
		goOn := make(chan struct{})
		go func() {
			for range 5 {
				b.judge(c, func() {
					running.Add(1)
					<-goOn
					running.Add(-1)
					answered.Add(1)
				})
			}
		}()
		for done := range int32(5) {
			synctest.Wait()
			if n, want := running.Load(), min(2, 5-done); n != want || answered.Load() != done {
				t.Errorf("%d are found out at once and %d answered, want %d and %d", n, answered.Load(), want, done)
			}
			goOn <- struct{}{}
		}
		b.a.wg.Wait()
	})
}
