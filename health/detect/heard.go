package detect

import (
	"slices"
	"time"
)

// Hearing is by which paths a node is heard at a moment.
type Hearing struct {
	Node  uint16
	State State
	// By are the relays by whose word it was heard lately, Silent those by whose word
	// it no longer is; both rising.
	By, Silent []uint16
	// Suspected is since when the node may be lost, zero if it is not: no verdict, and
	// only for what is free and can be undone.
	Suspected time.Time
}

// fewPaths bounds the paths of a subject that are looked through at every beat. Where
// there are more, as in a full mesh of hundreds, only those of a subject are whose
// direct path is broken.
const fewPaths = 32

// equal tells whether two say the same.
func (r *Hearing) equal(o *Hearing) bool {
	return r.Node == o.Node && r.State == o.State && r.Suspected.Equal(o.Suspected) && slices.Equal(r.By, o.By) && slices.Equal(r.Silent, o.Silent)
}

// paths appends the relays of a subject to two lists: those which heard it lately, and
// those which did before.
func (d *Detector) paths(id uint32, by, silent []uint16) (heard, not []uint16) {
	s := d.subjects[id]
	if s == nil || len(s.vias) > fewPaths && s.state != Path {
		return by, silent
	}
	patience := s.timeout(&d.cfg)
	for i := range s.vias {
		switch v := &s.vias[i]; {
		case v.id == 0 || v.slot == 0:
		case d.now-v.at <= patience:
			by = append(by, uint16(v.id-1))
		default:
			silent = append(silent, uint16(v.id-1))
		}
	}
	slices.Sort(by)
	slices.Sort(silent)
	return by, silent
}

// hearings is what was told of everybody, and room to look whether that still holds. It
// belongs to the loop.
type hearings struct {
	told    []Hearing
	by, not []uint16
}

// changed looks at all peers and tells whether anything is new since the last time.
func (r *hearings) changed(d *Detector, peers []*peer) bool {
	if len(r.told) != len(peers) {
		return true
	}
	for i, p := range peers {
		r.by, r.not = d.paths(uint32(p.Node), r.by[:0], r.not[:0])
		now := Hearing{p.Node, d.State(uint32(p.Node)), r.by, r.not, p.doubt.at}
		if !now.equal(&r.told[i]) {
			return true
		}
	}
	return false
}

// tellHearing tells what is heard of everybody, if that has changed.
func (l *Link) tellHearing() {
	if !l.hearing.changed(l.d, l.roster.peers) {
		return
	}
	list := make([]Hearing, 0, len(l.roster.peers))
	for _, p := range l.roster.peers {
		by, silent := l.d.paths(uint32(p.Node), nil, nil)
		list = append(list, Hearing{p.Node, l.d.State(uint32(p.Node)), by, silent, p.doubt.at})
	}
	l.hearing.told = list
	l.mail.tell(Event{Heard: list})
}
