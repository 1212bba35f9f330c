package netlab

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
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
