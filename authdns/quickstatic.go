package authdns

import (
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"rhumb/authdns/wire"
	"rhumb/authdns/zone"
	"rhumb/placement"
)

// quickStatic asks the slow path for every name and type of the files, and for
// what is below each name. lacks says by number of a zone what its whole names say of
// types that they have not.
func (c *compiler) quickStatic(q *quick, l placement.Level) (x *wire.Index, lacks []uint32) {
	var b wire.Builder
	lacks = make([]uint32, len(q.zones))
	f := c.state.forest(l)
	left := maxQuick
	for i, name := range q.zones {
		z := f[name]
		if z == nil {
			continue
		}
		if z.zone == nil || z.hidden || z.zone.Owners > left || i > math.MaxUint16 {
			b.AddSuffix(wireName(name), 0, false) // for the slow path, whatever the zone around it says
			for range unlisted {
				b.Reply(nil)
			}
			continue
		}
		left -= z.zone.Owners
		lacks[i] = (&quickZone{compiler: c, b: &b, z: z, level: l, tag: uint16(i), own: f.owns(z), spelt: spelled{below: z.name}}).add()
	}
	return b.Index(), lacks
}

// quickZone is a zone on its way into an Index.
type quickZone struct {
	*compiler
	b     *wire.Builder
	z     *served
	level placement.Level
	tag   uint16
	own   func(name string) bool
	spelt spelled
	// denial is what is said of names that do not exist.
	denial []byte
}

// add adds the static replies of the zone. It returns the number of what is said of types
// that a name has not. That and the denial are the same for all names which share no more
// with those of the SOA than the zone's own.
func (q *quickZone) add() (lacks uint32) {
	soa := q.z.zone.SOA()
	q.spelt.add(soa.Ns, soa.Mbox)
	q.denial = q.quickNegative(q.z, q.spelt.below1(), zone.NXDomain)
	lacks = q.b.Spare(q.quickNegative(q.z, q.spelt.below1(), zone.NoData))
	q.b.Grow(2 * q.z.zone.Owners) // what is below a name, and a type
	q.z.zone.Visit(func(owner string, types []uint16, mark any, shape zone.Shape) {
		if q.own(owner) {
			q.name(owner, types, mark, shape)
		}
	})
	q.spelt.leave(q.b, q.tag, q.own)
	return lacks
}

// name adds those of one name, and of what is below it.
func (q *quickZone) name(owner string, types []uint16, mark any, shape zone.Shape) {
	at := q.scratch.wireName(owner)
	if shape == zone.Cut {
		q.b.AddSuffix(at, q.tag, false)
		q.cut(owner)
		return
	}
	plain := shape == zone.Plain && !q.spelt.takes(owner)
	whole := plain && mark == nil && q.shares(owner, types)
	q.b.AddSuffix(at, q.tag, whole)
	if plain && (!q.z.zone.Redirects || q.z.denies(owner)) {
		q.b.Reply(q.denial)
	} else {
		q.b.Reply(nil)
	}
	if q.z.validated() {
		q.b.Reply(nil) // the signed one is of each name
	}
	_, chosen := mark.(*steered)
	q.types(owner, at, types, whole, chosen)
}

// shares tells whether a plain name, over which nothing was laid, says of all types that it has not what others say.
func (q *quickZone) shares(owner string, types []uint16) bool {
	return !q.z.blind && !q.z.validated() && (q.z.refer == nil || owner != q.z.name) &&
		!slices.Contains(types, dns.TypeCNAME)
}

// cut adds the referrals of a delegation.
func (q *quickZone) cut(owner string) {
	targets := spelled{below: owner}
	for _, rr := range q.z.zone.RRset(owner, dns.TypeNS) {
		targets.add(rr.(*dns.NS).Ns)
	}
	q.b.Reply(q.quickReferral(q.z, owner, targets.below1(), false))
	if q.z.validated() {
		q.b.Reply(q.quickReferral(q.z, owner, targets.below1(), true))
	}
	targets.leave(q.b, q.tag, q.own)
}

// denies tells whether names below one do not exist: a DNAME above it would
// speak for them first.
func (s *served) denies(owner string) bool {
	return s.zone.Lookup(join("x", owner), dns.TypeNone).Kind == zone.NXDomain
}

// spelled are the names that a reply for all names below another spells out. A
// question that shares more of one than the other name would have it point there,
// so such questions are left to the slow path: by the ancestor of each that is
// one label longer than the other name.
type spelled struct {
	below string
	tops  []string
	taken []string // tops that have an entry
}

func (s *spelled) add(names ...string) {
	for _, name := range names {
		name = zone.Canonical(name)
		labels := dns.CountLabel(name) - dns.CountLabel(s.below)
		if !dns.IsSubDomain(s.below, name) || labels == 0 {
			continue
		}
		at, _ := dns.PrevLabel(name, dns.CountLabel(s.below)+1)
		if top := name[at:]; !slices.Contains(s.tops, top) {
			s.tops = append(s.tops, top)
		}
	}
}

