package token

import (
	"bytes"
	"testing"
)

func samples() []Message {
	q := claim(3, 4)
	return []Message{
		{Kind: Ask, ID: 1, Question: q},
		{Kind: Answer, ID: 1, Vote: Stale},
		{Kind: Answer, ID: 2},
		{Kind: Release, ID: 0, Question: q},
	}
}

func TestMessages(t *testing.T) {
	for _, m := range samples() {
		got, err := Decode(m.Encode())
		if err != nil || got != m {
			t.Errorf("got %+v, %v, want %+v", got, err, m)
		}
	}
	back := claim(4, 3)
	zero := claim(0, 1)
	for name, b := range map[string][]byte{
		"empty": {}, "unknown kind": {9, 0, 0, 0, 0, 0, 0, 0, 0, 0}, "unknown vote": {2, 0, 0, 0, 0, 0, 0, 0, 0, 7},
		"question cut off": samples()[0].Encode()[:40], "epoch that falls": Message{Kind: Ask, Question: back}.Encode(),
		"epoch zero": Message{Kind: Ask, Question: zero}.Encode(), "answer of a question's size": Message{Kind: Answer}.Encode()[:9],
	} {
		if m, err := Decode(b); err == nil {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range samples() {
		f.Add(m.Encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := Decode(b); err == nil && !bytes.Equal(m.Encode(), b) {
			t.Errorf("%x is read as %+v, which is %x", b, m, m.Encode())
		}
	})
}
