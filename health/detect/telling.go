package detect

import (
	"encoding/binary"
	"slices"
	"time"
)

// vector appends what this node has heard of others, for a receiver.
func (l *Link) vector(buf []byte, to *peer) []byte {
	n := l.roster.others()
	if n <= 0 {
		return buf
	}
	first := 0
	if n > maxEntries {
		first = l.turn * maxEntries % n
	}
	buf = binary.BigEndian.AppendUint16(buf, l.roster.check)
	buf = binary.BigEndian.AppendUint16(buf, uint16(first))
	for i := range min(n, maxEntries) {
		id := l.roster.nth((first+i)%n, l.cfg.Node, to.Node)
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
	for range min(len(l.roster.peers), maxEntries) {
		l.asked = (l.asked + 1) % len(l.roster.peers)
		l.queue(l.roster.peers[l.asked], KindAsk, l.out.asks, func(buf []byte, _ *peer) []byte { return append(buf, ids...) })
	}
	l.out.flush()
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
