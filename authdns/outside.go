package authdns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// How long what was said of others' names is kept. A target that falls silent, or that has
// no address any more, keeps its last ones: its owner's outage is not to be ours.
const (
	outsideSoft  = time.Hour          // beyond its TTL: somebody is told
	outsideHard  = 7 * 24 * time.Hour // it is served no more, like a zone's data
	outsideRetry = 10 * time.Second
	outsideWait  = 2 * time.Second // for one server
	outsideAtOne = 8               // names looked up at a time

	// The bounds of a TTL: of how often a target is asked, and of how long it takes
	// until a change is seen.
	outsideMinTTL = 5
	outsideMaxTTL = 3600
)

// outside looks up the names of others, which aliases have for targets, ahead of any
// query. No query ever waits for it; a nil outside knows nothing.
type outside struct {
	servers []netip.AddrPort
	ask     func(ctx context.Context, server netip.AddrPort, q *dns.Msg) (*dns.Msg, error)
	now     func() time.Time
	log     *slog.Logger
	// file outlives the process; empty: there is none.
	file string
	// heard is told of each change; nil: nobody is.
	heard func()

	values atomic.Pointer[map[string]*abroad] // replaced whole by run
	mu     sync.Mutex
	wanted []string
	kick   chan struct{}
}

// abroad is what is known of one name; immutable. The families are 0: IPv4 and 1: IPv6.
type abroad struct {
	Addrs [2][]netip.Addr
	Known [2]bool
	At    [2]time.Time // when it was heard last
	TTL   uint32
	Err   string // of the last look, if that failed
	next  time.Time
	// failures counts the looks of this process that failed.
	failures uint64
}

func newOutside(servers []netip.AddrPort, now func() time.Time, log *slog.Logger, file string) *outside {
	if len(servers) == 0 {
		return nil
	}
	return &outside{servers: servers, ask: exchangeWith, now: now, log: log, file: file, kick: make(chan struct{}, 1)}
}

// exchangeWith asks over UDP, and over TCP what does not fit.
func exchangeWith(ctx context.Context, server netip.AddrPort, q *dns.Msg) (*dns.Msg, error) {
	for _, proto := range []string{"udp", "tcp"} {
		c := dns.Client{Net: proto, Timeout: outsideWait}
		m, _, err := c.ExchangeContext(ctx, q, server.String())
		if err != nil || !m.Truncated {
			return m, err
		}
	}
	return nil, errors.New("truncated over TCP")
}

// addresses are what a name had when it was looked up last, and for how long they may be
// kept; false while nothing is known.
func (o *outside) addresses(name string, ipv6 bool) (addrs []netip.Addr, ttl uint32, ok bool) {
	if o == nil {
		return nil, 0, false
	}
	values, family := o.values.Load(), 0
	if ipv6 {
		family = 1
	}
	if values == nil {
		return nil, 0, false
	}
	v := (*values)[name]
	if v == nil || !v.Known[family] {
		return nil, 0, false
	}
	return v.Addrs[family], v.TTL, true
}

// want replaces the names that are looked up. It may be called on a nil outside.
func (o *outside) want(names []string) {
	if o == nil {
		return
	}
	o.mu.Lock()
	changed := !slices.Equal(o.wanted, names)
	o.wanted = names
	o.mu.Unlock()
	if changed {
		select {
		case o.kick <- struct{}{}:
		default:
		}
	}
}

// run keeps what is known fresh until the context ends.
func (o *outside) run(ctx context.Context) {
	if o == nil {
		return
	}
	if o.values.Load() == nil {
		o.recall()
	}
	for {
		wake := time.NewTimer(o.round(ctx))
		select {
		case <-ctx.Done():
			wake.Stop()
			o.keep()
			return
		case <-o.kick:
			wake.Stop()
		case <-wake.C:
		}
	}
}

// round looks up what is due, and returns when the next look is.
func (o *outside) round(ctx context.Context) time.Duration {
	o.mu.Lock()
	wanted := o.wanted
	o.mu.Unlock()
	before := o.held()
	next, now := make(map[string]*abroad, len(wanted)), o.now()
	var group sync.WaitGroup
	slots, results := make(chan struct{}, outsideAtOne), make([]*abroad, len(wanted))
	for i, name := range wanted {
		old := before[name]
		if results[i] = old; old != nil && old.next.After(now) {
			continue
		}
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			results[i] = o.look(ctx, name, old)
		})
	}
	group.Wait()
	if ctx.Err() != nil {
		return 0
	}
	soonest, changed := time.Hour, len(before) != len(wanted)
	for i, name := range wanted {
		v := results[i]
		next[name] = v
		soonest = min(soonest, v.next.Sub(now))
		changed = changed || before[name] == nil || !slices.Equal(before[name].Addrs[0], v.Addrs[0]) || !slices.Equal(before[name].Addrs[1], v.Addrs[1])
	}
	o.values.Store(&next)
	if changed {
		o.keep()
		if o.heard != nil {
			o.heard()
		}
	}
	return max(soonest, time.Second)
}

func (o *outside) held() map[string]*abroad {
	if m := o.values.Load(); m != nil {
		return *m
	}
	return nil
}

