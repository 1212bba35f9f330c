package frame

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func covered(k Key, suite uint8) Record {
	r := record(k)
	r.Cover = Cover{Suite: suite, Client: 0xffff_fffe, Server: 77, Text: [8]byte{9, 8, 7}}
	for i := range r.Cover.secretLen() {
		r.Cover.Write[i], r.Cover.Read[i] = 0xa0+byte(i%16), 0xb0+byte(i%16)
	}
	return r
}

// TestCoverRoundTrip: every family and suite, within 256 bytes.
func TestCoverRoundTrip(t *testing.T) {
	for _, tc := range []struct {
		key   Key
		suite uint8
		size  int
	}{{key4, 1, 200}, {key4, 2, 232}, {key4, 3, 200}, {key6, 1, 224}, {key6, 2, 256}, {key6, 3, 224}} {
		rec := covered(tc.key, tc.suite)
		b := AppendRecord(nil, rec)
		got, err := DecodeRecord(b)
		if err != nil || got != rec || len(b) != tc.size || len(b) > MaxRecord {
			t.Errorf("%s suite %d: %d bytes, want %d, %v", tc.key, tc.suite, len(b), tc.size, err)
		}
		for n := range b {
			if _, err := DecodeRecord(b[:n]); err == nil {
				t.Errorf("suite %d: %d of %d bytes decode", tc.suite, n, len(b))
			}
		}
		o := offer(tc.key)
		o.Record, o.Bound = rec, Bound{Plain: 3, Text: [16]byte{1, 2, 3}}
		back, err := DecodeOffer(AppendOffer(nil, o))
		if err != nil || !reflect.DeepEqual(back, o) {
			t.Errorf("offer with suite %d: %v", tc.suite, err)
		}
		o.Bound.Plain = uint32(len(o.Input)) + 1
		if _, err := DecodeOffer(AppendOffer(nil, o)); err == nil {
			t.Error("more opened bytes than there are decode")
		}
	}
	b := AppendRecord(nil, covered(key4, 1))
	b[1] = 4 | 4<<4
	if _, err := DecodeRecord(b); err == nil {
		t.Error("an unknown suite decodes")
	}
}

// TestCoverIsNotPrinted: by no verb, from no depth.
func TestCoverIsNotPrinted(t *testing.T) {
	rec := covered(key4, 2)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		for _, v := range []any{rec.Cover, rec, &rec, Offer{Record: rec}} {
			out := fmt.Sprintf(verb, v)
			if strings.Contains(out, "160, 161") || strings.Contains(out, "160 161") || strings.Contains(out, "0xa0, 0xa1") || bytes.Contains([]byte(out), []byte{0xa0, 0xa1}) {
				t.Errorf("%s of %T prints a secret: %s", verb, v, out)
			}
		}
	}
}
