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

// fakeServer is an authoritative server of one or more zones, in a test bubble.
type fakeServer struct {
	zones   []string // origins
	records []dns.RR
	delay   time.Duration
	dead    bool
	asked   int
	reply   func(q *dns.Msg, tcp bool) *dns.Msg // instead of the records
}

// fakeInternet is the Exchanger which reaches the fake servers.
type fakeInternet struct {
	mu      sync.Mutex
	servers map[string]*fakeServer
	log     []string // "address name type"
}

func (f *fakeInternet) Exchange(ctx context.Context, to netip.AddrPort, q *dns.Msg, tcp bool) (*dns.Msg, error) {
	f.mu.Lock()
	s := f.servers[to.Addr().String()]
	f.log = append(f.log, fmt.Sprintf("%s %s %s", to.Addr(), q.Question[0].Name, dns.TypeToString[q.Question[0].Qtype]))
	if s == nil || s.dead {
		f.mu.Unlock()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	s.asked++
	delay := s.delay
	var m *dns.Msg
	if s.reply != nil {
		m = s.reply(q, tcp)
	} else {
		m = s.answer(q)
	}
	f.mu.Unlock()
	select {
	case <-time.After(delay):
		return m, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// asked returns the questions since the last call.
func (f *fakeInternet) takeLog() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	log := f.log
	f.log = nil
	return log
}

func (s *fakeServer) answer(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q)
	name, rtype := dns.CanonicalName(q.Question[0].Name), q.Question[0].Qtype
	origin := ""
	for _, z := range s.zones {
		if dns.IsSubDomain(z, name) && len(z) > len(origin) && !(rtype == dns.TypeDS && z == name) {
			origin = z
		}
	}
	if origin == "" {
		m.Rcode = dns.RcodeRefused
		return m
	}
	if cut := s.cutAbove(origin, name); cut != "" && !(rtype == dns.TypeDS && cut == name) {
		s.refer(m, cut)
		return m
	}
	m.Authoritative = true
	m.Answer = s.find(name, rtype)
	if len(m.Answer) == 0 {
		m.Answer = s.find(name, dns.TypeCNAME)
	}
	if len(m.Answer) == 0 {
		m.Ns = s.find(origin, dns.TypeSOA)
		if !slices.ContainsFunc(s.records, func(rr dns.RR) bool { return dns.IsSubDomain(name, rr.Header().Name) }) {
			m.Rcode = dns.RcodeNameError
		}
		return m
	}
	m.Ns = s.find(origin, dns.TypeNS)
	return m
}

func (s *fakeServer) cutAbove(origin, name string) string {
	for _, rr := range s.records {
		owner := rr.Header().Name
		if rr.Header().Rrtype == dns.TypeNS && owner != origin && dns.IsSubDomain(origin, owner) && dns.IsSubDomain(owner, name) && !slices.Contains(s.zones, owner) {
			return owner
		}
	}
	return ""
}

func (s *fakeServer) refer(m *dns.Msg, cut string) {
	m.Ns = s.find(cut, dns.TypeNS)
	for _, rr := range m.Ns {
		m.Extra = append(m.Extra, s.find(rr.(*dns.NS).Ns, dns.TypeA)...)
		m.Extra = append(m.Extra, s.find(rr.(*dns.NS).Ns, dns.TypeAAAA)...)
	}
}

func (s *fakeServer) find(name string, rtype uint16) (found []dns.RR) {
	for _, rr := range s.records {
		if rr.Header().Name == name && rr.Header().Rrtype == rtype {
			found = append(found, dns.Copy(rr))
		}
	}
	return found
}

func records(t testing.TB, text string) (all []dns.RR) {
	t.Helper()
	z := dns.NewZoneParser(strings.NewReader(text), ".", "")
	for rr, ok := z.Next(); ok; rr, ok = z.Next() {
		all = append(all, rr)
	}
	if err := z.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

const (
	rootAddr = "198.51.100.1"
	tldAddr  = "198.51.100.2"
	nearAddr = "198.51.100.3"
	farAddr  = "198.51.100.4"
)

// threeLevels is root, test. and demo.test. with two servers, as a Topology of
// names.
func threeLevels(t testing.TB) *fakeInternet {
	demo := records(t, `
demo.test. 300 IN SOA ns1.demo.test. host.demo.test. 1 3600 600 86400 30
demo.test. 300 IN NS ns1.demo.test.
demo.test. 300 IN NS ns2.demo.test.
ns1.demo.test. 300 IN A 198.51.100.3
ns2.demo.test. 300 IN A 198.51.100.4
www.demo.test. 10 IN A 192.0.2.1
old.demo.test. 10 IN CNAME www.demo.test.
loop.demo.test. 10 IN CNAME loop.demo.test.
away.demo.test. 10 IN CNAME www.other.test.
short.demo.test. 1 IN A 192.0.2.2
`)
	return &fakeInternet{servers: map[string]*fakeServer{
		rootAddr: {zones: []string{"."}, delay: 5 * time.Millisecond, records: records(t, `
. 3600 IN SOA a.root. host.root. 1 3600 600 86400 60
. 3600 IN NS a.root.
a.root. 3600 IN A 198.51.100.1
test. 3600 IN NS a.nic.test.
a.nic.test. 3600 IN A 198.51.100.2
`)},
		tldAddr: {zones: []string{"test."}, delay: 5 * time.Millisecond, records: records(t, `
test. 3600 IN SOA a.nic.test. host.nic.test. 1 3600 600 86400 60
test. 3600 IN NS a.nic.test.
a.nic.test. 3600 IN A 198.51.100.2
demo.test. 4000 IN NS ns1.demo.test.
demo.test. 4000 IN NS ns2.demo.test.
demo.test. 4000 IN DS 1 13 2 00000000000000000000000000000000000000000000000000000000000000AA
ns1.demo.test. 4000 IN A 198.51.100.3
ns2.demo.test. 4000 IN A 198.51.100.4
other.test. 4000 IN NS ns1.demo.test.
`)},
		nearAddr: {zones: []string{"demo.test.", "other.test."}, delay: 10 * time.Millisecond,
			records: append(demo, records(t, "other.test. 300 IN SOA a. b. 1 1 1 1 1\nwww.other.test. 10 IN A 192.0.2.9")...)},
		farAddr: {zones: []string{"demo.test."}, delay: 80 * time.Millisecond, records: demo},
	}}
}

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

func TestResolverExplores(t *testing.T) {
	slow, fast := netip.MustParseAddr(farAddr), netip.MustParseAddr(nearAddr)
	var table serverTable
	table.update(slow, func(s serverState) serverState { return s.answered(80 * time.Millisecond) })
	table.update(fast, func(s serverState) serverState { return s.answered(10 * time.Millisecond) })
	count := map[netip.Addr]int{}
	step := 0
	random := func() float64 { step++; return float64(step%997) / 997 }
	for range 5000 {
		a, ok := table.pick([]netip.Addr{slow, fast}, nil, time.Time{}, random)
		if !ok {
			t.Fatal("nothing to pick")
		}
		count[a]++
	}
	if share := float64(count[slow]) / 5000; share < exploreShare/4 || share > exploreShare {
		t.Errorf("the slow server got %.3f of the questions", share)
	}
}

func TestServerPick(t *testing.T) {
	now := time.Unix(1000, 0)
	a, b, c := netip.MustParseAddr(nearAddr), netip.MustParseAddr(farAddr), netip.MustParseAddr(tldAddr)
	var table serverTable
	table.states = map[netip.Addr]serverState{
		a: {srtt: 10 * time.Millisecond}, b: {srtt: 80 * time.Millisecond},
	}
	resting := func(ip netip.Addr, d time.Duration) {
		table.update(ip, func(s serverState) serverState { s.restUntil = now.Add(d); return s })
	}
	pick := func(tried ...netip.Addr) netip.Addr {
		skip := map[netip.Addr]bool{}
		for _, t := range tried {
			skip[t] = true
		}
		got, _ := table.pick([]netip.Addr{b, a, c}, skip, now, func() float64 { return 0.99 })
		return got
	}
	if got := pick(); got != c {
		t.Errorf("picked %s, want the one never heard of", got)
	}
	if got := pick(c); got != a {
		t.Errorf("picked %s, want the fastest", got)
	}
	resting(a, time.Second)
	if got := pick(c); got != b {
		t.Errorf("picked %s, want the one not at rest", got)
	}
	resting(b, 2*time.Second)
	if got := pick(c); got != a {
		t.Errorf("picked %s, want the soonest rested", got)
	}
	if got := pick(a, b, c); got.IsValid() {
		t.Errorf("picked %s out of none", got)
	}
}

func TestServerStateTimeouts(t *testing.T) {
	var s serverState
	for round, want := range []time.Duration{firstTimeout, 2 * firstTimeout, 4 * firstTimeout, mostTimeout} {
		if got := s.timeout(round); got != want {
			t.Errorf("unknown server, round %d: timeout %s, want %s", round, got, want)
		}
	}
	for range 20 {
		s = s.answered(10 * time.Millisecond)
	}
	if s.timeout(0) != leastTimeout || s.timeout(1) != 2*firstTimeout {
		t.Errorf("timeouts of a fast server: %s, then %s", s.timeout(0), s.timeout(1))
	}
	now := time.Unix(1000, 0)
	for i := range 8 {
		s = s.timedOut(now)
		if rest := s.restUntil.Sub(now); rest != min(leastRest<<i, mostRest) {
			t.Errorf("rest after %d timeouts: %s", i+1, rest)
		}
	}
	if s = s.answered(10 * time.Millisecond); s.silent != 0 || now.Before(s.restUntil) {
		t.Errorf("after an answer: %+v", s)
	}
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

func TestCacheRanks(t *testing.T) {
	now := time.Unix(1000, 0)
	rr := records(t, "x.test. 60 IN A 192.0.2.1\nx.test. 60 IN A 192.0.2.2")
	for _, tc := range []struct {
		name     string
		old, new rank
		age      time.Duration
		replaced bool
	}{
		{"authentic over glue", rankGlue, rankAuthentic, 0, true},
		{"glue not over authentic", rankAuthentic, rankGlue, 0, false},
		{"glue over expired", rankAuthentic, rankGlue, time.Minute, true},
		{"referral not over authority", rankAuthority, rankReferral, 0, false},
		{"referral does not prolong referral", rankReferral, rankReferral, 0, false},
		{"authentic again", rankAuthentic, rankAuthentic, 0, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCache(10)
			key := keyOf(rr[0])
			c.put(&cacheEntry{key: key, rrs: rr[:1], rank: tc.old, expires: now.Add(time.Minute)}, now)
			later := now.Add(tc.age)
			c.put(&cacheEntry{key: key, rrs: rr[1:], rank: tc.new, expires: later.Add(time.Minute)}, later)
			e := c.get(key, netip.Addr{}, later)
			if got := e.rank == tc.new && e.rrs[0] == rr[1]; got != tc.replaced {
				t.Errorf("replaced: %v", got)
			}
		})
	}
}

func TestCacheIsBounded(t *testing.T) {
	now := time.Unix(1000, 0)
	c := newCache(100)
	put := func(i int) {
		key := cacheKey{name: fmt.Sprintf("n%d.test.", i), rtype: dns.TypeA}
		c.put(&cacheEntry{key: key, rank: rankAuthentic, expires: now.Add(time.Hour)}, now)
	}
	for i := range 1000 {
		put(i)
		c.get(cacheKey{name: "n0.test.", rtype: dns.TypeA}, netip.Addr{}, now)
	}
	if c.len() != 100 || len(c.byKey) != 100 {
		t.Errorf("%d entries, %d keys", c.len(), len(c.byKey))
	}
	if c.get(cacheKey{name: "n0.test.", rtype: dns.TypeA}, netip.Addr{}, now) == nil {
		t.Error("the most used entry fell out")
	}
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
