package edge

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"rhumb/edge/frame"
	"rhumb/edge/handsock"
)

// doubtTries are the commits of a giver without an answer, a second apart: longer than an
// agent needs to come back, shorter than a server waits for one (handsock.AdriftLimit).
const doubtTries = 30

// How hand-offs ended of which an agent died between two words, as counted by the next one.
// A session that is lost or dropped is an error.
const (
	doubtAway  = "away"    // the taker has it
	doubtBack  = "back"    // it never had it: the giver's server goes on
	doubtLost  = "lost"    // nobody can tell: the giver's server lets it go
	doubtTaken = "taken"   // it speaks here, its new server is told
	doubtDrop  = "dropped" // it was about to speak here, and ended with the process
)

// errDoubt ends a hand-off that our next process goes on with, asked by its server.
var errDoubt = errors.New("the next process settles it")

// ticket is what a giver's server keeps for the next process of its agent.
type ticket struct {
	to  string
	msg frame.Frame // the Commit
}

// text is empty where it would not fit: then the server has nothing to ask by.
func (t ticket) text() string {
	s := fmt.Sprintf("%s %s %s %d %d %x", t.to, t.msg.Key.Client, t.msg.Key.VIP, t.msg.Epoch, t.msg.Generation, t.msg.Payload)
	if len(s) > handsock.MaxText {
		return ""
	}
	return s
}

// readTicket reads what came back from a server.
func readTicket(s string) (ticket, error) {
	t, client, vip, mark := ticket{msg: frame.Frame{Type: frame.Commit}}, "", "", ""
	n, err := fmt.Sscanf(s, "%s %s %s %d %d %s", &t.to, &client, &vip, &t.msg.Epoch, &t.msg.Generation, &mark)
	if n == 5 {
		err = nil // of a taker that does not remember
	}
	if err == nil {
		t.msg.Key.Client, err = netip.ParseAddrPort(client)
	}
	if err == nil {
		t.msg.Key.VIP, err = netip.ParseAddrPort(vip)
	}
	if err == nil && mark != "" {
		t.msg.Payload, err = hex.DecodeString(mark)
	}
	if err == nil && (!t.msg.Key.Valid() || len(t.msg.Payload) > ledgerMark) {
		err = errors.New("names no hand-off")
	}
	if err != nil {
		return ticket{}, fmt.Errorf("edge: ticket %q: %w", s, err)
	}
	return t, nil
}

// doubt answers a giver's server whose agent went away after commit: a Commit, sent
// again, asks the taker who has the session.
func (b *lobby) doubt(ctx context.Context, c *caller, m handsock.Message) {
	result := b.ask(ctx, c, m)
	if ctx.Err() != nil && result == doubtLost {
		return // our next process is asked
	}
	b.a.m.guests.doubts.WithLabelValues(result).Inc()
	word := handsock.Active
	if result == doubtBack {
		word = handsock.Again
	}
	_ = c.tell(word, m.ID, "") // a server that went away asks again
}

func (b *lobby) ask(ctx context.Context, c *caller, m handsock.Message) (result string) {
	a := b.a
	t, err := readTicket(m.Text)
	if err == nil {
		// Of its own service, and no other's.
		if svc := a.view.Load().guests[t.msg.Key.VIP]; svc == nil || svc.Name != c.service {
			err = fmt.Errorf("edge: ticket of %s, which is not of %s", t.msg.Key.VIP, c.service)
		}
	}
	if err != nil {
		a.log.Error("a server asks for a session that nobody knows", "service", c.service, "err", err)
		return doubtLost
	}
	// The hand-off may go on here, where only the connection to the server broke.
	if !a.guests.await(ctx, t.msg.Key, c.service) {
		return doubtLost
	}
	defer a.guests.unclaim(t.msg.Key)
	box, ok := a.giving.open(t.msg.Key)
	if !ok {
		return doubtLost
	}
	defer a.giving.close(t.msg.Key, box)
	for range doubtTries {
		var no refusedError
		f, err := a.ask(ctx, t.to, t.msg, box)
		switch {
		case ctx.Err() != nil:
			return doubtLost // to this process
		case err == nil && f.Type == frame.Active:
			a.strays.Moved(t.msg.Key, t.to)
			a.tab.gave(t.msg.Key, t.msg.Epoch, t.msg.Generation, time.Now())
			return doubtAway
		case errors.As(err, &no) && no.reason != errUnknown.Error():
			return doubtBack
		}
		if no.reason != "" {
			break
		}
	}
	a.strays.Stayed(t.msg.Key, t.to) // it has it or denies it, and then the client hears a reset
	a.log.Error("a session of another server is lost: given away and not confirmed", "service", c.service, "peer", t.to)
	return doubtLost
}

// unsure answers a taker's server whose agent went away before commit: the session
// speaks, or it never will.
func (b *lobby) unsure(ctx context.Context, c *caller, m handsock.Message) {
	a, result := b.a, doubtDrop
	x := a.ledger.byID(m.ID)
	if svc := a.view.Load().guests[x.key.VIP]; x.state != ledgerNone && svc != nil && svc.Name == c.service {
		// A hand-off that goes on here comes to its end first.
		if !a.guests.await(ctx, x.key, c.service) {
			return
		}
		if a.ledger.byID(m.ID).state == ledgerActive {
			result = doubtTaken
		}
		defer a.guests.unclaim(x.key)
	}
	if result == doubtTaken {
		a.m.guests.doubts.WithLabelValues(result).Inc()
		_ = c.tell(handsock.Commit, m.ID, "")
		return
	}
	if x.state == ledgerBegun {
		a.m.guests.doubts.WithLabelValues(result).Inc()
		a.log.Error("a session of another server died with the process that was about to take it", "service", c.service)
	}
	_ = c.tell(handsock.Abort, m.ID, "it was never taken")
}

// await claims a session once nothing else moves it. It reports false if that takes too
// long.
func (g *guests) await(ctx context.Context, k frame.Key, service string) bool {
	for end := time.Now().Add((doubtTries + 5) * activeLimit); !g.claim(k, service); {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(end) {
			return false
		}
	}
	return true
}
