package frame

import (
	"encoding/binary"
	"fmt"
	"time"
)

// TakesGuests is said by the Generation of a Hello beside ReadsNames: the sender knows
// the frames of type OfferGuest and GuestPart. Who says nothing is not sent any.
const TakesGuests = 2

// Bounds of a Guest.
const (
	// MaxOpaque bounds what a server tells its counterpart.
	MaxOpaque = 512
	// MaxGuestInput and MaxGuestOutput bound the queues that travel with it.
	MaxGuestInput  = 64 << 10
	MaxGuestOutput = 4 << 20
	// MaxGuestPart bounds the payload of one frame GuestPart.
	MaxGuestPart = 64 << 10
)

const layoutGuest = 1

// Guest is what ships a session of another server: its silenced connection, and a
// record that only that server understands. Nobody can make its bytes anew, so those
// that the kernel had travel too: in frames of type GuestPart ahead of this one, the
// input first.
type Guest struct {
	Service  uint32 // digest of the service's name
	Record   []byte // opaque
	SndUna   uint32
	SndNxt   uint32
	WriteSeq uint32
	RcvNxt   uint32 // behind the input
	Window   [5]uint32
	RTT      time.Duration
	MSS      uint16
	Scales   uint8 // send scale in the low half, receive scale in the high
	Options  uint8 // as in a Record
	TSVal    uint32
	Wall     int64  // Unix milliseconds when TSVal was read
	Input    uint32 // bytes received and not read
}

// Output counts the bytes that the client has not acknowledged, unsent ones included.
func (g *Guest) Output() int { return int(g.WriteSeq - g.SndUna) }

// AppendGuest encodes g behind b.
func AppendGuest(b []byte, g Guest) []byte {
	be := binary.BigEndian
	b = append(b, layoutGuest, 0)
	b = be.AppendUint32(b, g.Service)
	for _, v := range [...]uint32{g.SndUna, g.SndNxt, g.WriteSeq, g.RcvNxt} {
		b = be.AppendUint32(b, v)
	}
	for _, v := range g.Window {
		b = be.AppendUint32(b, v)
	}
	b = be.AppendUint32(b, uint32(g.RTT.Microseconds()))
	b = be.AppendUint16(b, g.MSS)
	b = append(b, g.Scales, g.Options)
	b = be.AppendUint32(b, g.TSVal)
	b = be.AppendUint64(b, uint64(g.Wall))
	b = be.AppendUint32(b, g.Input)
	b = be.AppendUint16(b, uint16(len(g.Record)))
	return append(b, g.Record...)
}

// DecodeGuest reads what AppendGuest wrote. The result shares no memory with b.
func DecodeGuest(b []byte) (Guest, error) {
	r := reader{b: b}
	if v := r.u8(); v != layoutGuest {
		r.fail(fmt.Errorf("guest layout %d, this site knows %d", v, layoutGuest))
	}
	if v := r.u8(); v != 0 {
		r.fail(fmt.Errorf("guest flags %#x unknown", v))
	}
	g := Guest{Service: r.u32(), SndUna: r.u32(), SndNxt: r.u32(), WriteSeq: r.u32(), RcvNxt: r.u32()}
	for i := range g.Window {
		g.Window[i] = r.u32()
	}
	g.RTT = time.Duration(r.u32()) * time.Microsecond
	g.MSS, g.Scales, g.Options = r.u16(), r.u8(), r.u8()
	g.TSVal, g.Wall, g.Input = r.u32(), int64(r.u64()), r.u32()
	g.Record = append([]byte(nil), r.bytes(r.count(int(r.u16()), MaxOpaque))...)
	switch {
	case int32(g.SndNxt-g.SndUna) < 0 || int32(g.WriteSeq-g.SndNxt) < 0 || g.Output() > MaxGuestOutput:
		r.fail(fmt.Errorf("send positions %d %d %d out of order", g.SndUna, g.SndNxt, g.WriteSeq))
	case g.Input > MaxGuestInput:
		r.fail(fmt.Errorf("%d bytes of input, at most %d", g.Input, MaxGuestInput))
	}
	if err := r.end(); err != nil {
		return Guest{}, fmt.Errorf("frame: guest of %d bytes: %w", len(b), err)
	}
	return g, nil
}
