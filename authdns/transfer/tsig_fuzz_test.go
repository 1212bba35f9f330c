package transfer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// FuzzTSIG holds for any octets, key and time (RFC 8945): what nobody signed is never
// taken for signed; a message that was is verified, by the library too, within the
// time allowed, and comes out as it went in; with an octet changed it is not, but for
// the two that may be; and no reply of a stream can be changed, lost or said again.
func FuzzTSIG(f *testing.F) {
	for i, qtype := range []uint16{dns.TypeAXFR, dns.TypeIXFR, dns.TypeSOA} {
		for k := range 3 {
			f.Add(query(f, "demo.test.", qtype), uint8(k), uint64(1_800_000_000), int32(150*i), uint16(7*i), uint8(1<<k), make([]byte, 3*k))
		}
	}
	m := new(dns.Msg)
	m.SetNotify("demo.test.")
	m.Answer = []dns.RR{makeZone(f, 7).soa}
	m.SetEdns0(1232, true)
	m.Compress = true
	b, err := m.Pack()
	if err != nil {
		f.Fatal(err)
	}
	for i, skew := range []int32{-301, -300, 300, 301, -1 << 31} {
		f.Add(b, uint8(i), uint64(i), skew, uint16(len(b)+i), uint8(0x20), []byte("server")) // a letter's case
		f.Add(b[:len(b)-i-1], uint8(i), uint64(1)<<40, skew, uint16(i), uint8(0xff), []byte(nil))
	}
	f.Add(append(b[:len(b):len(b)], 0), uint8(0), uint64(1), int32(0), uint16(0), uint8(1), []byte(nil)) // an octet behind the end
	keys := ring(f)
	f.Fuzz(func(t *testing.T, msg []byte, key uint8, at uint64, skew int32, place uint16, flip uint8, other []byte) {
		now := time.Unix(int64(1+at%(1<<47)), 0)
		s := &signedCase{keys: keys, key: keys.Find([]string{"one.test", "two.test", "three.test"}[key%3]), now: now, msg: msg, other: other[:min(len(other), 6)]}
		s.checkUnsigned(t)
		if !whole(msg) || len(msg) > 16<<10 {
			return // nobody signs what is no message
		}
		s.checkSigned(t, time.Duration(skew)*time.Second)
		s.checkChanged(t, int(place), flip)
		s.checkShort(t, int(place))
		s.checkStream(t, int(place), flip)
	})
}

// whole tells whether octets are an unsigned message to the last one: another record
// would stand just behind them.
func whole(msg []byte) bool {
	if len(msg) < headerLen || binary.BigEndian.Uint16(msg[10:]) == 0xffff {
		return false
	}
	more, last, signed := append(bytes.Clone(msg), 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0), 0, false
	binary.BigEndian.PutUint16(more[10:], binary.BigEndian.Uint16(more[10:])+1)
	err := walk(more, func(r record) error {
		last, signed = r.start, signed || r.typ == dns.TypeTSIG
		return nil
	})
	return err == nil && last == len(msg) && !signed
}

// signedCase is a message, and who signs it when.
type signedCase struct {
	keys  *Keyring
	key   *Key
	now   time.Time
	msg   []byte
	other []byte // with an error: a server's time, say
}

func (s *signedCase) chain(at time.Time) *chain { return &chain{key: s.key, now: fixed(at)} }

// sign signs the message with all that a signature may have.
func (s *signedCase) sign() []byte {
	code := uint16(0)
	if len(s.other) > 0 {
		code = badTime
	}
	return s.chain(s.now).signWith(bytes.Clone(s.msg), code, s.other)
}

// checkUnsigned hands octets in as they are.
func (s *signedCase) checkUnsigned(t *testing.T) {
	t.Helper()
	in := bytes.Clone(s.msg)
	if r, ok := (&Desk{Keys: s.keys, Now: fixed(s.now)}).Read(s.msg); ok && r.keyName() != "" && r.fault == 0 {
		t.Fatalf("taken for signed by %s: %x", r.keyName(), s.msg)
	}
	if !bytes.Equal(in, s.msg) {
		t.Fatal("the message was written to")
	}
}

