package detect

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"time"
)

// take handles datagrams that were read.
func (l *Link) take(n int) {
	for i := range n {
		l.hear(l.in[i].buf[:l.in[i].n])
	}
	l.out.flush()
}

// hear handles one datagram.
func (l *Link) hear(data []byte) {
	p, r := l.sender(data)
	if r != OK {
		l.strays[r].Add(1)
		return
	}
	b, err := parse(data[:len(data)-tagSize])
	if err != nil { // in his hand, and of a kind that a later version may know
		p.in[OtherVersion].Add(1)
		return
	}
	fresh, restarted := p.marks.Take(&b)
	if !fresh { // a copy, or one that was overtaken: it proves nothing
		p.in[Old].Add(1)
		return
	}
	p.in[OK].Add(1)
	p.heard.Store(int64(l.now))
	if restarted {
		l.d.Restart(uint32(p.Node), l.now)
	}
	switch b.Kind {
	case KindBeat, KindVector:
		l.d.Hear(uint32(p.Node), 0, uint64(b.Seq), l.now)
		if b.Kind == KindVector && !l.hearVector(p, b.Body) {
			p.in[BadVector].Add(1)
		}
	case KindVotes:
		l.mail.tell(Event{Node: p.Node, Votes: slices.Clone(b.Body)})
	case KindAsk:
		l.reply(p, b.Body)
	case KindReply:
		l.hearReply(p, b.Body)
	case KindLeave:
		l.d.Leave(uint32(p.Node), uint64(b.Seq), within(b.Body), l.now)
	}
}

// appendWithin writes when the sender of a goodbye expects to be back: milliseconds, in
// two bytes. Releases before sent no body; what stands behind is for later ones.
func appendWithin(buf []byte, d time.Duration) []byte {
	return binary.BigEndian.AppendUint16(buf, uint16(min(max(d.Milliseconds(), 0), math.MaxUint16)))
}

// within reads it; 0 where the sender does not say.
func within(body []byte) time.Duration {
	if len(body) < 2 {
		return 0
	}
	return time.Duration(binary.BigEndian.Uint16(body)) * time.Millisecond
}

// sender finds out who sent a datagram, and whether it is in his hand.
func (l *Link) sender(data []byte) (*peer, Result) {
	node, err := Sender(data)
	if errors.Is(err, ErrVersion) {
		return nil, OtherVersion
	}
	p := l.roster.byNode[node]
	if err != nil || p == nil || len(data) > MaxDatagram {
		return nil, Refused
	}
	for _, s := range p.open {
		if s.sealed(data) {
			return p, OK
		}
	}
	return nil, Refused
}

// hearVector takes a peer's word on others; false when the peer sets differ.
func (l *Link) hearVector(from *peer, body []byte) bool {
	n := l.roster.others(from)
	if len(body) == 0 {
		return true
	}
	if len(body) < vectorHead || binary.BigEndian.Uint16(body) != from.about.check || n <= 0 {
		return false
	}
	first := int(binary.BigEndian.Uint16(body[2:]))
	for i, rest := 0, body[vectorHead:]; len(rest) >= entrySize && i < n; i, rest = i+1, rest[entrySize:] {
		l.report(l.roster.nth((first+i)%n, from), from, rest)
	}
	return true
}

// report takes one entry. What the relay heard counts from when it heard it.
func (l *Link) report(id uint16, from *peer, entry []byte) {
	s, ok := parseSighting(entry)
	if !ok {
		return
	}
	if slot, ok := whole(s.slot, l.d.Slot(uint32(id))); ok {
		l.d.Report(uint32(id), uint32(from.Node)+1, slot, l.now-s.age, l.now)
	}
}

func (l *Link) hearReply(from *peer, body []byte) {
	const size = 2 + entrySize
	for ; len(body) >= size; body = body[size:] {
		if id := binary.BigEndian.Uint16(body); id != from.Node && l.roster.byNode[id] != nil {
			l.report(id, from, body[2:])
		}
	}
}
