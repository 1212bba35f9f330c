package netlab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/singleflight"
)

// Exchanger asks one server one question. It ends when ctx does.
type Exchanger interface {
	Exchange(ctx context.Context, server netip.AddrPort, query *dns.Msg, tcp bool) (*dns.Msg, error)
}

// RootServer is one root hint.
type RootServer struct {
	Name  string
	Addrs []netip.Addr
}

// ResolverConfig says what a Resolver starts from.
type ResolverConfig struct {
	Roots    []RootServer
	Exchange Exchanger

	// ECS sends the client's network, cut to ECSBits4 or ECSBits6, to servers of
	// zones of two labels and more (RFC 7871 section 7.1 spares root and TLD).
	ECS                bool
	ECSBits4, ECSBits6 int // default 28 and 60, the lab's client blocks

	Port      uint16           // of every server; default 53
	CacheSize int              // RRsets; default 10000
	Now       func() time.Time // default time.Now
	Random    func() float64   // uniform in [0, 1)

	// Observe, if set, hears of every question to a server when it is over.
	Observe func(Upstream)
}

// Upstream is one question that was put to a server.
type Upstream struct {
	Server netip.Addr
	Zone   string
	Name   string
	Type   uint16
	RTT    time.Duration
	Err    error // nil: answered
}

// Resolver is a caching iterative resolver. All methods are safe for concurrent
// use.
type Resolver struct {
	cfg     ResolverConfig
	cache   *cache
	servers serverTable
	flights singleflight.Group
}

// Limits of one resolution.
const (
	maxChain      = 12 // CNAMEs followed
	maxReferrals  = 20
	maxDepth      = 5 // resolutions of name servers' addresses within one another
	maxTTL        = 24 * time.Hour
	maxNegative   = 3 * time.Hour // RFC 2308 section 5
	failureTTL    = time.Second   // RFC 9520 section 3.2: at least this
	resolveWithin = 8 * time.Second
)

