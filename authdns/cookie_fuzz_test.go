package authdns

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// FuzzCookie holds for any COOKIE option, client and time (RFC 7873, RFC 9018): one
// of a wrong length is FORMERR, every other is answered with one cookie that holds;
// what is sent is good only if a secret of ours made it for this client in this hour;
// and no bit of a good one, or of the client's address, can be turned.
func FuzzCookie(f *testing.F) {
	now := uint32(testClock().Unix())
	four, six := netip.MustParseAddr(euResolver).AsSlice(), netip.MustParseAddr(euResolverV6).AsSlice()
	good := serverCookie(&testSecrets()[0], euResolver, now)
	for i, sent := range [][]byte{nil, good[:7], good[:8], good[:9], good[:15], good[:16], good, serverCookie(&testSecrets()[1], euResolver, now-1801),
		serverCookie(&testSecrets()[0], euResolverV6, now+300), append(good[:24:24], make([]byte, 16)...), make([]byte, 41)} {
		f.Add(sent, four, now, int32(i*600), uint16(17*i))
		f.Add(sent, six, uint32(i), int32(-i*60), uint16(19*i))
	}
	mapped := netip.MustParseAddr(euResolver).As16() // another address
	f.Add(good, mapped[:], now, int32(-1<<31), uint16(96))
	st := compiled(f, fleet(f, plan{}), sources()...)
	w := quickWorker(f, st, top)
	f.Fuzz(func(t *testing.T, sent, addr []byte, now uint32, age int32, bit uint16) {
		client, ok := netip.AddrFromSlice(addr)
		if !ok || len(sent) > 512 {
			return
		}
		checkCookieAnswered(t, w, sent, client, now)
		checkCookieMade(t, client, now, age)
		checkCookieTurned(t, client, now, int(bit))
	})
}

// checkCookieAnswered asks with a COOKIE option, by both paths.
func checkCookieAnswered(t *testing.T, w *worker, sent []byte, client netip.Addr, now uint32) {
	t.Helper()
	j, st := &jar{testSecrets()}, w.server.current.Load()
	query, out, fast := ask(t, "www.demo.test. A", option(optCookie, sent...)), make([]byte, maxUDP), make([]byte, maxUDP)
	a := asker{addr: netip.AddrPortFrom(client, 1053), level: top, jar: j, now: now}
	n, o := st.answer(query, out, a)
	var m dns.Msg
	if err := m.Unpack(out[:n]); err != nil {
		t.Fatalf("the reply does not parse: %v", err)
	}
	w.guard.begin(j, time.Unix(int64(now), 0), 1)
	if n2 := w.quickly(st, query, fast, a.addr); n2 > 0 && (!bytes.Equal(fast[:n2], out[:n]) || w.guard.use != o.cookie) {
		t.Fatalf("the fast path says %x, cookie %s; want %x, %s", fast[:n2], cookieUses[w.guard.use], out[:n], cookieUses[o.cookie])
	}
	given := cookiesIn(t, &m)
	if server := len(sent) - clientCookieLen; server != 0 && (server < minServerLen || server > maxServerLen) {
		if m.Rcode != dns.RcodeFormatError || len(given) > 0 {
			t.Fatalf("a cookie of %d octets is answered by %s and %d cookies", len(sent), dns.RcodeToString[m.Rcode], len(given))
		}
		return
	}
	if want := cookieWorth(sent, client, now); o.cookie != want {
		t.Fatalf("cookie %x of %s at %d is %s, want %s", sent, client, now, cookieUses[o.cookie], cookieUses[want])
	}
	if m.Rcode != dns.RcodeSuccess || len(given) != 1 || len(given[0]) != cookieLen || !bytes.HasPrefix(given[0], sent[:clientCookieLen]) {
		t.Fatalf("cookie %x is answered by %s and cookies %x", sent, dns.RcodeToString[m.Rcode], given)
	}
	var again [cookieLen]byte
	if use := j.judge(&again, given[0], client, now); use != cookieGood || (o.cookie != cookieGood && !bytes.Equal(again[:], given[0])) {
		t.Fatalf("the cookie that was given is %s, and %x becomes %x", cookieUses[use], given[0], again)
	}
}

// cookieWorth says what a cookie of a right length is worth, as RFC 9018 puts it.
func cookieWorth(sent []byte, client netip.Addr, now uint32) cookieUse {
	if len(sent) == clientCookieLen {
		return cookieClient
	}
	if len(sent) != cookieLen || sent[8] != 1 {
		return cookieBad
	}
	made := int64(binary.BigEndian.Uint32(sent[12:]))
	for _, turn := range []int64{-1 << 32, 0, 1 << 32} { // the clock turns over
		if age := int64(now) - made + turn; age < -300 || age > 3600 {
			continue
		}
		for _, s := range testSecrets() {
			hash := sipHash(&s, append(bytes.Clone(sent[:16]), client.AsSlice()...))
			if bytes.Equal(binary.LittleEndian.AppendUint64(nil, hash), sent[16:]) {
				return cookieGood
			}
		}
	}
	return cookieBad
}

func cookiesIn(t *testing.T, m *dns.Msg) (out [][]byte) {
	t.Helper()
	if m.IsEdns0() == nil {
		return nil
	}
	for _, o := range m.IsEdns0().Option {
		if c, ok := o.(*dns.EDNS0_COOKIE); ok {
			b, err := hex.DecodeString(c.Cookie)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, b)
		}
	}
	return out
}

// checkCookieMade brings a cookie back at an age, to who shares one secret with its
// maker or both, and to who shares none.
func checkCookieMade(t *testing.T, client netip.Addr, now uint32, age int32) {
	t.Helper()
	made := now - uint32(age)
	want, kept := cookieBad, false
	if age >= -300 && age <= 3600 {
		want, kept = cookieGood, age >= 0 && age <= 1800
	}
	for i, s := range testSecrets() {
		sent := serverCookie(&s, client.String(), made)
		var out [cookieLen]byte
		use := (&jar{testSecrets()}).judge(&out, sent, client, now)
		if use != want || bytes.Equal(out[:], sent) != (kept && i == 0) {
			t.Fatalf("a cookie of secret %d, %d s old, is %s, and given back as %x for %x; want %s", i, age, cookieUses[use], out, sent, cookieUses[want])
		}
		if use := (&jar{[]Secret{{9}}}).judge(&out, sent, client, now); use != cookieBad {
			t.Fatalf("who has another secret takes it for %s", cookieUses[use])
		}
	}
}

// checkCookieTurned turns one bit: of the cookie, or of the address it was made for.
func checkCookieTurned(t *testing.T, client netip.Addr, now uint32, bit int) {
	t.Helper()
	sent, addr := serverCookie(&testSecrets()[0], client.String(), now), client.AsSlice()
	if bit %= 8 * (len(sent) + len(addr)); bit < 8*len(sent) {
		sent[bit/8] ^= 1 << (bit % 8)
	} else {
		addr[bit/8-len(sent)] ^= 1 << (bit % 8)
	}
	turned, _ := netip.AddrFromSlice(addr)
	var out [cookieLen]byte
	if use := (&jar{testSecrets()}).judge(&out, sent, turned, now); use != cookieBad {
		t.Fatalf("with bit %d turned, cookie %x of %s is %s", bit, sent, turned, cookieUses[use])
	}
}
