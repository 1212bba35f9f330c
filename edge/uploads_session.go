package edge

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"rhumb/edge/content"
	"rhumb/edge/frame"
	"rhumb/edge/hold"
	"rhumb/edge/upload"
)

// receiving is what a session has of an upload. It belongs to the session's goroutine.
type receiving struct {
	up      *sending   // nil: none is on its way
	hold    *hold.Hold // acknowledgements wait; nil: they do not
	discard int64      // of an upload that was refused: read and thrown away at the end
	space   []byte     // for reading and sending it
	told    bool       // the turn answers an upload
}

// sent notes that a turn was written.
func (s *session) sent() {
	if s.told {
		s.told = false
		s.svc.uploads.at(pointSent)
	}
}

// discardMost is how much of a refused upload is read for the client to hear why.
const discardMost = 64 << 20

// guarded reports whether what a client sends is at the Backup before it hears of that.
func (s *session) guarded(h *hold.Hold) bool {
	return h != nil && s.svc.Freshness == FreshL2 && s.svc.held() && s.changed != nil
}

// allow lets the client hear that its request has come, once the Backup has its record.
func (s *session) allow(t *turn) {
	if s.hold != nil {
		s.hold.Allow(heldFlow(s.key), t.rcv+uint32(len(t.piece)))
	}
}

// startUpload begins an upload, if the request is one that can be. Else the request says
// by its status why not.
func (s *session) startUpload(ctx context.Context, req *request, n int) bool {
	if req.method != http.MethodPut || req.status != 0 {
		return false
	}
	if s.svc.store == nil {
		req.status = http.StatusMethodNotAllowed
	} else if req.status = s.svc.refuses(req); req.status == 0 {
		req.status = s.stage(ctx, req, n)
	}
	if req.status == 0 {
		return true
	}
	s.svc.ended(req.status)
	if c := req.content; c.chunked || c.sized && c.length > 0 {
		// What follows is no request.
		req.close, s.discard = true, discardMost
		s.unhold()
	}
	return false
}

// refuses judges a request before anything of it is taken; 0 is yes.
func (s *service) refuses(req *request) int {
	c, most := req.content, s.store.Limits().Size
	switch {
	case c.part:
		return http.StatusBadRequest // RFC 9110 section 14.5
	case !c.sized:
		return http.StatusLengthRequired
	case c.length > most:
		return http.StatusRequestEntityTooLarge
	}
	switch status := s.store.Judge(upload.Request{Name: req.name, IfMatch: req.ifMatch, IfNoneMatch: req.ifNoneMatch}); status {
	case http.StatusCreated, http.StatusNoContent:
		return 0
	default:
		return status
	}
}

// stage begins an upload and makes it the session's turn; 0 is yes.
func (s *session) stage(ctx context.Context, req *request, n int) int {
	guarded := s.guarded(s.hold)
	if s.svc.Freshness == FreshL2 && !guarded {
		return http.StatusServiceUnavailable // it could not be kept from loss
	}
	var id upload.ID
	rand.Read(id[:])
	file, err := s.svc.store.Begin(id, upload.Request{Name: req.name, Size: req.content.length, IfMatch: req.ifMatch, IfNoneMatch: req.ifNoneMatch})
	if err != nil {
		return upload.StatusOf(err)
	}
	last := s.turn.Load()
	u := s.svc.uploads
	first := last.rcv + uint32(n)
	verdict := 0
	if s.cover != nil {
		first = last.rcv + uint32(s.cover.opened)
		if guarded {
			if verdict = s.svc.store.Judge(file.Request()); !succeeded(verdict) {
				u.drop(file)
				return verdict // it has changed since it was asked
			}
		}
	}
	s.up = &sending{u: u, key: s.key, epoch: s.epoch, svc: s.svc, id: id, file: file, guarded: guarded,
		first: first, word: make(chan struct{}, 1), places: places{sealed: s.cover != nil, verdict: verdict}}
	if s.cover != nil {
		s.up.at.number = s.cover.opener.Number()
	}
	u.enter(s.up)
	if guarded {
		// Before the record: until that comes a Backup goes on with the request, which
		// nobody has acknowledged, and begins the upload itself.
		err := errNoRoom
		if !s.wardless() {
			err = s.up.attach(ctx, s.ward())
		}
		if err == nil {
			err = s.presend(n)
		}
		if err != nil {
			s.endUpload()
			return outcome(err)
		}
	}
	if err := s.turnToUpload(req, n); err != nil {
		s.endUpload()
		return http.StatusInternalServerError
	}
	return 0
}

