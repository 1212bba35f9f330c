package authdns

import (
	"fmt"
	"net/netip"

	"github.com/miekg/dns"

	"rhumb/authdns/wire"
	"rhumb/placement"
)

// quickly writes the reply to a query from what was made ahead, and returns its
// length; 0 leaves the query to the slow path, which has not been begun then.
func (w *worker) quickly(st *state, in, out []byte, src netip.AddrPort) (n int) {
	defer func() {
		if p := recover(); p != nil {
			w.server.metrics.panics.Inc()
			w.server.log.Error("query panicked", "snapshot", st.snapshotName(), "err", fmt.Sprint(p))
			n = 0
		}
	}()
	q := &w.query
	w.guard.use, w.guard.parsed = cookieNone, false
	if !q.Parse(in) {
		return 0
	}
	ecs, sub := countNone, subnet{}
	if q.EDNS.Subnet != nil {
		var ok bool
		if sub, ok = parseSubnet(q.EDNS.Subnet); !ok {
			return 0 // the slow path says what is wrong
		}
		ecs = countIgnored
		if st.ecs.Off {
			ecs = countOff
		}
	}
	if !w.guard.admit(q.EDNS.Cookie, src.Addr()) {
		return 0
	}
	q.in, w.guard.many, w.guard.absent = in, false, false
	if n = w.ready(st, &sub, ecs, out, src.Addr()); n == 0 && q.EDNS.DO {
		n = w.kept(st, ecs, out, src.Addr())
	}
	return n
}

// ready writes what was made ahead for the query read last.
func (w *worker) ready(st *state, sub *subnet, ecs int, out []byte, resolver netip.Addr) int {
	q, level := &w.query, st.quickLevel(w.level)
	if e := level.steered.Find(&q.Query); e != nil {
		return w.choose(st, e, sub, ecs, out, resolver)
	}
	if e := level.static.Find(&q.Query); e != nil {
		return w.write(level.static, level.static.Body(w.pick(e)), out, int(e.Tag), ecs, resolver, 0)
	}
	if e := level.chosen.Find(&q.Query); e != nil {
		return w.set(st, level.chosen, e, ecs, out, resolver)
	}
	return w.enclosed(st, level, ecs, out, resolver)
}

// admit judges the cookie of a query; false leaves the query to the slow path,
// which says what is wrong with it, or wants a better one.
func (g *guard) admit(cookie []byte, client netip.Addr) bool {
	g.parsed = true
	if cookie == nil {
		g.use = cookieNone
		return true
	}
	if !wellFormed(cookie) {
		g.parsed = false
		return false
	}
	g.use = g.jar.judge(&g.cookie, cookie, client, g.unix)
	return !g.pressed() || g.use == cookieGood || g.use == cookieNone
}

// enclosed answers for a name that is not in a zone, or below a cut, by the
// closest name above it that is.
func (w *worker) enclosed(st *state, level *quickLevel, ecs int, out []byte, resolver netip.Addr) int {
	q := &w.query
	if q.Type == dns.TypeDS || refusedType(q.Type) != dns.RcodeSuccess || q.Type == dns.TypeANY {
		return 0
	}
	name := q.Name()
	for without := 0; without < len(name); without += 1 + int(name[without]) {
		if e := level.chosen.Suffix(&q.Query, without); e != nil {
			return w.set(st, level.chosen, e, ecs, out, resolver)
		}
		if e := level.static.Suffix(&q.Query, without); e != nil {
			b := level.static.Body(w.pick(e))
			if without == 0 && e.Whole { // the name exists, and has not the type
				b = level.static.Body(level.lacks[e.Tag])
			} else if b == nil || without == 0 && b.Rcode() == dns.RcodeNameError {
				return 0
			}
			return w.write(level.static, b, out, int(e.Tag), ecs, resolver, 0)
		}
		if name[without] == 0 {
			break
		}
	}
	return 0
}

// set answers with the name servers of a resolver.
func (w *worker) set(st *state, x *wire.Index, e *wire.Entry, ecs int, out []byte, resolver netip.Addr) int {
	cut := &st.quick.cuts[e.Tag]
	if e.Count == 1 && x.Body(e.First) == nil || len(cut.bodies) == 0 {
		return 0
	}
	c, ok := st.snap.Choose(cut.service, resolver, nil)
	if !ok {
		return 0
	}
	body := e.First + cut.bodies[min(int(c.Class), len(cut.bodies)-1)]
	if w.query.EDNS.DO && st.quick.signed[cut.zone] {
		body += cut.signed
	}
	return w.write(x, x.Body(body), out, cut.zone, ecs, resolver, 0)
}

// write finishes a reply and counts it; 0 leaves it to the slow path.
func (w *worker) write(x *wire.Index, b *wire.Body, out []byte, zone, ecs int, from netip.Addr, scope uint8) int {
	if b == nil {
		return 0
	}
	l := w.ledger.Load()
	options := l.state.quick.options
	options.Scope = scope
	options.Compact = w.query.EDNS.DO && l.state.quick.compact[zone]
	if w.guard.use != cookieNone {
		options.Cookie = w.guard.cookie[:]
	}
	n := x.Reply(out, &w.query.Query, b, &options)
	if n > 0 {
		w.guard.zone = zone
		w.guard.absent = w.guard.absent || b.Rcode() == dns.RcodeNameError
		l.cookies[w.guard.use].Add(1)
		l.countCommon(zone, w.query.Type, ecs, from, b.Rcode())
	}
	return n
}

// choose answers a steered name: the Snapshot says which cluster, and the bodies
// hold what each of them has for an answer.
func (w *worker) choose(st *state, e *wire.Entry, sub *subnet, ecs int, out []byte, resolver netip.Addr) int {
	q, level := &w.query, st.quickLevel(w.level)
	svc := &st.quick.services[e.Tag]
	client, used := resolver, 0
	if q.EDNS.Subnet != nil {
		client, used = sub.client(resolver, svc.steered.ecs)
	}
	c, ok := st.snap.Choose(svc.steered.service.Name, client, nil)
	if !ok || c.Class != placement.NoClass && int(c.Class) >= len(svc.m.Rows)-1 {
		return 0 // demand of classes that the map does not know is not counted here
	}
	body, site, why := e.First, len(svc.sites)-1, reason(&c)
	if c.Head >= 0 {
		site = int(c.Row.Candidates[c.Head].Cluster)
		t := svc.turns[familyOf(q.Type)][site]
		if t.count == 0 || svc.several != nil && q.EDNS.DO && st.quick.signed[svc.zone] {
			return 0
		}
		body += t.first + uint32(c.Rotation(client, t.count))
	} else if !svc.steered.allDown.Denies() {
		why = reasonFailOpen
	}
	scope := uint8(0)
	if used > 0 {
		ecs, scope = countUsed, uint8(sub.scope(c.Scope, used, svc.steered.ecs))
	}
	x, b := level.steered, level.steered.Body(body)
	if q.EDNS.DO && st.quick.signed[svc.zone] {
		x, b = w.variant(st, level, body, svc.zone, resolver)
	}
	n := 0
	if c.Head >= 0 && svc.several != nil && !svc.several[site].alone {
		n = w.together(x, e, svc, &c, client, out, ecs, scope, resolver)
	} else {
		n = w.write(x, b, out, svc.zone, ecs, resolver, scope)
	}
	if n > 0 {
		w.ledger.Load().countChoice(svc, site, why, c.Class)
	}
	return n
}
