package detect

import (
	"encoding/binary"
	"slices"
	"time"
)

// vector appends what this node has heard of others, for a receiver.
func (l *Link) vector(buf []byte, to *peer) []byte {
	n := l.roster.others(to)
	if n <= 0 {
		return buf
	}
	first := 0
	if n > maxEntries {
		first = l.turn * maxEntries % n
	}
	buf = binary.BigEndian.AppendUint16(buf, to.about.check)
	buf = binary.BigEndian.AppendUint16(buf, uint16(first))
	for i := range min(n, maxEntries) {
		id := l.roster.nth((first+i)%n, to)
		buf = appendSighting(buf, l.sighting(id))
	}
	return buf
}

// sighting is when and in which slot this node last heard another directly.
func (l *Link) sighting(id uint16) sighting {
	at, slot, ok := l.d.Sighting(uint32(id))
	if !ok {
		return sighting{age: noAge * time.Millisecond}
	}
	return sighting{age: l.now - at, slot: uint16(slot)}
}

// ask asks peers about those whose direct path owes a beat, once an interval.
func (l *Link) ask() {
	ids := l.out.body[:0]
	for _, p := range l.roster.peers {
		if len(ids) < 2*maxAsked && l.now-p.asked >= l.cfg.Times.Interval && l.d.Suspect(uint32(p.Node), l.now) {
			p.asked = l.now
			ids = binary.BigEndian.AppendUint16(ids, p.Node)
		}
	}
	if len(ids) == 0 {
		return
	}
	ids = slices.Clone(ids) // the buffer is for bodies; suspicion is rare
	l.out.asks++
	asked := 0
	for range l.roster.peers {
		if asked == maxEntries {
			break
		}
		l.asked = (l.asked + 1) % len(l.roster.peers)
		if p := l.roster.peers[l.asked]; l.roster.knowsOne(p, ids) {
			asked++
			l.queue(p, KindAsk, l.out.asks, func(buf []byte, _ *peer) []byte { return append(buf, ids...) })
		}
	}
	l.out.flush()
}

// knowsOne tells whether a peer has a word on one of the nodes asked for.
func (r *roster) knowsOne(p *peer, ids []byte) bool {
	for i := 0; i+2 <= len(ids); i += 2 {
		if r.tells(p, binary.BigEndian.Uint16(ids[i:])) {
			return true
		}
	}
	return false
}

// reply answers an ask.
func (l *Link) reply(to *peer, asked []byte) {
	l.out.replies++
	l.queue(to, KindReply, l.out.replies, func(buf []byte, _ *peer) []byte {
		for i := 0; i+2 <= len(asked) && i < 2*maxAsked; i += 2 {
			id := binary.BigEndian.Uint16(asked[i:])
			buf = appendSighting(append(buf, asked[i:i+2]...), l.sighting(id))
		}
		return buf
	})
}
