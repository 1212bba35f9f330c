package frame

import (
	"bytes"
	"strings"
	"testing"
)

func FuzzName(f *testing.F) {
	for _, n := range []Name{{1, [32]byte{1}, "/film.mp4"}, {1 << 31, [32]byte{31: 1}, strings.Repeat("x", MaxName)}} {
		f.Add(AppendName(nil, n))
	}
	f.Add([]byte(nil))
	f.Add(make([]byte, 37))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := DecodeName(b)
		if err != nil {
			return
		}
		if n.Name == "" || n.Object == [32]byte{} || len(n.Name) > MaxName {
			t.Errorf("%+v passes", n)
		}
		if again := AppendName(nil, n); !bytes.Equal(again, b) {
			t.Errorf("%x is read, %x written", b, again)
		}
	})
}

// TestNames: a frame of a name is read as it was written; what says nothing is not.
func TestNames(t *testing.T) {
	want := Name{7, [32]byte{1, 2, 3}, "/a b/film.mp4"}
	b, err := Append(nil, Frame{Type: ObjectName, Payload: AppendName(nil, want)})
	if err != nil {
		t.Fatal(err)
	}
	f, err := Read(bytes.NewReader(b))
	if err != nil || f.Type != ObjectName || f.Type.String() != "name" {
		t.Fatalf("%s, %v", f.Type, err)
	}
	if got, err := DecodeName(f.Payload); err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	for name, bad := range map[string]Name{"no name": {1, [32]byte{1}, ""}, "no object": {1, [32]byte{}, "/x"}, "too long": {1, [32]byte{1}, strings.Repeat("x", MaxName+1)}} {
		if _, err := DecodeName(AppendName(nil, bad)); err == nil {
			t.Errorf("%s passes", name)
		}
	}
}
