package authdns

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// testClock stands still, so that two servers give one cookie.
func testClock() time.Time { return time.Unix(1_700_000_000, 0) }

// testSecrets are the one in force, and the one before it.
func testSecrets() []Secret { return []Secret{{1, 2, 3}, {4, 5, 6}} }

// serverCookie makes a whole cookie as a server with a secret would have.
func serverCookie(s *Secret, client string, at uint32) []byte {
	var out [cookieLen]byte
	j := jar{[]Secret{*s}}
	j.judge(&out, []byte("clientCC"), netip.MustParseAddr(client), at)
	return out[:]
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestSipHash: the vector of the algorithm's authors, key 00..0f, message 00..0e.
func TestSipHash(t *testing.T) {
	var key Secret
	var msg [15]byte
	for i := range key {
		key[i] = byte(i)
	}
	for i := range msg {
		msg[i] = byte(i)
	}
	if got := sipHash(&key, msg[:]); got != 0xa129ca6149be45e5 {
		t.Errorf("got %x", got)
	}
}

// TestCookieVectors: RFC 9018 appendix A.
func TestCookieVectors(t *testing.T) {
	for _, c := range []struct {
		name, secrets, client, sent string
		now                         uint32
		use                         cookieUse
		want                        string
	}{
		{"A.1 learning a new server cookie", "e5e973e5a6b2a43f48e7dc849e37bfcf", "198.51.100.100", "2464c4abcf10c957", 1559731985, cookieClient,
			"2464c4abcf10c957 010000005cf79f111f8130c3eee29480"},
		{"A.2 the same client learning a renewed one", "e5e973e5a6b2a43f48e7dc849e37bfcf", "198.51.100.100", "2464c4abcf10c957 010000005cf79f111f8130c3eee29480", 1559734385, cookieGood,
			"2464c4abcf10c957 010000005cf7a871d4a564a1442aca77"},
		{"A.3 another client learning a renewed one", "e5e973e5a6b2a43f48e7dc849e37bfcf", "203.0.113.203", "fc93fc62807ddb86 01abcdef5cf78f71a314227b6679ebf5", 1559727985, cookieGood,
			"fc93fc62807ddb86 01abcdef5cf78f71a314227b6679ebf5"},
		{"A.4 IPv6 with a rolled over secret", "445536bcd2513298075a5d379663c962\ndd3bdf9344b678b185a6f5cb60fca715", "2001:db8:220:1:59de:d0f4:8769:82b8", "22681ab97d52c298 010000005cf7c57926556bd0934c72f8", 1559741961, cookieGood,
			"22681ab97d52c298 010000005cf7c609a6bb79d16625507a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			secrets, err := ParseSecrets([]byte(c.secrets))
			if err != nil {
				t.Fatal(err)
			}
			var out [cookieLen]byte
			use := (&jar{secrets}).judge(&out, unhex(t, c.sent), netip.MustParseAddr(c.client), c.now)
			if want := strings.ReplaceAll(c.want, " ", ""); use != c.use || hex.EncodeToString(out[:]) != want {
				t.Errorf("%s: got %x, want %s", cookieUses[use], out, want)
			}
		})
	}
}

// TestCookieLife: RFC 9018 section 4.3, row 40, also where the clock of 32 bits turns.
func TestCookieLife(t *testing.T) {
	const client = "203.0.113.5"
	for _, made := range []uint32{1_700_000_000, 1<<32 - 1000, 100} {
		for _, c := range []struct {
			age  int64
			use  cookieUse
			kept bool
		}{
			{0, cookieGood, true}, {1800, cookieGood, true}, {1801, cookieGood, false}, {3600, cookieGood, false}, {3601, cookieBad, false},
			{-300, cookieGood, false}, {-301, cookieBad, false}, {-1 << 31, cookieBad, false},
		} {
			sent := serverCookie(&testSecrets()[0], client, made)
			var out [cookieLen]byte
			use := (&jar{testSecrets()}).judge(&out, sent, netip.MustParseAddr(client), made+uint32(c.age))
			if use != c.use || (string(out[:]) == string(sent)) != c.kept {
				t.Errorf("made at %d, %d s old: %s, kept %t", made, c.age, cookieUses[use], string(out[:]) == string(sent))
			}
		}
	}
}

