package edge

import (
	"slices"
	"time"

	"rhumb/edge/frame"
	"rhumb/edge/reserve"
)

// Why a Backup refuses a record.
const (
	refuseRecords = "records" // it keeps as many as it can
	refuseRoom    = "room"    // the loss of the session's site would bring too many
	refuseGrown   = "grown"   // the same, since it has more sessions of its own by now
	refuseOther   = "other"   // of a version that gives another reason, or none
)

// shedAfter is for how long more may be reserved than there is room for. It is longer
// than a verdict takes: the sessions of a site that is just dying are not given up.
const shedAfter = 10 * time.Second

// book is what this site has reserved as a Backup. replica.mu guards the ledger; the rest
// belongs to replica.Run.
type book struct {
	ledger   *reserve.Ledger
	of       *view     // which it follows
	over     time.Time // since when more is reserved than there is room for; zero: it is not
	patience time.Duration
}

func newBook(capacity int) book {
	return book{ledger: reserve.NewLedger(reserve.Limit(capacity)), patience: shedAfter}
}

// lossesOf says by what the session of each member is lost, so that it would go on here: a
// node of this site by itself, another site by each of its failure domains, and where it
// shares them all by itself.
func (a *Agent) lossesOf(v *view) map[string][]string {
	out := make(map[string][]string, len(v.peers))
	for _, p := range v.peers {
		if a.isNear(p) {
			out[p.Name] = []string{p.Name}
			continue
		}
		for _, d := range p.Domains {
			if !slices.Contains(v.own.Domains, d) {
				out[p.Name] = append(out[p.Name], d)
			}
		}
		if out[p.Name] == nil {
			out[p.Name] = []string{p.site()}
		}
	}
	return out
}

// refusal is why a record is not taken in the place of an old one or of none, "" if it is.
// The caller holds mu; load is that of before.
func (r *replica) refusal(old stored, from string, counts bool, load int) string {
	switch {
	case old.from == "" && len(r.store) >= r.a.limits.Records:
		return refuseRecords
	case counts && !(old.reserved && old.from == from) && r.book.ledger.Room(from, load) < 1:
		return refuseRoom
	}
	return ""
}

// put keeps a record, in the place of the one before. The caller holds mu.
func (r *replica) put(st stored) {
	if old := r.store[st.rec.Key]; old.reserved {
		r.book.ledger.Add(old.from, -1)
	}
	if st.reserved {
		r.book.ledger.Add(st.from, 1)
	}
	r.store[st.rec.Key] = st
}

// counts reports whether a record would bring a session here: not that of a service
// which only observes. Of a service that is not known here, it might.
func (a *Agent) counts(rec *frame.Record) bool {
	svc := a.view.Load().vips[rec.Key.VIP]
	return svc == nil || svc.revives()
}

// refusalOf tells an owner that its session's record is not kept.
func refusalOf(rec *frame.Record, seq uint64, reason string) frame.Frame {
	return frame.Frame{Type: frame.Full, Seq: seq, Key: rec.Key, Epoch: rec.Epoch, Generation: rec.Generation, Payload: []byte(reason)}
}

// refusalsMost is more than any queue of records could be answered with.
const refusalsMost = 4 << 20

// refuse has a refusal leave before the frame that it answers is acknowledged. The reader
// does not wait for that, as it does not for an acknowledgement.
func (l *link) refuse(f frame.Frame) (err error) {
	if len(l.refusals) > refusalsMost {
		return errLink
	}
	l.refusals, err = frame.Append(l.refusals, f)
	return err
}

// tellRefusals reports whether all refusals are in the queue.
func (l *link) tellRefusals() bool {
	if len(l.refusals) == 0 {
		return true
	}
	select {
	case l.out <- l.refusals:
		l.refusals = nil
		return true
	default:
		return false
	}
}

// balance follows what is known of the other sites, and gives up what is reserved for
// longer than a while beyond what there is room for.
func (r *replica) balance(now time.Time) {
	v, load := r.a.view.Load(), r.a.load()
	r.mu.Lock()
	if r.book.of != v {
		r.book.of = v
		r.book.ledger.Follow(reserve.Limit(r.a.capacity()), r.a.lossesOf(v))
	}
	excess := r.book.ledger.Excess(load)
	r.a.m.reserve.report(r.a.capacity(), r.book.ledger)
	r.mu.Unlock()
	switch {
	case len(excess) == 0:
		r.book.over = time.Time{}
	case r.book.over.IsZero():
		r.book.over = now
	case now.Sub(r.book.over) >= r.book.patience:
		r.shed(excess)
	}
}

// shed gives records up whose owners can be told.
func (r *replica) shed(excess []reserve.Excess) {
	words := map[*link][]byte{}
	var over []frame.Frame
	r.mu.Lock()
	for _, e := range excess {
		for _, st := range r.pickFrom(e) {
			l := r.a.links.have(st.from)
			b, err := frame.Append(words[l], refusalOf(&st.rec, 0, refuseGrown))
			if err != nil {
				continue // a key that was decoded can be encoded
			}
			words[l] = b
			over = append(over, frame.Frame{Key: st.rec.Key, Epoch: st.rec.Epoch})
			r.drop(st.rec.Key)
		}
	}
	r.mu.Unlock()
	for _, f := range over {
		r.a.uploads.retired(f.Key, f.Epoch)
	}
	for l, b := range words {
		_ = l.queue(b) // a dead link's owner tells anew
	}
}

// pickFrom chooses what is given up of a loss, the last in the order of keys, of owners that
// are linked. The caller holds mu.
func (r *replica) pickFrom(e reserve.Excess) (out []stored) {
	linked := slices.DeleteFunc(e.Owners, func(name string) bool { return r.a.links.have(name) == nil })
	for _, st := range r.store {
		if st.reserved && slices.Contains(linked, st.from) {
			out = append(out, st)
		}
	}
	slices.SortFunc(out, func(a, b stored) int { return b.rec.Key.Compare(a.rec.Key) })
	return out[:min(e.Over, len(out))]
}