// NewResolver returns a resolver with an empty cache.
func NewResolver(cfg ResolverConfig) (*Resolver, error) {
	if len(cfg.Roots) == 0 || cfg.Exchange == nil || cfg.Random == nil {
		return nil, errors.New("netlab: a resolver needs root servers, an exchanger and chance")
	}
	if cfg.Port == 0 {
		cfg.Port = 53
	}
	if cfg.CacheSize == 0 {
		cfg.CacheSize = 10000
	}
	if cfg.ECSBits4 == 0 {
		cfg.ECSBits4, cfg.ECSBits6 = 28, 60
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Resolver{cfg: cfg, cache: newCache(cfg.CacheSize)}, nil
}

// Flush forgets all cached records, and what is known of servers.
func (r *Resolver) Flush() {
	r.cache.flush()
	r.servers.mu.Lock()
	defer r.servers.mu.Unlock()
	r.servers.states = nil
}

// Answer is the outcome of a resolution.
type Answer struct {
	Rcode     int
	Answer    []dns.RR
	Authority []dns.RR     // the SOA of a negative answer
	Scope     netip.Prefix // clients for whom it holds; invalid: all
	Err       error        // why Rcode is SERVFAIL
}

// errAllSilent says that no server of a zone answered usefully.
var errAllSilent = errors.New("no server answers")

// Resolve answers a question for a client network; with an invalid client, or
// without ECS, it answers for the resolver itself.
func (r *Resolver) Resolve(ctx context.Context, name string, rtype uint16, client netip.Prefix) Answer {
	if !r.cfg.ECS {
		client = netip.Prefix{}
	}
	ctx, cancel := context.WithTimeout(ctx, resolveWithin)
	defer cancel()
	s := resolution{r: r, client: client}
	return s.resolve(ctx, dns.CanonicalName(name), rtype)
}

// resolution is one question on its way, with those it needs inside it.
type resolution struct {
	r      *Resolver
	client netip.Prefix
	depth  int
}

// resolve follows CNAMEs from name until records, a denial or a failure.
func (s *resolution) resolve(ctx context.Context, name string, rtype uint16) Answer {
	var out Answer
	for range maxChain {
		e, err := s.lookup(ctx, name, rtype)
		if err != nil {
			return Answer{Rcode: dns.RcodeServerFailure, Err: err}
		}
		now := s.r.cfg.Now()
		out.Answer = append(out.Answer, e.aged(now)...)
		if e.scope.IsValid() && e.scope.Bits() > out.Scope.Bits() {
			out.Scope = e.scope
		}
		if len(e.rrs) == 0 {
			out.Rcode = e.rcode
			if e.soa != nil {
				soa := dns.Copy(e.soa)
				soa.Header().Ttl = e.ttl(now)
				out.Authority = []dns.RR{soa}
			}
			return out
		}
		alias, ok := e.rrs[0].(*dns.CNAME)
		if !ok || rtype == dns.TypeCNAME {
			return out
		}
		name = dns.CanonicalName(alias.Target)
	}
	return Answer{Rcode: dns.RcodeServerFailure, Err: fmt.Errorf("netlab: more than %d aliases", maxChain)}
}

// lookup returns what answers one name and type: its RRset, its CNAME or its
// denial; from the cache, else from the servers.
func (s *resolution) lookup(ctx context.Context, name string, rtype uint16) (*cacheEntry, error) {
	if e := s.cached(name, rtype); e != nil {
		return e, nil
	}
	if s.r.cache.get(failureKey(name, rtype), netip.Addr{}, s.r.cfg.Now()) != nil {
		return nil, fmt.Errorf("netlab: resolve %s: %w (cached)", name, errAllSilent)
	}
	key := fmt.Sprintf("%s %d %s %d", name, rtype, s.client, s.depth)
	v, err, _ := s.r.flights.Do(key, func() (any, error) {
		// Others may wait for this one, so it does not end with its first asker.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resolveWithin)
		defer cancel()
		return s.fetch(ctx, name, rtype)
	})
	if err != nil {
		return nil, err
	}
	return v.(*cacheEntry), nil
}

// cached finds an entry that may be given to clients: glue and referrals may
// not, RFC 2181 section 5.4.1.
func (s *resolution) cached(name string, rtype uint16) *cacheEntry {
	now := s.r.cfg.Now()
	for _, t := range []uint16{rtype, dns.TypeCNAME, denyAll} {
		e := s.r.cache.get(cacheKey{name: name, rtype: t}, s.client.Addr(), now)
		if e == nil || e.rank < rankAnswer {
			continue
		}
		if t != dns.TypeCNAME || len(e.rrs) > 0 || rtype == dns.TypeCNAME {
			return e
		}
	}
	return nil
}

// fetch walks down from the deepest known zone cut to an answer and caches
// whatever it learns.
func (s *resolution) fetch(ctx context.Context, name string, rtype uint16) (*cacheEntry, error) {
	zone := s.deepestCut(name, rtype)
	for range maxReferrals {
		reply, err := s.askZone(ctx, zone, name, rtype)
		if err != nil {
			s.remember(&cacheEntry{key: failureKey(name, rtype)}, failureTTL)
			return nil, fmt.Errorf("netlab: resolve %s %s at %s: %w", name, dns.TypeToString[rtype], zone, err)
		}
		if reply.kind != kindReferral {
			return s.store(reply, name, rtype), nil
		}
		s.storeReferral(reply)
		zone = reply.cut
	}
	return nil, fmt.Errorf("netlab: resolve %s: more than %d referrals", name, maxReferrals)
}

// deepestCut is the nearest enclosing name whose NS set is cached and can be
// asked; of a DS question it must lie above the name (RFC 4035 section 3.1.4.1).
// When the glue ran out before an NS set all of whose names lie below the cut,
// only the parent can say where they are.
func (s *resolution) deepestCut(name string, rtype uint16) string {
	if rtype == dns.TypeDS && name != "." {
		name = parentName(name)
	}
	for ; name != "."; name = parentName(name) {
		known, unknown := s.serversOf(name)
		outside := func(ns string) bool { return !dns.IsSubDomain(name, ns) }
		if len(known) > 0 || slices.ContainsFunc(unknown, outside) {
			return name
		}
	}
	return "."
}

// parentName strips the first label; above the root is the root.
func parentName(name string) string {
	next, end := dns.NextLabel(name, 0)
	if end {
		return "."
	}
	return name[next:]
}

// remember caches an entry for its TTL, which is capped, RFC 8767 section 4.
func (s *resolution) remember(e *cacheEntry, ttl time.Duration) *cacheEntry {
	now := s.r.cfg.Now()
	e.expires = now.Add(min(max(ttl, 0), maxTTL))
	s.r.cache.put(e, now)
	return e
}

// storeReferral keeps the NS set and its glue at their low ranks.
func (s *resolution) storeReferral(reply reply) {
	s.storeSets(reply.msg.Ns, rankReferral, reply.zone, func(rr dns.RR) bool {
		return rr.Header().Rrtype == dns.TypeNS && dns.CanonicalName(rr.Header().Name) == reply.cut
	})
	s.storeGlue(reply)
}

// storeGlue keeps addresses of name servers that the server may speak for.
func (s *resolution) storeGlue(reply reply) {
	var targets []string
	for _, rr := range reply.msg.Ns {
		if ns, ok := rr.(*dns.NS); ok {
			targets = append(targets, dns.CanonicalName(ns.Ns))
		}
	}
	s.storeSets(reply.msg.Extra, rankGlue, reply.zone, func(rr dns.RR) bool {
		t := rr.Header().Rrtype
		return (t == dns.TypeA || t == dns.TypeAAAA) && slices.Contains(targets, dns.CanonicalName(rr.Header().Name))
	})
}

// storeSets groups records into RRsets and keeps those that want accepts and
// that lie inside the zone which was asked.
func (s *resolution) storeSets(rrs []dns.RR, rank rank, zone string, want func(dns.RR) bool) {
	for _, set := range groupSets(rrs) {
		if h := set[0].Header(); want(set[0]) && dns.IsSubDomain(zone, h.Name) {
			s.remember(&cacheEntry{key: keyOf(set[0]), rrs: set, rank: rank}, setTTL(set))
		}
	}
}

// keyOf is the cache key of a record's RRset.
func keyOf(rr dns.RR) cacheKey {
	return cacheKey{name: dns.CanonicalName(rr.Header().Name), rtype: rr.Header().Rrtype}
}

// setTTL is the least TTL of a set, RFC 2181 section 5.2.
func setTTL(set []dns.RR) time.Duration {
	least := set[0].Header().Ttl
	for _, rr := range set[1:] {
		least = min(least, rr.Header().Ttl)
	}
	return time.Duration(least) * time.Second
}

// groupSets splits a section into RRsets in order of first appearance.
func groupSets(rrs []dns.RR) [][]dns.RR {
	var sets [][]dns.RR
	index := map[cacheKey]int{}
	for _, rr := range rrs {
		if rr.Header().Rrtype == dns.TypeOPT || rr.Header().Class != dns.ClassINET {
			continue
		}
		i, ok := index[keyOf(rr)]
		if !ok {
			i = len(sets)
			index[keyOf(rr)] = i
			sets = append(sets, nil)
		}
		sets[i] = append(sets[i], rr)
	}
	return sets
}

// store caches a final reply and returns the entry that answers the question.
func (s *resolution) store(reply reply, name string, rtype uint16) *cacheEntry {
	scope := s.scopeOf(reply.msg)
	rank := rankAnswer
	if reply.msg.Authoritative {
		rank = rankAuthentic
		s.storeSets(reply.msg.Ns, rankAuthority, reply.zone, func(rr dns.RR) bool {
			return rr.Header().Rrtype == dns.TypeNS
		})
		s.storeGlue(reply)
	}
	if reply.kind == kindDenial {
		return s.storeDenial(reply, name, rtype, rank, scope)
	}
	var answer *cacheEntry
	for _, set := range groupSets(reply.msg.Answer) {
		key := keyOf(set[0])
		if !dns.IsSubDomain(reply.zone, key.name) {
			continue // an alias out of the zone: what stands there is not this server's to say
		}
		e := s.remember(&cacheEntry{key: key, rrs: set, rank: rank, scope: scope}, setTTL(set))
		if key.name == name && (key.rtype == rtype || (key.rtype == dns.TypeCNAME && answer == nil)) {
			answer = e
		}
	}
	return answer // classify saw that it is there
}

// storeDenial caches that there is nothing, for as long as the SOA says, RFC
// 2308 section 5; without SOA it is not kept.
func (s *resolution) storeDenial(reply reply, name string, rtype uint16, rank rank, scope netip.Prefix) *cacheEntry {
	e := &cacheEntry{key: cacheKey{name: name, rtype: rtype}, rcode: reply.msg.Rcode, rank: rank, scope: scope}
	if reply.msg.Rcode == dns.RcodeNameError {
		e.key.rtype = denyAll
	}
	for _, rr := range reply.msg.Ns {
		if soa, ok := rr.(*dns.SOA); ok && dns.IsSubDomain(soa.Hdr.Name, name) {
			e.soa = soa
			return s.remember(e, min(time.Duration(min(soa.Hdr.Ttl, soa.Minttl))*time.Second, maxNegative))
		}
	}
	e.expires = s.r.cfg.Now()
	return e
}