func TestCookieJudged(t *testing.T) {
	now := uint32(testClock().Unix())
	good := serverCookie(&testSecrets()[0], euResolver, now)
	change := func(at int) []byte {
		c := append([]byte(nil), good...)
		c[at] ^= 0x40
		return c
	}
	for _, c := range []struct {
		name, client string
		sent         []byte
		want         cookieUse
	}{
		{"none", euResolver, nil, cookieNone},
		{"client part", euResolver, good[:8], cookieClient},
		{"good", euResolver, good, cookieGood},
		{"of the secret before", euResolver, serverCookie(&testSecrets()[1], euResolver, now), cookieGood},
		{"of another address", usResolver, good, cookieBad},
		{"of a mapped address", "::ffff:198.51.100.5", good, cookieBad},
		{"another client part", euResolver, change(0), cookieBad},
		{"another version", euResolver, change(8), cookieBad},
		{"other reserved octets", euResolver, change(9), cookieBad},
		{"another time", euResolver, change(15), cookieBad},
		{"another hash", euResolver, change(23), cookieBad},
		{"8 octets of a server", euResolver, good[:16], cookieBad},
		{"32 octets of a server", euResolver, append(good[:24:24], make([]byte, 16)...), cookieBad},
	} {
		var out [cookieLen]byte
		if got := (&jar{testSecrets()}).judge(&out, c.sent, netip.MustParseAddr(c.client), now); got != c.want {
			t.Errorf("%s: %s", c.name, cookieUses[got])
		}
		if got := (*jar)(nil).judge(&out, c.sent, netip.MustParseAddr(c.client), now); got != cookieNone {
			t.Errorf("%s, without secrets: %s", c.name, cookieUses[got])
		}
	}
}

func TestParseSecrets(t *testing.T) {
	const a, b = "000102030405060708090a0b0c0d0e0f", "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF"
	for _, c := range []struct {
		text string
		n    int
		want string
	}{
		{a, 1, ""}, {"# rolled in May\n" + a + "\r\n\n  " + b + "\n", 2, ""},
		{"", 0, "0 of them"}, {strings.Repeat(a+"\n", 4), 0, "4 of them"},
		{a + "\n" + a[:31], 0, "line 2"}, {a + a, 0, "line 1"}, {"secret", 0, "line 1"},
	} {
		got, err := ParseSecrets([]byte(c.text))
		if len(got) != c.n || (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %d, %v", c.text, len(got), err)
		}
		if err != nil && strings.Contains(err.Error(), "0a0b") {
			t.Errorf("%q: the error shows a secret: %v", c.text, err)
		}
	}
}

// TestCookies holds rows 3 and 37 to 40 of a query's way through a state; it is
// the same on the fast path, see TestQuickIsTheSlowPath.
func TestCookies(t *testing.T) {
	s := compiled(t, fleet(t, plan{}), sources()...)
	now := uint32(testClock().Unix())
	good, old := serverCookie(&testSecrets()[0], euResolver, now), serverCookie(&testSecrets()[1], euResolver, now-10)
	bad := append(append([]byte(nil), good[:23]...), 0)
	cookie := func(b []byte) func(*dns.Msg) { return option(optCookie, b...) }
	www := func(change ...func(*dns.Msg)) []byte { return ask(t, "www.demo.test. A", change...) }
	only := func(b []byte) []byte {
		return ask(t, ". NS", cookie(b), func(m *dns.Msg) { m.Question = nil })
	}
	given := " cookie=" + hex.EncodeToString(good)
	answer := "NOERROR aa | " + wwwA + opt
	for _, c := range []struct {
		name    string
		query   []byte
		pressed bool
		want    string
	}{
		{"R03_cookie_only RFC 7873 5.4", only(good[:8]), false, "NOERROR" + opt + given},
		{"R03_cookie_only_good", only(good), false, "NOERROR" + opt + given},
		{"R03_opt_without_cookie", ask(t, ". NS", edns0(), func(m *dns.Msg) { m.Question = nil }), false, "FORMERR" + opt},
		{"R03_cookie_malformed", only(good[:7]), false, "FORMERR" + opt},
		{"R37_0_octets", www(cookie(nil)), false, "FORMERR" + opt},
		{"R37_7_octets", www(cookie(good[:7])), false, "FORMERR" + opt},
		{"R37_9_octets", www(cookie(good[:9])), false, "FORMERR" + opt},
		{"R37_15_octets", www(cookie(good[:15])), false, "FORMERR" + opt},
		{"R37_41_octets", www(cookie(make([]byte, 41))), false, "FORMERR" + opt},
		{"R38_client_only RFC 9018 4", www(cookie(good[:8])), false, answer + given},
		{"R38_good", www(cookie(good)), false, answer + given},
		{"R38_two_cookies", www(edns0(&dns.EDNS0_LOCAL{Code: optCookie, Data: good[:8]}, &dns.EDNS0_LOCAL{Code: optCookie, Data: old})), false, answer + given},
		{"R38_secret_before RFC 9018 5", www(cookie(old)), false, answer + given},
		{"R38_refused", ask(t, "www.other.test. A", cookie(good)), false, "REFUSED" + opt + given + " ede=20"},
		{"R39_bad", www(cookie(bad)), false, answer + given},
		{"R39_bad_under_load RFC 7873 5.2.4", www(cookie(bad)), true, "BADCOOKIE" + opt + given},
		{"R39_client_only_under_load RFC 7873 5.2.3", www(cookie(good[:8])), true, "BADCOOKIE" + opt + given},
		{"R39_good_under_load", www(cookie(good)), true, answer + given},
		{"R39_none_under_load", www(), true, "NOERROR aa | " + wwwA},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := from(euResolver, top)
			a.jar, a.now, a.pressed = &jar{testSecrets()}, now, c.pressed
			if got := show(s.reply(t, c.query, a)); got != c.want {
				t.Errorf("\n got %s\nwant %s", got, c.want)
			}
			if a.tcp = true; c.pressed {
				if got := show(s.reply(t, c.query, a)); !strings.HasPrefix(got, "NOERROR aa") {
					t.Errorf("over TCP: %s", got)
				}
			}
		})
	}
}

