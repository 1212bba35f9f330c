package token

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func keysOf(t testing.TB, seeds ...byte) *Keys {
	t.Helper()
	var secrets []Secret
	for _, s := range seeds {
		secrets = append(secrets, Secret(bytes.Repeat([]byte{s}, 32)))
	}
	k, err := NewKeys(secrets)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sample() (Claims, Expect) {
	want := Expect{Service: 7, Object: [32]byte{1, 2, 3}, Client: ClientOf("a client's key")}
	return Claims{Session: Session{9}, Epoch: 3, Service: want.Service, Object: want.Object, Client: want.Client,
		Began: noon.Add(-time.Hour), Expires: noon.Add(Life), Position: "1042"}, want
}

func TestSealOpens(t *testing.T) {
	c, want := sample()
	for _, position := range []string{"", "1042", strings.Repeat("ü", 127) + "x"} {
		c.Position = position
		text, err := keysOf(t, 1).Seal(c, noon)
		if err != nil {
			t.Fatal(err)
		}
		if len(text) > MaxText {
			t.Errorf("token of %d octets with a position of %d, want at most %d", len(text), len(position), MaxText)
		}
		// Another site, with keys of its own making.
		got, err := keysOf(t, 1).Open(text, noon.Add(time.Second), want)
		if err != nil || got != c {
			t.Errorf("got %+v, %v\nwant %+v", got, err, c)
		}
	}
}

// TestSealIsPure: the text is a function of nonce, claims and moment, and two seals
// of the same claims differ by their nonce.
func TestSealIsPure(t *testing.T) {
	c, _ := sample()
	nonce := [chacha20poly1305.NonceSizeX]byte{5}
	one, _ := keysOf(t, 1).seal(nonce, c, noon)
	two, _ := keysOf(t, 1).seal(nonce, c, noon)
	if one == "" || one != two {
		t.Errorf("%q and %q", one, two)
	}
	k := keysOf(t, 1)
	one, _ = k.Seal(c, noon)
	if two, _ = k.Seal(c, noon); one == two {
		t.Error("a nonce was used twice")
	}
}

func TestOpenRefuses(t *testing.T) {
	base, want := sample()
	midnight := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name    string
		sealed  time.Time // zero: noon
		opened  time.Time // zero: noon
		keys    *Keys     // of the opener; nil: the same
		expect  func(*Expect)
		claim   func(*Claims)
		text    func(string) string
		refusal error
	}{
		{name: "good"},
		{name: "expired at the second", opened: noon.Add(Life), refusal: ErrExpired},
		{name: "good a moment before", opened: noon.Add(Life - time.Nanosecond)},
		{name: "other service", expect: func(e *Expect) { e.Service++ }, refusal: ErrService},
		{name: "other object", expect: func(e *Expect) { e.Object[31] ^= 1 }, refusal: ErrObject},
		{name: "other client", expect: func(e *Expect) { e.Client = ClientOf("another key") }, refusal: ErrClient},
		{name: "client without its key", expect: func(e *Expect) { e.Client = Client{} }, refusal: ErrClient},
		{name: "bound to nobody", claim: func(c *Claims) { c.Client = Client{} }},
		{name: "other secret", keys: keysOf(t, 2), refusal: ErrKey},
		{name: "older secret still in force", keys: keysOf(t, 2, 1)},
		{name: "day before, at midnight", sealed: midnight.Add(-time.Second), opened: midnight.Add(Life - 2*time.Second)},
		{name: "day before, later", sealed: midnight.Add(-time.Second), opened: midnight.Add(Life + Skew), refusal: ErrExpired},
		{name: "next day, clock ahead", sealed: midnight.Add(10 * time.Second), opened: midnight.Add(-10 * time.Second)},
		{name: "key of the future", sealed: midnight.Add(time.Minute), opened: midnight.Add(-time.Minute), refusal: ErrKey},
		{name: "empty", text: func(string) string { return "" }, refusal: ErrMalformed},
		{name: "plain event id", text: func(string) string { return "1042" }, refusal: ErrMalformed},
		{name: "other version", text: func(s string) string { return "B" + s[1:] }, refusal: ErrMalformed},
		{name: "with a line end", text: func(s string) string { return s[:100] + "\n" + s[100:] }, refusal: ErrMalformed},
		{name: "padded", text: func(s string) string { return s + "=" }, refusal: ErrMalformed},
		{name: "too long", text: func(s string) string { return s + strings.Repeat("A", MaxText) }, refusal: ErrMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			claims, e, k := base, want, keysOf(t, 1)
			sealed, opened := c.sealed, c.opened
			if sealed.IsZero() {
				sealed = noon
			}
			if opened.IsZero() {
				opened = sealed
			}
			if c.sealed != (time.Time{}) {
				opened = c.opened
			}
			claims.Expires = sealed.Add(Life)
			if c.claim != nil {
				c.claim(&claims)
			}
			if c.expect != nil {
				c.expect(&e)
			}
			text, err := k.Seal(claims, sealed)
			if err != nil {
				t.Fatal(err)
			}
			if c.text != nil {
				text = c.text(text)
			}
			if c.keys != nil {
				k = c.keys
			}
			got, err := k.Open(text, opened, e)
			if !errors.Is(err, c.refusal) || (err == nil) != (c.refusal == nil) {
				t.Errorf("error %v, want %v", err, c.refusal)
			}
			if err != nil && got != (Claims{}) {
				t.Errorf("claims with an error: %+v", got)
			}
		})
	}
}

