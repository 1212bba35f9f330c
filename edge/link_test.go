package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"

	"rhumb/edge/frame"
)

// TestNoDialAfterTheEnd: those who ask for a link while the agent ends get none, at
// once. A dial that began then would outlive those who wait for what the links began.
func TestNoDialAfterTheEnd(t *testing.T) {
	ls := newLinks(Config{Site: "a", TLS: &tls.Config{}}, slog.New(slog.DiscardHandler),
		func(string) (Peer, bool) { t.Error("dialled"); return Peer{}, false }, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := ls.serve(ctx, listenLoopback(t)); err != nil {
		t.Fatal(err)
	}
	if l, err := ls.to(t.Context(), "b"); l != nil || !errors.Is(err, errLink) {
		t.Errorf("link %v, error %v, want none and %q", l, err, errLink)
	}
	ls.wg.Wait()
}

// TestFullLink: while a link takes nothing more, its reader goes on: it acknowledges
// what it can and hears what is acknowledged. Else two sites whose links are full would
// wait for each other.
func TestFullLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &link{peer: "a", out: make(chan []byte, 1), done: make(chan struct{})}
		first, sent := newPledge(), make(chan error, 1)
		if err := l.sendNumbered(frame.Frame{Type: frame.RecordSet, Key: testKey(1)}, first); err != nil {
			t.Fatal(err)
		}
		go func() { sent <- l.sendNumbered(frame.Frame{Type: frame.RecordSet, Key: testKey(2)}, nil) }()
		synctest.Wait()
		l.ack(7) // returns
		if err := l.acked(1); err != nil {
			t.Error(err)
		}
		select {
		case <-first.done:
		default:
			t.Error("an acknowledgement was not heard while the link was full")
		}
		var numbers []uint64
		for len(numbers) < 2 {
			for _, f := range l.sent(t) {
				numbers = append(numbers, f.Seq)
			}
			synctest.Wait()
		}
		if err := <-sent; err != nil || numbers[0] != 1 || numbers[1] != 2 || len(l.out) != 0 {
			t.Errorf("sent %v, error %v, %d more; want 1 and 2 in order and nothing else", numbers, err, len(l.out))
		}
		l.ack(7)
		if got := l.sent(t); len(got) != 1 || got[0].Type != frame.Ack || got[0].Seq != 7 {
			t.Errorf("with room: %+v, want the acknowledgement", got)
		}
	})
}