// TestPressed: a worker asks for cookies while the socket does not run dry.
func TestPressed(t *testing.T) {
	w := quickWorker(t, compiled(t, nil, sources()...), top)
	q, out := ask(t, "www.demo.test. A", option(optCookie, make([]byte, 8)...)), make([]byte, maxUDP)
	src := netip.MustParseAddrPort(euResolver + ":53")
	for i := range pressedAfter + 1 {
		if got, want := w.quickly(w.server.current.Load(), q, out, src) == 0, i == pressedAfter; got != want {
			t.Errorf("after %d full batches: left to the slow path %t", i, got)
		}
		w.guard.begin(w.guard.jar, testClock(), batchSize)
	}
	w.guard.begin(w.guard.jar, testClock(), batchSize-1)
	if w.quickly(w.server.current.Load(), q, out, src) == 0 {
		t.Error("still pressed after a batch that was not full")
	}
}

// TestSetSecrets: a roll is in force at the next query, and two servers with one
// set of secrets accept each other's cookies; a server alone has a secret as well.
func TestSetSecrets(t *testing.T) {
	a := start(t, Config{Listeners: []Listener{loopback(top, "127.0.0.1:0")}, Secrets: testSecrets()[:1], Now: testClock})
	b := start(t, Config{Listeners: []Listener{loopback(top, "127.0.0.1:0")}, Now: testClock})
	a.SetZones(sources())
	b.SetZones(sources())
	asked := func(s *Server, cookie string) string {
		data := unhex(t, cookie)
		m := exchange(t, "udp", s.Addrs()[0], ask(t, "www.demo.test. A", option(optCookie, data...)))
		for _, o := range m.IsEdns0().Option {
			if c, ok := o.(*dns.EDNS0_COOKIE); ok {
				return c.Cookie
			}
		}
		t.Fatalf("no cookie in %s", show(m))
		return ""
	}
	one := asked(a, "0102030405060708")
	if got := asked(b, one); got == one {
		t.Error("a server alone accepts a cookie of another one")
	}
	b.SetSecrets(testSecrets()) // both, the one of a first
	if got := asked(b, one); got != one {
		t.Errorf("one secret, two cookies: %s and %s", one, got)
	}
	a.SetSecrets([]Secret{testSecrets()[1], testSecrets()[0]})
	if two := asked(a, one); two == one {
		t.Error("a cookie of the secret before is not renewed")
	} else if samples(t, a, "rhumb_dns_cookies_total") == "" {
		t.Error("nothing counted")
	} else if got := asked(b, two); got == two {
		t.Error("kept a cookie of a secret that is only accepted")
	}
	if got := fmt.Sprint(samples(t, b, "rhumb_dns_cookies_total")); !strings.Contains(got, `"good"`) || !strings.Contains(got, `"bad"`) {
		t.Errorf("counted: %s", got)
	}
}
