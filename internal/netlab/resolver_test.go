package netlab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

func newTestResolver(t testing.TB, f *fakeInternet, change func(*ResolverConfig)) *Resolver {
	t.Helper()
	cfg := ResolverConfig{
		Roots:    []RootServer{{"a.root.", []netip.Addr{netip.MustParseAddr(rootAddr)}}},
		Exchange: f, Random: func() float64 { return 0.99 },
	}
	if change != nil {
		change(&cfg)
	}
	r, err := NewResolver(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// ask resolves an A record and returns rcode and data as text.
func ask(r *Resolver, name string) string {
	return askFor(r, name, dns.TypeA, netip.Prefix{})
}

func askFor(r *Resolver, name string, rtype uint16, client netip.Prefix) string {
	a := r.Resolve(context.Background(), name, rtype, client)
	text := dns.RcodeToString[a.Rcode]
	for _, rr := range a.Answer {
		text += " " + strings.TrimPrefix(rr.String(), rr.Header().String())
	}
	return text
}

func TestResolverWalksDownAndCaches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := threeLevels(t)
		r := newTestResolver(t, f, nil)
		begin := time.Now()
		if got := ask(r, "WWW.demo.test."); got != "NOERROR 192.0.2.1" {
			t.Fatal(got)
		}
		if took := time.Since(begin); took != 20*time.Millisecond {
			t.Errorf("took %s, want 5+5+10 ms", took)
		}
		want := []string{rootAddr + " www.demo.test. A", tldAddr + " www.demo.test. A", nearAddr + " www.demo.test. A"}
		if got := f.takeLog(); !slices.Equal(got, want) {
			t.Errorf("asked %q, want %q", got, want)
		}
		time.Sleep(4 * time.Second)
		a := r.Resolve(t.Context(), "www.demo.test.", dns.TypeA, netip.Prefix{})
		if len(a.Answer) != 1 || a.Answer[0].Header().Ttl != 6 {
			t.Errorf("after 4 s of 10: %v", a.Answer)
		}
		if got := f.takeLog(); len(got) != 0 {
			t.Errorf("cached, yet asked %q", got)
		}
		time.Sleep(6 * time.Second)
		ask(r, "www.demo.test.")
		if got := f.takeLog(); len(got) != 1 || got[0][:len(nearAddr)] == rootAddr {
			t.Errorf("expired: asked %q, want one question at demo.test", got)
		}
	})
}

func TestResolverAnswers(t *testing.T) {
	for _, tc := range []struct {
		name  string
		rtype uint16
		want  string
	}{
		{"www.demo.test.", dns.TypeA, "NOERROR 192.0.2.1"},
		{"old.demo.test.", dns.TypeA, "NOERROR www.demo.test. 192.0.2.1"},
		{"old.demo.test.", dns.TypeCNAME, "NOERROR www.demo.test."},
		{"away.demo.test.", dns.TypeA, "NOERROR www.other.test. 192.0.2.9"},
		{"loop.demo.test.", dns.TypeA, "SERVFAIL"},
		{"nothing.demo.test.", dns.TypeA, "NXDOMAIN"},
		{"www.demo.test.", dns.TypeAAAA, "NOERROR"},
		{"nothing.", dns.TypeA, "NXDOMAIN"},
		{"demo.test.", dns.TypeDS, "NOERROR 1 13 2 00000000000000000000000000000000000000000000000000000000000000AA"},
		{"demo.test.", dns.TypeNS, "NOERROR ns1.demo.test. ns2.demo.test."},
		{".", dns.TypeNS, "NOERROR a.root."},
	} {
		t.Run(tc.name+dns.TypeToString[tc.rtype], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newTestResolver(t, threeLevels(t), nil)
				for _, round := range []string{"fresh", "cached"} {
					if got := askFor(r, tc.name, tc.rtype, netip.Prefix{}); got != tc.want {
						t.Errorf("%s: %s, want %s", round, got, tc.want)
					}
				}
			})
		})
	}
}

func TestResolverNegativeCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := threeLevels(t)
		r := newTestResolver(t, f, nil)
		ask(r, "nothing.demo.test.")
		ask(r, "www.demo.test.")
		askFor(r, "www.demo.test.", dns.TypeTXT, netip.Prefix{})
		f.takeLog()
		time.Sleep(29 * time.Second) // SOA minimum 30: RFC 2308 section 5
		a := r.Resolve(t.Context(), "nothing.demo.test.", dns.TypeMX, netip.Prefix{})
		if a.Rcode != dns.RcodeNameError || len(a.Authority) != 1 || a.Authority[0].Header().Ttl != 1 {
			t.Errorf("RFC 2308 section 5: a name denied is denied for every type: %+v", a)
		}
		if got := askFor(r, "www.demo.test.", dns.TypeTXT, netip.Prefix{}); got != "NOERROR" || len(f.takeLog()) != 0 {
			t.Errorf("NODATA not cached: %s", got)
		}
		time.Sleep(time.Second)
		ask(r, "nothing.demo.test.")
		if got := f.takeLog(); len(got) != 1 {
			t.Errorf("after the minimum: asked %q", got)
		}
	})
}

func TestResolverFailsOverAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := threeLevels(t)
		r := newTestResolver(t, f, nil)
		ask(r, "www.demo.test.")
		ask(r, "short.demo.test.") // by now both servers are known
		f.servers[nearAddr].dead = true
		quick := 0
		for i := range 16 {
			time.Sleep(time.Second)
			begin := time.Now()
			if got := ask(r, "short.demo.test."); got != "NOERROR 192.0.2.2" {
				t.Fatal(got)
			}
			took := time.Since(begin)
			if took > time.Second {
				t.Errorf("question %d after the death took %s", i, took)
			}
			if took <= 100*time.Millisecond {
				quick++
			}
		}
		if quick < 10 { // the rest tried whether the dead one is back: after 1, 2, 4 s
			t.Errorf("%d of 16 questions did not wait for the dead server", quick)
		}
		f.servers[nearAddr].dead = false
		time.Sleep(mostRest)
		f.takeLog()
		ask(r, "short.demo.test.")
		if got := f.takeLog(); len(got) != 1 || !strings.HasPrefix(got[0], nearAddr) {
			t.Errorf("after healing: asked %q, want the near server", got)
		}
	})
}

func TestResolverServfailOnlyWhenAllAreDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := threeLevels(t)
		r := newTestResolver(t, f, nil)
		ask(r, "www.demo.test.")
		f.servers[nearAddr].dead, f.servers[farAddr].dead = true, true
		time.Sleep(20 * time.Second)
		begin := time.Now()
		a := r.Resolve(t.Context(), "www.demo.test.", dns.TypeA, netip.Prefix{})
		if a.Rcode != dns.RcodeServerFailure || !errors.Is(a.Err, errAllSilent) {
			t.Fatalf("%+v", a)
		}
		if took := time.Since(begin); took > resolveWithin {
			t.Errorf("gave up after %s", took)
		}
		f.takeLog()
		if got := ask(r, "www.demo.test."); got != "SERVFAIL" || len(f.takeLog()) != 0 {
			t.Errorf("RFC 9520: the failure was not cached: %s", got)
		}
		for _, name := range f.takeLog() {
			if strings.HasPrefix(name, rootAddr) || strings.HasPrefix(name, tldAddr) {
				t.Errorf("went back to the parent while the NS set lives: %s", name)
			}
		}
		f.servers[farAddr].dead = false
		time.Sleep(failureTTL)
		if got := ask(r, "www.demo.test."); got != "NOERROR 192.0.2.1" {
			t.Errorf("after healing: %s", got)
		}
	})
}

func TestResolverManyAskOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := threeLevels(t)
		r := newTestResolver(t, f, nil)
		var g sync.WaitGroup
		for range 50 {
			g.Go(func() {
				if got := ask(r, "www.demo.test."); got != "NOERROR 192.0.2.1" {
					t.Error(got)
				}
			})
		}
		g.Wait()
		if got := f.takeLog(); len(got) != 3 {
			t.Errorf("50 clients caused %q", got)
		}
	})
}

