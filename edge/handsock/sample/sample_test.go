package main

import (
	"bytes"
	"reflect"
	"testing"
)

// TestState: a stream is the same from wherever it is gone on with.
func TestState(t *testing.T) {
	var whole, s state
	line := []byte("7 1000 5\nhello")
	if err := whole.take(line); err != nil {
		t.Fatal(err)
	}
	want := make([]byte, 2000)
	want = want[:whole.answer(want)]
	if len(want) != 1000+digestLen {
		t.Fatalf("answer of %d octets", len(want))
	}
	var got []byte
	for i := range line {
		if err := s.take(line[i : i+1]); err != nil {
			t.Fatal(err)
		}
		got = s.pass(t, got, 37)
	}
	for !s.done() {
		got = s.pass(t, got, 37)
	}
	if !bytes.Equal(got, want) {
		t.Error("the stream in pieces differs")
	}
}

// pass answers up to n octets and moves the state through a record.
func (s *state) pass(t *testing.T, got []byte, n int) []byte {
	if s.Asked {
		b := make([]byte, n)
		n = s.answer(b)
		got, s.Sent = append(got, b[:n]...), s.Sent+uint64(n)
	}
	next, err := readState(s.append(nil))
	if err != nil {
		t.Fatal(err)
	}
	if len(next.Line) == 0 {
		next.Line = s.Line
	}
	if !reflect.DeepEqual(next, *s) {
		t.Fatalf("%+v became %+v", *s, next)
	}
	*s = next
	return got
}

func TestBadRecords(t *testing.T) {
	for _, b := range [][]byte{nil, make([]byte, 48), make([]byte, 49+lineMax+1)} {
		if _, err := readState(b); err == nil {
			t.Errorf("a record of %d octets is taken", len(b))
		}
	}
	var s state
	if err := s.take(bytes.Repeat([]byte("1"), lineMax+1)); err == nil {
		t.Error("a request without an end is taken")
	}
}
