package edge

import (
	"context"
	"net"
	"time"

	"rhumb/edge/tcprepair"
)

// frozen is the state of a session that came from another site and can send
// nothing before its client has spoken: the congestion window is full, or the
// client's window is closed. What the client said while the session was between
// two sites may be lost, and it says that its window is open only once. The
// kernel asks again when its timer ends, which takes a second.
type frozen struct {
	inFlight int    // bytes; an acknowledgement of some is awaited, else just a word
	ask      func() // asks the client
}

// thawed reports whether the client has said what is awaited.
func (f *frozen) thawed(c *net.TCPConn) (bool, error) {
	if f.inFlight == 0 {
		return tcprepair.Answered(c)
	}
	n, err := tcprepair.Unacked(c)
	return n < f.inFlight, err
}

// thaw waits until the client has spoken, and asks it. A client that does not
// answer is the kernel's affair after a while. A nil frozen is thawed.
func (f *frozen) thaw(ctx context.Context, c *net.TCPConn) error {
	const pause, tries = 10 * time.Millisecond, 60
	for i := 0; f != nil && i < tries; i++ {
		if ok, err := f.thawed(c); ok || err != nil {
			return err
		}
		switch i {
		case 0, 5, 15, 30, 52: // questions and answers may be lost
			f.ask()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
	return nil
}

// question asks a session's client where it stands; st is what the session was
// dumped with. Nobody may write to c meanwhile. Where segments cannot be sent the
// kernel's window probe asks, which a client answers twice a second. An error is
// no reason to end a session: the kernel's own timers stand behind this.
func (a *Agent) question(c *net.TCPConn, st tcprepair.State) {
	var err error
	if w := a.revival.wire; w == nil {
		err = tcprepair.Poke(c)
	} else {
		var q tcprepair.Segment
		if q, err = tcprepair.Question(c, st); err == nil {
			err = w.Send(q)
		}
	}
	if err != nil {
		a.log.Debug("ask a client where it stands", "err", err)
	}
}
