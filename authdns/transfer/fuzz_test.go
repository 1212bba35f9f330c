package transfer

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// FuzzRead: whatever comes is answered within bounds or left alone, and is never
// taken for signed when it is not.
func FuzzRead(f *testing.F) {
	now := fixed(time.Unix(1_800_000_000, 0))
	c := &chain{key: ring(f).Find("one.test"), now: now}
	f.Add(query(f, "demo.test.", dns.TypeAXFR))
	f.Add(c.sign(query(f, "demo.test.", dns.TypeIXFR)))
	f.Add((&chain{key: &Key{Name: "x.", Algorithm: dns.HmacSHA256}, now: now}).sign(query(f, "demo.test.", dns.TypeSOA)))
	m := new(dns.Msg)
	m.SetNotify("demo.test.")
	b, _ := m.Pack()
	f.Add(b)
	f.Add(b[:20])
	f.Fuzz(func(t *testing.T, msg []byte) {
		in := bytes.Clone(msg)
		d := &Desk{Keys: ring(t), Out: &Out{Max: 1}, Now: now}
		r, ok := d.Read(msg)
		if !bytes.Equal(in, msg) {
			t.Fatal("the message was written to")
		}
		if !ok {
			return
		}
		out := make([]byte, 1232)
		if n := r.Fault(out); n > 0 {
			var m dns.Msg
			if err := m.Unpack(out[:n]); err != nil || m.IsTsig() == nil {
				t.Fatalf("a fault is answered with what cannot be read: %v", err)
			}
			return
		}
		if r.key != nil && len(r.Body) >= len(msg) {
			t.Fatal("signed, and nothing stripped")
		}
		if n, ok := d.Datagram(r, primaryAddr[0].Addr(), out); ok && n < headerLen {
			t.Fatalf("answered with %d octets", n)
		}
	})
}

// FuzzReply: whatever a primary sends, what comes of it can be written and read.
func FuzzReply(f *testing.F) {
	z := makeZone(f, 7, hosts(3)...)
	for _, have := range []uint32{0, 5, 7} {
		r := &Request{msg: query(f, "demo.test.", dns.TypeIXFR)}
		r.q, _ = readQuestion(r.msg)
		p := &published{zone: z}
		p.journal.deltas = []Delta{{From: makeZone(f, 5).soa, To: z.soa, Added: z.rrs[2:]}}
		rrs, _ := p.records(have > 0, have)
		_ = stream(rrs, r, make([]byte, dns.MaxMsgSize), func(b []byte) error {
			f.Add(bytes.Clone(b))
			return nil
		})
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		if len(msg) < 2 {
			return
		}
		r := &reader{zone: "demo.test.", qtype: dns.TypeIXFR, id: uint16(msg[0])<<8 | uint16(msg[1]), in: incoming{have: 5, partial: true}}
		done, err := r.message(msg)
		if err != nil || !done || r.in.single() {
			return
		}
		c := newContents(r.in.soa, r.in.whole)
		if r.in.deltas != nil {
			held := makeZone(t, 5)
			c = newContents(held.soa, held.rrs)
			_ = c.apply(r.in.deltas)
		}
		text := c.text()
		if again, err := readContents("demo.test.", text); err == nil && len(again.rrs) > len(c.rrs) {
			t.Fatalf("%d records were written, %d read:\n%s", len(c.rrs), len(again.rrs), text)
		}
	})
}

// FuzzKeys: a file is a keyring whose keys can sign, or an error that names it.
func FuzzKeys(f *testing.F) {
	f.Add(keyFile)
	f.Add("hmac-md5:a:b")
	f.Add("# \n:::\n")
	f.Add("hmac-sha384:0 :000000000000000000000000")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseKeys("keys", strings.NewReader(text))
		if err != nil {
			if !strings.Contains(err.Error(), "keys") {
				t.Fatal(err)
			}
			return
		}
		for name, k := range r.keys {
			signed := (&chain{key: k, now: time.Now}).sign(query(t, "demo.test.", dns.TypeSOA))
			if s, err := findSignature(signed); err != nil || s.name != name {
				t.Fatalf("key %q signs what cannot be read: %v", name, err)
			}
		}
	})
}

// FuzzShelf: nothing but what was written whole is read.
func FuzzShelf(f *testing.F) {
	f.Add([]byte(shelfMark + digest([]byte("x")) + "\nx"))
	f.Add([]byte(head(digest([]byte("x")), Listing{Catalog: "c.test.", ID: `a b\\.\\009`}) + "\nx"))
	f.Add([]byte(shelfMark + digest([]byte("x")) + " listed a1 \nx"))
	f.Add([]byte(shelfMark + "\n"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, b []byte) {
		text, listed, err := openShelf(b)
		if err == nil && !bytes.Equal(b, []byte(head(digest(text), listed)+"\n"+string(text))) {
			t.Fatalf("read %q", b)
		}
	})
}
