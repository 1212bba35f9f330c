package authdns

import (
	"net/netip"
	"slices"

	"github.com/miekg/dns"

	"rhumb/authdns/wire"
)

// keptReplies is how many signed replies each level keeps beside those made ahead, of
// each kind. At 700 octets each they take 6 MB.
const keptReplies = 8192

// What is signed ahead has a second body beside the plain one in the fast path's index.
// This file is about the rest: replies without end, which are made at the first
// question and kept in a table of fixed size.

// newKept makes room for signed replies where any zone is signed.
func newKept(q *quick) *wire.Kept {
	if !slices.Contains(q.signed, true) {
		return nil
	}
	return wire.NewKept(keptReplies)
}

// bare writes the reply to a query without an OPT record, for the fast path to keep;
// 0 where that would not be the whole of it.
func (s *state) bare(in, out []byte, from asker, do, co bool) (int, outcome) {
	q, rcode := parse(in, from.tcp)
	o := outcome{qtype: q.qtype, rcode: rcode}
	if rcode != dns.RcodeSuccess {
		return 0, o
	}
	q.edns.do, q.edns.co = do, co
	return s.bareReply(&reply{q: &q}, out, from)
}

// bareReply is bare for a query that was read.
func (s *state) bareReply(r *reply, out []byte, from asker) (int, outcome) {
	o := outcome{qtype: r.q.qtype}
	s.decide(r, from, &o)
	o.rcode = r.rcode
	if r.ede != nil {
		return 0, o
	}
	r.q.edns.present = false
	n, truncated := r.pack(out, len(out))
	if truncated {
		return 0, o
	}
	return n, o
}

// pick is the body of an entry which has two where its zone is signed: one as it is,
// and one for those who validate.
func (w *worker) pick(e *wire.Entry) uint32 {
	if w.query.EDNS.DO && e.Count == 2 {
		return e.First + 1
	}
	return e.First
}

// co tells two kinds of signed replies apart: those which say NXDOMAIN (RFC 9824
// section 5.1), and those for validators that would not understand it.
func (w *worker) co(variant uint32) uint32 {
	variant <<= 1
	if w.query.EDNS.CO {
		variant++
	}
	return variant
}

// kept answers with a signed reply which was made before, or makes it now: a denial,
// the answer of a wildcard, whatever the name has no entry for. What depends on who
// asks is left to the slow path.
func (w *worker) kept(st *state, ecs int, out []byte, resolver netip.Addr) int {
	level, variant := st.quickLevel(w.level), w.co(0)
	if level.kept == nil || w.query.Type == dns.TypeANY { // counted by name, as the slow path alone does
		return 0
	}
	r := level.kept.Find(&w.query.Query, variant)
	if r == nil {
		if w.guard.finding {
			return 0
		}
		n, o := w.make(st, resolver)
		zone, ok := slices.BinarySearch(st.quick.zones, o.zone)
		if n == 0 || !ok || !st.quick.signed[zone] || o.personal || o.fleeting || o.decision != nil ||
			o.rcode != dns.RcodeSuccess && o.rcode != dns.RcodeNameError {
			return 0
		}
		r = level.kept.Keep(&w.query.Query, variant, w.bare[:n], wire.Mark{Tag: uint16(zone), Many: o.wildcard, Absent: o.absent})
	}
	x, b := r.Body()
	w.guard.many, w.guard.absent = r.Many, r.Absent
	return w.write(x, b, out, int(r.Tag), ecs, resolver, 0)
}

// variant is the signed form of a steered answer, by the number of the plain one.
func (w *worker) variant(st *state, level *quickLevel, body uint32, zone int, resolver netip.Addr) (*wire.Index, *wire.Body) {
	variant := w.co(body)
	r := level.keptSteered.Find(&w.query.Query, variant)
	if r == nil {
		if w.guard.finding {
			return nil, nil
		}
		n, o := w.make(st, resolver)
		if n == 0 || o.decision == nil || o.rcode != dns.RcodeSuccess {
			return nil, nil
		}
		r = level.keptSteered.Keep(&w.query.Query, variant, w.bare[:n], wire.Mark{Tag: uint16(zone)})
	}
	return r.Body()
}

// make is the only way by which kept replies come about: it lets the slow path answer
// the query read last, so that both paths give the same octets.
func (w *worker) make(st *state, resolver netip.Addr) (int, outcome) {
	if w.bare == nil {
		w.bare = make([]byte, maxUDP)
	}
	from := asker{addr: netip.AddrPortFrom(resolver, 0), level: w.level, funds: w.funds()}
	return st.bare(w.query.in, w.bare, from, true, w.query.EDNS.CO)
}
