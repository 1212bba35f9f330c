package authdns

import (
	"math"
	"net/netip"
	"slices"

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
		c.quickZone(&b, f, z, l, uint16(i))
	}
	return b.Index()
}

// quickZone adds the static replies of a zone.
func (c *compiler) quickZone(b *wire.Builder, f forest, z *served, l placement.Level, tag uint16) {
	own := func(name string) bool { return f.find(name, dns.TypeNone) == z } // not of a deeper zone
	soa := z.zone.SOA()
	spelt := spelled{below: z.name}
	spelt.add(soa.Ns, soa.Mbox)
	denial := c.quickDenial(z, spelt.below1())
	z.zone.Visit(func(owner string, types []uint16, shape zone.Shape) {
		if !own(owner) {
			return
		}
		b.AddSuffix(wireName(owner), tag)
		switch {
		case shape == zone.Cut:
			targets := spelled{below: owner}
			for _, rr := range z.zone.RRset(owner, dns.TypeNS) {
				targets.add(rr.(*dns.NS).Ns)
			}
			b.Reply(c.quickReferral(z, owner, targets.below1(), false))
			if z.sign != nil {
				b.Reply(c.quickReferral(z, owner, targets.below1(), true))
			}
			targets.leave(b, tag, own)
			return
		case shape == zone.Plain && !spelt.takes(owner) && z.denies(owner):
			b.Reply(denial)
		default:
			b.Reply(nil)
		}
		if z.sign != nil && shape != zone.Cut {
			b.Reply(nil) // the signed one is of each name
		}
		c.state.quickTypes(b, z, owner, types, l, tag)
	})
	spelt.leave(b, tag, own)
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
	return slices.ContainsFunc(s.tops, func(top string) bool { return dns.IsSubDomain(top, name) })
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

// quickTypes adds the replies of one name.
func (s *state) quickTypes(b *wire.Builder, z *served, owner string, types []uint16, l placement.Level, tag uint16) {
	_, chosen := z.zone.Mark(owner).(*steered)
	for _, t := range askedTypes(types) {
		if z.refer != nil && t == dns.TypeNS && owner == z.name {
			continue // per resolver
		}
		if chosen && (t == dns.TypeA || t == dns.TypeAAAA) {
			continue // per client
		}
		if msg := s.quickReply(owner, t, l, false); msg != nil {
			b.Add(wireName(owner), t, tag)
			b.Reply(msg)
			if z.sign != nil {
				b.Reply(s.quickReply(owner, t, l, true))
			}
		}
	}
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
func (s *state) quickReply(name string, qtype uint16, l placement.Level, signed bool) []byte {
	in := make([]byte, headerLen, headerLen+260)
	in[5] = 1
	in = append(in, wireName(name)...)
	in = append(in, byte(qtype>>8), byte(qtype), 0, dns.ClassINET)
	out := make([]byte, maxTCP)
	nobody := netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
	n, o := s.bare(in, out, asker{addr: nobody, level: l, tcp: true}, signed, false)
	authoritative := n > headerLen && out[2]&0x04 != 0
	if o.decision != nil || o.rcode != dns.RcodeSuccess || !authoritative || n > wire.MaxUDP {
		return nil
	}
	return out[:n]
}

// wireName is a canonical name in the form it has in a message.
func wireName(name string) []byte {
	b := make([]byte, 255)
	n, err := dns.PackDomainName(name, b, 0, nil, false)
	if err != nil {
		return nil // no name of a zone
	}
	return b[:n]
}
