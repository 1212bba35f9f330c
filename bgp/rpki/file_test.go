package rpki

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// What two validators write of the same ROAs.
const (
	rpkiClient = `{"metadata":{"buildmachine":"v.test","buildtime":"2026-01-02T03:04:05Z","vrps":2},
"roas":[{"asn":64500,"prefix":"192.0.2.0/24","maxLength":24,"ta":"test","expires":1767323045},
{"asn":64501,"prefix":"2001:db8::/32","maxLength":48,"ta":"test","expires":1767323045}],
"bgpsec_keys":[{"asn":1,"ski":"00"}],"provider_authorizations":[]}`
	routinator = `{"metadata":{"generated":1767323045,"generatedTime":"2026-01-02T03:04:05Z"},
"roas":[{"asn":"AS64500","prefix":"192.0.2.0/24","maxLength":24,"ta":"test"},
{"asn":"AS64501","prefix":"2001:db8::/32","maxLength":48,"ta":"test"}]}`
	plainest = `{"metadata":{"generated":1767323045},"roas":[{"asn":"as64500","prefix":"192.0.2.0/24"},{"asn":64501,"prefix":"2001:db8::/32","maxLength":48}]}`
)

func TestDecode(t *testing.T) {
	for name, text := range map[string]string{"rpki-client": rpkiClient, "routinator": routinator, "seconds, no maxLength": plainest} {
		t.Run(name, func(t *testing.T) {
			table, err := decode(strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			if want := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC); !table.At.Equal(want) {
				t.Errorf("made at %v, want %v", table.At, want)
			}
			want := NewTable([]VRP{vrp("192.0.2.0/24", 24, 64500), vrp("2001:db8::/32", 48, 64501)}, time.Time{})
			if table.Len() != 2 || table.vrps[0] != want.vrps[0] || table.vrps[1] != want.vrps[1] {
				t.Errorf("%v, want %v", table.vrps, want.vrps)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":         ``,
		"a list":          `[]`,
		"no roas":         `{"metadata":{}}`,
		"cut short":       rpkiClient[:200],
		"after the list":  `{"roas":[{"asn":1,"prefix":"192.0.2.0/24"}]`,
		"no number":       `{"roas":[{"asn":"ASx","prefix":"192.0.2.0/24"}]}`,
		"AS too large":    `{"roas":[{"asn":4294967296,"prefix":"192.0.2.0/24"}]}`,
		"no prefix":       `{"roas":[{"asn":1}]}`,
		"host bits":       `{"roas":[{"asn":1,"prefix":"192.0.2.1/24"}]}`,
		"max too short":   `{"roas":[{"asn":1,"prefix":"192.0.2.0/24","maxLength":23}]}`,
		"max too long":    `{"roas":[{"asn":1,"prefix":"192.0.2.0/24","maxLength":33}]}`,
		"max no byte":     `{"roas":[{"asn":1,"prefix":"192.0.2.0/24","maxLength":280}]}`,
		"not the objects": `{"roas":{"asn":1}}`,
	} {
		t.Run(name, func(t *testing.T) {
			if table, err := decode(strings.NewReader(text)); err == nil {
				t.Errorf("read as %v", table.vrps)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	for _, text := range []string{rpkiClient, routinator, plainest, `{"roas":[]}`, `{"roas":[{"asn":1,"prefix":"::/0"}]} x`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		table, err := decode(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, v := range table.vrps {
			if s, _ := table.Judge(v.Prefix, v.ASN); s != Valid && v.ASN != 0 {
				t.Fatalf("%v is %v by its own table", v, s)
			}
		}
	})
}

// TestFollow: a file that comes late, changes, breaks, and grows old.
func TestFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "json")
	route, start := netip.MustParsePrefix("192.0.2.0/24"), time.Now().Format(time.RFC3339)
	write := func(asn string) {
		t.Helper()
		text := `{"metadata":{"buildtime":"` + start + `"},"roas":[` + asn + `]}`
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		zero := time.Now()
		start = zero.Format(time.RFC3339)
		s := NewSource(Config{File: path, MaxAge: time.Hour})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.Run(ctx) }()
		word := func(want string) {
			t.Helper()
			time.Sleep(10 * time.Second)
			synctest.Wait()
			if got := s.Judge(route, 64500, time.Now()); got.Word() != want {
				t.Errorf("%s (%s), want %s", got.Word(), got.Text, want)
			}
		}
		word("stale")
		write(`{"asn":64500,"prefix":"192.0.2.0/24"}`)
		word("valid")
		write(`{"asn":64501,"prefix":"192.0.2.0/24"}, {"asn":64502,"prefix":"192.0.2.0/24"}`)
		word("invalid")
		write(`{"asn":`)
		word("invalid")
		time.Sleep(time.Hour)
		word("stale")
		write("")
		start = time.Now().Format(time.RFC3339)
		write("")
		word("not-found")
		if n, age := s.Data(time.Now()); n != 0 || age > time.Minute {
			t.Errorf("%d VRPs of %v ago", n, age)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestFindingNamesTheVRPs(t *testing.T) {
	s := NewSource(Config{})
	var list []VRP
	for i := range uint32(6) {
		list = append(list, vrp("192.0.2.0/24", 24, 64501+i))
	}
	s.Set(NewTable(list, time.Unix(0, 0)))
	got := s.Judge(netip.MustParsePrefix("192.0.2.0/24"), 64500, time.Unix(5, 0))
	want := "192.0.2.0/24-24 AS64501, 192.0.2.0/24-24 AS64502, 192.0.2.0/24-24 AS64503, 192.0.2.0/24-24 AS64504 and 2 more"
	if got.Text != want || !got.Invalid() {
		t.Errorf("%v %q, want %q", got.State, got.Text, want)
	}
}

func TestKnown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "known.json")
	o := Origin{netip.MustParsePrefix("192.0.2.0/24"), 64500}
	k, err := OpenKnown(path)
	if err != nil || k.Has(o) {
		t.Fatal("something is known from nothing", err)
	}
	for range 2 {
		if err := k.Add(o); err != nil {
			t.Fatal(err)
		}
	}
	again, err := OpenKnown(path)
	if err != nil || !again.Has(o) || again.Has(Origin{o.Prefix, 64501}) || len(again.routes) != 1 {
		t.Errorf("after a restart: %v, %v", again.routes, err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if broken, err := OpenKnown(path); err == nil || broken.Has(o) {
		t.Error("a broken file is told, and knows nothing")
	}
	var none *Known
	if none.Has(o) || none.Add(o) != nil {
		t.Error("no memory knows nothing and takes everything")
	}
	if err := (&Known{path: filepath.Join(path, "x")}).Add(o); err == nil {
		t.Error("what cannot be written is an error")
	}
}
