package edge

import (
	"context"
	"errors"
	"time"

	"rhumb/edge/tcprepair"
)

// A restored session is looked at watchMost times, watchEvery apart at least, and
// after each further restore at twice the distance, up to watchLong. Packets that the dead owner had on their way may carry the client
// beyond the position it told. Its kernel then acknowledges what the new socket
// has not sent, which that ignores, and the session hangs for ever; perhaps after
// it has heard acknowledgements of the first of those packets.
const (
	watchEvery = 250 * time.Millisecond
	watchLong  = 2 * time.Second
	watchMost  = 8
)

// againMost bounds the restores of a session whose client answers probes and
// acknowledges nothing, as behind a path that loses large packets. They span as
// long as a round waits for an answer.
const againMost = 9

// watchPause is the distance of two looks after the nth restore, at a client that
// took so long to answer the first probe: an acknowledgement takes no less. A busy
// machine is not made busier by restores that nobody needs.
func watchPause(took time.Duration, n int) time.Duration {
	return min(max(watchEvery, 2*took)<<min(n, 3), watchLong)
}

// watch begins the revival of a session anew if it waits for an acknowledgement
// and none came since the last look. Where the cause is another, a lost segment
// or a long path, that costs one probe and no byte.
func (v *revival) watch(ctx context.Context, s *session, pause time.Duration, n int) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	last := uint64(0)
	for range watchMost {
		select {
		case <-ctx.Done():
			return
		case <-s.done:
			return
		case <-tick.C:
		}
		_, acked, waiting, err := tcprepair.Heard(s.conn)
		if err != nil {
			return // it has ended
		}
		if waiting && acked == last && n+1 < againMost && v.again(ctx, s, n+1) {
			return // the next round has a watch of its own
		}
		last = acked
	}
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
	err = errors.Join(d.Close())
	s.gate.resume(false)
	<-s.done // its end takes silence and table entry with it; the next one's come after
	if err != nil {
		v.a.log.Error("close a session to revive it again", "err", err)
	}
	v.a.wg.Go(func() { v.run(ctx, rd, 0) })
	return true
}
