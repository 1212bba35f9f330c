package edge

import (
	"time"

	"rhumb/edge/frame"
	"rhumb/edge/tcprepair"
)

// sight is what the client of a lost session has told so far of where it stands.
// It is a value: fold makes the next one of a record and a segment.
type sight struct {
	ready bool // the session can go on at best
	ahead bool // the client has sent what the record does not know
	gone  bool // the client has reset the connection, or opened a new one
	// piece counts the octets before the record's number that are here of a request. Perhaps
	// their acknowledgement never left, and the client sends them again.
	piece uint32
	best  tcprepair.Segment
}

// What a segment told, as counted.
const (
	answerExact = "exact" // the session can go on here
	answerAhead = "ahead" // sent more than the record knows
	answerOld   = "old"   // of no use: a keepalive, say
	answerReset = "reset" // the client has no such connection
)

// fold takes one segment of the client. Where the client's own sequence number
// is that of the record, nothing was asked that the record does not know. Where
// it is beyond, the rest may have been acknowledged by the dead owner and would
// be lost for ever, so the record is stale; unless the client sends from the
// record's number on: then nobody has acknowledged it, and it will come again.
func (s sight) fold(rec frame.Record, seg tcprepair.Segment) (sight, string) {
	ahead := int32(seg.Seq - rec.RcvNxt)
	switch {
	case seg.Flags&tcprepair.SYN != 0:
		s.gone = true // the port serves another connection (RFC 9293 section 3.6.1)
		return s, answerReset
	case seg.Flags&tcprepair.RST != 0:
		if ahead < 0 {
			return s, answerOld
		}
		s.gone = true
		return s, answerReset
	case seg.Flags&tcprepair.ACK == 0 || ahead < 0 && rec.Flags&frame.Upload == 0 && !s.repeats(seg, ahead) || seg.Timestamps != (rec.Options&recTimestamps != 0):
		return s, answerOld
	case ahead != 0 && rec.Flags&frame.Upload != 0:
		// What it has sent beyond was never acknowledged and comes again.
	case ahead > 0 && !s.ready:
		s.ahead, s.best = true, seg
		return s, answerAhead
	}
	// The highest acknowledgement is the latest: segments may overtake.
	if !s.ready || int32(seg.Ack-s.best.Ack) >= 0 {
		s.best = seg
	}
	s.ready = true
	return s, answerExact
}

// repeats reports whether a segment begins in what is here of a request: whoever sends that
// again has heard of no acknowledgement beyond it.
func (s sight) repeats(seg tcprepair.Segment, ahead int32) bool {
	return seg.Data > 0 && uint32(-ahead) <= s.piece
}

// clockStep is how far a revived session's timestamps run ahead of the last one that the client
// has seen, so that it takes none for old (RFC 7323 section 5), in ms; and what the dead owner's host may still
// say it takes for old. That repeats the end of a connection for as long as hasten bounds, and the
// clock of one that rested has gone on for the idle time unseen: with the defaults 65 and 60 s.
const clockStep = 150_000

// offer describes the session as it stands at the client, as if a living owner
// handed it over with nothing in flight.
func (s sight) offer(rec frame.Record, now time.Time) frame.Offer {
	at := s.best.Ack
	rec.Offset = uint64(offsetOf(rec, at))
	rec.Generation++
	if rec.Cover.Suite != 0 {
		// Its owner may live, cut off from here, and seal what this site would seal
		// otherwise (another second in the head) under the same record numbers: for
		// whoever hears both, the secrets were none. So the numbers of this response
		// are all that are used here, not even for an alert.
		rec.Flags |= frame.Last
	}
	if rec.Options&recTimestamps != 0 {
		rec.TSVal, rec.Wall = (s.best.TSEcr+clockStep)&^1, now.UnixMilli()
	}
	window := uint32(s.best.Window)
	if rec.Options&recScaling != 0 {
		window <<= rec.Scales & 15
	}
	// The dead owner's receive window is unknown. A smaller one is no harm: a
	// client that has sent more sends it again. Nor is the client's largest known, by which the
	// kernel sizes segments: that is this one, and rises with larger ones. A guess would be
	// kept, and a client with less room be sent a segment at each end of a probe timer.
	const rcvWindow = 65535
	return frame.Offer{Record: rec, SndUna: at, SndNxt: at, WriteSeq: at, RcvNxt: rec.RcvNxt,
		Window: [5]uint32{rec.RcvNxt, window, window, rcvWindow, rec.RcvNxt}}
}

// offsetOf is where a sequence number lies in the response: of all offsets that
// fit, modulo 2^32, the one next to what the record knows. It may be negative.
func offsetOf(rec frame.Record, seq uint32) int64 {
	return int64(rec.Offset) + int64(int32(seq-rec.Base-uint32(rec.Offset)))
}

// probeOf is a segment that makes the client's kernel tell where it stands: it
// holds one byte that the client has had long ago, and is answered at once by
// an acknowledgement (RFC 9293 section 3.10.7.4). Linux limits the rate of such
// answers for segments without data only.
func probeOf(rec frame.Record, now time.Time) tcprepair.Segment {
	seq := rec.Base - 1
	// Half the space behind, a byte would look like one to come. No queue
	// holds a gigabyte, so what was written that long ago was received.
	if rec.Offset > refreshBytes {
		seq = rec.Base + uint32(rec.Offset-refreshBytes)
	}
	p := tcprepair.Segment{Src: rec.Key.VIP, Dst: rec.Key.Client, Seq: seq, Ack: rec.RcvNxt,
		Flags: tcprepair.ACK | tcprepair.PSH, Window: 512, Data: 1}
	if rec.Options&recTimestamps != 0 {
		// Not ahead of the clock: were the owner alive, its own segments
		// would look old to the client.
		p.Timestamps, p.TSVal = true, rec.TSVal+uint32(max(now.UnixMilli()-rec.Wall, 0))
	}
	return p
}
