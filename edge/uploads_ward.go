package edge

import (
	"net/http"
	"sync"
	"time"

	"rhumb/edge/frame"
	"rhumb/edge/hold"
	"rhumb/edge/tcprepair"
	"rhumb/edge/upload"
)

// ward is an upload of another site's client, at its Backup.
type ward struct {
	peer  string // immutable, as all without a remark
	id    upload.ID
	epoch uint64
	first uint32 // sequence number of the object's first octet
	file  *upload.File
	// sealed: the client's octets are records of TLS.
	sealed bool

	mu      sync.Mutex
	promise upload.Promise
	heard   time.Time // of the owner
	claimed bool      // the session is being taken over: the owner is not answered
	known   bool      // there was a record of it
	busy    bool      // being published: neither claimed nor published again meanwhile
	date    uint32    // second of the answer, once there is one
	gone    bool      // let go: nobody goes on with it
	at      *place    // over TLS, as far as it was told; nil: not yet
}

func (w *ward) idle(now time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return now.Sub(w.heard)
}

// word is an answer about an upload. Where the queue is full it is left out: the owner
// asks again. Were the reader to wait, two sites could wait for each other.
func (l *link) word(f frame.Frame, m upload.Message) {
	l.try(frame.Frame{Type: frame.Uploads, Seq: f.Seq, Key: f.Key, Epoch: f.Epoch, Payload: upload.Append(nil, m)})
}

// superseded answers the owner of a session that goes on here.
func (u *uploads) superseded(l *link, f frame.Frame) bool {
	s := u.a.tab.get(f.Key)
	if s == nil || s.epoch <= f.Epoch {
		return false
	}
	u.a.m.refused.Inc()
	l.try(frame.Frame{Type: frame.Claimed, Key: f.Key, Epoch: s.epoch, Generation: s.gen.Load()})
	return true
}

// opened begins a ward, or says how far one is.
func (u *uploads) opened(l *link, f frame.Frame, m upload.Message) {
	if u.superseded(l, f) {
		return
	}
	svc := u.a.view.Load().vips[f.Key.VIP]
	sealed := m.Kind == upload.OpenSealed
	if svc == nil || svc.store == nil || svc.id != m.Service || sealed && (svc.tls == nil || svc.tls.export != ExportGroup) {
		l.word(f, upload.Message{Kind: upload.Refused, ID: m.ID, Status: http.StatusServiceUnavailable})
		return
	}
	if status := svc.store.Answered(m.ID); status != 0 {
		if w := u.find(f.Key); w == nil || w.promised() {
			l.word(f, upload.Message{Kind: upload.Done, ID: m.ID, Status: uint16(status)})
		}
		return
	}
	w, status := u.wardOf(svc, l.peer, f, m)
	if w == nil {
		l.word(f, upload.Message{Kind: upload.Refused, ID: m.ID, Status: uint16(status)})
		return
	}
	w.answer(l, f)
}

// wardOf finds or makes a ward. One of an earlier connection of the same ends is over.
func (u *uploads) wardOf(svc *service, peer string, f frame.Frame, m upload.Message) (*ward, int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	old := u.wards[f.Key]
	switch {
	case old != nil && old.id == m.ID && old.epoch == f.Epoch:
		return old, 0
	case old != nil && old.epoch > f.Epoch:
		u.a.m.refused.Inc()
		return nil, http.StatusServiceUnavailable
	case old != nil:
		u.drop(old.file)
		delete(u.wards, f.Key)
	}
	file, err := svc.store.Begin(m.ID, m.Request)
	if err != nil {
		u.a.log.Warn("an upload is not backed up here", "peer", peer, "err", err)
		return nil, upload.StatusOf(err)
	}
	w := &ward{peer: peer, id: m.ID, epoch: f.Epoch, first: m.First, file: file, sealed: m.Kind == upload.OpenSealed, heard: time.Now()}
	u.wards[f.Key] = w
	return w, 0
}

// answer tells the owner how far the ward is, and promises.
func (w *ward) answer(l *link, f frame.Frame) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.claimed || w.gone {
		return
	}
	now, at := time.Now(), uint64(0)
	if w.known { // else nobody could go on with it
		at = uint64(w.reached())
	}
	w.heard = now
	w.promise.Give(now)
	if w.sealed {
		l.word(f, upload.Message{Kind: upload.Placed, ID: w.id, Offset: uint64(w.file.Length()), Wire: at})
		return
	}
	l.word(f, upload.Message{Kind: upload.At, ID: w.id, Offset: at})
}

