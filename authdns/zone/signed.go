package zone

import (
	"cmp"
	"encoding/base32"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// MaxIterations bounds the work for one hash of a name. RFC 9276 section 3.1 wants
// none; validators give up far below what RFC 5155 allows, most of them beyond 150.
const MaxIterations = 150

// signs tells whether a type is there for the sake of DNSSEC alone.
func signs(t uint16) bool {
	return t == dns.TypeRRSIG || t == dns.TypeNSEC || t == dns.TypeNSEC3 || t == dns.TypeNSEC3PARAM
}

// hashedName tells whether a record belongs to a hashed name: an NSEC3, or the
// signature of one. Such names stand apart, since nobody can ask for them (RFC
// 5155 section 7.2.8).
func hashedName(rr dns.RR) bool {
	sig, ok := rr.(*dns.RRSIG)
	return rr.Header().Rrtype == dns.TypeNSEC3 || ok && sig.TypeCovered == dns.TypeNSEC3
}

// checkSigned judges what the zone's owner has signed. All or nothing: a zone half
// signed is a forgery to whoever validates, wherever the gap is met.
func (l *loader) checkSigned() error {
	if !l.signs {
		return nil
	}
	sigs := l.zone.root.sigs(dns.TypeSOA)
	if len(sigs) == 0 {
		return l.checkUnsigned()
	}
	s := &Signed{Line: l.at[sigs[0]].line, Column: l.at[sigs[0]].column}
	c := &signedCheck{loader: l, signed: s}
	if err := c.apex(sigs); err != nil {
		return err
	}
	if err := c.links(); err != nil {
		return err
	}
	l.zone.walk(func(name string, n *node, under bool) {
		if !under {
			c.node(name, n)
		}
	})
	for i := range s.chain {
		c.expires(s.chain[i].Sigs)
	}
	if err := firstFault(c.faults); err != nil {
		return err
	}
	s.Expires = c.end
	l.zone.Signed = s
	return nil
}

// checkUnsigned refuses what is left of signing where the SOA is not signed.
func (l *loader) checkUnsigned() error {
	var faults []*Error
	look := func(name string, n *node, under bool) {
		for i := range n.sets {
			if t := n.sets[i].Type; !under && signs(t) {
				faults = append(faults, l.errorf(l.at[n.sets[i].RRs[0]], "%s: %s in a zone whose SOA is not signed", name, dns.Type(t)))
			}
		}
	}
	l.zone.walk(look)
	for _, n := range l.zone.shade.below() {
		look(n.name, n, false)
	}
	return firstFault(faults)
}

// firstFault is the one that stands first in the file, so that the same file gives
// the same message every time; nil for none.
func firstFault(faults []*Error) error {
	if len(faults) == 0 {
		return nil
	}
	return slices.MinFunc(faults, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Reason, b.Reason))
	})
}

// signedCheck is one run of checkSigned.
type signedCheck struct {
	*loader
	signed *Signed
	keys   []*dns.DNSKEY
	end    time.Time // when the first RRset is left without a signature
	faults []*Error
}