// look asks for both families of a name. What fails leaves what was known of it, and so
// does a reply without any address: an empty delivery is none.
func (o *outside) look(ctx context.Context, name string, old *abroad) *abroad {
	now := o.now()
	if old == nil {
		old = &abroad{TTL: outsideMaxTTL}
	}
	v := &abroad{TTL: outsideMaxTTL, failures: old.failures}
	var errs [2]error
	for family, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		addrs, ttl, err := o.lookup(ctx, name, qtype)
		if err != nil {
			errs[family] = fmt.Errorf("%s: %w", dns.Type(qtype), err)
			continue
		}
		v.Addrs[family], v.Known[family], v.At[family], v.TTL = addrs, true, now, min(v.TTL, ttl)
	}
	if errs == [2]error{} && len(v.Addrs[0])+len(v.Addrs[1]) == 0 {
		errs[0] = errors.New("it has no address any more")
		errs[1] = errs[0]
	}
	for family, err := range errs {
		if err == nil {
			continue
		}
		v.Addrs[family], v.Known[family], v.At[family], v.TTL = old.Addrs[family], old.Known[family], old.At[family], min(v.TTL, old.TTL)
		if v.Err = err.Error(); now.Sub(v.At[family]) > outsideHard {
			v.Addrs[family], v.Known[family] = nil, false
		}
	}
	v.TTL = max(v.TTL, outsideMinTTL)
	if v.next = now.Add(time.Duration(v.TTL) * time.Second); v.Err != "" {
		v.next = now.Add(outsideRetry)
		v.failures++
	}
	switch {
	case v.Err != "" && old.Err == "":
		o.log.Error("target of an alias: its last addresses stay", "target", name, "err", v.Err)
	case v.Err == "" && old.Err != "":
		o.log.Info("target of an alias is resolved again", "target", name)
	}
	return v
}

// lookup asks one server after another for the addresses of a name.
func (o *outside) lookup(ctx context.Context, name string, qtype uint16) (addrs []netip.Addr, ttl uint32, err error) {
	q := new(dns.Msg)
	q.SetQuestion(name, qtype) // a random id, recursion desired
	q.SetEdns0(maxUDP, false)
	var errs []error
	for _, server := range o.servers {
		m, err := o.ask(ctx, server, q)
		if err == nil {
			if addrs, ttl, err = read(q, m); err == nil {
				return addrs, ttl, nil
			}
		}
		errs = append(errs, fmt.Errorf("%s: %w", server, err))
	}
	return nil, 0, errors.Join(errs...)
}

// read takes the addresses at the end of the chain from a reply. The TTL is the lowest on
// the way (RFC 2181 section 5.2); of a denial it is that of RFC 2308 section 5.
func read(q, m *dns.Msg) (addrs []netip.Addr, ttl uint32, err error) {
	if len(m.Question) != 1 || m.Question[0].Qtype != q.Question[0].Qtype || dns.CanonicalName(m.Question[0].Name) != dns.CanonicalName(q.Question[0].Name) {
		return nil, 0, errors.New("the reply is to another question")
	}
	if m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return nil, 0, errors.New(rcodeLabel(m.Rcode))
	}
	ttl = outsideMaxTTL
	at := dns.CanonicalName(q.Question[0].Name)
	for range maxChain {
		next := ""
		for _, rr := range m.Answer {
			h := rr.Header()
			if dns.CanonicalName(h.Name) != at {
				continue
			}
			if c, ok := rr.(*dns.CNAME); ok {
				next, ttl = dns.CanonicalName(c.Target), min(ttl, h.Ttl)
			} else if h.Rrtype == q.Question[0].Qtype {
				addrs, ttl = append(addrs, addressOf(rr)...), min(ttl, h.Ttl)
			}
		}
		if next == "" || len(addrs) > 0 {
			break
		}
		at = next
	}
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok && len(addrs) == 0 {
			ttl = min(ttl, soa.Hdr.Ttl, soa.Minttl)
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare) // resolvers turn them at each question
	return addrs, ttl, nil
}

// stale says of which targets nothing new was heard for too long.
func (o *outside) stale() []string {
	if o == nil {
		return nil
	}
	var out []string
	held := o.held()
	for _, name := range slices.Sorted(maps.Keys(held)) {
		if text := held[name].complaint(o.now()); text != "" {
			out = append(out, name+": "+text)
		}
	}
	return out
}

// heard is when the family that was heard of longer ago was heard last.
func (v *abroad) heard() time.Time {
	if v.At[1].Before(v.At[0]) {
		return v.At[1]
	}
	return v.At[0]
}

// complaint says what is wrong with a target of which nothing was heard for too long.
func (v *abroad) complaint(now time.Time) string {
	last := v.heard()
	age := now.Sub(last)
	switch {
	case v.Err == "":
	case last.IsZero():
		return "not resolved yet: " + v.Err
	case age >= outsideSoft+time.Duration(v.TTL)*time.Second:
		return fmt.Sprintf("last resolved %s ago: %s", age.Round(time.Minute), v.Err)
	}
	return ""
}
