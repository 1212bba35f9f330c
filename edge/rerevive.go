package edge

import (
	"context"
	"time"

	"rhumb/edge/tcprepair"
)

// A restored session is looked at watchMost times, watchEvery apart at least, and
// after each further restore at twice the distance, up to watchLong. Packets that the dead
// owner had on their way may carry the client beyond the position it told. Its kernel
// then acknowledges what the new socket has not sent, which that throws away, and the
// session hangs for ever; perhaps after it has heard acknowledgements of the first of
// those packets.
const (
	watchEvery = 250 * time.Millisecond
	watchLong  = 2 * time.Second
	watchMost  = 8
)

// againMost bounds the restores of a session whose client never agrees. They span as
// long as a round waits for an answer.
const againMost = 9

// oddAnswers are enough to begin anew. One may be a keepalive, which is thrown away,
// too, and comes by chance.
const oddAnswers = 2

// watchPause is the distance of two looks after the nth restore, at a client that
// took so long to answer the first probe: an acknowledgement takes no less. A busy
// machine is not made busier by restores that nobody needs.
func watchPause(took time.Duration, n int) time.Duration {
	return min(max(watchEvery, 2*took)<<min(n, 3), watchLong)
}

// reach is what the kernel knows of a revived session.
type reach struct {
	acked   uint64 // bytes acknowledged since it came
	refused uint32 // segments of the client which the kernel threw away
	waiting bool   // bytes are not acknowledged, or not sent
}

// progress decides whether the client of a revived session stands elsewhere than its
// socket. It is told at each look what the kernel knows. That nothing is
// acknowledged tells nothing: a client that does not read for a while, a slow one and
// a lost segment look like that. But to a question each of them answers what the
// kernel understands; one that stands elsewhere answers what it throws away.
type progress struct {
	last  reach
	asked bool // since the last look
	odd   int  // looks in a row that found answers thrown away
}

// look is told of now, and says whether the client is to be asked where it stands, or
// its session revived again.
func (p *progress) look(now reach) remedy {
	stands := !now.waiting || now.acked != p.last.acked
	switch {
	case stands:
		p.odd = 0
	case now.refused != p.last.refused:
		p.odd++
	case p.asked:
		p.odd = 0 // the answer was understood, or is lost
	}
	p.last, p.asked = now, !stands
	switch {
	case stands:
		return remedyNone
	case p.odd >= oddAnswers:
		return remedyAgain
	}
	return remedyAsk
}

// watch asks the client of a revived session where it stands when nothing is
// acknowledged between two looks, and revives the session again where the client
// stands elsewhere. first is what its kernel knew when it was restored.
func (v *revival) watch(ctx context.Context, s *session, rd *round, first reach) {
	p := progress{last: first}
	for i := range watchMost {
		wait := watchPause(rd.took(), rd.nth)
		if i == 0 {
			wait = time.Until(rd.restored.Add(wait))
		}
		if !s.lives(ctx, wait) || v.doubts(ctx, s, rd, &p) {
			return
		}
	}
}

// doubts is one look, and those after it that do not wait for the next. It reports
// whether the watch is over.
func (v *revival) doubts(ctx context.Context, s *session, rd *round, p *progress) bool {
	for {
		now, err := reached(s)
		if err != nil {
			return true
		}
		switch p.look(now) {
		case remedyAgain:
			return rd.nth+1 < againMost && v.again(ctx, s, rd.nth+1) // the next round has a watch of its own
		case remedyAsk:
			v.a.question(s.conn, rd.state)
		}
		if p.odd == 0 {
			return false
		}
		if !s.lives(ctx, lookPause(rd.took())) { // half a proof
			return true
		}
	}
}

// lives waits, and reports whether the session is still served here.
func (s *session) lives(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-s.done:
	case <-timer.C:
		return true
	}
	return false
}

func reached(s *session) (now reach, err error) {
	if _, now.acked, now.waiting, err = tcprepair.Heard(s.conn); err != nil {
		return now, err
	}
	now.refused, err = tcprepair.Refused(s.conn)
	return now, err
}

// again closes a session's socket without a packet and revives it from what its
// client tells now. What was received and not answered would be lost: such a
// session is left as it is.
func (v *revival) again(ctx context.Context, s *session, n int) bool {
	if !s.claim() {
		return false
	}
	if !s.stop() {
		s.state.Store(int32(s.resting()))
		return false
	}
	d, err := tcprepair.Dump(s.conn)
	if err != nil {
		s.release()
		return false
	}
	if len(s.input) > 0 || len(d.State.Input) > 0 {
		_ = v.a.keep(s, d)
		return false
	}
	s.gen.Add(1)
	st := stored{rec: s.record(s.turn.Load()), from: v.a.cfg.Site, at: time.Now()}
	rd := v.begin(st, s.epoch+1, time.Now(), reviveLife)
	if rd == nil {
		_ = v.a.keep(s, d)
		return false
	}
	rd.nth = n
	rd.own = false // its socket ends here, and nobody else's is in the way
	v.a.m.revivals.WithLabelValues(reviveAgain).Inc()
	err = d.Vanish() // the store may have a descriptor, too
	s.gate.resume(false)
	<-s.done // its end takes silence and table entry with it; the next one's come after
	if err != nil {
		v.a.log.Error("close a session to revive it again", "err", err)
	}
	v.a.wg.Go(func() { v.run(ctx, rd, rd.sight(), 0) })
	return true
}