// find returns the ward that a word is about, nil if there is none.
func (u *uploads) find(k frame.Key) *ward {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.wards[k]
}

// came takes octets. They are the Backup's once they are written: its answer is what an
// acknowledgement to the client waits for.
func (u *uploads) came(l *link, f frame.Frame, m upload.Message) {
	w := u.find(f.Key)
	if w == nil || w.id != m.ID || w.epoch != f.Epoch {
		if !u.superseded(l, f) {
			l.word(f, upload.Message{Kind: upload.Refused, ID: m.ID}) // it begins anew
		}
		return
	}
	if err := w.take(m); err != nil && upload.StatusOf(err) == http.StatusInsufficientStorage {
		u.a.log.Warn("an upload is not backed up here", "peer", l.peer, "err", err)
		l.word(f, upload.Message{Kind: upload.Refused, ID: m.ID, Status: http.StatusInsufficientStorage})
		u.remove(f.Key, w)
		return
	}
	w.answer(l, f) // behind a gap, too: the owner then sees where to go on
}

func (w *ward) take(m upload.Message) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.claimed || w.gone:
		return nil
	case m.Kind == upload.Place:
		return w.place(m)
	}
	_, err := w.file.Append(int64(m.Offset), m.Data)
	return err
}

func (u *uploads) remove(k frame.Key, w *ward) {
	u.mu.Lock()
	if u.wards[k] == w {
		delete(u.wards, k)
	}
	u.mu.Unlock()
	u.drop(w.file)
}

// publish is the effect of an upload: whatever happens afterwards, its answer is now in
// the record, and whoever goes on with the session gives this answer.
func (u *uploads) publish(l *link, f frame.Frame, m upload.Message) {
	if u.superseded(l, f) {
		return
	}
	w := u.find(f.Key)
	if w == nil || w.id != m.ID || w.epoch != f.Epoch {
		answer := upload.Message{Kind: upload.Refused, ID: m.ID}
		if svc := u.a.view.Load().vips[f.Key.VIP]; svc != nil && svc.store != nil {
			if status := svc.store.Answered(m.ID); status != 0 {
				answer.Kind, answer.Status = upload.Done, uint16(status)
			}
		}
		l.word(f, answer)
		return
	}
	svc := u.a.view.Load().vips[f.Key.VIP]
	if svc == nil || w.sealed && svc.tls == nil || !w.begin(m.Date) {
		return // the owner asks again
	}
	defer w.ended()
	// Without its record the session is being taken over.
	if !u.a.replica.receives(f.Key, f.Epoch) {
		return
	}
	u.at(pointPublish)
	status, err := w.file.Publish(m.Sum)
	if status == 0 {
		u.a.log.Error("an upload differs from its owner's", "peer", l.peer, "err", err)
		l.word(f, upload.Message{Kind: upload.Refused, ID: m.ID, Status: http.StatusInternalServerError})
		return
	}
	if err != nil {
		u.a.log.Warn("publish an upload", "peer", l.peer, "err", err)
	}
	if w.sealed && !succeeded(status) {
		u.remove(f.Key, w) // what its client is told is its owner's alone
	} else {
		u.a.replica.answered(f.Key, f.Epoch, func(rec frame.Record) frame.Record { return w.published(svc, rec, status, m.Date) })
	}
	u.at(pointPublished)
	if !w.promised() {
		return
	}
	l.word(f, upload.Message{Kind: upload.Done, ID: m.ID, Status: uint16(status)})
}

// begin reserves the ward for a publication.
func (w *ward) begin(date uint32) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.claimed || w.busy || w.gone || w.sealed && (w.at == nil || w.at.plain < w.file.Request().Size) {
		return false
	}
	w.busy, w.date = true, date
	return true
}

func (w *ward) ended() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy = false
}

// promised renews the promise, unless the session is being taken over.
func (w *ward) promised() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.claimed {
		return false
	}
	w.heard = time.Now()
	w.promise.Give(w.heard)
	return true
}

// uploadAnswer is the record of the answer to an upload, made of that of the upload.
func uploadAnswer(rec frame.Record, first uint32, octets int64, status int, date uint32) frame.Record {
	begun, _ := head(rec) // "100 Continue", or nothing
	rec.Base += uint32(len(begun))
	rec.RcvNxt = first + uint32(octets)
	rec.Flags &^= frame.Upload | frame.Pinned
	rec.Status, rec.Date, rec.Media, rec.Offset, rec.Size = uint16(status), date, 0, 0, 0
	return rec
}