// checkSigned signs, and verifies by a clock that is ahead.
func (s *signedCase) checkSigned(t *testing.T, ahead time.Duration) {
	t.Helper()
	signed, want := s.sign(), uint16(0)
	if ahead.Abs() > fudge {
		want = badTime
	}
	if len(signed) > len(s.msg)+maxSignature {
		t.Fatalf("a signature of %d octets, the most is %d", len(signed)-len(s.msg), maxSignature)
	}
	sig, err := findSignature(signed)
	if err != nil || sig == nil || !bytes.Equal(sig.stripped(signed), s.msg) {
		t.Fatalf("%x comes back from %x as %+v, %v", s.msg, signed, sig, err)
	}
	if code := s.chain(s.now.Add(ahead)).check(sig, signed); code != want {
		t.Fatalf("verified %v later: %s, want %s", ahead, errorName(code), errorName(want))
	}
	r, ok := (&Desk{Keys: s.keys, Now: fixed(s.now.Add(ahead))}).Read(signed)
	if ok && (r.key != s.key || r.fault != want || !bytes.Equal(r.Body, s.msg)) {
		t.Fatalf("read as signed by %q, %s, body %x; want %q, %s, %x", r.keyName(), errorName(r.fault), r.Body, s.key.Name, errorName(want), s.msg)
	}
	// The library has a clock of its own, and reads no further than it understands.
	if err := dns.TsigVerify(bytes.Clone(signed), keySecret, "", false); errors.Is(err, dns.ErrSig) || errors.Is(err, dns.ErrKeyAlg) {
		t.Fatalf("the library does not verify %x: %v", signed, err)
	}
}

// checkChanged changes an octet of a signed message, and cuts it there.
func (s *signedCase) checkChanged(t *testing.T, place int, flip uint8) {
	t.Helper()
	signed := s.sign()
	sig, _ := findSignature(signed)
	place %= len(signed)
	changed := bytes.Clone(signed)
	changed[place] ^= flip
	free := place < 2 || flip == 0 || sig.spelling(signed, changed)
	if good := s.verifies(changed); good != free {
		t.Fatalf("octet %d changed by %#x, verified: %t, want %t\n%x", place, flip, good, free, signed)
	}
	if s.verifies(signed[:place]) {
		t.Fatalf("verified when cut to %d octets of %x", place, signed)
	}
	if other := s.keys.Find(map[bool]string{true: "two.test", false: "one.test"}[s.key.Name == "one.test."]); (&chain{key: other, now: fixed(s.now)}).check(sig, signed) != badKey {
		t.Fatalf("verified by another key: %x", signed)
	}
}

// checkShort cuts the MAC: half of it does, and ten octets at least (RFC 8945 section
// 5.2.2.1).
func (s *signedCase) checkShort(t *testing.T, n int) {
	t.Helper()
	signed := s.sign()
	sig, _ := findSignature(signed)
	full := len(sig.mac)
	n %= full + 1
	sig.mac = bytes.Clone(sig.mac[:n])
	if good, want := s.verifies(sig.append(sig.stripped(signed))), n >= max(10, full/2); good != want {
		t.Fatalf("with %d of %d octets of the MAC verified: %t, want %t", n, full, good, want)
	}
}

// verifies reports whether a request is taken for signed. The desk, which leaves
// some requests to others, never says more.
func (s *signedCase) verifies(msg []byte) bool {
	sig, err := findSignature(msg)
	good := err == nil && sig != nil && s.chain(s.now).check(sig, msg) == 0
	r, ok := (&Desk{Keys: s.keys, Now: fixed(s.now)}).Read(msg)
	return good || ok && r.key != nil && r.fault == 0
}

// spelling reports whether messages differ in the case of letters of the signature's
// names alone: they are signed in lower case (RFC 8945 section 4.3.3).
func (s *signature) spelling(a, b []byte) bool {
	owner := s.start + len(wireName(s.name))
	data := owner + 10
	names := [2][2]int{{s.start, owner}, {data, data + len(wireName(s.algorithm))}}
	for i := range a {
		in := i >= names[0][0] && i < names[0][1] || i >= names[1][0] && i < names[1][1]
		if a[i] != b[i] && (!in || a[i]^b[i] != 0x20 || a[i]|0x20 < 'a' || a[i]|0x20 > 'z') {
			return false
		}
	}
	return true
}

