package netlab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/miekg/dns"
)

// replyKind says how a server's message moves a resolution on.
type replyKind uint8

const (
	kindLame     replyKind = iota // not to be used: ask another server
	kindAnswer                    // the records, or an alias
	kindDenial                    // NXDOMAIN or NODATA
	kindReferral                  // to the cut below
)

// reply is a usable message of a server of zone.
type reply struct {
	kind replyKind
	msg  *dns.Msg
	zone string // which was asked
	cut  string // of a referral
}

// classify judges a message by what was asked, RFC 1034 section 5.3.3 step 4.
func classify(m *dns.Msg, zone, name string, rtype uint16) reply {
	r := reply{msg: m, zone: zone}
	if len(m.Question) != 1 || dns.CanonicalName(m.Question[0].Name) != name || m.Question[0].Qtype != rtype {
		return r
	}
	if m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return r
	}
	for _, rr := range m.Answer {
		key := keyOf(rr)
		if rr.Header().Class == dns.ClassINET && key.name == name && (key.rtype == rtype || key.rtype == dns.TypeCNAME) {
			r.kind = kindAnswer
			return r
		}
	}
	if cut := referralCut(m, zone, name); cut != "" {
		r.kind, r.cut = kindReferral, cut
		return r
	}
	if m.Rcode == dns.RcodeNameError || m.Authoritative || hasSOA(m) {
		r.kind = kindDenial
	}
	return r
}

// referralCut is where a referral leads: strictly below the zone that was asked
// and towards the name, or it would lead in circles.
func referralCut(m *dns.Msg, zone, name string) string {
	if m.Authoritative || m.Rcode != dns.RcodeSuccess {
		return ""
	}
	for _, rr := range m.Ns {
		cut := dns.CanonicalName(rr.Header().Name)
		if rr.Header().Rrtype == dns.TypeNS && cut != zone && dns.IsSubDomain(zone, cut) && dns.IsSubDomain(cut, name) {
			return cut
		}
	}
	return ""
}

// hasSOA tells a denial without AA from an empty reply that means nothing.
func hasSOA(m *dns.Msg) bool {
	return slices.ContainsFunc(m.Ns, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeSOA })
}

// rounds is how often each server of a zone may be asked one question.
const rounds = 2

// askZone asks the servers of a zone, one after another, until one of them gives
// a usable reply. It fails only when all were asked twice in vain.
func (s *resolution) askZone(ctx context.Context, zone, name string, rtype uint16) (reply, error) {
	lame := map[netip.Addr]bool{}
	for round := range rounds {
		tried := map[netip.Addr]bool{}
		for ctx.Err() == nil {
			server, ok := s.nextServer(ctx, zone, tried, lame)
			if !ok {
				break
			}
			tried[server] = true
			m, err := s.ask(ctx, server, round, zone, name, rtype)
			if err != nil {
				continue
			}
			if r := classify(m, zone, name, rtype); r.kind != kindLame {
				return r, nil
			}
			lame[server] = true // it answers, but not this: no use asking it again
		}
	}
	if err := ctx.Err(); err != nil {
		return reply{}, fmt.Errorf("%w in time", errAllSilent)
	}
	return reply{}, errAllSilent
}

// nextServer picks among the addresses known by now; when those are used up it
// resolves a name server whose addresses are not known yet.
func (s *resolution) nextServer(ctx context.Context, zone string, tried, lame map[netip.Addr]bool) (netip.Addr, bool) {
	known, unknown := s.serversOf(zone)
	skip := map[netip.Addr]bool{}
	for _, a := range known {
		skip[a] = tried[a] || lame[a]
	}
	if a, ok := s.r.servers.pick(known, skip, s.r.cfg.Now(), s.r.cfg.Random); ok {
		return a, true
	}
	for _, ns := range unknown {
		for _, a := range s.addressesOf(ctx, ns) {
			if !tried[a] && !lame[a] {
				return a, true
			}
		}
	}
	return netip.Addr{}, false
}

// serversOf lists the addresses known for a zone's NS set, and the names of
// those servers for which none is.
func (s *resolution) serversOf(zone string) (known []netip.Addr, unknown []string) {
	now := s.r.cfg.Now()
	var set []dns.RR
	if e := s.r.cache.get(cacheKey{name: zone, rtype: dns.TypeNS}, netip.Addr{}, now); e != nil {
		set = e.rrs
	}
	for _, rr := range set {
		ns := dns.CanonicalName(rr.(*dns.NS).Ns)
		addrs := s.cachedAddrs(ns)
		if len(addrs) == 0 {
			unknown = append(unknown, ns)
		}
		for _, a := range addrs {
			if !slices.Contains(known, a) {
				known = append(known, a)
			}
		}
	}
	if zone == "." && len(known) == 0 {
		return s.rootAddrs(), nil // above the root nobody could be asked for its addresses
	}
	return known, unknown
}

