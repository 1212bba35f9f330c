package edge

import (
	"bytes"
	"fmt"
	"net/http"

	"rhumb/edge/frame"
	"rhumb/edge/seal"
	"rhumb/edge/upload"
)

// place takes how far the client's records are. One that does not fit what is here
// changes nothing: the answer says what is, and the owner tells it again. The caller holds
// mu.
func (w *ward) place(m upload.Message) error {
	from, next := int(m.Tail), place{plain: int64(m.Offset), wire: int64(m.Wire), number: uint64(m.Number), updates: int(m.Updates)}
	switch {
	case from+len(m.Data) >= seal.MaxRecord || m.Updates > seal.MaxUpdates:
		return fmt.Errorf("edge: place with %d octets of a record, %d updates", from+len(m.Data), m.Updates)
	case next.plain < 0 || next.plain > w.file.Length() || next.wire < 0:
		return nil // text is missing
	case w.at != nil && next.wire < w.at.wire:
		return nil // an older one
	case w.at != nil && next.wire == w.at.wire:
		if from <= len(w.at.tail) && from+len(m.Data) > len(w.at.tail) {
			w.at.tail = append(w.at.tail[:from], m.Data...)
		}
		return nil
	case from > 0:
		return nil // the record's beginning is missing
	}
	next.tail = bytes.Clone(m.Data)
	w.at = &next
	return nil
}

// reached counts the client's octets that are here. The caller holds mu.
func (w *ward) reached() int64 {
	switch {
	case !w.sealed:
		return w.file.Length()
	case w.at == nil:
		return 0
	}
	return w.at.end()
}

// fits reports whether a ward is of the session of a record, and can be gone on with.
func (w *ward) fits(rec *frame.Record) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sealed == (rec.Cover.Suite != 0) && (!w.sealed || w.at != nil)
}

// resume writes where the client's records stand into the record of a session that is
// taken over, and returns what is here of the next of them. The caller holds mu.
func (w *ward) resume(rec *frame.Record) (tail []byte, err error) {
	rec.RcvNxt = w.first + uint32(w.reached())
	if !w.sealed || w.at == nil {
		return nil, nil
	}
	n := seal.Suite(rec.Cover.Suite).SecretLen()
	read, err := seal.NewSecret(seal.Suite(rec.Cover.Suite), rec.Cover.Read[:n])
	if err != nil {
		return nil, err
	}
	defer read.Wipe()
	if err := read.Advance(w.at.updates); err != nil {
		return nil, err
	}
	copy(rec.Cover.Read[:], read.Bytes())
	rec.Cover.Client = uint32(w.at.number)
	return bytes.Clone(w.at.tail), nil
}

// sealedAnswer is uploadAnswer over TLS: the record says all that the records of the answer
// depend on, as its owner's would.
func (w *ward) sealedAnswer(svc *service, rec frame.Record) (frame.Record, error) {
	c, err := newCover(svc.tls, seal.Suite(rec.Cover.Suite), rec.Cover.Write[:seal.Suite(rec.Cover.Suite).SecretLen()], rec.Cover.Read[:seal.Suite(rec.Cover.Suite).SecretLen()])
	if err != nil {
		return rec, err
	}
	defer c.wipe()
	c.next = uint64(rec.Cover.Server)
	begun, err := wrapped(c, rec)
	if err != nil {
		return rec, err
	}
	next := uploadAnswer(rec, w.first, 0, int(rec.Size), rec.Date)
	answer, err := wrapped(c, next)
	if err != nil {
		return rec, err
	}
	next.Base = rec.Base + uint32(begun.wire.size())
	if _, err := w.resume(&next); err != nil {
		return rec, err
	}
	text := boundTo(answer)
	next.Cover.Server, next.Cover.Text = uint32(answer.wire.sealed.First()), [8]byte(text[:])
	return next, nil
}

func wrapped(c *cover, rec frame.Record) (*turn, error) {
	rec.Cover = frame.Cover{}
	t, err := newTurn(rec, "", nil)
	if err == nil {
		err = c.wrap(t)
	}
	return t, err
}

// published makes the record of an upload, which is published here, that of its answer.
func (w *ward) published(svc *service, rec frame.Record, status int, date uint32) frame.Record {
	if !w.sealed {
		return uploadAnswer(rec, w.first, w.file.Request().Size, status, date)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	next, err := w.sealedAnswer(svc, rec)
	if err != nil {
		next.Flags |= frame.Pinned // nobody could give the answer
	}
	return next
}

// succeeded reports whether an object has its name.
func succeeded(status int) bool {
	return status == http.StatusCreated || status == http.StatusNoContent
}

// dropped lets an upload go, unless the session is being taken over, or is here already.
func (u *uploads) dropped(l *link, f frame.Frame, m upload.Message) {
	if u.superseded(l, f) {
		return
	}
	if w := u.find(f.Key); w != nil && w.id == m.ID && w.epoch == f.Epoch {
		if !w.letGo() {
			return
		}
		u.remove(f.Key, w)
	}
	l.word(f, upload.Message{Kind: upload.Dropped, ID: m.ID})
}

// letGo ends a ward for good.
func (w *ward) letGo() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.claimed || w.busy {
		return false
	}
	w.gone = true
	return true
}
