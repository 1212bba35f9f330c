package authdns

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"rhumb/authdns/wire"
	"rhumb/placement"
)

// gate is where a worker keeps queries whose replies have to be made, until all others
// of a batch have theirs. It belongs to the worker, but for the counts, which anybody
// may take out.
type gate struct {
	shared *overload
	supply supply
	heat   heat
	owed   [batchSize]owing
	n      int
	// strained is set where classes are told apart, over where queries were turned
	// away lately: then all are counted, and nobody is got to know.
	strained, over bool
	ticks          uint8
	counts         gateCounts
}

// gateCounts are by class and fate; what was not signed for want of budget; and replies
// that ask for a cookie, by address family.
type gateCounts struct {
	queries   [len(classLabels)][len(fateLabels)]atomic.Uint64
	would     [len(fateLabels)]atomic.Uint64
	unsigned  atomic.Uint64
	badCookie [len(familyLabels)]atomic.Uint64
}

// owing is a query that waits for its reply, by its place in the batch.
type owing struct {
	plea
	place uint8
	// quick is set where the fast path may make the reply; zone is that of the name
	// then, or -1.
	quick bool
	zone  int
}

// newGate makes the gate of a worker, nil where none is kept.
func (s *Server) newGate() *gate {
	o := s.shield.overload
	if o == nil {
		return nil
	}
	return &gate{shared: o, supply: supply{signatures: o.signatures, returns: o.returns}, heat: newHeat(s.signs.rate / max(s.workers, 1))}
}

// strainedAt is the debt of the purse, with a batch more, from which on classes are told
// apart: below it there is enough for all.
const strainedAt = whole / 8

// begin sets what holds for a batch.
func (g *gate) begin(b *guard) {
	if g == nil {
		return
	}
	s := &g.supply
	s.now, s.pressure = b.now.UnixNano(), pressure(b.full, b.since, b.now)
	s.read()
	g.over = overloaded(g.shared.shed.Load(), s.now)
	g.strained = g.over || s.pressure > 0 || s.signatures.debt(s.now)+batchSize*s.signatures.step >= strainedAt
}

// class tells who asks.
func (g *gate) class(use cookieUse, client netip.Addr) rank {
	switch {
	case use == cookieGood:
		return classCookie
	case g.shared.known.has(client, g.supply.now):
		return classKnown
	}
	return classOther
}

// grade is the class of a plea. No network has more than its share of what the good
// classes may have signed: a resolver may be one that a flood goes through.
func (g *gate) grade(p *plea, hot bool, client netip.Addr, now time.Time) rank {
	c := g.class(p.cookie, client)
	if c < classOther && p.absent && g.shared.shares.judge(client, kindAnswer, 0, now) != limitPass {
		c = classOther
	}
	if c == classOther && hot {
		c = classAttack
	}
	return c
}

// learn gets to know who asks, in calm times, by some of their questions.
func (g *gate) learn(client netip.Addr, absent bool) {
	if g == nil {
		return
	}
	if g.ticks++; g.ticks%knownSampling == 0 && !g.over {
		g.shared.known.see(client, absent, g.supply.now)
	}
}

// answered counts a reply that was at hand, where that is told by class.
func (g *gate) answered(use cookieUse, client netip.Addr) {
	if g != nil && g.over {
		g.counts.queries[g.class(use, client)][fateServe].Add(1)
	}
}

// funds pay for what a worker signs.
func (w *worker) funds() *supply {
	if w.gate == nil {
		return nil
	}
	return &w.gate.supply
}

// owe keeps the query at hand for later.
func (w *worker) owe(st *state, place int, client netip.Addr) {
	g, hot := w.gate, false
	o := owing{place: uint8(place), quick: w.guard.parsed, zone: -1}
	if o.quick {
		o.cookie = w.guard.use
		var parent []byte
		if parent, o.zone = w.encloser(st); o.zone >= 0 {
			o.absent = len(parent) < len(w.query.Name()) && w.query.EDNS.DO && st.quick.signed[o.zone]
			hot = o.absent && g.heat.add(parent, g.supply.now)
		}
	}
	if g.strained {
		o.class = g.grade(&o.plea, hot, client, w.guard.now)
	}
	g.owed[g.n] = o
	g.n++
}

// encloser is the closest name at or above the one asked for that the fast path knows,
// and its zone; -1 where it knows none, or not all names of that zone.
func (w *worker) encloser(st *state) ([]byte, int) {
	q, level := &w.query.Query, st.quickLevel(w.level)
	name := q.Name()
	for without := 0; ; without += 1 + int(name[without]) {
		if level.chosen.Suffix(q, without) != nil {
			return nil, -1
		}
		if e := level.static.Suffix(q, without); e != nil {
			if e.Count == unlisted {
				return nil, -1
			}
			return name[without:], int(e.Tag)
		}
		if name[without] == 0 {
			return nil, -1
		}
	}
}

// settle gives the queries which wait what they get, the best class first.
func (w *worker) settle(st *state) {
	g := w.gate
	if g == nil || g.n == 0 {
		return
	}
	for c := classCookie; c <= classAttack; c++ {
		for i := range g.owed[:g.n] {
			if o := &g.owed[i]; o.class == c {
				w.decide(st, o)
			}
		}
		if !g.strained {
			break // all are of the first
		}
	}
	g.n = 0
}