func TestRespond(t *testing.T) {
	udp := &net.UDPAddr{IP: net.IPv4(203, 0, 113, 3), Port: 4242}
	tcp := &net.TCPAddr{IP: net.IPv4(203, 0, 113, 3), Port: 4242}
	for _, tc := range []struct {
		name   string
		from   net.Addr
		change func(*dns.Msg)
		rcode  int
		tc     bool
		ede    bool
	}{
		{name: "plain", from: udp, rcode: dns.RcodeSuccess},
		{name: "RFC 1034 section 4.3.1: no recursion wanted", from: udp, change: func(q *dns.Msg) { q.RecursionDesired = false }, rcode: dns.RcodeRefused},
		{name: "RFC 8482: ANY", from: udp, change: func(q *dns.Msg) { q.Question[0].Qtype = dns.TypeANY }, rcode: dns.RcodeRefused},
		{name: "NOTIFY", from: udp, change: func(q *dns.Msg) { q.Opcode = dns.OpcodeNotify }, rcode: dns.RcodeNotImplemented},
		{name: "two questions", from: udp, change: func(q *dns.Msg) { q.Question = append(q.Question, q.Question[0]) }, rcode: dns.RcodeRefused},
		{name: "large, UDP", from: udp, change: func(q *dns.Msg) { q.Question[0].Name = "large.demo.test." }, rcode: dns.RcodeSuccess, tc: true},
		{name: "large, EDNS of 4096", from: udp, change: func(q *dns.Msg) {
			q.Question[0].Name = "large.demo.test."
			q.SetEdns0(4096, false)
		}, rcode: dns.RcodeSuccess},
		{name: "large, TCP", from: tcp, change: func(q *dns.Msg) { q.Question[0].Name = "large.demo.test." }, rcode: dns.RcodeSuccess},
		{name: "RFC 8914: all dead", from: udp, change: func(q *dns.Msg) {
			q.Question[0].Name = "www.dead.test."
			q.SetEdns0(1232, false)
		}, rcode: dns.RcodeServerFailure, ede: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := threeLevels(t)
				f.servers[tldAddr].records = append(f.servers[tldAddr].records,
					records(t, "dead.test. 60 IN NS ns.dead.test.\nns.dead.test. 60 IN A 198.51.100.99")...)
				for i := range 60 {
					f.servers[nearAddr].records = append(f.servers[nearAddr].records,
						records(t, fmt.Sprintf("large.demo.test. 60 IN A 192.0.2.%d", i))...)
				}
				q := new(dns.Msg)
				q.SetQuestion("www.demo.test.", dns.TypeA)
				if tc.change != nil {
					tc.change(q)
				}
				m := newTestResolver(t, f, nil).respond(t.Context(), tc.from, q)
				if m.Rcode != tc.rcode || m.Truncated != tc.tc || m.Id != q.Id || !m.RecursionAvailable {
					t.Errorf("reply %+v", m.MsgHdr)
				}
				ede := m.IsEdns0() != nil && slices.ContainsFunc(m.IsEdns0().Option, func(o dns.EDNS0) bool { return o.Option() == dns.EDNS0EDE })
				if ede != tc.ede {
					t.Errorf("extended error: %v", ede)
				}
			})
		})
	}
}

// Whatever a server says, resolving ends, and nothing outside the server's zone
// reaches the cache.
func FuzzResolverReply(f *testing.F) {
	for _, text := range []string{
		"www.demo.test. 10 IN A 192.0.2.1", "www.demo.test. 10 IN CNAME www.demo.test.",
		"demo.test. 10 IN NS x.demo.test.", "test. 10 IN NS evil.demo.test.", "other.test. 10 IN A 192.0.2.1",
	} {
		m := new(dns.Msg)
		m.SetQuestion("www.demo.test.", dns.TypeA)
		m.Response, m.Authoritative = true, true
		m.Answer = records(f, text)
		m.Ns, m.Extra = m.Answer, m.Answer
		packed, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packed)
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		synctest.Test(t, func(t *testing.T) {
			forged := new(dns.Msg)
			if forged.Unpack(packet) != nil {
				return
			}
			world := threeLevels(t)
			for _, a := range []string{nearAddr, farAddr} {
				world.servers[a].reply = func(q *dns.Msg, _ bool) *dns.Msg {
					m := forged.Copy()
					m.Id, m.Question = q.Id, q.Question
					return m
				}
			}
			r := newTestResolver(t, world, nil)
			r.Resolve(t.Context(), "www.demo.test.", dns.TypeA, netip.Prefix{})
			for el := r.cache.used.Front(); el != nil; el = el.Next() {
				e := el.Value.(*cacheEntry)
				if !dns.IsSubDomain("demo.test.", e.key.name) && !genuine(world, e.rrs) {
					t.Errorf("%v is in the cache at rank %d", e.rrs, e.rank)
				}
			}
		})
	})
}

// genuine reports whether root and TLD hold all these records.
func genuine(f *fakeInternet, rrs []dns.RR) bool {
	for _, rr := range rrs {
		same := func(other dns.RR) bool { return dns.IsDuplicate(rr, other) }
		if !slices.ContainsFunc(f.servers[rootAddr].records, same) && !slices.ContainsFunc(f.servers[tldAddr].records, same) {
			return false
		}
	}
	return true
}