// apex judges keys and the signature of the SOA, and finds the kind of chain. The
// SOA changes with every version: its signature tells a file that was edited after
// it was signed.
func (c *signedCheck) apex(sigs []dns.RR) error {
	root, at := c.zone.root, c.at[sigs[0]]
	keys := root.set(dns.TypeDNSKEY)
	if keys == nil {
		return c.errorf(at, "the zone is signed and has no DNSKEY")
	}
	for _, rr := range keys.RRs {
		c.keys = append(c.keys, rr.(*dns.DNSKEY))
	}
	for _, t := range []uint16{dns.TypeDNSKEY, dns.TypeSOA} {
		if s := root.sigs(t); len(s) > 0 && !c.genuine(root.set(t).RRs, s) {
			return c.errorf(c.at[s[0]], "the signature of %s is not of these records: changed after the zone was signed", dns.Type(t))
		}
	}
	params := root.set(dns.TypeNSEC3PARAM)
	if params == nil {
		return nil
	}
	for _, rr := range params.RRs {
		p := rr.(*dns.NSEC3PARAM)
		if p.Hash != dns.SHA1 || p.Flags != 0 {
			continue // RFC 5155 section 4.1.2: not for us
		}
		if p.Iterations > MaxIterations {
			return c.errorf(c.at[rr], "%d iterations of NSEC3, want at most %d, best none (RFC 9276 section 3.1)", p.Iterations, MaxIterations)
		}
		salt, err := hex.DecodeString(strings.TrimPrefix(p.Salt, "-"))
		if err != nil {
			return c.errorf(c.at[rr], "salt %q is not hexadecimal", p.Salt)
		}
		c.signed.hashed, c.signed.hashing, c.signed.Iterations = true, hashing{p.Iterations, string(salt)}, p.Iterations
		return nil
	}
	return c.errorf(c.at[params.RRs[0]], "no NSEC3PARAM of SHA-1 without flags")
}

// genuine tells whether one of the signatures holds, or is of an algorithm which
// only others can judge. Time does not count: that is watched, not refused.
func (c *signedCheck) genuine(rrs, sigs []dns.RR) bool {
	for _, rr := range sigs {
		sig := rr.(*dns.RRSIG)
		for _, k := range c.keys {
			if k.KeyTag() != sig.KeyTag || k.Algorithm != sig.Algorithm {
				continue
			}
			if err := sig.Verify(k, rrs); err == nil || err == dns.ErrAlg {
				return true
			}
		}
	}
	return false
}

// links puts the chain together and closes it to a ring from the apex.
func (c *signedCheck) links() error {
	if c.signed.hashed {
		c.hashes()
	} else {
		c.names()
	}
	s := c.signed
	slices.SortFunc(s.chain, func(a, b link) int { return strings.Compare(a.key, b.key) })
	if err := firstFault(c.faults); err != nil {
		return err
	}
	if len(s.chain) == 0 || s.match(s.key(c.zone.Origin)) == nil {
		return c.errorf(place{s.Line, s.Column}, "the zone is signed, and nothing proves what is not in it: neither NSEC nor NSEC3 at %s", c.zone.Origin)
	}
	for i := range s.chain {
		l, next := &s.chain[i], &s.chain[(i+1)%len(s.chain)]
		if l.next != next.key {
			c.fault(l.RR, "the chain is broken: what follows here is %s", next.RR.Header().Name)
		}
	}
	return firstFault(c.faults)
}

// fault notes what is wrong with a record.
func (c *signedCheck) fault(rr dns.RR, format string, args ...any) {
	h := rr.Header()
	c.faults = append(c.faults, c.errorf(c.at[rr], "%s %s: "+format, append([]any{h.Name, dns.Type(h.Rrtype)}, args...)...))
}

// names collects the NSEC records.
func (c *signedCheck) names() {
	c.zone.walk(func(name string, n *node, under bool) {
		s := n.set(dns.TypeNSEC)
		if s == nil || under {
			return
		}
		c.link(s.RRs, n, orderKey(name), orderKey(Canonical(s.RRs[0].(*dns.NSEC).NextDomain)))
	})
}

// unhash reads a hash as names carry it (RFC 5155 section 3.3); NSEC3 has no padding.
func unhash(label string) ([]byte, error) {
	return base32.HexEncoding.WithPadding(base32.NoPadding).DecodeString(strings.ToUpper(label))
}

// hashes collects the NSEC3 records of the parameters in use; others may be there
// while the owner changes from one to the other.
func (c *signedCheck) hashes() {
	for _, n := range c.zone.shade.below() {
		s := n.set(dns.TypeNSEC3)
		if s == nil {
			continue
		}
		var ours []dns.RR
		for _, rr := range s.RRs {
			r := rr.(*dns.NSEC3)
			salt, err := hex.DecodeString(strings.TrimPrefix(r.Salt, "-"))
			if err == nil && r.Hash == dns.SHA1 && (hashing{r.Iterations, string(salt)}) == c.signed.hashing {
				ours = append(ours, rr)
			}
		}
		if len(ours) == 0 {
			continue
		}
		key, err := unhash(n.label())
		next, err2 := unhash(ours[0].(*dns.NSEC3).NextDomain)
		if err != nil || err2 != nil || len(key) != len(next) {
			c.fault(ours[0], "its name or the next is no hash")
			continue
		}
		c.link(ours, n, string(key), string(next))
	}
}

