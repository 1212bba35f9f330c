package edge

import (
	"context"
	"errors"
	"time"

	"rhumb/edge/tcprepair"
)

// watches is when, after its restore, a revived session is looked at. Packets
// that the dead owner had on their way may have carried the client beyond the
// position it told. Its kernel then acknowledges what the new socket has never
// sent, which that ignores, and the session hangs for ever.
func watches() []time.Duration {
	return []time.Duration{250 * time.Millisecond, 600 * time.Millisecond, time.Second}
}

// watch begins the revival of a session anew if nothing of what it sent was
// acknowledged. Where the cause is another, a lost segment or a
// long path, that costs one probe and no byte.
func (v *revival) watch(ctx context.Context, s *session) {
	begun := time.Now()
	for _, at := range watches() {
		select {
		case <-ctx.Done():
			return
		case <-s.done:
			return
		case <-time.After(time.Until(begun.Add(at))):
		}
		if deaf, err := tcprepair.Deaf(s.conn); err != nil || !deaf {
			return
		}
		if at < time.Second && v.again(ctx, s) {
			return // the next round has a watch of its own
		}
	}
}

// again closes a session's socket without a packet and revives it from what its
// client tells now. What was received and not answered would be lost: such a
// session is left as it is.
func (v *revival) again(ctx context.Context, s *session) bool {
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
