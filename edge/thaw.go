package edge

import (
	"context"
	"net"
	"time"

	"rhumb/edge/tcprepair"
)

// Pace of the questions to the client of a session that came.
const (
	lookLeast = 50 * time.Millisecond  // from a question to the look whether it was answered,
	lookMost  = 250 * time.Millisecond // by the round trip that the old owner knew
	lookFor   = 3 * time.Second        // then the kernel's own timers have had their turn
)

// How questions ended, as counted.
const (
	questionAnswered   = "answered"
	questionUnanswered = "unanswered"
)

// standing is what the kernel knows of a connection that came.
type standing struct {
	heard   uint64 // segments of the client
	acked   uint64 // bytes acknowledged since it came
	waiting bool   // bytes are not acknowledged, or not sent
}

// doubt decides when the client of a session that came is asked where it stands.
// It is told at each look what the kernel knows.
type doubt struct {
	inFlight uint64 // bytes in flight when it came
	asked    bool   // since the last look
	last     standing
}

// look ends the doubt once the client has acknowledged something that was sent
// from here: then both kernels know all of each other, and this one has a round
// trip to time its repetitions by. That some segment came is not enough: one that
// was kept while the session was between two sites is older than the client's
// last word, which may be lost, and a client says only once that its window is
// open. So a session that waits in silence is a reason to ask.
func (d *doubt) look(now standing) (ask, over bool) {
	silent := now.heard == d.last.heard
	d.last = now
	if now.acked > d.inFlight {
		return false, true
	}
	d.asked = silent && now.waiting
	return d.asked, false
}

// lookPause is the time that an answer takes and half of it.
func lookPause(rtt time.Duration) time.Duration {
	return min(max(rtt+rtt/2, lookLeast), lookMost)
}

// confirm asks the client of a session that came, which was dumped as st, until
// there is no doubt. One that can send nothing before its client has spoken is
// stuck, and asked at once: the kernel here would ask after a second, since it has measured
// no round trip yet, and by a segment which a client's kernel answers twice a
// second only. The session is served meanwhile.
func (a *Agent) confirm(ctx context.Context, s *session, st tcprepair.State, stuck bool) {
	first, err := stand(s.conn)
	if err != nil {
		return // it has ended
	}
	d := doubt{inFlight: uint64(st.InFlight()), last: first, asked: stuck}
	if stuck {
		a.question(s.conn, st)
	}
	pause, begun := lookPause(st.RTT), time.Now()
	for time.Since(begun) < lookFor {
		select {
		case <-ctx.Done():
			return
		case <-s.done:
			return
		case <-time.After(pause):
		}
		now, err := stand(s.conn)
		if err != nil {
			return
		}
		if d.asked {
			result := questionAnswered
			if now.heard == d.last.heard {
				result, pause = questionUnanswered, min(2*pause, lookMost)
			}
			a.m.questions.WithLabelValues(result).Inc()
		}
		ask, over := d.look(now)
		if over {
			return
		}
		if ask {
			a.question(s.conn, st)
		}
	}
}

func stand(c *net.TCPConn) (now standing, err error) {
	now.heard, now.acked, now.waiting, err = tcprepair.Heard(c)
	return now, err
}

// question asks a session's client where it stands; st is what the session was
// dumped with. An error is no reason to end a session: the kernel's own timers
// stand behind this.
func (a *Agent) question(c *net.TCPConn, st tcprepair.State) {
	q, err := tcprepair.Question(c, st)
	if err == nil {
		err = a.revival.wire.Send(q)
	}
	if err != nil {
		a.log.Debug("ask a client where it stands", "err", err)
	}
}

// thaw waits for the first acknowledgement of a session that came with so many
// bytes in flight and cannot go on without, and asks the client for it by window
// probes. It stands where no segments can be sent; see confirm. Nobody may write
// to c meanwhile.
func thaw(ctx context.Context, c *net.TCPConn, inFlight int) error {
	const pause, tries = 10 * time.Millisecond, 60
	for i := 0; inFlight > 0 && i < tries; i++ {
		if n, err := tcprepair.Unacked(c); err != nil || n < inFlight {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		switch i {
		case 5, 15, 30, 52: // the last one is beyond the client's half second
			if err := tcprepair.Poke(c); err != nil {
				return err
			}
		}
	}
	return nil
}