// receives reports whether the record of an upload is here.
func (r *replica) receives(k frame.Key, epoch uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	st, ok := r.store[k]
	return ok && st.rec.Epoch == epoch && st.rec.Flags&frame.Upload != 0
}

// answered replaces the record of an upload by that of its answer.
func (r *replica) answered(k frame.Key, epoch uint64, next func(frame.Record) frame.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if st, ok := r.store[k]; ok && st.rec.Epoch == epoch && st.rec.Flags&frame.Upload != 0 {
		st.rec = next(st.rec)
		r.store[k] = st
	}
}

// recorded is told of each record that comes. That of an answer ends the ward.
func (u *uploads) recorded(rec *frame.Record) {
	w := u.find(rec.Key)
	if w == nil || w.epoch != rec.Epoch {
		return
	}
	w.mu.Lock()
	w.heard = time.Now()
	was := w.known
	w.known = was || rec.Flags&frame.Upload != 0
	over := was && rec.Flags&frame.Upload == 0 && !w.claimed
	w.mu.Unlock()
	if over {
		u.remove(rec.Key, w)
	}
}

// retired ends the ward of a session that has ended at its owner.
func (u *uploads) retired(k frame.Key, epoch uint64) {
	if w := u.find(k); w != nil && w.epoch <= epoch {
		u.remove(k, w)
	}
}

// knows reports whether a session can be gone on with: of an upload this takes what was
// uploaded so far.
func (u *uploads) knows(rec *frame.Record) bool {
	if rec.Flags&frame.Upload == 0 {
		return true
	}
	w := u.find(rec.Key)
	return w != nil && w.fits(rec)
}

// position sets what of an upload is here as what was received.
func (u *uploads) position(rec *frame.Record) {
	if w := u.find(rec.Key); w != nil && rec.Flags&frame.Upload != 0 {
		w.mu.Lock()
		defer w.mu.Unlock()
		rec.RcvNxt = w.first + uint32(w.reached())
	}
}

// claim is a ward taken over, until adopt or unclaim.
type claim struct {
	w    *ward
	wait bool // the promise to the owner is not over
	over bool // it was published: there is nothing to receive any more
	none bool // nobody can go on with it
	at   place
	tail []byte // over TLS: what is here of the client's next record
}

// claim takes over the upload of a record, which then says how far it is: from here on
// the owner adds nothing, publishes nothing and is promised nothing.
func (u *uploads) claim(rec *frame.Record, now time.Time) claim {
	w := u.find(rec.Key)
	if w == nil {
		return claim{none: rec.Flags&frame.Upload != 0}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.gone || w.sealed && w.at == nil:
		return claim{none: rec.Flags&frame.Upload != 0}
	case w.busy || !w.promise.Over(now):
		return claim{wait: true}
	}
	w.claimed = true
	if rec.Flags&frame.Upload == 0 {
		return claim{w: w, over: true}
	}
	c := claim{w: w}
	var err error
	if c.tail, err = w.resume(rec); err != nil {
		return claim{none: true}
	}
	if w.sealed {
		c.at = *w.at
		c.at.updates = 0 // those before are in the secret now
	}
	return c
}

// unclaim gives an upload back to its owner: the session was not taken over after all.
func (u *uploads) unclaim(k frame.Key) {
	if w := u.find(k); w != nil {
		w.mu.Lock()
		w.claimed = false
		w.mu.Unlock()
	}
}

// adopt makes the upload that was claimed this session's own. It is called before the
// connection speaks.
func (u *uploads) adopt(s *session, c claim, r *tcprepair.Restored) {
	switch {
	case c.w == nil:
		return
	case c.over:
		u.remove(s.key, c.w)
		return
	}
	s.up = &sending{u: u, key: s.key, epoch: s.epoch, svc: s.svc, id: c.w.id, first: c.w.first, file: c.w.file, date: c.w.date, word: make(chan struct{}, 1)}
	if c.w.sealed {
		rec := s.turn.Load().rec
		s.up.places = places{sealed: true, verdict: int(rec.Size), at: c.at}
		s.up.date = rec.Date
		s.cover.beginTaking(0)
	}
	h := u.hold.Load()
	if s.guarded(h) && r.SetMark(hold.Mark) == nil {
		s.hold, s.up.guarded = h, true
		h.Enter(heldFlow(s.key), c.w.first+uint32(s.up.reached()))
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.wards, s.key)
	u.own[s.key] = s.up
}
