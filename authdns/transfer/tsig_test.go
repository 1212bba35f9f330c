package transfer

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func query(t testing.TB, name string, qtype uint16) []byte {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, qtype)
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestSignatureOracle: what we sign the library accepts, and the other way round,
// for each algorithm, along an exchange of a request and three replies.
func TestSignatureOracle(t *testing.T) {
	for _, k := range []*Key{ring(t).Find("one.test"), ring(t).Find("TWO.test."), ring(t).Find("three.test")} {
		t.Run(k.Algorithm, func(t *testing.T) {
			c := &chain{key: k, now: time.Now}
			signed := c.sign(query(t, "demo.test.", dns.TypeAXFR))
			if err := dns.TsigVerify(bytes.Clone(signed), keySecret, "", false); err != nil {
				t.Fatalf("our request: %v", err)
			}
			mac, timers := macOf(t, signed), false
			for i := range 3 {
				m := new(dns.Msg)
				m.SetQuestion("demo.test.", dns.TypeAXFR)
				m.SetTsig(k.Name, k.Algorithm, 300, time.Now().Unix())
				reply, next, err := dns.TsigGenerate(m, keySecret, mac, timers)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := c.receive(reply, i == 2); err != nil {
					t.Fatalf("their reply %d: %v", i, err)
				}
				mac, timers = next, true
			}
			// Now we are the one who replies.
			m := new(dns.Msg)
			m.SetQuestion("demo.test.", dns.TypeAXFR)
			m.SetTsig(k.Name, k.Algorithm, 300, time.Now().Unix())
			request, mac, err := dns.TsigGenerate(m, keySecret, "", false)
			if err != nil {
				t.Fatal(err)
			}
			desk := &Desk{Keys: ring(t), Now: time.Now}
			r, ok := desk.Read(request)
			if !ok || r.fault != 0 {
				t.Fatalf("their request: read %t, fault %d", ok, r.fault)
			}
			timers = false
			for i := range 3 {
				reply := r.seal(query(t, "demo.test.", dns.TypeAXFR))
				if err := dns.TsigVerify(bytes.Clone(reply), keySecret, mac, timers); err != nil {
					t.Fatalf("our reply %d: %v", i, err)
				}
				mac, timers = macOf(t, reply), true
			}
		})
	}
}

func macOf(t testing.TB, msg []byte) string {
	t.Helper()
	var m dns.Msg
	if err := m.Unpack(msg); err != nil {
		t.Fatal(err)
	}
	return m.IsTsig().MAC
}

// TestSignatureFaults: what each wrong signature is answered with (RFC 8945 section 5.2).
func TestSignatureFaults(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	sign := func(key string, at time.Time) []byte {
		return (&chain{key: ring(t).Find(key), now: fixed(at)}).sign(query(t, "demo.test.", dns.TypeSOA))
	}
	flip := func(msg []byte, at int) []byte {
		out := bytes.Clone(msg)
		out[at] ^= 1
		return out
	}
	good := sign("one.test", now)
	short := func() []byte { // a MAC of 8 octets
		s, _ := findSignature(good)
		s.mac = s.mac[:8]
		return s.append(s.stripped(good))
	}
	for _, c := range []struct {
		why   string
		msg   []byte
		fault uint16
	}{
		{"right", good, 0},
		{"clock 299 s behind", sign("one.test", now.Add(-299*time.Second)), 0},
		{"RFC 8945 5.2.3 clock 301 s behind", sign("one.test", now.Add(-301*time.Second)), badTime},
		{"RFC 8945 5.2.3 clock 301 s ahead", sign("one.test", now.Add(301*time.Second)), badTime},
		{"another id is no fault: the original one is signed", flip(good, 0), 0},
		{"a flag changed", flip(good, 2), badSig},
		{"the name changed", flip(good, headerLen+1), badSig},
		{"MAC changed", flip(good, len(good)-10), badSig},
		{"RFC 8945 5.2.2.1 MAC cut short", short(), badTrunc},
	} {
		t.Run(c.why, func(t *testing.T) {
			r, ok := (&Desk{Keys: ring(t), Now: fixed(now)}).Read(c.msg)
			if !ok || r.fault != c.fault {
				t.Errorf("read %t, fault %d; want %d", ok, r.fault, c.fault)
			}
		})
	}
	t.Run("RFC 8945 5.2.1 a key we do not have", func(t *testing.T) {
		r, ok := (&Desk{Now: fixed(now)}).Read(good)
		out := make([]byte, 1232)
		if !ok || r.fault != badKey {
			t.Fatalf("read %t, fault %d", ok, r.fault)
		}
		var m dns.Msg
		if err := m.Unpack(out[:r.Fault(out)]); err != nil || m.Rcode != dns.RcodeNotAuth || m.IsTsig() == nil || m.IsTsig().Error != badKey || m.IsTsig().MACSize != 0 {
			t.Errorf("answered with %v, %v; want NOTAUTH, BADKEY, no MAC", &m, err)
		}
	})
	t.Run("RFC 8945 5.2.3 BADTIME is signed and tells our time", func(t *testing.T) {
		late := sign("one.test", now.Add(-time.Hour))
		r, _ := (&Desk{Keys: ring(t), Now: fixed(now)}).Read(late)
		out := make([]byte, 1232)
		var m dns.Msg
		if err := m.Unpack(out[:r.Fault(out)]); err != nil || m.Rcode != dns.RcodeNotAuth || m.IsTsig().Error != badTime || m.IsTsig().MACSize != 32 || m.IsTsig().OtherData != "00006b49d200" {
			t.Errorf("answered with %v, %v", &m, err)
		}
	})
}

