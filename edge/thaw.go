package edge

import (
	"context"
	"net"
	"time"

	"rhumb/edge/frame"
	"rhumb/edge/tcprepair"
)

// Pace of the questions to the client of a session that came.
const (
	lookLeast = 50 * time.Millisecond  // from a question to the look whether it was answered,
	lookMost  = 250 * time.Millisecond // by the round trip that the old owner knew,
	lookIdle  = 500 * time.Millisecond // and at most, while nothing waits for the client
	lookFor   = 3 * time.Second        // then the kernel's own timers have had their turn
	// lookCalm is how much more than a round trip the kernel may wait before it
	// repeats itself. Until it has measured one it waits a second. The first that it
	// measures has the move in it, of one who was late to acknowledge what the old
	// owner sent, and is several times too long.
	lookCalm = 400 * time.Millisecond
	// lostAfter is how many answers in a row tell that what is in flight is lost: a
	// question that was sent behind it has come there.
	lostAfter = 2
)

// How questions ended, as counted.
const (
	questionAnswered   = "answered"
	questionUnanswered = "unanswered"
)

// standing is what the kernel knows of a connection that came.
type standing struct {
	heard   uint64        // segments of the client
	acked   uint64        // bytes acknowledged since it came
	waiting bool          // bytes are not acknowledged, or not sent
	flying  bool          // bytes were sent and are not acknowledged
	rto     time.Duration // after it the kernel repeats itself
}

// remedy is what a look at a session that came calls for.
type remedy uint8

const (
	remedyNone  remedy = iota
	remedyAsk          // the client where it stands
	remedyAgain        // begin anew where the client stands: what was sent is lost
	remedyOver         // nothing more to do
)

// doubt decides when the client of a session that came is asked where it stands.
// It is told at each look what the kernel knows.
type doubt struct {
	inFlight uint64        // bytes in flight when it came, and the one of tcprepair's lesson
	calm     time.Duration // the kernel's own patience is good enough then
	asked    bool          // since the last look
	proven   bool          // the client has acknowledged what was sent from here
	lost     int           // answers in a row that acknowledged nothing of what is in flight
	last     standing
}

// look ends the doubt once the client has acknowledged something that was sent
// from here, and the kernel knows the round trip: then both kernels know all of each
// other, and this one repeats itself in time. That some segment came is not enough:
// one that was kept while the session was between two sites is older than the client's
// last word, which may be lost, and a client says only once that its window is
// open. So a session that waits in silence is a reason to ask.
func (d *doubt) look(now standing) remedy {
	silent := now.heard == d.last.heard
	switch {
	case now.acked != d.last.acked || !now.flying || !d.last.flying:
		d.lost = 0
	case d.asked && !silent:
		d.lost++
	}
	d.last = now
	d.proven = now.acked > d.inFlight
	if d.proven && now.rto <= d.calm {
		return remedyOver
	}
	if d.lost >= lostAfter {
		d.lost = 0
		return remedyAgain
	}
	// Answers come between the looks, so this one asks again at once.
	d.asked = now.waiting && (silent || d.lost > 0)
	if d.asked {
		return remedyAsk
	}
	return remedyNone
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
	rest := s.rests() // before the look: what is sent meanwhile is seen at the next
	first, err := stand(s.conn)
	if err != nil {
		return // it has ended
	}
	d := doubt{inFlight: uint64(st.InFlight()) + 1, calm: st.RTT + lookCalm, last: first, asked: stuck}
	if stuck {
		a.question(s.conn, st)
	}
	pause, idle, begun := lookPause(st.RTT), false, time.Now()
	for time.Since(begun) < lookFor && s.lives(ctx, pause) {
		was := rest
		if rest = s.rests(); rest != nil && rest == was && !d.last.waiting {
			pause, idle = min(2*pause, lookIdle), true
			continue // nothing was sent since nothing waited
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
		switch d.look(now) {
		case remedyOver:
			return
		case remedyAsk:
			a.question(s.conn, st)
		case remedyAgain:
			if s.cover == nil && a.revival.again(ctx, s, 0) {
				return // the watch of who was revived goes on with it
			}
		}
		switch {
		case d.proven:
			pause = lookMost
		case !now.waiting: // most sessions rest, and all of a site's come at once
			pause, idle = min(2*pause, lookIdle), true
		case idle:
			pause, idle = lookPause(st.RTT), false
		}
	}
}

// rests returns the turn of a session whose kernel has all of it: nothing is sent before
// there is another. Nil of one that writes, or tells of what comes in.
func (s *session) rests() *turn {
	t := s.turn.Load()
	if t.rec.Flags&frame.Upload != 0 || t.off.Load() < t.wire.size() {
		return nil
	}
	return t
}

func stand(c *net.TCPConn) (standing, error) {
	st, err := tcprepair.Stand(c)
	return standing{heard: st.Segments, acked: st.Acked, waiting: st.Waiting, flying: st.Flying, rto: st.RTO}, err
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
