package edge

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"time"

	"rhumb/edge/frame"
	"rhumb/edge/hold"
	"rhumb/edge/upload"
)

// publish gives the whole object its name and returns the status that tells of it, 0 if
// that is not known.
func (s *session) publish(ctx context.Context) (int, error) {
	up := s.up
	sum, whole := up.file.Sum()
	if !whole {
		return http.StatusInternalServerError, errors.New("edge: upload is not whole")
	}
	if up.date == 0 {
		up.date = uint32(time.Now().Unix())
	}
	if !up.guarded {
		return up.file.Publish(sum)
	}
	asked := false
	status, err := up.file.PublishAfter(sum, func() (int, error) { return s.decide(ctx, sum, &asked) })
	if status == 0 && !asked && err != nil && !errors.Is(err, errGone) {
		return outcome(err), err // nobody can have published it
	}
	return status, err
}

// decide has the Backup publish. It returns with a lease: the Backup does not take the
// session over while this site does the same.
func (s *session) decide(ctx context.Context, sum [32]byte, asked *bool) (int, error) {
	up := s.up
	end, lonely, next := time.Now().Add(publishLimit), time.Time{}, time.Time{}
	for {
		if !s.gate.pass() {
			return 0, errGone
		}
		now := time.Now()
		switch {
		case ctx.Err() != nil:
			return 0, ctx.Err()
		case now.After(end):
			return 0, errNoBackup
		}
		if err := s.keepUp(ctx, &lonely); err != nil {
			return 0, err
		}
		if !up.guarded { // all others are down: the decision is ours
			return up.svc.store.Judge(up.file.Request()), nil
		}
		status, _ := up.decided()
		switch {
		case status != 0 && up.leased(now):
			return status, nil
		case status != 0:
			_ = up.ask(ctx)
		case up.behind() == 0 && up.attached(s.ward()) && !now.Before(next):
			next = now.Add(askAgain)
			*asked = true
			l, seq := up.question()
			_ = up.send(l, seq, upload.Message{Kind: upload.Publish, ID: up.id, Sum: sum, Date: up.date})
		}
		up.pause(ctx)
	}
}

// answerUpload makes the answer the next turn. The Backup has made the same record of it.
func (s *session) answerUpload(ctx context.Context, status int) error {
	up, last := s.up, s.turn.Load()
	if up.date == 0 {
		up.date = uint32(time.Now().Unix())
	}
	size := up.file.Request().Size
	octets := up.received()
	rec := uploadAnswer(last.rec, up.first, octets, status, up.date)
	if octets < size { // what follows is no request
		rec.Flags |= frame.Close
		s.discard = discardMost
		s.unhold()
	}
	next, err := newTurn(rec, last.name, nil)
	if err == nil {
		err = s.cover.wrap(next)
	}
	if err != nil {
		return err
	}
	next.base, next.rcv = last.base+uint32(last.wire.size()), rec.RcvNxt
	if s.awaitsBackup() {
		next.fresh = newPledge()
	}
	if s.cover != nil {
		next.rcv, next.seat = s.sealedEnd()
	} else if s.awaitsBackup() {
		next.piece = bytes.Clone(s.input)
	}
	up.u.at(pointAnswer)
	s.svc.ended(status)
	s.endUpload()
	s.setTurn(next)
	s.secure(ctx, next)
	up.u.at(pointAnswered)
	s.told = true
	return nil
}

// ended counts how an upload ended.
func (s *service) ended(status int) {
	if s.uploads != nil {
		s.uploads.a.m.uploads.ended(status)
	}
}

// endUpload forgets the upload in progress; what was published stays so.
func (s *session) endUpload() {
	up := s.up
	if up == nil {
		return
	}
	s.up = nil
	s.cover.endTaking()
	up.u.mu.Lock()
	if up.u.own[up.key] == up {
		delete(up.u.own, up.key)
	}
	up.u.mu.Unlock()
	up.u.drop(up.file)
}

// unhold ends the hold of the connection: what waits leaves.
func (s *session) unhold() {
	if s.hold == nil {
		return
	}
	if raw, err := s.conn.SyscallConn(); err == nil {
		_ = hold.Exempt(raw) // a connection that is gone
	}
	s.hold.Leave(heldFlow(s.key))
	s.hold = nil
}

// endReceiving is the end of a session's upload, with the session. Where another site
// has the session now, the client must not hear what waits: it is not true there.
func (s *session) endReceiving(err error) {
	s.endUpload()
	if s.hold != nil && errors.Is(err, errGone) {
		s.hold.Discard(heldFlow(s.key))
		s.hold = nil
	}
	s.unhold()
}

// claimUpload is claim for a session that receives: it does not move, but falls silent
// where another site has taken it over.
func (s *session) claimUpload() bool {
	return s.turn.Load().rec.Flags&(frame.Upload|frame.Pinned) == frame.Upload && s.state.CompareAndSwap(int32(Pinned), int32(Dumped))
}
