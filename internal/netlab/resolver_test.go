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

// RFC 7871 section 7.3: answers are kept by scope; clients inside share, others
// ask anew. Root and TLD never see the client.
func TestResolverClientSubnet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := threeLevels(t)
		var told []string
		for _, a := range []string{rootAddr, tldAddr, nearAddr, farAddr} {
			s := f.servers[a]
			s.reply = func(q *dns.Msg, _ bool) *dns.Msg {
				m := s.answer(q)
				network, _, ok := subnetIn(q)
				if ok {
					told = append(told, network.String())
					if a == rootAddr || a == tldAddr {
						t.Errorf("%s was told of %s", a, network)
					}
					if len(m.Answer) == 1 && m.Answer[0].Header().Name == "www.demo.test." {
						m.Answer[0].(*dns.A).A = network.Addr().AsSlice()
						m.SetEdns0(ednsSize, false)
						m.IsEdns0().Option = append(m.IsEdns0().Option, subnetOption(network, 26))
					}
				}
				return m
			}
		}
		r := newTestResolver(t, f, func(c *ResolverConfig) { c.ECS = true })
		for _, tc := range []struct{ client, want, told string }{
			{"203.0.113.16/28", "NOERROR 203.0.113.16", "203.0.113.16/28"},
			{"203.0.113.32/28", "NOERROR 203.0.113.16", ""}, // same /26
			{"203.0.113.64/28", "NOERROR 203.0.113.64", "203.0.113.64/28"},
			{"203.0.113.16/28", "NOERROR 203.0.113.16", ""},
		} {
			told = nil
			if got := askFor(r, "www.demo.test.", dns.TypeA, netip.MustParsePrefix(tc.client)); got != tc.want {
				t.Errorf("client %s: %s, want %s", tc.client, got, tc.want)
			}
			if got := strings.Join(told, " "); got != tc.told {
				t.Errorf("client %s: servers were told %q, want %q", tc.client, got, tc.told)
			}
		}
	})
}

func TestResolverClientNetwork(t *testing.T) {
	r := newTestResolver(t, threeLevels(t), func(c *ResolverConfig) { c.ECS = true })
	for _, tc := range []struct{ name, from, option, want string }{
		{"own address, cut", "203.0.113.67", "", "203.0.113.64/28"},
		{"own address IPv6, cut", "2001:db8:100:4f::3", "", "2001:db8:100:40::/60"},
		{"named by the client", "203.0.113.67", "192.0.2.0/24", "192.0.2.0/24"},
		{"named too finely", "203.0.113.67", "192.0.2.17/32", "192.0.2.16/28"},
		{"RFC 7871 section 7.1.2: source 0 hides", "203.0.113.67", "0.0.0.0/0", "invalid Prefix"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			q := new(dns.Msg)
			q.SetQuestion("www.demo.test.", dns.TypeA)
			q.SetEdns0(ednsSize, false)
			if tc.option != "" {
				q.IsEdns0().Option = append(q.IsEdns0().Option, subnetOption(netip.MustParsePrefix(tc.option), 0))
			}
			packed, err := q.Pack()
			if err != nil || q.Unpack(packed) != nil {
				t.Fatal(err)
			}
			if got := r.clientNetwork(q, netip.MustParseAddr(tc.from)); got.String() != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
		})
	}
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