// decide answers one of them, or does not.
func (w *worker) decide(st *state, o *owing) {
	g, i := w.gate, int(o.place)
	f := g.supply.fate(o.plea)
	switch {
	case w.guard.pressed() && o.speaks(): // as the slow path would say, at more cost
		f = fateBadCookie
	case f != fateServe:
		g.shared.turnedAway(g.supply.now)
		if f == fateTruncate {
			g.supply.returns.take(g.supply.now)
		}
		if g.shared.observe {
			g.counts.would[f].Add(1)
			f = fateServe
		}
	}
	w.box.begin(i, len(w.batch.Query(i)))
	size := 0
	if f == fateServe {
		g.supply.made++
		size = w.made(st, o)
	} else {
		size = w.shed(o, &f)
	}
	if g.over || f != fateServe {
		g.counts.queries[o.class][f].Add(1)
	}
	if size > 0 {
		w.batch.Reply(i, size)
	}
	if w.tap != nil {
		w.tell(i, size)
	}
}

// made makes a reply.
func (w *worker) made(st *state, o *owing) (size int) {
	in, out, src := w.batch.Query(int(o.place)), w.batch.Out(int(o.place)), w.batch.Source(int(o.place))
	if o.quick {
		began := w.server.now()
		if size = w.quickly(st, in, out, src); size > 0 {
			w.server.metrics.size.observe(0, float64(size))
			w.server.metrics.duration.observe(0, w.server.now().Sub(began).Seconds())
			w.gate.learn(src.Addr(), w.guard.absent)
			if w.server.shield.limiter != nil {
				size = w.bound(st, in, out, size, src)
			}
			return size
		}
	}
	size = w.server.handle(in, out, w.asker(src), w.tally)
	if size > headerLen {
		w.gate.learn(src.Addr(), int(out[3]&0xf) == dns.RcodeNameError)
	}
	return size
}

// shed says to a query no more than how to come back, if that; f tells in the end.
func (w *worker) shed(o *owing, f *fate) (size int) {
	g, i, q := w.gate, int(o.place), &w.query.Query
	if o.absent && *f != fateBadCookie {
		g.counts.unsigned.Add(1)
	}
	src := w.batch.Source(i)
	if *f == fateDrop || !o.quick || !q.Parse(w.batch.Query(i)) {
		*f = fateDrop
		return 0
	}
	options := w.ledger.Load().state.quick.options
	if use := w.guard.jar.judge(&w.guard.cookie, q.EDNS.Cookie, src.Addr(), w.guard.unix); use != cookieNone {
		options.Cookie = w.guard.cookie[:]
		w.ledger.Load().cookies[use].Add(1)
	}
	flags, rcode := uint16(0), dns.RcodeBadCookie
	if *f == fateTruncate {
		if flags, rcode = wire.TC, dns.RcodeSuccess; o.zone >= 0 {
			flags |= wire.AA
		}
	}
	if size = wire.Short(w.batch.Out(i), q, flags, rcode, &options); size == 0 {
		*f = fateDrop
		return 0
	}
	w.server.metrics.size.observe(0, float64(size))
	if *f == fateBadCookie {
		family := 0
		if !src.Addr().Is4() {
			family = 1
		}
		g.counts.badCookie[family].Add(1)
	} else if o.zone >= 0 {
		w.ledger.Load().countCommon(o.zone, q.Type, countNone, src.Addr(), rcode)
	}
	return size
}

// fold brings the counts to where they are read.
func (g *gate) fold(m *metrics, signs *signMetrics) {
	if g == nil {
		return
	}
	c := &g.counts
	for class := range c.queries {
		for f := range c.queries[class] {
			n := take(&c.queries[class][f])
			if n == 0 {
				continue
			}
			m.overload.WithLabelValues(classLabels[class], fateLabels[f]).Add(float64(n))
			switch fate(f) {
			case fateTruncate:
				m.truncated.Add(float64(n))
			case fateDrop:
				m.dropped.WithLabelValues("overload").Add(float64(n))
			}
		}
	}
	for f := range c.would {
		if n := take(&c.would[f]); n > 0 {
			m.would.WithLabelValues("authdns", wouldDo[f]).Add(float64(n))
		}
	}
	signs.refused.Add(float64(take(&c.unsigned)))
	for family := range c.badCookie {
		if n := take(&c.badCookie[family]); n > 0 {
			m.requests.WithLabelValues("", "udp", familyLabels[family], "other").Add(float64(n))
			m.responses.WithLabelValues("", rcodeLabel(dns.RcodeBadCookie)).Add(float64(n))
		}
	}
}

// OverloadPolicy says what is done in an overload.
type OverloadPolicy uint8

// The policies. The zero value is to act, and to observe in mode observe.
const (
	OverloadAct OverloadPolicy = iota
	// OverloadObserve counts what would be turned away.
	OverloadObserve
	// OverloadOff tells no classes apart, and counts nothing.
	OverloadOff
)

// newOverload makes what all workers share; nil where the policy is off.
func newOverload(policy OverloadPolicy, mode placement.Mode, rate int, now time.Time) *overload {
	if policy == OverloadOff {
		return nil
	}
	return &overload{
		observe: policy == OverloadObserve || mode == placement.Observe, known: newKnown(),
		shares:     newLimiter(&Limits{Rate: max(rate/shareOfOne, 1)}, now),
		signatures: newPurse(rate), returns: newPurse(rate),
	}
}

// shareOfOne is the part of the signatures that one network of a good class may have.
const shareOfOne = 4