// takes tells whether a name is one of the tops, or below one.
func (s *spelled) takes(name string) bool {
	if slices.Contains(s.tops, name) {
		s.taken = append(s.taken, name)
	}
	return slices.ContainsFunc(s.tops, func(top string) bool {
		return strings.HasSuffix(name, top) && dns.IsSubDomain(top, name) // the first is cheap
	})
}

// leave adds entries without a reply for the tops that have none, as far as they
// are the zone's own.
func (s *spelled) leave(b *wire.Builder, tag uint16, own func(string) bool) {
	for _, top := range s.tops {
		if !slices.Contains(s.taken, top) && own(top) {
			b.AddSuffix(wireName(top), tag, false)
			b.Reply(nil)
		}
	}
}

// below1 is a name one label longer, which is none of the tops: what is made for
// it spells the tops out, and goes with every name that shares none of them.
func (s *spelled) below1() string {
	label := "x"
	for slices.Contains(s.tops, join(label, s.below)) {
		label += "x"
	}
	return join(label, s.below)
}

// join puts a label before a name.
func join(label, name string) string {
	if name == "." {
		return label + "."
	}
	return label + "." + name
}

// types adds the replies of one name, which at is in a message. A whole one has an entry
// of each type in the file, others of what is asked most besides. Addresses that are
// chosen have none.
func (q *quickZone) types(owner string, at []byte, types []uint16, whole, chosen bool) {
	if !whole {
		types = askedTypes(types)
	}
	for _, t := range types {
		if q.z.refer != nil && t == dns.TypeNS && owner == q.z.name {
			continue // per resolver
		}
		if chosen && (t == dns.TypeA || t == dns.TypeAAAA) {
			continue // per client
		}
		msg := q.quickReply(owner, at, t, q.level, false)
		if msg == nil && !whole {
			continue
		}
		q.b.Add(at, t, q.tag)
		q.b.Reply(msg)
		if q.z.validated() {
			q.b.Reply(q.quickReply(owner, at, t, q.level, true))
		}
	}
}

// quickNegative is what a zone says of names that do not exist, or have not a type, for
// one of them.
func (c *compiler) quickNegative(z *served, name string, kind zone.Kind) []byte {
	return c.quickChoice(z, name, dns.TypeNone, false, func(v *visit) { v.negative(kind) })
}

// quickReferral is what is said of a name below a cut where it is the same for
// everybody, else nil.
func (c *compiler) quickReferral(z *served, cut, name string, signed bool) []byte {
	res := z.zone.Lookup(name, dns.TypeNone)
	if _, ok := res.Mark.(*delegation); ok || res.Kind != zone.Delegation || res.Owner != cut {
		return nil
	}
	return c.quickChoice(z, name, dns.TypeNone, signed, func(v *visit) {
		v.reply.aa = false
		v.referral(res)
	})
}

// askedTypes are the types of a name, and those which are asked of any name.
func askedTypes(types []uint16) []uint16 {
	out := append(slices.Clone(types), dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS)
	slices.Sort(out)
	return slices.Compact(out)
}

// quickReply is the slow path's reply where it is the same for everybody, else nil.
// It is good until the next one is made. The name is given in both forms.
func (c *compiler) quickReply(name string, at []byte, qtype uint16, l placement.Level, signed bool) []byte {
	s := &c.scratch
	s.query = query{question: append(append(s.question[:0], at...), byte(qtype>>8), byte(qtype), 0, dns.ClassINET),
		name: name, canon: name, qtype: qtype, qclass: dns.ClassINET, edns: edns{do: signed}}
	if s.reply.names == nil {
		s.reply.names = make(map[string]int)
	}
	clear(s.reply.names)
	s.reply = reply{q: &s.query, answer: s.reply.answer[:0], names: s.reply.names}
	out := s.out[:]
	nobody := netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
	n, o := c.state.bareReply(&s.reply, out, asker{addr: nobody, level: l, tcp: true})
	authoritative := n > headerLen && out[2]&0x04 != 0
	if o.decision != nil || o.fleeting || o.rcode != dns.RcodeSuccess || !authoritative || n > wire.MaxUDP {
		return nil
	}
	return out[:n]
}

// scratch is room for one query and its reply: a zone of a million names makes
// millions, and garbage of that kind would cost more than the replies.
type scratch struct {
	name     [255]byte
	question [255 + 4]byte
	query    query
	reply    reply
	out      [maxTCP]byte
}

// wireName is a canonical name in the form it has in a message, until the next one.
func (s *scratch) wireName(name string) []byte { return packName(s.name[:], name) }

// wireName is the same for good.
func wireName(name string) []byte { return packName(make([]byte, 255), name) }

func packName(to []byte, name string) []byte {
	n, err := dns.PackDomainName(name, to, 0, nil, false)
	if err != nil {
		return nil // no name of a zone
	}
	return to[:n]
}
