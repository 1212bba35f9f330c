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
// what is below each name.
func (c *compiler) quickStatic(q *quick, l placement.Level) *wire.Index {
	var b wire.Builder
	f := c.state.forest(l)
	left := maxQuick
	for i, name := range q.zones {
		z := f[name]
		if z == nil {
			continue
		}
		if z.zone == nil || z.zone.Owners > left || i > math.MaxUint16 {
			b.AddSuffix(wireName(name), 0) // for the slow path, whatever the zone around it says
			for range unlisted {
				b.Reply(nil)
			}
			continue
		}
		left -= z.zone.Owners
		(&quickZone{compiler: c, b: &b, z: z, level: l, tag: uint16(i), own: f.owns(z), spelt: spelled{below: z.name}}).add()
	}
	return b.Index()
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
	// denial is what is said of names that do not exist, and absent, by the length of
	// the name in a message, of types that a name has not: they are the same for all
	// names which share no more with those of the SOA than the zone's own.
	denial []byte
	absent map[int][]byte
	// redirects tells whether a name of the zone has a DNAME.
	redirects bool
}

// add adds the static replies of the zone.
func (q *quickZone) add() {
	soa := q.z.zone.SOA()
	q.spelt.add(soa.Ns, soa.Mbox)
	q.denial = q.quickDenial(q.z, q.spelt.below1())
	q.absent = make(map[int][]byte)
	q.b.Grow(4 * q.z.zone.Owners) // what is below a name, and three types
	q.z.zone.Visit(func(_ string, _ []uint16, shape zone.Shape) { q.redirects = q.redirects || shape == zone.Redirect })
	q.z.zone.Visit(func(owner string, types []uint16, shape zone.Shape) {
		if q.own(owner) {
			q.name(owner, types, shape)
		}
	})
	q.spelt.leave(q.b, q.tag, q.own)
}

// name adds those of one name, and of what is below it.
func (q *quickZone) name(owner string, types []uint16, shape zone.Shape) {
	q.b.AddSuffix(q.scratch.wireName(owner), q.tag)
	if shape == zone.Cut {
		q.cut(owner)
		return
	}
	plain := shape == zone.Plain && !q.spelt.takes(owner)
	if plain && (!q.redirects || q.z.denies(owner)) {
		q.b.Reply(q.denial)
	} else {
		q.b.Reply(nil)
	}
	if q.z.validated() {
		q.b.Reply(nil) // the signed one is of each name
	}
	q.types(owner, types, plain)
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
			b.AddSuffix(wireName(top), tag)
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

// types adds the replies of one name. A plain one shares with others what is said of
// types that it has not.
func (q *quickZone) types(owner string, types []uint16, plain bool) {
	mark := q.z.zone.Mark(owner)
	_, chosen := mark.(*steered)
	shares := plain && !q.z.blind && mark == nil && !slices.Contains(types, dns.TypeCNAME)
	for _, t := range askedTypes(types) {
		if q.z.refer != nil && t == dns.TypeNS && owner == q.z.name {
			continue // per resolver
		}
		if chosen && (t == dns.TypeA || t == dns.TypeAAAA) {
			continue // per client
		}
		var msg []byte
		if shares && !slices.Contains(types, t) {
			msg = q.lacks(owner, t)
		} else {
			msg = q.quickReply(owner, t, q.level, false)
		}
		if msg == nil {
			continue
		}
		q.b.Add(q.scratch.wireName(owner), t, q.tag)
		q.b.Reply(msg)
		if q.z.validated() {
			q.b.Reply(q.quickReply(owner, t, q.level, true))
		}
	}
}

// lacks is what is said of a type that a name has not.
func (q *quickZone) lacks(owner string, t uint16) []byte {
	length := len(q.scratch.wireName(owner))
	msg, ok := q.absent[length]
	if !ok {
		msg = slices.Clone(q.quickReply(owner, t, q.level, false))
		q.absent[length] = msg
	}
	return msg
}

// quickDenial is what a zone says of names that do not exist, for one of them.
func (c *compiler) quickDenial(z *served, name string) []byte {
	return c.quickChoice(z, name, dns.TypeNone, false, func(v *visit) { v.negative(zone.NXDomain) })
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
// It is good until the next one is made.
func (c *compiler) quickReply(name string, qtype uint16, l placement.Level, signed bool) []byte {
	in := append(c.scratch.in[:headerLen], c.scratch.wireName(name)...)
	in = append(in, byte(qtype>>8), byte(qtype), 0, dns.ClassINET)
	in[5] = 1
	out := c.scratch.out[:]
	nobody := netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
	n, o := c.state.bare(in, out, asker{addr: nobody, level: l, tcp: true}, signed, false)
	authoritative := n > headerLen && out[2]&0x04 != 0
	if o.decision != nil || o.rcode != dns.RcodeSuccess || !authoritative || n > wire.MaxUDP {
		return nil
	}
	return out[:n]
}

// scratch is room for one query and its reply: a zone of a million names makes
// millions, and garbage of that kind would cost more than the replies.
type scratch struct {
	name [255]byte
	in   [headerLen + 255 + 4]byte
	out  [maxTCP]byte
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
