package frame

import (
	"encoding/binary"
	"fmt"
	"time"
)

// MaxInput bounds the bytes of unanswered requests in an Offer: unread by the
// kernel's count plus read and not yet answered.
const MaxInput = 80 << 10

// MaxName bounds an object's name.
const MaxName = 4 << 10

// Offer is what ships a session: its record and its silenced connection. The
// bytes in flight are not in it, the receiver makes them from the object.
type Offer struct {
	Record   Record
	SndUna   uint32
	SndNxt   uint32
	WriteSeq uint32
	RcvNxt   uint32 // behind Input
	Window   [5]uint32
	RTT      time.Duration
	Name     string // the object's, so that a site which lacks it can fetch it
	Input    []byte // requests received and not answered
	Bound    Bound  // of a session over TLS
}

// Bound is what an Offer over TLS says beyond its record.
type Bound struct {
	// Plain counts the bytes of Input that were opened; records follow them.
	Plain uint32
	// Text is the whole of the digest that the record's Cover begins with.
	Text [16]byte
}

// AppendOffer encodes o behind b.
func AppendOffer(b []byte, o Offer) []byte {
	be := binary.BigEndian
	b = AppendRecord(b, o.Record)
	for _, v := range [...]uint32{o.SndUna, o.SndNxt, o.WriteSeq, o.RcvNxt} {
		b = be.AppendUint32(b, v)
	}
	for _, v := range o.Window {
		b = be.AppendUint32(b, v)
	}
	b = be.AppendUint32(b, uint32(o.RTT.Microseconds()))
	b = be.AppendUint16(b, uint16(len(o.Name)))
	b = append(b, o.Name...)
	b = be.AppendUint32(b, uint32(len(o.Input)))
	b = append(b, o.Input...)
	if o.Record.Cover.Suite != suiteNone {
		b = append(be.AppendUint32(b, o.Bound.Plain), o.Bound.Text[:]...)
	}
	return b
}

// DecodeOffer reads what AppendOffer wrote. The result shares no memory
// with b.
func DecodeOffer(b []byte) (Offer, error) {
	r := reader{b: b}
	o := Offer{Record: r.record(), SndUna: r.u32(), SndNxt: r.u32(), WriteSeq: r.u32(), RcvNxt: r.u32()}
	for i := range o.Window {
		o.Window[i] = r.u32()
	}
	o.RTT = time.Duration(r.u32()) * time.Microsecond
	o.Name = string(r.bytes(r.count(int(r.u16()), MaxName)))
	o.Input = append([]byte(nil), r.bytes(r.count(int(r.u32()), MaxInput))...)
	if o.Record.Cover.Suite != suiteNone {
		o.Bound.Plain = r.u32()
		copy(o.Bound.Text[:], r.bytes(len(o.Bound.Text)))
		if uint64(o.Bound.Plain) > uint64(len(o.Input)) {
			r.fail(fmt.Errorf("%d opened bytes of %d", o.Bound.Plain, len(o.Input)))
		}
	}
	// una ≤ nxt ≤ write, each within half the space of the next.
	if int32(o.SndNxt-o.SndUna) < 0 || int32(o.WriteSeq-o.SndNxt) < 0 {
		r.fail(fmt.Errorf("send positions %d %d %d out of order", o.SndUna, o.SndNxt, o.WriteSeq))
	}
	if err := r.end(); err != nil {
		return Offer{}, fmt.Errorf("frame: offer of %d bytes: %w", len(b), err)
	}
	return o, nil
}

func (r *reader) count(n, limit int) int {
	if n > limit {
		r.fail(fmt.Errorf("field of %d bytes, at most %d", n, limit))
		return 0
	}
	return n
}
