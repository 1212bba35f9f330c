package edge

import (
	"bytes"
	"net/netip"
	"os"
	"reflect"
	"testing"
	"time"

	"rhumb/edge/frame"
	"rhumb/edge/handsock"
	"rhumb/edge/tcprepair"
)

func guestKey() frame.Key {
	return frame.Key{Client: netip.MustParseAddrPort("203.0.113.7:50000"), VIP: netip.MustParseAddrPort("192.0.2.10:443")}
}

// TestGuestParts: parts are one link's and one hand-off's, bounded, and forgotten.
func TestGuestParts(t *testing.T) {
	p, now := newGuestParts(), time.Unix(1000, 0)
	one, other := &link{}, &link{}
	f := frame.Frame{Type: frame.GuestPart, Key: guestKey(), Generation: 3, Payload: []byte("ab")}
	p.add(one, f, now)
	f.Payload = []byte("cd")
	p.add(one, f, now)
	p.add(other, f, now)
	if got := p.take(one, f); !bytes.Equal(got, []byte("abcd")) {
		t.Errorf("gathered %q", got)
	}
	if got := p.take(one, f); got != nil {
		t.Errorf("gathered twice: %q", got)
	}
	p.forget(now.Add(memory + time.Second))
	if got := p.take(other, f); got != nil || p.held != 0 {
		t.Errorf("%q not forgotten, %d octets held", got, p.held)
	}
	f.Payload = make([]byte, frame.MaxGuestPart)
	for i := range 2 * maxGuestParts / frame.MaxGuestPart {
		f.Generation = uint32(i / 64)
		p.add(one, f, now)
	}
	if p.held > maxGuestParts {
		t.Errorf("%d octets held, at most %d", p.held, maxGuestParts)
	}
	for gen := range uint32(64) {
		f.Generation = gen
		if n := len(p.take(one, f)); n > frame.MaxGuestInput+frame.MaxGuestOutput {
			t.Errorf("%d octets for one offer", n)
		}
	}
	if p.held != 0 {
		t.Errorf("%d octets held of nothing", p.held)
	}
}

// TestDeclines: exactly the offer that was declined, for as long as commits are
// repeated.
func TestDeclines(t *testing.T) {
	d, now := newDeclines(), time.Unix(1000, 0)
	f := frame.Frame{Key: guestKey(), Epoch: 5, Generation: 3}
	d.put(f, now)
	next := f
	next.Generation++
	if !d.has(f) || d.has(next) {
		t.Errorf("declined %t, the next one %t", d.has(f), d.has(next))
	}
	d.forget(now.Add(memory + time.Second))
	if d.has(f) {
		t.Error("not forgotten")
	}
}

// TestGuestState: what is shipped is what was dumped.
func TestGuestState(t *testing.T) {
	st := tcprepair.State{Local: guestKey().VIP, Peer: guestKey().Client, SndUna: 1, SndNxt: 5, WriteSeq: 9, RcvNxt: 7, TSVal: 8,
		Options: tcprepair.Options{MSS: 1448, SndScale: 7, RcvScale: 9, Scaling: true, SACK: true, Timestamps: true},
		Window:  tcprepair.Window{SndWl1: 1, SndWnd: 2, MaxWindow: 3, RcvWnd: 4, RcvWup: 5}, RTT: 40 * time.Millisecond, Input: []byte("in")}
	g, err := frame.DecodeGuest(frame.AppendGuest(nil, guestOf(st, 7, []byte("record"))))
	if err != nil || g.Input != 2 || string(g.Record) != "record" || g.Service != 7 || g.Output() != 8 {
		t.Fatalf("%+v, %v", g, err)
	}
	st.Input = nil
	if got := guestState(guestKey(), g); !reflect.DeepEqual(got, st) {
		t.Errorf("%+v\nwant %+v", got, st)
	}
}

// TestLobbyAdmits: root, our own user, and the group if there is one.
func TestLobbyAdmits(t *testing.T) {
	own := uint32(os.Getuid())
	for _, tc := range []struct {
		group string
		peer  handsock.Peer
		want  bool
	}{
		{"", handsock.Peer{UID: 0}, true}, {"", handsock.Peer{UID: own}, true},
		{"", handsock.Peer{UID: own + 1, GID: 77, Groups: []uint32{77, 0}}, false},
		{"g", handsock.Peer{UID: own + 1, GID: 77}, true}, {"g", handsock.Peer{UID: own + 1, GID: 1, Groups: []uint32{5, 77}}, true},
		{"g", handsock.Peer{UID: own + 1, GID: 1, Groups: []uint32{5}}, false},
	} {
		b := &lobby{cfg: Handoff{Group: tc.group}, gid: 77}
		if tc.group == "" {
			b.gid = 0
		}
		if got := b.admits(tc.peer); got != tc.want {
			t.Errorf("group %q, %+v: %t", tc.group, tc.peer, got)
		}
	}
}

// TestGuestEvents: only a certain no brings a session back after commit.
func TestGuestEvents(t *testing.T) {
	for want, f := range map[guestEvent]frame.Frame{
		evReady: {Type: frame.Ready}, evActive: {Type: frame.Active}, evUnknown: {Type: frame.Refused, Payload: []byte(errUnknown.Error())},
		evRefused: {Type: frame.Refused, Payload: []byte(errDeclined.Error())},
	} {
		if got, _ := giveEventOf(f); got != want {
			t.Errorf("%s %q is event %d, want %d", f.Type, f.Payload, got, want)
		}
	}
	for e := evReady; e <= evServerActive; e++ {
		if p, d := nextGive(giveCommitted, e); d == giveBack && e != evRefused {
			t.Errorf("event %d after commit brings it back (%d)", e, p)
		}
		if p, d := nextGive(giveOver, e); p != giveOver || d != giveNothing {
			t.Errorf("event %d after the end: %d, %d", e, p, d)
		}
		if p, d := nextTake(takeOver, e); p != takeOver || d != takeNothing {
			t.Errorf("event %d after the taker's end: %d, %d", e, p, d)
		}
		if _, d := nextTake(takeStarted, e); d == takeDecline {
			t.Errorf("event %d declines what was started", e)
		}
	}
}

// TestTicket: what a server gives back is the Commit that it was about.
func TestTicket(t *testing.T) {
	want := ticket{to: "ams1/n1", msg: frame.Frame{Type: frame.Commit, Key: guestKey(), Epoch: 5, Generation: 3, Payload: []byte("12345678")}}
	got, err := readTicket(want.text())
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v\nwant %+v", got, err, want)
	}
	want.msg.Payload = nil
	if got, err = readTicket(want.text()); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("without a mark: %+v, %v", got, err)
	}
	want.to = string(bytes.Repeat([]byte("x"), handsock.MaxText))
	if want.text() != "" {
		t.Error("a ticket that fits nowhere")
	}
}

func FuzzTicket(f *testing.F) {
	for _, s := range []string{"", "b 1.2.3.4:5 1.2.3.5:80 5 3 00", "b 1.2.3.4:5 [::1]:80 5 3", "b [2001:db8::1]:5 [2001:db8::2]:80 5 3 0102030405060708"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		x, err := readTicket(s)
		if err != nil {
			return
		}
		if _, err := frame.Append(nil, x.msg); err != nil {
			t.Errorf("%q cannot be asked for: %v", s, err)
		}
		if again, err := readTicket(x.text()); x.text() != "" && (err != nil || !reflect.DeepEqual(again, x)) {
			t.Errorf("%q became %+v, then %+v, %v", s, x, again, err)
		}
	})
}