// link adds one record of the chain.
func (c *signedCheck) link(rrs []dns.RR, n *node, key, next string) {
	t := rrs[0].Header().Rrtype
	if len(rrs) > 1 {
		c.fault(rrs[1], "a second one")
		return
	}
	sigs := n.sigs(t)
	if !c.ours(sigs) {
		c.fault(rrs[0], "not signed by a key of the zone")
		return
	}
	c.signed.chain = append(c.signed.chain, link{key, next, Proof{rrs[0], sigs}})
}

// ours tells whether one of the signatures is made with a key of the zone.
func (c *signedCheck) ours(sigs []dns.RR) bool {
	return slices.ContainsFunc(sigs, func(rr dns.RR) bool {
		sig := rr.(*dns.RRSIG)
		return Canonical(sig.SignerName) == c.zone.Origin && slices.ContainsFunc(c.keys, func(k *dns.DNSKEY) bool {
			return k.Algorithm == sig.Algorithm && k.KeyTag() == sig.KeyTag
		})
	})
}

// node judges one name that is the zone's own: every RRset is signed, and the
// chain knows it. At a cut only DS and NSEC are the zone's.
func (c *signedCheck) node(name string, n *node) {
	cut := n != c.zone.root && n.cut()
	empty := true
	for i := range n.sets {
		s := &n.sets[i]
		empty = empty && s.Type == dns.TypeRRSIG
		if s.Type == dns.TypeRRSIG {
			c.covered(n, s.RRs)
			continue
		}
		if cut && s.Type != dns.TypeDS && s.Type != dns.TypeNSEC {
			continue
		}
		sigs := n.sigs(s.Type)
		if !c.ours(sigs) {
			c.fault(s.RRs[0], "not signed by a key of the zone (RFC 4035 section 2.2)")
			continue
		}
		c.expires(sigs)
	}
	c.known(name, n, cut, empty)
}

// covered refuses signatures whose records are gone: they would make a name exist that
// the chain says is not there.
func (c *signedCheck) covered(n *node, sigs []dns.RR) {
	for _, rr := range sigs {
		if t := rr.(*dns.RRSIG).TypeCovered; n.set(t) == nil {
			c.fault(rr, "signs %s, which is not there", dns.Type(t))
			return
		}
	}
}

// known refuses a name that the chain passes over: its own denial would be proved.
// Opting out leaves out insecure cuts, and names that are there for these alone.
func (c *signedCheck) known(name string, n *node, cut, empty bool) {
	if !c.signed.hashed {
		if !empty && n.set(dns.TypeNSEC) == nil {
			c.fault(n.sets[0].RRs[0], "its name has no NSEC")
		}
		return
	}
	key := c.signed.key(name)
	if c.signed.match(key) != nil || c.signed.cover(key).optOut() && (empty || cut && n.set(dns.TypeDS) == nil) {
		return
	}
	if empty {
		c.faults = append(c.faults, c.errorf(place{c.signed.Line, c.signed.Column}, "%s is empty, but there, and has no NSEC3", name))
		return
	}
	c.fault(n.sets[0].RRs[0], "its name has no NSEC3")
}

// expires takes in the signatures of an RRset: it is without when the last of them
// has ended.
func (c *signedCheck) expires(sigs []dns.RR) {
	var last time.Time
	for _, rr := range sigs {
		if t := time.Unix(int64(rr.(*dns.RRSIG).Expiration), 0).UTC(); t.After(last) {
			last = t
		}
	}
	if c.end.IsZero() || last.Before(c.end) {
		c.end = last
	}
}
