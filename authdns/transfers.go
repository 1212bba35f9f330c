package authdns

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"rhumb/authdns/transfer"
	"rhumb/authdns/zone"
	"rhumb/placement"
)

// copies is the part of a Server that has to do with other servers' copies of
// zones.
type copies struct {
	desk *transfer.Desk // nil: transfers are refused, NOTIFY is not implemented
	// views are zones as they leave, by name; mu of the Server guards them.
	views map[string]*view
	// withheld says, by zone, why its newest version does not leave yet; guarded likewise.
	withheld map[string]string
}

// view is a zone with the static sets of its steered names laid over it, kept
// while both stay the same: a Snapshot comes every few seconds, and a secondary
// need not hear of it. Nor of new addresses of others: theirs are those of the version.
type view struct {
	from   *zone.Zone
	over   string // the records laid over it, and whose addresses others have, as text
	theirs map[loan][]dns.RR
	zone   *zone.Zone
}

// leave hands over to the desk what may leave under a state; mu is held.
func (s *Server) leave(st *state) {
	if s.copies.desk == nil {
		return
	}
	views, withheld := make(map[string]*view), make(map[string]string)
	var out []transfer.Outgoing
	for _, name := range sortedKeys(s.zones) {
		l := s.zones[name]
		if l.zone == nil || l.meta.Transfer == nil || st.snap == nil && (len(st.marks[name]) > 0 || len(st.refer) > 0) {
			// Without a Snapshot the stand-ins are not known: what left now would have
			// the serial of the whole zone, and stay.
			continue
		}
		v, missing := s.copies.views[name].renew(l.plain(), st.standIns(name), st.loansOf(name), s.self.outside)
		if missing != "" {
			withheld[name] = missing
			if s.copies.withheld[name] != missing {
				s.log.Warn("zone does not leave yet for those who copy it: the target of an alias is not resolved", "zone", name, "target", missing)
			}
		}
		if v == nil {
			continue
		}
		views[name] = v
		out = append(out, transfer.Outgoing{Name: name, Zone: v.zone, Rules: rules(l.meta.Transfer),
			Diff: func(old transfer.Zone) (removed, added []dns.RR) { return zone.Changes(old.(*zone.Zone), v.zone) }})
	}
	s.copies.views, s.copies.withheld = views, withheld
	s.copies.desk.Out.Set(out)
}

// rules reads the rules of a zone as the package transfer wants them.
func rules(t *placement.Transfer) transfer.Rules {
	r := transfer.Rules{Allow: t.Allow, Notify: t.Notify}
	for _, k := range t.Keys {
		r.Keys = append(r.Keys, dns.CanonicalName(k))
	}
	if t.NotifyKey != "" {
		r.NotifyKey = dns.CanonicalName(t.NotifyKey)
	}
	return r
}

// letGo hands over what was held back until the target of an alias was known.
func (s *Server) letGo() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.copies.withheld) > 0 {
		s.leave(s.current.Load())
	}
}

// renew returns the view of a zone with records laid over it, and with what aliases have
// from others: this one where nothing has changed, or where a target, which is returned
// then, was never resolved. An alias without addresses would be an outage wherever the
// zone is copied to.
func (v *view) renew(z *zone.Zone, over []dns.RR, borrowed []loan, o *outside) (next *view, missing string) {
	var text strings.Builder
	for _, rr := range over {
		text.WriteString(rr.String() + "\n")
	}
	for _, b := range borrowed {
		text.WriteString(b.name + " " + b.target + "\n")
	}
	if v != nil && v.from == z && v.over == text.String() {
		return v, ""
	}
	next = &view{from: z, over: text.String(), theirs: make(map[loan][]dns.RR)}
	for _, b := range borrowed {
		rrs, ok := o.records(b)
		if !ok && v != nil {
			rrs, ok = v.theirs[b]
		}
		if !ok {
			return v, b.target
		}
		next.theirs[b], over = rrs, append(over, rrs...)
	}
	next.zone = z.Plus(over)
	return next, ""
}

// standIns are the records by which a copy elsewhere answers for what is chosen
// here: for a steered name its static set, for a name server's host its addresses,
// for a zone that resolvers are referred to all its name servers. The choice
// itself cannot travel in a zone.
func (s *state) standIns(name string) []dns.RR {
	var out []dns.RR
	for _, m := range s.marks[name] {
		switch v := m.Value.(type) {
		case *steered:
			out = append(out, addressRRs(m.Name, v.fixed, v.ttl)...)
			if v.other != "" {
				out = append(out, &dns.CNAME{Hdr: dns.RR_Header{Name: m.Name, Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: v.ttl}, Target: v.other})
			}
		case *alias:
			if t, ok := s.stillOf(v.target); ok {
				out = append(out, addressRRs(m.Name, t.addrs, t.ttl)...)
			}
		case *host:
			out = append(out, addressRRs(m.Name, v.all, v.ttl)...)
		}
	}
	for _, child := range slices.Sorted(maps.Keys(s.refer)) {
		if d := s.refer[child]; enclosing(s.forests(), child) == name {
			out = append(out, d.standIn()...)
		}
	}
	return out
}

// standIn is a delegation as one set for everybody.
func (d *delegation) standIn() []dns.RR {
	var ns, glue []dns.RR
	for _, h := range d.global {
		ns = append(ns, &dns.NS{Hdr: dns.RR_Header{Name: d.zone, Rrtype: dns.TypeNS, Class: dns.ClassINET, Ttl: d.ttl}, Ns: h.name})
		glue = append(glue, addressRRs(h.name, h.all, h.ttl)...)
	}
	return append(ns, glue...)
}

// forests are the zones of both levels by name.
func (s *state) forests() forest {
	out := maps.Clone(s.low)
	maps.Copy(out, s.top)
	return out
}

// enclosing returns the zone around a zone, "" where there is none.
func enclosing(f forest, child string) string {
	if next, end := dns.NextLabel(child, 0); !end {
		if z := f.find(child[next:], dns.TypeNone); z != nil {
			return z.name
		}
	} else if z := f["."]; z != nil && child != "." {
		return z.name
	}
	return ""
}

// atDesk answers what concerns transfers and fits into one message; ok is false
// for everything else, which is the common case.
func (s *Server) atDesk(in, out []byte, from asker, t *tally) (n int, ok bool) {
	desk := s.copies.desk
	r, ok := desk.Read(in)
	if !ok {
		return 0, false
	}
	if n = r.Fault(out); n > 0 {
		return n, true
	}
	if n, ok = desk.Datagram(r, from.addr.Addr(), out); ok {
		return n, true
	}
	if len(r.Body) == len(in) {
		return 0, false // not signed: AXFR over UDP, or a NOTIFY that nobody waits for
	}
	limit := maxUDP
	if from.tcp {
		limit = maxTCP
	}
	return r.Sign(out, s.handle(r.Body, out, from, t), limit), true
}

// atStream answers over TCP what takes more than one message. The buffer is for
// messages; ok is false for what atDesk or the common path answers.
func (s *Server) atStream(in, buf []byte, from netip.Addr, write func([]byte, time.Duration) error) (ok bool, err error) {
	desk := s.copies.desk
	r, ok := desk.Read(in)
	if !ok {
		return false, nil
	}
	ok, err = desk.Stream(r, from, buf, write)
	if err != nil {
		s.log.Info("transfer broken off", "zone", r.Zone(), "peer", from.String(), "err", err)
	}
	return ok, err
}