// TestStreamOfSignatures: a primary signs at least every 100th message and the
// last (RFC 8945 section 5.3.1); anything that is changed, lost or added shows at
// the next signature.
func TestStreamOfSignatures(t *testing.T) {
	pass := func(messages, every int, harm func(i int, msg []byte) []byte) error {
		ask := &chain{key: ring(t).Find("one.test"), now: time.Now}
		r, _ := (&Desk{Keys: ring(t), Now: time.Now}).Read(ask.sign(query(t, "demo.test.", dns.TypeAXFR)))
		for i := range messages {
			msg := query(t, "demo.test.", dns.TypeAXFR)
			if i%every == 0 || i == messages-1 {
				msg = r.seal(msg)
			} else {
				r.chain.open = append(r.chain.open, msg...)
			}
			if msg = harm(i, msg); msg == nil {
				continue
			}
			if _, err := ask.receive(msg, i == messages-1); err != nil {
				return err
			}
		}
		return nil
	}
	none := func(_ int, m []byte) []byte { return m }
	for _, c := range []struct {
		why             string
		messages, every int
		harm            func(int, []byte) []byte
		ok              bool
	}{
		{"each signed", 5, 1, none, true},
		{"every 96th", 300, 96, none, true},
		{"every 100th", 300, 100, none, true},
		{"every 101st is too seldom", 300, 101, none, false},
		{"one changed", 12, 6, func(i int, m []byte) []byte {
			if i == 3 {
				m[headerLen+1] ^= 1
			}
			return m
		}, false},
		{"one lost", 12, 6, func(i int, m []byte) []byte {
			if i == 3 {
				return nil
			}
			return m
		}, false},
	} {
		if err := pass(c.messages, c.every, c.harm); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.why, err)
		}
	}
}

// TestKeys: a file of keys is right as a whole, or the line is named.
func TestKeys(t *testing.T) {
	secret := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for _, c := range []struct{ why, text, want string }{
		{"as kdig takes it", "hmac-sha256:a.test:" + secret, ""},
		{"comments", "# x\n\nhmac-sha512:a.test.:" + secret + " # y", ""},
		{"fields", "\nhmac-sha256 a.test " + secret, "keys:2: 1 fields"},
		{"RFC 8945 6 MD5", "hmac-md5:a.test:" + secret, `keys:1: algorithm "hmac-md5"`},
		{"not base 64", "hmac-sha256:a.test:???", "keys:1: key a.test.: the secret is not base 64"},
		{"short", "hmac-sha256:a.test:AAAA", "keys:1: key a.test.: a secret of 3 octets"},
		{"twice", "hmac-sha256:a.test:" + secret + "\nhmac-sha256:A.test.:" + secret, "keys:2: key a.test. stands twice"},
		{"a name that messages spell otherwise", "hmac-sha256:a b.test:" + secret, `keys:1: "a b.test" is not a key name`},
		{"no name", "hmac-sha256::" + secret, `keys:1: "" is not a key name`},
	} {
		_, err := ParseKeys("keys", strings.NewReader(c.text))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.why, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error shows the secret", c.why)
		}
	}
}

// TestKeyFileMode: secrets which others may read are none.
func TestKeyFileMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	for mode, ok := range map[os.FileMode]bool{0o600: true, 0o400: true, 0o640: false, 0o604: false} {
		os.Remove(path)
		if err := os.WriteFile(path, []byte(keyFile), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadKeys(path); (err == nil) != ok {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
}
