package authdns

import (
	"net/netip"

	"rhumb/authdns/wire"
	"rhumb/placement"
)

// fragment is how a cluster may stand in an answer of several clusters.
type fragment struct {
	// alone: it is a name of others, which nothing stands beside.
	alone bool
	// has tells by family whether it has addresses.
	has [familyBoth]bool
}

// quickSeveral prepares a service whose answers are made of several clusters. They are
// too many to be made ahead: the bodies hold one address of one cluster, and are put
// together for each query. Bindings, with both families in one record, are left to the slow path.
func (c *compiler) quickSeveral(s *quickService) {
	for k, id := range s.m.Clusters {
		f := fragment{alone: s.steered.aliased && c.snap.Inventory.CNAME(id) != ""}
		for family, ipv6 := range [familyBoth]bool{family4: false, family6: true} {
			f.has[family] = len(c.snap.Inventory.Addresses(id, ipv6)) > 0
		}
		s.several = append(s.several, f)
		s.turns[familyBoth][k].count = 0
	}
}

// together writes the reply that several clusters make, the first of which serves, as
// the slow path would; 0 leaves it to that.
func (w *worker) together(x *wire.Index, e *wire.Entry, svc *quickService, c *placement.Choice, client netip.Addr, out []byte, ecs int, scope uint8, resolver netip.Addr) int {
	family := familyOf(w.query.Type)
	var clusters [placement.MaxAnswers]uint16
	var bodies [placement.MaxAnswers]*wire.Body
	n, empty := 0, false
	for i, k := range c.Clusters(client, clusters[:0]) {
		switch has := svc.several[k].has[family]; {
		case i > 0 && !has:
			continue
		case i > 0 && empty:
			n, empty = 0, false
		case !has:
			empty = true // it says so, where no other has any either
		}
		t := svc.turns[family][k]
		if bodies[n] = x.Body(e.First + t.first + uint32(c.Rotation(client, t.count))); bodies[n] == nil {
			return 0
		}
		if !given(bodies[:n], bodies[n]) {
			n++
		}
	}
	if n == 1 {
		return w.write(x, bodies[0], out, svc.zone, ecs, resolver, scope)
	}
	return w.writeAll(x, bodies[:n], out, svc.zone, ecs, resolver, scope)
}

// given tells whether a body is one of those before it: clusters may share an address,
// and an Index keeps equal bodies once.
func given(before []*wire.Body, b *wire.Body) bool {
	for _, o := range before {
		if *o == *b {
			return true
		}
	}
	return false
}

// writeAll is write for a reply put together. It stands apart, since write is on the way
// of every query, and a call more there is measured.
func (w *worker) writeAll(x *wire.Index, bodies []*wire.Body, out []byte, zone, ecs int, from netip.Addr, scope uint8) int {
	l := w.ledger.Load()
	options := l.state.quick.options
	options.Scope = scope
	options.Compact = w.query.EDNS.DO && l.state.quick.compact[zone]
	if w.guard.use != cookieNone {
		options.Cookie = w.guard.cookie[:]
	}
	n := x.Replies(out, &w.query.Query, bodies, &options)
	if n > 0 {
		w.guard.zone = zone
		l.cookies[w.guard.use].Add(1)
		l.countCommon(zone, w.query.Type, ecs, from, bodies[0].Rcode())
	}
	return n
}
