package edge

import (
	"testing"
	"time"

	"rhumb/edge/frame"
	"rhumb/edge/tcprepair"
)

func lostRecord() frame.Record {
	return frame.Record{Key: testKey(1), Epoch: 7, Generation: 2, Base: 0xfffffff0, RcvNxt: 1000, Offset: 0,
		MSS: 1460, Scales: 7, Options: recTimestamps | recSACK | recScaling, TSVal: 5000, Wall: 1_000_000}
}

func says(seq, ack uint32, change func(*tcprepair.Segment)) tcprepair.Segment {
	s := tcprepair.Segment{Seq: seq, Ack: ack, Flags: tcprepair.ACK, Window: 100, Timestamps: true, TSVal: 1, TSEcr: 9001}
	if change != nil {
		change(&s)
	}
	return s
}

// TestSight: what a client's segments tell of a lost session, by the one record.
func TestSight(t *testing.T) {
	for _, tc := range []struct {
		name              string
		segs              []tcprepair.Segment
		what              string // of the last
		ready, gone, head bool
		ack               uint32
	}{
		{name: "the answer to a probe", segs: []tcprepair.Segment{says(1000, 84, nil)}, what: answerExact, ready: true, ack: 84},
		{name: "the highest of three positions", segs: []tcprepair.Segment{says(1000, 84, nil), says(1000, 90, nil), says(1000, 0xfffffff8, nil)},
			what: answerExact, ready: true, ack: 90},
		{name: "a request that nobody replicated", segs: []tcprepair.Segment{says(1100, 84, nil)}, what: answerAhead, head: true, ack: 84},
		{name: "the same, sent again from the record's number on", segs: []tcprepair.Segment{says(1100, 84, nil),
			says(1000, 84, func(s *tcprepair.Segment) { s.Data = 100 })}, what: answerExact, ready: true, head: true, ack: 84},
		{name: "a request after the answer", segs: []tcprepair.Segment{says(1000, 84, nil), says(1000, 84, func(s *tcprepair.Segment) { s.Data = 9 }), says(1009, 85, nil)},
			what: answerExact, ready: true, ack: 85},
		{name: "a keepalive probe (RFC 9293, 3.8.4)", segs: []tcprepair.Segment{says(999, 84, nil)}, what: answerOld},
		{name: "no ACK", segs: []tcprepair.Segment{says(1000, 84, func(s *tcprepair.Segment) { s.Flags = 0 })}, what: answerOld},
		{name: "timestamps lost on the way", segs: []tcprepair.Segment{says(1000, 84, func(s *tcprepair.Segment) { s.Timestamps = false })}, what: answerOld},
		{name: "a reset", segs: []tcprepair.Segment{says(1000, 0, func(s *tcprepair.Segment) { s.Flags = tcprepair.RST })}, what: answerReset, gone: true},
		{name: "a reset of old (RFC 5961, 3.2)", segs: []tcprepair.Segment{says(900, 0, func(s *tcprepair.Segment) { s.Flags = tcprepair.RST })}, what: answerOld},
		{name: "a new connection", segs: []tcprepair.Segment{says(5, 0, func(s *tcprepair.Segment) { s.Flags = tcprepair.SYN })}, what: answerReset, gone: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var s sight
			var what string
			for _, seg := range tc.segs {
				s, what = s.fold(lostRecord(), seg)
			}
			if what != tc.what || s.ready != tc.ready || s.gone != tc.gone || s.ahead != tc.head || s.best.Ack != tc.ack {
				t.Errorf("%s: %+v, want %s ready %t gone %t ahead %t ack %d", what, s, tc.what, tc.ready, tc.gone, tc.head, tc.ack)
			}
		})
	}
}

// TestOfferOfSight: position, window and clock of the session to be, across the
// wrap of sequence numbers.
func TestOfferOfSight(t *testing.T) {
	s, _ := sight{}.fold(lostRecord(), says(1000, 84, nil))
	o := s.offer(lostRecord(), time.UnixMilli(2_000_000))
	if o.Record.Offset != 100 || o.SndUna != 84 || o.SndNxt != 84 || o.WriteSeq != 84 || o.RcvNxt != 1000 {
		t.Errorf("offset %d at %d %d %d, receives %d; want 100 at 84, 1000", o.Record.Offset, o.SndUna, o.SndNxt, o.WriteSeq, o.RcvNxt)
	}
	if st := stateOf(o); st.Window.SndWnd != 100<<7 || st.Window.MaxWindow != st.Window.SndWnd || st.InFlight() != 0 {
		t.Errorf("window %+v, in flight %d", st.Window, st.InFlight())
	}
	if o.Record.TSVal != 159_000 { // 9001 + 150,000, the lowest bit cleared
		t.Errorf("clock %d, want 159000", o.Record.TSVal)
	}
	if o.Record.Generation != 3 {
		t.Errorf("generation %d, want 3", o.Record.Generation)
	}
}

func TestOffsetOf(t *testing.T) {
	for _, tc := range []struct {
		name string
		base uint32
		off  uint64
		seq  uint32
		want int64
	}{
		{"at the start", 10, 0, 10, 0},
		{"behind the record", 10, 100, 60, 50},
		{"across the wrap", 0xfffffff0, 0, 0x10, 32},
		{"in the third round", 5, 9 << 30, 5 + 1<<30 + 7, 9<<30 + 7},
		{"before the response", 10, 0, 9, -1},
	} {
		if got := offsetOf(frame.Record{Base: tc.base, Offset: tc.off}, tc.seq); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
}

// TestProbe: the byte of a probe lies below what the client has surely received,
// and never half the space of sequence numbers behind.
func TestProbe(t *testing.T) {
	rec := lostRecord()
	p := probeOf(rec, time.UnixMilli(rec.Wall+40))
	if p.Seq != rec.Base-1 || p.Data != 1 || p.Ack != rec.RcvNxt || p.TSVal != 5040 || p.Src != rec.Key.VIP || p.Dst != rec.Key.Client {
		t.Errorf("probe %+v", p)
	}
	rec.Offset = 3 << 30
	if p := probeOf(rec, time.UnixMilli(0)); p.Seq != rec.Base+2<<30 || p.TSVal != rec.TSVal {
		t.Errorf("probe of an old response %+v", p)
	}
	for n, most := range map[int]time.Duration{1: 66 * time.Millisecond, 9: 66 * time.Millisecond, 10: 1100 * time.Millisecond} {
		if d := probePause(n); d > most || d < most*8/11 {
			t.Errorf("pause %d is %v, want about %v", n, d, most)
		}
	}
}