// checkStream signs replies to a signed request, and spoils one of them.
func (s *signedCase) checkStream(t *testing.T, place int, flip uint8) {
	t.Helper()
	const replies = 3
	ask, answer, all := s.chain(s.now), s.chain(s.now), [][]byte(nil)
	request := ask.sign(bytes.Clone(s.msg))
	answer.advance(ask.mac, false)
	for range replies {
		all = append(all, answer.sign(bytes.Clone(s.msg)))
	}
	if got := s.received(t, ask.mac, all...); got != replies {
		t.Fatalf("%d replies of %d are taken as they were sent", got, replies)
	}
	s.checkPlain(t, ask.mac, all[0], place, flip)
	spoiled := place % replies
	changed := bytes.Clone(all[spoiled])
	changed[2+place%(len(changed)-2)] ^= flip // the id may be another
	sig, _ := findSignature(all[spoiled])
	if flip != 0 && !sig.spelling(all[spoiled], changed) {
		most := spoiled
		if sig, err := findSignature(changed); sig == nil && err == nil && spoiled > 0 && spoiled < replies-1 {
			most++ // it seems to be unsigned, which is seen at the next signature (RFC 8945 section 5.3.1)
		}
		in := append(append(all[:spoiled:spoiled], changed), all[spoiled+1:]...)
		if got := s.received(t, ask.mac, in...); got > most {
			t.Fatalf("%d replies are taken, of which number %d is %x, not %x", got, spoiled, changed, all[spoiled])
		}
	}
	for _, c := range []struct {
		why  string
		in   [][]byte
		want int
	}{
		{"the first is lost", [][]byte{all[1], all[2]}, 0},
		{"the second is lost", [][]byte{all[0], all[2]}, 1},
		{"said again", [][]byte{all[0], all[0]}, 1},
		{"in another order", [][]byte{all[0], all[2], all[1]}, 1},
		{"the request for a reply", [][]byte{request}, 0},
	} {
		if got := s.received(t, ask.mac, c.in...); got != c.want {
			t.Fatalf("%s: %d replies are taken, want %d", c.why, got, c.want)
		}
	}
}

// checkPlain leaves the second of three replies unsigned: the third signs it, too.
func (s *signedCase) checkPlain(t *testing.T, request, first []byte, place int, flip uint8) {
	t.Helper()
	answer := s.chain(s.now)
	answer.advance(request, false)
	answer.sign(bytes.Clone(s.msg))
	answer.open = bytes.Clone(s.msg)
	last, changed := answer.sign(bytes.Clone(s.msg)), bytes.Clone(s.msg)
	if got := s.received(t, request, first, s.msg, last); got != 3 {
		t.Fatalf("%d replies are taken, the second unsigned, want 3", got)
	}
	changed[place%len(changed)] ^= flip
	if got := s.received(t, request, first, changed, last); flip != 0 && got > 2 {
		t.Fatalf("%d replies are taken, the second %x for %x", got, changed, s.msg)
	}
	if got := s.received(t, request, first, s.msg); got != 1 {
		t.Fatalf("%d replies are taken, the last unsigned, want 1", got)
	}
}

// received tells how many replies to a request are taken, one after the other. What is
// taken for signed must be what was signed.
func (s *signedCase) received(t *testing.T, request []byte, replies ...[]byte) int {
	t.Helper()
	ask := s.chain(s.now)
	ask.advance(request, false)
	for i, in := range replies {
		sig, _ := findSignature(in)
		out, err := ask.receive(in, i == len(replies)-1)
		if err != nil {
			return i
		}
		if sig != nil && !bytes.Equal(out, s.msg) {
			t.Fatalf("%x comes back from %x, want %x", out, in, s.msg)
		}
	}
	return len(replies)
}
