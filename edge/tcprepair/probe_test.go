package tcprepair

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestUsable(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   []Feature
		want string
	}{
		{"nothing tried", nil, ""},
		{"all there", []Feature{{"TCP_REPAIR", true, nil}}, ""},
		{"an optional one missing", []Feature{{"SO_BUF_LOCK", false, unix.ENOPROTOOPT}}, ""},
		{"a required one missing", []Feature{{"TCP_REPAIR", true, unix.EPERM}, {"TCP_QUEUE_SEQ", true, nil}}, "TCP_REPAIR"},
	} {
		err := Usable(tc.in)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	if err := Usable([]Feature{{"x", true, unix.EPERM}}); !errors.Is(err, unix.EPERM) {
		t.Errorf("cause is lost: %v", err)
	}
}

func TestState(t *testing.T) {
	s := State{SndUna: 0xffff_fff0, SndNxt: 0x10, WriteSeq: 0x30}
	if s.InFlight() != 0x20 || s.Unsent() != 0x20 {
		t.Errorf("over the wrap: in flight %d, unsent %d", s.InFlight(), s.Unsent())
	}
}

func TestStuck(t *testing.T) {
	for _, tc := range []struct {
		name          string
		inFlight, wnd uint32
		want          bool
	}{
		{"nothing in flight", 0, 65535, false},
		{"nothing in flight, window closed", 0, 0, true},
		{"nothing in flight, less than a segment's room", 0, 1447, true},
		{"nothing in flight, a segment's room", 0, 1448, false},
		{"room in both windows", 5000, 65535, false},
		{"RFC 6928: ten segments in flight", 14480, 65535, true},
		{"window full", 5000, 5000, true},
		{"window closed", 1, 0, true},
	} {
		s := State{SndUna: 0xffff_ff00, SndNxt: 0xffff_ff00 + tc.inFlight, Window: Window{SndWnd: tc.wnd}, Options: Options{MSS: 1448}}
		if s.Stuck() != tc.want {
			t.Errorf("%s: stuck is %t", tc.name, !tc.want)
		}
	}
}
