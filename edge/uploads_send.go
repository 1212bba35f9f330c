package edge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"rhumb/edge/frame"
	"rhumb/edge/upload"
)

// Bounds of what an owner has under way to its Backup, and its patience.
const (
	sendWindow   = 4 << 20                // octets not committed; the client waits behind them
	openLimit    = 500 * time.Millisecond // for the first word of a Backup
	askAgain     = 500 * time.Millisecond // without a word
	backupLimit  = 20 * time.Second       // without a Backup that could take an upload
	publishLimit = 30 * time.Second
	upkeepEvery  = 20 * time.Millisecond
)

// Why an upload does not go on.
var (
	errAlone     = errors.New("no site could be its backup")
	errNoRoom    = errors.New("no site has room for its session")
	errNoBackup  = errors.New("its backup does not answer")
	errElsewhere = errors.New("the session goes on at another site")
)

// refusal is a Backup's no.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("backup refuses: %d", int(e)) }

// sending is an upload from a client of this site. The fields without a remark are
// immutable; what begins below mu is told by links' readers and used by the session.
type sending struct {
	u       *uploads
	key     frame.Key
	epoch   uint64
	svc     *service
	id      upload.ID
	first   uint32 // sequence number of the object's first octet
	file    *upload.File
	guarded bool // octets are at a Backup before they are acknowledged
	word    chan struct{}
	date    uint32 // second of the answer, once it is decided; the session's

	mu     sync.Mutex
	peer   string
	link   *link
	opened bool
	nonce  uint64    // of the last question
	asked  time.Time // when that was
	sent   int64
	safe   int64 // the Backup has everything before
	lease  upload.Lease
	status int  // its last word, 0 if none
	refuse int  // its no
	lost   bool // the session goes on elsewhere
	places
	// moved is what was safe at movedAt, since when nothing more was.
	moved   int64
	movedAt time.Time
}

// told takes a word of the Backup. It runs on the link's reader: an acknowledgement
// leaves right here.
func (s *sending) told(l *link, seq uint64, m upload.Message) {
	s.mu.Lock()
	switch {
	case m.Kind == upload.Dropped:
		delete(s.holders, l.peer)
	case l.peer != s.peer:
		s.mu.Unlock()
		return // of one that it has left
	}
	switch m.Kind {
	case upload.At:
		s.progress(seq, int64(m.Offset))
	case upload.Placed:
		s.placed(seq, m)
	case upload.Done:
		s.status = int(m.Status)
		if seq == s.nonce {
			s.opened = true
			s.lease.Granted(s.asked)
			s.sent, s.safe = s.file.Length(), s.file.Length()
			s.kept = s.shown
		}
	case upload.Refused:
		s.opened = false
		if s.refuse != 0 {
			break // what was under way meets nobody any more
		}
		if s.refuse = int(m.Status); s.refuse == 0 {
			s.link = nil // it knows nothing of it: tell it anew
		}
	}
	safe, hold := s.safe, m.Kind == upload.At || m.Kind == upload.Placed
	if s.sealed {
		safe = s.kept
	}
	s.mu.Unlock()
	if hold {
		s.u.committed(s, safe)
	}
	select {
	case s.word <- struct{}{}:
	default:
	}
}

// progress takes how far the Backup is. An answer to a question counts for the lease,
// and says where to go on. The caller holds mu.
func (s *sending) progress(seq uint64, at int64) {
	if seq != 0 {
		if seq != s.nonce {
			return
		}
		s.lease.Granted(s.asked)
		s.opened, s.sent, s.safe = true, at, at
		return
	}
	if s.opened {
		s.safe = max(s.safe, min(at, s.sent))
	}
}

// committed lets the client hear of octets that are safe, counted as they came.
func (u *uploads) committed(s *sending, octets int64) {
	if h := u.hold.Load(); h != nil && s.guarded && octets > 0 {
		u.at(pointCommitted)
		h.Allow(heldFlow(s.key), s.first+uint32(octets))
	}
}

// behind counts the octets that are not safe.
func (s *sending) behind() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sealed {
		return s.at.end() - s.kept
	}
	return s.file.Length() - s.safe
}

// attached reports whether the Backup answers, and is the one that has the record.
func (s *sending) attached(record *string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == nil || !s.opened || s.lost || record != nil && *record != s.peer && !s.u.a.isDown(*record) {
		return false
	}
	select {
	case <-s.link.done:
		return false
	default:
		return !s.u.a.isDown(s.peer)
	}
}

// candidate is the site which shall be the Backup: where the session's record is, else
// the first of its order.
func (s *sending) candidate(record *string) (string, error) {
	if record != nil && !s.u.a.isDown(*record) {
		return *record, nil
	}
	if order := rendezvous(s.key, s.u.a.sure()); len(order) > 0 {
		return order[0].Name, nil
	}
	return "", errAlone
}

