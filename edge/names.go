package edge

import (
	"sync/atomic"
	"time"

	"rhumb/edge/frame"
)

// Times and number of names at a Backup. A name is told again while there are records
// of its object, so that it outlives the last of them.
const (
	nameAgain = 3 * refreshTime
	nameLife  = 2 * recordLife
	namesKept = 1 << 14
)

// objectOf is an object of a service.
type objectOf struct {
	service uint32
	hash    [32]byte
}

// called is by which name an object was asked for, and when that was told.
type called struct {
	name string
	at   time.Time
}

// naming is what a link knows of names.
type naming struct {
	reads atomic.Bool            // the other side has said that it reads them
	told  map[objectOf]time.Time // when; belongs to replica.Run
}

// tellName tells a Backup the name of a record's object, now and then. Records hold
// hashes alone, and a site which lacks the object could not ask its origin for it.
func (l *link) tellName(rec frame.Record, name string, now time.Time) {
	o := objectOf{rec.Service, rec.Object}
	if !l.reads.Load() || name == "" || len(name) > frame.MaxName || rec.Object == [32]byte{} || now.Sub(l.told[o]) < nameAgain {
		return
	}
	if l.told == nil || len(l.told) >= namesKept {
		l.told = map[objectOf]time.Time{}
	}
	l.told[o] = now
	// A dead link tells everything anew when there is another.
	_ = l.send(frame.Frame{Type: frame.ObjectName, Payload: frame.AppendName(nil, frame.Name{Service: o.service, Object: o.hash, Name: name})})
}

// named takes the name of an object. With too many of them the newest are not kept:
// sessions on objects that are here need none.
func (r *replica) named(l *link, f frame.Frame) {
	n, err := frame.DecodeName(f.Payload)
	if err != nil {
		r.broken(l, err)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	o := objectOf{n.Service, n.Object}
	if _, known := r.names[o]; known || len(r.names) < namesKept {
		r.names[o] = called{n.Name, time.Now()}
	}
}

// nameOf is by which name an object was asked for; "" if nobody has told.
func (r *replica) nameOf(o objectOf) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.names[o].name
}

// fetchAgain is how soon an object is looked for again by its name, while sessions wait
// for it: many of one object must not ask their origin each time that each tries.
const fetchAgain = 500 * time.Millisecond

// nameFor is nameOf for a session that is revived: "" if another has just tried.
func (v *revival) nameFor(o objectOf, now time.Time) string {
	name := v.a.replica.nameOf(o)
	v.mu.Lock()
	defer v.mu.Unlock()
	if name == "" || now.Sub(v.fetched[o]) < fetchAgain {
		return ""
	}
	if len(v.fetched) >= namesKept {
		clear(v.fetched)
	}
	v.fetched[o] = now
	return name
}

// coming reports whether the object of a session is on its way here: then it is waited
// for as long as for the client.
func (v *revival) coming(rec frame.Record) bool {
	svc, name := v.a.view.Load().vips[rec.Key.VIP], v.a.replica.nameOf(objectOf{rec.Service, rec.Object})
	return svc != nil && name != "" && svc.source.Coming(name)
}

// forgetNames forgets those that were told long ago. The caller holds mu.
func (r *replica) forgetNames(now time.Time) {
	for o, c := range r.names {
		if now.Sub(c.at) > nameLife {
			delete(r.names, o)
		}
	}
}