// turnToUpload makes the turn in which the client sends: all that is said to it is that
// it may, if it has asked.
func (s *session) turnToUpload(req *request, n int) error {
	rec := answer(request{name: req.name, method: req.method, close: req.close, http10: req.http10, status: http.StatusOK}, content.Entry{}, time.Now())
	rec.Service = s.svc.id
	rec.Flags |= frame.Upload
	if !s.up.guarded {
		rec.Flags |= frame.Pinned
	}
	if rec.Size = uint64(s.up.verdict); s.up.verdict != 0 {
		s.up.date = rec.Date
	}
	if s.cover.worn() {
		rec.Flags |= frame.Close
	}
	if req.content.expect && !req.http10 && len(s.input) == n && s.up.received() == 0 && req.content.length > 0 {
		rec.Status = http.StatusContinue
	}
	next, err := newTurn(rec, req.name, nil)
	if err != nil {
		return err
	}
	if err := s.cover.wrap(next); err != nil {
		return err
	}
	last := s.turn.Load()
	next.base, next.rcv = last.base+uint32(last.wire.size()), s.up.first
	if s.cover != nil {
		next.seat = s.cover.beginTaking(len(s.input) - n)
	}
	if s.up.guarded {
		next.fresh = newPledge()
	}
	s.setTurn(next)
	return nil
}

func (u *uploads) enter(s *sending) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.own[s.key] = s
}

// receive takes the object from the client, publishes it, and makes the answer the next
// turn.
func (s *session) receive(ctx context.Context) error {
	if s.space == nil {
		s.space = make([]byte, upload.MaxData)
	}
	s.up.u.at(pointBegun)
	if !s.up.guarded && s.hold != nil && !s.loose { // nothing of what it sends is safe before the end
		s.loose = s.mark(hold.Exempt)
		s.allow(s.turn.Load())
	}
	err := s.takeAll(ctx)
	if errors.Is(err, errGone) || ctx.Err() != nil {
		return err
	}
	var broken *clientError
	if errors.As(err, &broken) {
		return s.quit(ctx, broken.err)
	}
	status := 0
	if err == nil {
		s.up.u.at(pointWhole)
		if status, err = s.publish(ctx); errors.Is(err, errGone) || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
	} else {
		status = outcome(err)
	}
	if err != nil {
		s.up.u.a.log.Warn("upload", "service", s.svc.Name, "status", status, "err", err)
	}
	if status = s.up.judged(status); status != 0 && !s.maySay(ctx, status) {
		status, err = 0, errors.Join(err, errSaid)
	}
	if status == 0 {
		// Perhaps it was published, and perhaps not.
		s.conn.SetLinger(0)
		return err
	}
	return s.answerUpload(ctx, status)
}

// clientError is an end of the connection.
type clientError struct{ err error }

func (e *clientError) Error() string { return e.err.Error() }