// attach finds a Backup for an upload, and how far that is.
func (s *sending) attach(ctx context.Context, record *string) error {
	peer, err := s.candidate(record)
	if err != nil {
		return err
	}
	s.mu.Lock()
	lost := s.lost
	s.mu.Unlock()
	if lost {
		return errElsewhere
	}
	ctx, cancel := context.WithTimeout(ctx, 2*openLimit)
	defer cancel()
	l, err := s.u.a.links.to(ctx, peer)
	if err != nil {
		return err
	}
	select {
	case <-l.greeted.done:
	case <-l.done:
		return errLink
	case <-ctx.Done():
		return ctx.Err()
	}
	if !l.takes(s.sealed) {
		return fmt.Errorf("edge: %s takes no uploads: %w", peer, errNoBackup)
	}
	s.mu.Lock()
	s.peer, s.link, s.opened, s.refuse = peer, l, false, 0
	s.mu.Unlock()
	if s.sealed {
		s.mayKeep(peer)
	}
	return s.ask(ctx)
}

// question numbers a question whose answer counts for the lease.
func (s *sending) question() (*link, uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nonce++
	s.asked = time.Now()
	return s.link, s.nonce
}

// ask asks the Backup how far it is and waits for the answer.
func (s *sending) ask(ctx context.Context) error {
	s.mu.Lock()
	s.opened = false
	s.mu.Unlock()
	l, seq := s.question()
	if l == nil {
		return errLink
	}
	open := upload.Message{Kind: upload.Open, ID: s.id, Service: s.svc.id, First: s.first, Request: s.file.Request()}
	if s.sealed {
		open.Kind = upload.OpenSealed
	}
	if err := s.send(l, seq, open); err != nil {
		return err
	}
	late := time.NewTimer(openLimit)
	defer late.Stop()
	for {
		s.mu.Lock()
		opened, refuse, lost := s.opened, s.refuse, s.lost
		s.mu.Unlock()
		switch {
		case lost:
			return errElsewhere // to the gate: somebody waits there
		case opened:
			return nil
		case refuse != 0:
			return statusError(refuse)
		}
		select {
		case <-s.word:
		case <-l.done:
			return errLink
		case <-late.C:
			return errNoBackup
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *sending) send(l *link, seq uint64, m upload.Message) error {
	return l.send(frame.Frame{Type: frame.Uploads, Seq: seq, Key: s.key, Epoch: s.epoch, Payload: upload.Append(nil, m)})
}

// push sends what the Backup lacks, as much as may be under way.
func (s *sending) push(buf []byte) error {
	for {
		s.mu.Lock()
		l, off, room := s.link, s.sent, sendWindow-(s.sent-s.safe)
		s.mu.Unlock()
		n := min(int64(len(buf)), s.received()-off, room, upload.MaxData)
		if l == nil || n <= 0 {
			if s.sealed {
				s.pushPlace()
			}
			return nil
		}
		if _, err := s.file.ReadAt(buf[:n], off); err != nil {
			return fmt.Errorf("edge: read what was staged: %w", err)
		}
		if err := s.send(l, 0, upload.Message{Kind: upload.Data, ID: s.id, Offset: uint64(off), Data: buf[:n]}); err != nil {
			return nil // the link is down: another one is asked
		}
		s.mu.Lock()
		if s.sent == off {
			s.sent += n
		}
		s.mu.Unlock()
	}
}

// decided is the Backup's word on a publication.
func (s *sending) decided() (status, refuse int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status, s.refuse
}

// lost tells a session's upload that another site has it; the session then comes to its
// gate soon.
func (u *uploads) lost(k frame.Key) {
	u.mu.Lock()
	s := u.own[k]
	u.mu.Unlock()
	if s == nil {
		return
	}
	s.mu.Lock()
	s.lost = true
	s.mu.Unlock()
	select {
	case s.word <- struct{}{}:
	default:
	}
}

// begun reports whether the client has heard of any octet.
func (s *sending) begun() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sealed {
		return s.kept > 0
	}
	return s.safe > 0
}

// leased reports whether the owner may act without asking.
func (s *sending) leased(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lease.Valid(now)
}

// outcome is the status for a client whose upload ended by an error, 0 if it cannot be
// said: then the connection is cut.
func outcome(err error) int {
	var no statusError
	switch {
	case errors.As(err, &no) && int(no) == http.StatusInsufficientStorage:
		return http.StatusInsufficientStorage
	case errors.As(err, &no), errors.Is(err, errNoBackup), errors.Is(err, errAlone), errors.Is(err, errNoRoom), errors.Is(err, errLink), errors.Is(err, context.DeadlineExceeded):
		return http.StatusServiceUnavailable
	}
	return upload.StatusOf(err)
}