// rootAddrs lists the hints in order of configuration.
func (s *resolution) rootAddrs() (all []netip.Addr) {
	for _, root := range s.r.cfg.Roots {
		all = append(all, root.Addrs...)
	}
	return all
}

// cachedAddrs lists the cached addresses of a name server, glue included.
func (s *resolution) cachedAddrs(ns string) (all []netip.Addr) {
	for _, t := range []uint16{dns.TypeA, dns.TypeAAAA} {
		e := s.r.cache.get(cacheKey{name: ns, rtype: t}, s.client.Addr(), s.r.cfg.Now())
		if e != nil {
			all = append(all, addrsIn(e.rrs)...)
		}
	}
	return all
}

// addressesOf resolves a name server's addresses.
func (s *resolution) addressesOf(ctx context.Context, ns string) (all []netip.Addr) {
	if s.depth >= maxDepth {
		return nil // name servers whose addresses hang on one another
	}
	inner := resolution{r: s.r, client: s.client, depth: s.depth + 1}
	for _, t := range []uint16{dns.TypeA, dns.TypeAAAA} {
		all = append(all, addrsIn(inner.resolve(ctx, ns, t).Answer)...)
	}
	return all
}

// addrsIn picks the addresses out of an answer, aliases passed over.
func addrsIn(rrs []dns.RR) (all []netip.Addr) {
	for _, rr := range rrs {
		var a netip.Addr
		switch rr := rr.(type) {
		case *dns.A:
			a, _ = netip.AddrFromSlice(rr.A.To4())
		case *dns.AAAA:
			a, _ = netip.AddrFromSlice(rr.AAAA)
		}
		if a.IsValid() {
			all = append(all, a)
		}
	}
	return all
}

// errMismatch is a reply to something else than was asked.
var errMismatch = errors.New("reply does not belong to the question")

// ask puts the question to one server within its timeout, over TCP too when the
// reply was cut off, and keeps the server's figures.
func (s *resolution) ask(ctx context.Context, server netip.Addr, round int, zone, name string, rtype uint16) (*dns.Msg, error) {
	q := s.query(zone, name, rtype)
	within, cancel := context.WithTimeout(ctx, s.r.servers.get(server).timeout(round))
	defer cancel()
	begin := s.r.cfg.Now()
	m, err := s.r.cfg.Exchange.Exchange(within, netip.AddrPortFrom(server, s.r.cfg.Port), q, false)
	if err == nil && m.Id != q.Id {
		err = errMismatch
	}
	now := s.r.cfg.Now()
	s.r.servers.update(server, func(st serverState) serverState {
		if err != nil && ctx.Err() != nil {
			return st // we gave up, which says nothing of the server
		}
		if err != nil {
			return st.timedOut(now)
		}
		return st.answered(now.Sub(begin))
	})
	if err == nil && m.Truncated {
		m, err = s.askTCP(ctx, server, q)
	}
	if s.r.cfg.Observe != nil {
		s.r.cfg.Observe(Upstream{Server: server, Zone: zone, Name: name, Type: rtype, RTT: now.Sub(begin), Err: err})
	}
	return m, err
}

// askTCP asks again over TCP, RFC 7766 section 5. The server has just answered, so
// it gets time to send much.
func (s *resolution) askTCP(ctx context.Context, server netip.Addr, q *dns.Msg) (*dns.Msg, error) {
	within, cancel := context.WithTimeout(ctx, mostTimeout)
	defer cancel()
	return s.r.cfg.Exchange.Exchange(within, netip.AddrPortFrom(server, s.r.cfg.Port), q, true)
}

// ednsSize is the UDP size offered, as agreed on DNS flag day 2020.
const ednsSize = 1232

// query makes the question for a server: iterative, with EDNS, and with the
// client's network where that is allowed to be known.
func (s *resolution) query(zone, name string, rtype uint16) *dns.Msg {
	q := new(dns.Msg)
	q.SetQuestion(name, rtype)
	q.RecursionDesired = false
	q.SetEdns0(ednsSize, false)
	if s.client.IsValid() && dns.CountLabel(zone) >= 2 {
		q.IsEdns0().Option = append(q.IsEdns0().Option, subnetOption(s.client, 0))
	}
	return q
}