// TestEveryBitCounts: no bit of a token can be changed, and no octet be cut off.
func TestEveryBitCounts(t *testing.T) {
	c, want := sample()
	k := keysOf(t, 1)
	text, err := k.Seal(c, noon)
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := base64.RawURLEncoding.DecodeString(text)
	for bit := range len(raw) * 8 {
		b := bytes.Clone(raw)
		b[bit/8] ^= 1 << (bit % 8)
		if _, err := k.Open(base64.RawURLEncoding.EncodeToString(b), noon, want); err == nil {
			t.Errorf("bit %d may be changed", bit)
		}
	}
	for n := range len(text) {
		if _, err := k.Open(text[:n], noon, want); err == nil {
			t.Errorf("%d of %d octets are a token", n, len(text))
		}
	}
}

// TestTwoDaysAtMost: at no moment do more than two keys of one secret open.
func TestTwoDaysAtMost(t *testing.T) {
	for at := noon; at.Before(noon.Add(48 * time.Hour)); at = at.Add(7 * time.Second) {
		n := 0
		for d := day(at) - 3; d <= day(at)+3; d++ {
			if opens(d, at) {
				n++
			}
		}
		if n < 1 || n > 2 || !opens(day(at), at) {
			t.Fatalf("%s: %d keys open", at, n)
		}
	}
}

func TestSealRefuses(t *testing.T) {
	c, _ := sample()
	k := keysOf(t, 1)
	c.Expires = noon.Add(Life + time.Second)
	if text, err := k.Seal(c, noon); err == nil {
		t.Errorf("sealed a life of more than %s: %q", Life, text)
	}
	c, _ = sample()
	c.Position = strings.Repeat("x", MaxPosition+1)
	if text, err := k.Seal(c, noon); err == nil {
		t.Errorf("sealed a position of %d octets: %q", len(c.Position), text)
	}
}

func TestParseSecrets(t *testing.T) {
	line := strings.Repeat("0f", 32) + "\n"
	for _, c := range []struct {
		name, text string
		want       int // 0: an error
	}{
		{"one", line, 1},
		{"three, with remarks", "# made in March\n\n" + line + line + line, 3},
		{"four", line + line + line + line, 0},
		{"none", "# nothing\n", 0},
		{"short", line[:62], 0},
		{"no digits", strings.Repeat("xy", 32), 0},
	} {
		got, err := ParseSecrets([]byte(c.text))
		if len(got) != c.want || (err == nil) != (c.want > 0) {
			t.Errorf("%s: %d secrets, %v, want %d", c.name, len(got), err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "0f0f") {
			t.Errorf("%s: the error tells the secret", c.name)
		}
	}
	if _, err := NewKeys(nil); err == nil {
		t.Error("keys of no secret")
	}
}

func FuzzOpen(f *testing.F) {
	c, want := sample()
	k := keysOf(f, 1)
	// The same in each process that takes part.
	text, err := k.seal([chacha20poly1305.NonceSizeX]byte{1}, c, noon)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(text[:100])
	f.Add("")
	f.Add("AQ")
	f.Fuzz(func(t *testing.T, s string) {
		if got, err := k.Open(s, noon, want); err == nil && (s != text || got != c) {
			t.Errorf("%q is a token: %+v", s, got)
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	c, _ := sample()
	k := keysOf(b, 1)
	for b.Loop() {
		if _, err := k.Seal(c, noon); err != nil {
			b.Fatal(err)
		}
	}
}
