package hold

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

var (
	flow  = Flow{netip.MustParseAddrPort("192.0.2.10:80"), netip.MustParseAddrPort("198.51.100.2:1234")}
	other = Flow{netip.MustParseAddrPort("192.0.2.10:80"), netip.MustParseAddrPort("198.51.100.2:1235")}
)

// TestLanes: whatever comes and is allowed in whatever order, across the end of the
// sequence space, a segment leaves if and only if its acknowledgement is allowed.
func TestLanes(t *testing.T) {
	now := time.Now()
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		ls, start := newLanes(), uint32(1<<32-5000)
		ls.enter(flow, start)
		upto, acks, left := int64(0), map[uint32]int64{}, map[uint32]bool{}
		for id := range uint32(200) {
			if r.IntN(2) == 0 {
				ack := r.Int64N(10000)
				acks[id] = ack
				leaves, gone := ls.came(flow, waiting{id, start + uint32(ack), now})
				if left[id] = leaves; len(gone) > 0 {
					t.Fatalf("given up: %v", gone)
				}
			} else {
				at := r.Int64N(10000)
				upto = max(upto, at)
				for _, w := range ls.allow(flow, start+uint32(at)) {
					left[w.id] = true
				}
			}
		}
		for id, ack := range acks {
			if left[id] != (ack <= upto) {
				t.Fatalf("seed %d: segment %d acknowledges %d of %d allowed, leaves: %v", seed, id, ack, upto, left[id])
			}
		}
	}
}

// TestStrangers: of a connection that nobody has entered nothing leaves, and what waits is
// given up; entered in time, it leaves as allowed.
func TestStrangers(t *testing.T) {
	now := time.Now()
	ls := newLanes()
	for i, f := range []Flow{flow, flow, other} {
		if leaves, gone := ls.came(f, waiting{uint32(i), uint32(10 * i), now}); leaves || len(gone) > 0 {
			t.Fatalf("segment %d: leaves %v, given up %v", i, leaves, gone)
		}
	}
	if got := ls.allow(flow, 100); len(got) > 0 {
		t.Errorf("%v leave: nobody has entered the connection", got)
	}
	if got := ls.enter(flow, 5); !slices.Equal(idsOf(got), []uint32{0}) {
		t.Errorf("%v leave, want the first", got)
	}
	if got := ls.expire(now.Add(waitToKnow + 1)); !slices.Equal(got, []uint32{2}) || ls.of[other] != nil {
		t.Errorf("%v are given up, want the other connection's", got)
	}
	if got := ls.expire(now.Add(waitLong + 1)); !slices.Equal(got, []uint32{1}) {
		t.Errorf("%v are given up, want what waits for long", got)
	}
	if got := ls.leave(flow); len(got) > 0 || len(ls.of)+len(ls.busy)+ls.strange > 0 {
		t.Errorf("%v wait, %d lanes", got, len(ls.of))
	}
}

// TestBoundedWait: of too many segments the oldest are given up.
func TestBoundedWait(t *testing.T) {
	ls := newLanes()
	ls.enter(flow, 0)
	for id := range uint32(waitMost + 3) {
		_, gone := ls.came(flow, waiting{id, 1 + id, time.Now()})
		if want := id >= waitMost; (len(gone) == 1 && gone[0] == id-waitMost) != want {
			t.Fatalf("segment %d: given up %v", id, gone)
		}
	}
	if got := ls.leave(flow); len(got) != waitMost {
		t.Errorf("%d wait", len(got))
	}
}

// segment4 is an IPv4 segment of flow.
func segment4(options int, ack uint32, flags byte) []byte {
	b := make([]byte, 20+options+20)
	b[0], b[9] = byte(4<<4|(20+options)/4), 6
	copy(b[12:], flow.Local.Addr().AsSlice())
	copy(b[16:], flow.Peer.Addr().AsSlice())
	tcp := b[20+options:]
	be := binary.BigEndian
	be.PutUint16(tcp, flow.Local.Port())
	be.PutUint16(tcp[2:], flow.Peer.Port())
	be.PutUint32(tcp[8:], ack)
	tcp[13] = flags
	return b
}

// TestParse: the acknowledgement is read behind IPv4 options, and what has none is not.
func TestParse(t *testing.T) {
	for _, options := range []int{0, 40} {
		if f, ack, ok := parse(segment4(options, 77, 0x18)); f != flow || ack != 77 || !ok {
			t.Errorf("%v, %d, %v", f, ack, ok)
		}
	}
	v6 := make([]byte, 60)
	v6[0], v6[6], v6[40+11], v6[40+13] = 6<<4, 6, 9, 0x10
	if f, ack, ok := parse(v6); !f.Local.Addr().Is6() || ack != 9 || !ok {
		t.Errorf("%v, %d, %v", f, ack, ok)
	}
	v6[6] = 17
	for name, b := range map[string][]byte{"no flag": segment4(0, 1, 0x08), "cut": segment4(0, 1, 0x10)[:33], "UDP": v6} {
		if _, _, ok := parse(b); ok {
			t.Errorf("%s passes", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(segment4(0, 1, 0x10))
	f.Add(segment4(40, 1, 0x18))
	f.Fuzz(func(t *testing.T, b []byte) {
		if f, _, ok := parse(b); ok && !f.Local.Addr().IsValid() {
			t.Errorf("%x is of %v", b, f)
		}
		parsePacket(b)
	})
}
