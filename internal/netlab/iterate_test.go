package netlab

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// The parent changes the delegation; a resolver goes on with the set it has.
func TestResolverKeepsNSSetForItsTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := threeLevels(t)
		r := newTestResolver(t, f, nil)
		ask(r, "short.demo.test.")
		f.servers[tldAddr].records = records(t, "test. 3600 IN SOA a. b. 1 1 1 1 1")
		for range 3 {
			time.Sleep(90 * time.Second)
			if got := ask(r, "short.demo.test."); got != "NOERROR 192.0.2.2" {
				t.Errorf("%s", got)
			}
		}
	})
}

// RFC 2181 section 5.4.1: what a server says of its own zone weighs more than a
// referral, and a later referral does not undo it.
func TestResolverRanksChildAboveParent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := threeLevels(t)
		for _, a := range []string{nearAddr, farAddr} { // the child names ns2 alone
			f.servers[a].records = slices.DeleteFunc(slices.Clone(f.servers[a].records), func(rr dns.RR) bool {
				ns, ok := rr.(*dns.NS)
				return ok && ns.Ns == "ns1.demo.test."
			})
		}
		r := newTestResolver(t, f, nil)
		ask(r, "www.demo.test.")
		if got := askFor(r, "demo.test.", dns.TypeNS, netip.Prefix{}); got != "NOERROR ns2.demo.test." {
			t.Errorf("NS set known: %s", got)
		}
		f.takeLog()
		time.Sleep(10 * time.Second)
		ask(r, "www.demo.test.")
		if got := f.takeLog(); len(got) != 1 || !strings.HasPrefix(got[0], farAddr) {
			t.Errorf("asked %q, want the server that the child names", got)
		}
	})
}

func TestResolverOddServers(t *testing.T) {
	for _, tc := range []struct {
		name  string
		near  func(*fakeServer, *dns.Msg, bool) *dns.Msg
		want  string
		check func(*testing.T, *Resolver)
	}{
		{name: "lame", want: "NOERROR 192.0.2.1", near: func(s *fakeServer, q *dns.Msg, _ bool) *dns.Msg {
			m := new(dns.Msg)
			m.SetRcode(q, dns.RcodeRefused)
			return m
		}},
		{name: "upward referral", want: "NOERROR 192.0.2.1", near: func(s *fakeServer, q *dns.Msg, _ bool) *dns.Msg {
			m := new(dns.Msg)
			m.SetReply(q)
			m.Ns = records(t, ". 60 IN NS a.root.")
			return m
		}},
		{name: "other question", want: "NOERROR 192.0.2.1", near: func(s *fakeServer, q *dns.Msg, _ bool) *dns.Msg {
			m := s.answer(q)
			m.Question[0].Name = "evil.test."
			return m
		}},
		{name: "other ID", want: "NOERROR 192.0.2.1", near: func(s *fakeServer, q *dns.Msg, _ bool) *dns.Msg {
			m := s.answer(q)
			m.Id++
			return m
		}},
		{name: "RFC 1035 section 4.2.1: cut off, whole over TCP", want: "NOERROR 192.0.2.1", near: func(s *fakeServer, q *dns.Msg, tcp bool) *dns.Msg {
			m := s.answer(q)
			if !tcp {
				m.Truncated, m.Answer = true, nil
			}
			return m
		}, check: func(t *testing.T, r *Resolver) {
			if r.servers.get(netip.MustParseAddr(farAddr)).srtt != 0 {
				t.Error("the other server was asked")
			}
		}},
		{name: "RFC 5452 section 6: speaks for others", want: "NOERROR 192.0.2.1", near: func(s *fakeServer, q *dns.Msg, _ bool) *dns.Msg {
			m := s.answer(q)
			m.Answer = append(m.Answer, records(t, "www.bank.test. 60 IN A 192.0.2.66")...)
			m.Ns = append(m.Ns, records(t, "test. 60 IN NS evil.demo.test.")...)
			return m
		}, check: func(t *testing.T, r *Resolver) {
			if r.cache.get(cacheKey{name: "www.bank.test.", rtype: dns.TypeA}, netip.Addr{}, time.Now()) != nil {
				t.Error("a record of another zone was cached")
			}
			if got := askFor(r, "test.", dns.TypeNS, netip.Prefix{}); got != "NOERROR a.nic.test." {
				t.Errorf("NS of test: %s", got)
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := threeLevels(t)
				near := f.servers[nearAddr]
				near.reply = func(q *dns.Msg, tcp bool) *dns.Msg { return tc.near(near, q, tcp) }
				r := newTestResolver(t, f, nil)
				if got := ask(r, "www.demo.test."); got != tc.want {
					t.Errorf("%s, want %s", got, tc.want)
				}
				if tc.check != nil {
					tc.check(t, r)
				}
			})
		})
	}
}

// Address records with a short TTL in the child run out before the NS set does:
// the parent's glue must be fetched again.
func TestResolverFetchesGlueAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := threeLevels(t)
		for _, rr := range f.servers[tldAddr].records {
			if rr.Header().Rrtype == dns.TypeA {
				rr.Header().Ttl = 20
			}
		}
		r := newTestResolver(t, f, nil)
		ask(r, "short.demo.test.")
		time.Sleep(25 * time.Second)
		if got := ask(r, "short.demo.test."); got != "NOERROR 192.0.2.2" {
			t.Errorf("%s", got)
		}
	})
}

// The root names its servers without their addresses: the hints go on serving.
func TestResolverFallsBackToHints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := threeLevels(t)
		r := newTestResolver(t, f, nil)
		if got := ask(r, "nothing."); got != "NXDOMAIN" {
			t.Error(got)
		}
		if got := askFor(r, ".", dns.TypeNS, netip.Prefix{}); got != "NOERROR a.root." {
			t.Error(got)
		}
		if got := ask(r, "www.demo.test."); got != "NOERROR 192.0.2.1" {
			t.Error(got)
		}
	})
}
