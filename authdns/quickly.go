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
	level := st.quickLevel(w.level)
	if e := level.steered.Find(q); e != nil {
		return w.choose(st, e, &sub, ecs, out, src.Addr())
	}
	e := level.static.Find(q)
	if e == nil {
		return 0
	}
	options := st.quick.options
	if n = level.static.Reply(out, q, level.static.Body(e.First), &options); n > 0 {
		w.ledger.Load().countCommon(int(e.Tag), q.Type, ecs, src.Addr())
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
		client, used = sub.client(resolver, st.ecs)
	}
	c, ok := st.snap.Choose(svc.steered.service.Name, client, nil)
	if !ok {
		return 0
	}
	body, site, why := e.First, len(svc.sites)-1, reason(&c)
	if c.Head >= 0 {
		site = int(c.Row.Candidates[c.Head].Cluster)
		family := 0
		if q.Type == dns.TypeAAAA {
			family = 1
		}
		t := svc.turns[family][site]
		body += t.first + uint32(c.Rotation(client, t.count))
	} else if d := svc.steered.allDown; d != placement.NoData && d != placement.ServFail {
		why = reasonFailOpen
	}
	b := level.steered.Body(body)
	if b == nil {
		return 0
	}
	options := st.quick.options
	if used > 0 {
		ecs = countUsed
		options.Scope = uint8(sub.scope(c.Scope, used, st.ecs))
	}
	n := level.steered.Reply(out, q, b, &options)
	if n > 0 {
		l := w.ledger.Load()
		l.countCommon(svc.zone, q.Type, ecs, resolver)
		l.countChoice(svc, site, why, c.Class)
	}
	return n
}
