package token

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

const opPing = 9

// socketFrame is one frame of a server.
type socketFrame struct {
	op      byte
	final   bool
	payload string
}

func (f socketFrame) String() string { return fmt.Sprintf("%d %v %.80q", f.op, f.final, f.payload) }

func (f socketFrame) wire() string {
	b := []byte{f.op}
	if f.final {
		b[0] |= 0x80
	}
	switch n := len(f.payload); {
	case n < 126:
		b = append(b, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return string(b) + f.payload
}

// framesOf reads whole frames: the oracle. What is cut off is none.
func framesOf(s string) (out []socketFrame) {
	for len(s) >= 2 {
		f := socketFrame{op: s[0] & 15, final: s[0]&0x80 != 0}
		n, head := uint64(s[1]), 2
		switch n {
		case 126:
			head = 4
		case 127:
			head = 10
		}
		if len(s) < head {
			break
		}
		if head == 4 {
			n = uint64(binary.BigEndian.Uint16([]byte(s[2:4])))
		} else if head == 10 {
			n = binary.BigEndian.Uint64([]byte(s[2:10]))
		}
		if uint64(len(s)-head) < n {
			break
		}
		f.payload = s[head : head+int(n)]
		out, s = append(out, f), s[head+int(n):]
	}
	return out
}

// marked says what frames of an origin must become.
func marked(in []socketFrame) (out []socketFrame, last string) {
	var next *string
	for _, f := range in {
		if position, ok := strings.CutPrefix(f.payload, wordNext); ok && f.op == opText && f.final {
			next = nil
			if text, ok := upper(position); ok {
				next = &position
				out = append(out, socketFrame{opText, true, wordNext + text})
			}
			continue
		}
		if out = append(out, f); f.final && f.op < opClose && next != nil {
			last, next = *next, nil
		}
	}
	return out, last
}

// passed passes a connection in random pieces.
func passed(s string, rng *rand.Rand) (string, *Marks) {
	m := NewMarks("", upper)
	var out []byte
	for len(s) > 0 {
		n := 1 + rng.IntN(len(s))
		if rng.IntN(2) == 0 {
			n = min(n, 3)
		}
		out = m.Append(out, []byte(s[:n]))
		s = s[n:]
	}
	return string(out), m
}

func TestMarks(t *testing.T) {
	text := func(s string) socketFrame { return socketFrame{opText, true, s} }
	long := strings.Repeat("x", 70_000)
	for _, c := range []struct {
		name string
		in   []socketFrame
		last string
	}{
		{"nothing", nil, ""},
		{"no marks", []socketFrame{text("a"), {opBytes, true, "b"}, text(""), text("rhumb"), text(long)}, ""},
		{"a mark and its message", []socketFrame{text("rhumb:next 7"), text("a")}, "7"},
		{"a mark whose message is to come", []socketFrame{text("rhumb:next 7"), text("a"), text("rhumb:next 8")}, "7"},
		{"two marks", []socketFrame{text("rhumb:next 7"), text("rhumb:next 8"), {opBytes, true, ""}}, "8"},
		{"in pieces", []socketFrame{text("rhumb:next 7"), {opText, false, "a"}, {opPing, true, "?"}, {opMore, false, "b"}, {opMore, true, ""}}, "7"},
		{"half a message", []socketFrame{text("rhumb:next 7"), {opText, false, "a"}, {opMore, false, "b"}}, ""},
		{"a word in a piece", []socketFrame{{opText, false, "rhumb:next 7"}, {opMore, true, ""}}, ""},
		{"a word in octets", []socketFrame{{opBytes, true, "rhumb:next 7"}}, ""},
		{"longest", []socketFrame{text("rhumb:next " + long[:MaxPosition]), text("a")}, long[:MaxPosition]},
		{"too long", []socketFrame{text("rhumb:next 7"), text("a"), text("rhumb:next " + long[:MaxPosition+1]), text("b")}, "7"},
		{"far too long", []socketFrame{text("rhumb:next " + long), text("b"), {opClose, true, "\x03\xe8"}}, ""},
	} {
		wire := ""
		for _, f := range c.in {
			wire += f.wire()
		}
		want, last := marked(c.in)
		if last != c.last {
			t.Errorf("%s: the oracle ends at %q, want %q", c.name, last, c.last)
		}
		for seed := range uint64(20) {
			got, m := passed(wire, rand.New(rand.NewPCG(seed, 2)))
			if have := framesOf(got); fmt.Sprint(have) != fmt.Sprint(want) || m.Last() != c.last || m.Err() != nil {
				t.Errorf("%s, seed %d: %s, last %q, %v, want %s, %q", c.name, seed, have, m.Last(), m.Err(), want, c.last)
				break
			}
		}
	}
}

// TestMarksRefuse: what is no frame of a server without extensions ends it, and
// nothing of it is passed on.
func TestMarksRefuse(t *testing.T) {
	for name, in := range map[string]string{
		"masked": "\x81\x81\x00\x00\x00\x00a", "compressed": "\xc1\x01a", "unknown opcode": "\x83\x00", "unknown control": "\x8b\x00",
		"ping in pieces": "\x09\x00", "long ping": "\x89\x7e\x00\x80", "continues nothing": "\x80\x00", "a message in another": "\x01\x00\x81\x00",
		"another's word": socketFrame{opText, true, "rhumb:token x"}.wire(), "unknown word": socketFrame{opText, true, "rhumb:"}.wire(),
	} {
		good := socketFrame{opText, true, "good"}.wire()
		got, m := passed(good+in+good, rand.New(rand.NewPCG(1, 2)))
		rest := strings.TrimPrefix(got, good)
		if m.Err() == nil || strings.Contains(rest, "good") || strings.Contains(rest, "token") || m.Between() {
			t.Errorf("%s: %q, %v", name, got, m.Err())
		}
	}
}

// TestMarksBetween: a frame of ours may stand where it divides no message and does not
// come between a mark and what it marks.
func TestMarksBetween(t *testing.T) {
	m := NewMarks("6", upper)
	for _, c := range []struct {
		piece string
		want  bool
		last  string
	}{
		{"", true, "6"}, {"\x81", false, "6"}, {"\x0crhumb:next 7", false, "6"}, {"\x01\x01a", false, "6"}, {"\x89\x00", false, "6"},
		{"\x80\x02b", false, "6"}, {"b", true, "7"}, {"\x89\x00", true, "7"},
	} {
		m.Append(nil, []byte(c.piece))
		if m.Between() != c.want || m.Last() != c.last {
			t.Errorf("after %q: between %v, last %q, want %v, %q", c.piece, m.Between(), m.Last(), c.want, c.last)
		}
	}
	ours := AppendClose(AppendBeat(AppendToken(nil, strings.Repeat("t", MaxText))), CloseStale)
	want := []socketFrame{{opText, true, wordToken + strings.Repeat("t", MaxText)}, {opPong, true, ""}, {opClose, true, "\x11\x39"}}
	if got := framesOf(string(ours)); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("own frames %s, want %s", got, want)
	}
}

func FuzzMarks(f *testing.F) {
	for i, frames := range [][]socketFrame{
		{{opText, true, "rhumb:next 7"}, {opText, false, "a"}, {opPing, true, "?"}, {opMore, true, "b"}},
		{{opBytes, true, strings.Repeat("x", 300)}, {opText, true, "rhumb:next " + strings.Repeat("y", 300)}, {opClose, true, ""}},
	} {
		wire := ""
		for _, fr := range frames {
			wire += fr.wire()
		}
		f.Add(wire, uint64(i))
	}
	f.Fuzz(func(t *testing.T, s string, seed uint64) {
		got, m := passed(s, rand.New(rand.NewPCG(seed, 3)))
		if m.Err() != nil {
			return
		}
		want, last := marked(framesOf(s))
		have := framesOf(got)
		if m.Last() != last || fmt.Sprint(have) != fmt.Sprint(want) {
			t.Errorf("%q becomes %s, last %q, want %s, %q", s, have, m.Last(), want, last)
		}
	})
}
