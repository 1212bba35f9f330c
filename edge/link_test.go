package edge

import (
	"testing"
	"testing/synctest"

	"rhumb/edge/frame"
)

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