// takeAll reads until the whole object is here.
func (s *session) takeAll(ctx context.Context) error {
	up := s.up
	heard, lonely := time.Now(), time.Time{}
	for up.received() < up.file.Request().Size {
		if !s.gate.pass() {
			return errGone
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if up.guarded {
			if err := s.keepUp(ctx, &lonely); err != nil {
				return err
			}
			if up.behind() >= sendWindow || !lonely.IsZero() {
				up.pause(ctx)
				heard = time.Now() // it is not the client that is slow
				continue
			}
		}
		n, err := s.takeSome()
		switch {
		case err != nil:
			return err
		case n > 0:
			heard = time.Now()
		case time.Since(heard) > s.svc.limits.Idle:
			return &clientError{fmt.Errorf("edge: upload: nothing for %v: %w", s.svc.limits.Idle, os.ErrDeadlineExceeded)}
		}
	}
	return nil
}

// takeSome stages what was received, or what comes within a moment.
func (s *session) takeSome() (int, error) {
	f := s.up.file
	off := f.Length()
	left := f.Request().Size - off
	until := time.Now().Add(askAgain)
	if s.up.guarded && s.up.behind() > 0 {
		until = time.Now().Add(upkeepEvery)
	}
	if s.up.sealed {
		return s.takeSealed(until)
	}
	if len(s.input) > 0 {
		n := int(min(int64(len(s.input)), left))
		_, err := f.Append(off, s.input[:n])
		s.input = s.input[n:]
		return n, err
	}
	s.gate.deadline(func() { s.conn.SetReadDeadline(until) })
	n, err := s.conn.Read(s.space[:min(int64(len(s.space)), left)])
	if n > 0 {
		if _, err := f.Append(off, s.space[:n]); err != nil {
			return n, err
		}
	}
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return n, &clientError{err}
	}
	return n, nil
}

// keepUp sends the Backup what it lacks, and finds another where that is lost. lonely is
// since when there was none.
func (s *session) keepUp(ctx context.Context, lonely *time.Time) error {
	up := s.up
	if _, no := up.decided(); no != 0 {
		return statusError(no)
	}
	if s.wardless() {
		if !up.begun() {
			return errNoRoom // the client may try elsewhere, and has lost nothing
		}
		return s.alone(errNoRoom)
	}
	if !s.recorded() {
		return nil // it might keep nothing
	}
	if up.stalled(time.Now()) {
		_ = up.ask(ctx) // an answer may have been lost
	}
	if !up.attached(s.ward()) {
		err := up.attach(ctx, s.ward())
		var no statusError
		switch {
		case errors.Is(err, errAlone):
			return s.alone(errAlone)
		case errors.As(err, &no):
			return err
		case err != nil && lonely.IsZero():
			*lonely = time.Now()
			return nil
		case err != nil && time.Since(*lonely) > backupLimit:
			return err
		case err != nil:
			return nil
		}
	}
	*lonely = time.Time{}
	return up.push(s.space)
}

// recorded reports whether the turn's record is where it shall be, or nobody waits for that.
func (s *session) recorded() bool {
	t := s.turn.Load()
	if t.fresh == nil {
		return true
	}
	select {
	case <-t.fresh.done:
		return true
	default:
		return false
	}
}

// alone goes on without a Backup: all others are down by the verdict of several vantages,
// or have no room any more, and the client loses less by an upload that only another crash
// would cost.
func (s *session) alone(why error) error {
	s.up.u.a.log.Warn("an upload goes on without a backup", "service", s.svc.Name, "err", why)
	s.up.guarded = false
	s.unhold()
	return nil
}

// stalled reports whether the Backup owes a word for long.
func (s *sending) stalled(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == nil || !s.owed() {
		s.moved, s.movedAt = s.safe+s.kept, now
		return false
	}
	if moved := s.safe + s.kept; s.moved != moved { // in clear there are no places
		s.moved, s.movedAt = moved, now
	}
	if now.Sub(s.movedAt) < askAgain {
		return false
	}
	s.movedAt = now
	return true
}

// pause waits for a word of the Backup, shortly.
func (s *sending) pause(ctx context.Context) {
	timer := time.NewTimer(upkeepEvery)
	defer timer.Stop()
	select {
	case <-s.word:
	case <-timer.C:
	case <-ctx.Done():
	}
}
