package upload

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"
)

func messages() []Message {
	id := ID{1, 2, 15: 3}
	return []Message{
		{Kind: Open, ID: id, Service: 7, First: 1 << 31, Request: Request{Name: "/" + strings.Repeat("n", 5000), Size: 1 << 40, IfMatch: `"a", "b"`, IfNoneMatch: "*"}},
		{Kind: Data, ID: id, Offset: 1 << 33, Data: []byte("octets")},
		{Kind: At, ID: id, Offset: 1 << 62},
		{Kind: Publish, ID: id, Sum: [32]byte{31: 9}, Date: 1 << 31},
		{Kind: Done, ID: id, Status: 201},
		{Kind: Refused, ID: id, Status: 507},
		{Kind: OpenSealed, ID: id, Service: 7, First: 5, Request: Request{Name: "/n", Size: 9}},
		{Kind: Place, ID: id, Offset: 1 << 40, Wire: 1 << 41, Number: 1 << 31, Updates: 64, Tail: 16000, Data: []byte("half of a record")},
		{Kind: Placed, ID: id, Offset: 1 << 40, Wire: 1 << 41},
		{Kind: Drop, ID: id},
		{Kind: Dropped, ID: id},
	}
}

// TestMessages: each kind is read as it was written, and nothing shorter or longer is.
func TestMessages(t *testing.T) {
	for _, m := range messages() {
		b := Append(nil, m)
		if got, err := Decode(b); err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%+v is read as %+v, %v", m, got, err)
		}
		for n := range len(b) {
			if len(m.Data) > 0 && n >= len(b)-len(m.Data) {
				continue // fewer octets
			}
			if got, err := Decode(b[:n]); err == nil {
				t.Errorf("%d octets of kind %d are read as %+v", n, m.Kind, got)
			}
		}
		if _, err := Decode(append(b, 0)); err == nil && len(m.Data) == 0 {
			t.Errorf("kind %d is read with an octet behind it", m.Kind)
		}
	}
}

func FuzzMessage(f *testing.F) {
	for _, m := range messages() {
		f.Add(Append(nil, m))
	}
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			return
		}
		if again := Append(nil, m); !bytes.Equal(again, b) {
			t.Errorf("%x is read, %x written", b, again)
		}
	})
}

// TestLease: an owner's time is over before its Backup's, however long a message takes.
func TestLease(t *testing.T) {
	start := time.Now()
	for _, took := range []time.Duration{0, time.Millisecond, time.Second} {
		var l Lease
		var p Promise
		p.Give(start.Add(took / 2))
		l.Granted(start)
		for at := time.Duration(0); at < 2*time.Second; at += time.Millisecond {
			if now := start.Add(at); l.Valid(now) && p.Over(now) {
				t.Fatalf("message of %v: after %v the owner acts and the Backup may claim", took, at)
			}
		}
		if took == 0 && !l.Valid(start.Add(LeaseTime-leaseMargin-1)) {
			t.Error("a lease is none")
		}
	}
	var l Lease
	l.Granted(start.Add(time.Second))
	l.Granted(start)
	if !l.Valid(start.Add(time.Second)) {
		t.Error("an older answer shortens a lease")
	}
}
