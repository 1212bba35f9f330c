package authdns

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"rhumb/authdns/dnssec"
	"rhumb/placement"
)

// TestTurn: at every hour of a day all is valid, each hour only a part was signed
// anew, and keys change when their times say so.
func TestTurn(t *testing.T) {
	now := signedAt.Truncate(dnssec.Tick)
	src := []Source{signedSource("demo.test.", keysOf(t, "demo.test.", false), "@ SOA ns b 1 2 3 4 60\n@ NS ns\nns A 192.0.2.1\nwww A 192.0.2.2\nsub NS ns\n$GENERATE 1-10 n$ A 192.0.2.$\n")}
	next, err := dnssec.Generate("demo.test.", dnssec.P256, false, dnssec.Times{Publish: now.Add(5 * time.Hour), Activate: now.Add(10 * time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	old := src[0].Keys[1]
	src[0].Keys = []*dnssec.Key{src[0].Keys[0], old.With(dnssec.Times{Publish: now, Activate: now, Inactive: now.Add(10 * time.Hour), Delete: now.Add(20 * time.Hour)}), next}
	s := loadedBy(t, func() time.Time { return now }, 0, src...)
	s.Apply(t.Context(), fleet(t, plan{}))
	all := sum(t, s, "rhumb_dnssec_signatures_total")
	for hour := range 24 {
		st := s.current.Load()
		for _, q := range []string{"www.demo.test. A", "demo.test. DNSKEY", "nix.demo.test. A", "x.sub.demo.test. A"} {
			if why := bogus(st.top["demo.test."], st.reply(t, ask(t, q, do), from(euResolver, top)), now); why != "" {
				t.Fatalf("hour %d: %s: %s", hour, q, why)
			}
		}
		keys, signer := len(st.top["demo.test."].zone.RRset("demo.test.", dns.TypeDNSKEY)), old.Tag()
		if hour >= 10 {
			signer = next.Tag()
		}
		if want := 2 + b2i(hour >= 5) - b2i(hour >= 20); keys != want {
			t.Errorf("hour %d: %d keys published, want %d", hour, keys, want)
		}
		m := st.reply(t, ask(t, "www.demo.test. A", do), from(euResolver, top))
		if got := m.Answer[1].(*dns.RRSIG).KeyTag; got != signer {
			t.Errorf("hour %d: signed by %d, want %d", hour, got, signer)
		}
		before := sum(t, s, "rhumb_dnssec_signatures_total")
		now = now.Add(time.Hour)
		s.turn()
		if n := sum(t, s, "rhumb_dnssec_signatures_total") - before; hour != 9 && n > all/3 {
			t.Errorf("hour %d: %v of %v signatures made anew", hour, n, all)
		}
		if s.current.Load() == st {
			t.Fatalf("hour %d: no new state", hour)
		}
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestSameOnAllNodes: two nodes with the same keys give the same octets.
func TestSameOnAllNodes(t *testing.T) {
	src, snap := signedSources(t), fleet(t, plan{})
	a := compile(self, loadedBy(t, at(signedAt), 0, src...).zones, snap, nil)
	b := compile(self, loadedBy(t, at(signedAt.Add(30*time.Minute)), 0, src...).zones, snap, nil)
	for _, q := range []string{"www.demo.test. A", "nix.demo.test. A", "demo.test. DNSKEY", "x.sub.demo.test. A"} {
		out := [2][]byte{make([]byte, maxUDP), make([]byte, maxUDP)}
		n, _ := a.answer(ask(t, q, do), out[0], from(euResolver, top))
		m, _ := b.answer(ask(t, q, do), out[1], from(euResolver, top))
		if string(out[0][:n]) != string(out[1][:m]) {
			t.Errorf("%s: two nodes, two answers", q)
		}
	}
}

// TestUnsignable: where keys are missing the version before goes on, and a zone that
// never was signed is not ready; it is never served without the signatures it
// should have.
func TestUnsignable(t *testing.T) {
	signed := signedSources(t)[0]
	none, plain, twice := signed, sources()[0], signed
	none.Keys, none.NoKeys = nil, errors.New("no directory is named")
	twice.Data = append(slices.Clone(twice.Data), "@ NSEC3PARAM 1 0 0 -\n"...)
	s := loadedBy(t, at(signedAt), 0)
	first := func(src Source) (string, string) {
		errs := s.SetZones([]Source{src})
		return shape(s.current.Load().reply(t, ask(t, "www.demo.test. A", do), from(euResolver, top))), fmt.Sprint(errs)
	}
	for _, c := range []struct {
		name       string
		src        Source
		want, fail string
	}{
		{"no keys on a fresh node", none, "SERVFAIL", "none of 0 keys"},
		{"signed", signed, "NOERROR A RRSIG(A)", ""},
		{"the keys are gone", none, "NOERROR A RRSIG(A)", "none of 0 keys"},
		{"a file that is signed already", twice, "NOERROR A RRSIG(A)", "NSEC3PARAM in a zone whose SOA is not signed"},
		{"signed no more", plain, "NOERROR A", ""},
		{"to be signed, without keys", none, "NOERROR A", "none of 0 keys"},
	} {
		got, errs := first(c.src)
		if got != c.want || !strings.Contains(errs, c.fail) {
			t.Errorf("%s: %s, errors %s; want %s and %q", c.name, got, errs, c.want, c.fail)
		}
		if why := "no directory is named"; strings.Contains(errs, why) != (c.src.NoKeys != nil) {
			t.Errorf("%s: %s; why there are no keys: %v", c.name, errs, c.src.NoKeys)
		}
	}
}

// TestClock: what is said of a clock that cannot be right.
func TestClock(t *testing.T) {
	for _, c := range []struct {
		name string
		made time.Time
		want string
	}{
		{"no plan", time.Time{}, ""},
		{"an old plan", signedAt.Add(-time.Hour), ""},
		{"a plan just made by a clock a little ahead", signedAt.Add(clockSlack), ""},
		{"a plan from tomorrow", signedAt.Add(24 * time.Hour), "the plan in force was made 24h0m0s ahead of this clock"},
	} {
		if got := clockFault(signedAt, c.made); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	now := time.Now()
	if d := stepped(now, now.Add(time.Hour)); d != 0 {
		t.Errorf("an hour that passed is a step of %s", d)
	}
	s := loadedBy(t, at(signedAt), 0, signedSources(t)...)
	snap := fleet(t, plan{})
	snap.Plan = &placement.Plan{Made: signedAt.Add(time.Hour)}
	s.Apply(t.Context(), snap)
	s.checkClock()
	if got := gauge(t, s, "rhumb_dnssec_clock_suspect"); got != 1 {
		t.Errorf("no alarm: %v", got)
	}
	s.Apply(t.Context(), fleet(t, plan{}))
	s.checkClock()
	if got := gauge(t, s, "rhumb_dnssec_clock_suspect"); got != 0 {
		t.Errorf("the alarm stays: %v", got)
	}
}

// gauge reads a metric without labels.
func gauge(t *testing.T, s *Server, name string) float64 {
	t.Helper()
	of := metric(t, s, name)
	if of == nil {
		t.Fatalf("no metric %s", name)
	}
	return of[0].GetGauge().GetValue()
}

// TestFreshKeys: keys made a moment ago sign at once, whatever the minute.
func TestFreshKeys(t *testing.T) {
	src := signedSources(t)[:1]
	for i, k := range src[0].Keys {
		src[0].Keys[i] = k.With(dnssec.Times{Created: signedAt, Publish: signedAt, Activate: signedAt})
	}
	st := compile(self, loadedBy(t, at(signedAt), 0, src...).zones, nil, nil)
	m := st.reply(t, ask(t, "www.demo.test. A", do), from(euResolver, top))
	if why := bogus(st.top["demo.test."], m, signedAt); why != "" {
		t.Error(why)
	}
}
