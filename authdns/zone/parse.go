package zone

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// Error says what is wrong with a master file, and where. Line and Column count
// from 1; they are 0 where the fault is that something is missing.
type Error struct {
	File   string
	Line   int
	Column int
	Reason string
}

// Error prints the place first, as compilers do, so that editors find it.
func (e *Error) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %s", e.File, e.Reason)
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Reason)
}

// MaxRecords bounds one zone, $GENERATE included, so that a few bytes of input
// cannot fill the memory of every node.
const MaxRecords = 2_000_000

// Parse reads a master file (RFC 1035 section 5) of the zone origin. $INCLUDE is
// refused, since a zone travels as one immutable text. On error, always an
// *Error, the Zone is nil.
func Parse(name, origin string, r io.Reader) (*Zone, error) {
	origin = Canonical(origin)
	if _, ok := dns.IsDomainName(origin); !ok {
		return nil, &Error{File: name, Reason: fmt.Sprintf("origin %q is not a domain name", origin)}
	}
	text, err := readAll(r)
	if err != nil {
		end := place{1 + bytes.Count(text, []byte("\n")), len(text) - bytes.LastIndexByte(text, '\n') - 1}
		return nil, (&loader{file: name}).errorf(end, "cannot be read: %v", err)
	}
	l := newLoader(name, origin, text)
	if l.load() == nil {
		return l.zone, nil
	}
	// Nearly all files are right, so the places of records are only noted when one of
	// them has to be told.
	l = newLoader(name, origin, text)
	l.noting = true
	if err := l.load(); err != nil {
		return nil, err
	}
	return l.zone, nil
}

// readAll reads to the end, into an array of the right size where it can be known.
func readAll(r io.Reader) ([]byte, error) {
	var b bytes.Buffer
	if s, ok := r.(interface{ Len() int }); ok {
		b.Grow(s.Len() + bytes.MinRead)
	}
	_, err := b.ReadFrom(r)
	return b.Bytes(), err
}

// loader is one run over a file.
type loader struct {
	file string
	zone *Zone
	text []byte // what is left of the file
	line int    // that it begins with

	plain plainReader
	stock stock
	room  []byte // for a packed record
	pace  pacer

	// at tells where records stand, for the checks after reading: those of the apex, or,
	// with noting, all.
	at     map[dns.RR]place
	noting bool
	signs  bool // a record is there for the sake of DNSSEC
}

// stock is what trees are made of.
type stock struct {
	nodes slab[node]
	sets  slab[RRset]
	rrs   slab[dns.RR]
}

func newLoader(file, origin string, text []byte) *loader {
	return &loader{file: file, zone: &Zone{Origin: origin, root: &node{name: origin}, shade: &node{name: origin}}, text: text, line: 1,
		plain: plainReader{context: context{origin: origin}}, at: make(map[dns.RR]place)}
}

// load reads the file and judges what it holds.
func (l *loader) load() error {
	if err := l.read(); err != nil {
		return err
	}
	return l.check()
}

// errorf makes an error at a place.
func (l *loader) errorf(p place, format string, args ...any) *Error {
	return &Error{File: l.file, Line: p.line, Column: p.column, Reason: fmt.Sprintf(format, args...)}
}

// add judges a record that a message can carry, and puts it into the tree.
func (l *loader) add(rr dns.RR, p place) error {
	rest, err := l.judge(rr, p)
	if err == nil {
		l.insert(rr, rest, p)
	}
	return err
}

// addAny is add for a record of which nothing is known.
func (l *loader) addAny(rr dns.RR, p place) error {
	rest, err := l.judge(rr, p)
	if err != nil {
		return err
	}
	if err := l.packable(rr); err != nil {
		return l.errorf(p, "%s %s: %v", rr.Header().Name, dns.Type(rr.Header().Rrtype), err)
	}
	l.insert(rr, rest, p)
	return nil
}

// judge judges a record by itself, and returns its name without that of the zone.
func (l *loader) judge(rr dns.RR, p place) (rest string, err error) {
	h := rr.Header()
	h.Name = Canonical(h.Name)
	rest, inside := within(h.Name, l.zone.Origin)
	switch {
	case l.zone.Records >= MaxRecords:
		return "", l.errorf(p, "more than %d records", MaxRecords)
	case h.Class != dns.ClassINET:
		return "", l.errorf(p, "%s: class %s is not served, only IN", h.Name, dns.Class(h.Class))
	case !inside:
		return "", l.errorf(p, "%s lies outside the zone %s", h.Name, l.zone.Origin)
	case h.Rrtype == dns.TypeSOA && rest != "":
		return "", l.errorf(p, "%s: a SOA belongs to the apex alone", h.Name)
	case (h.Rrtype == dns.TypeNS || h.Rrtype == dns.TypeDNAME) && (rest == "*" || strings.HasPrefix(rest, "*.")):
		return "", l.errorf(p, "%s: %s at a wildcard has no meaning (RFC 4592 section 4)", h.Name, dns.Type(h.Rrtype))
	case h.Ttl > 1<<31-1:
		return "", l.errorf(p, "%s: TTL %d is above 2147483647 (RFC 2181 section 8)", h.Name, h.Ttl)
	case hashedName(rr):
		if label, above := topmost(rest); label == "" || above != "" {
			return "", l.errorf(p, "%s %s: the name of an NSEC3 is one label below the apex (RFC 5155 section 3)", h.Name, dns.Type(h.Rrtype))
		}
	}
	return rest, nil
}

// insert puts a record into the tree, at the name which rest is what is left of.
func (l *loader) insert(rr dns.RR, rest string, p place) {
	n, hashed := l.zone.root, hashedName(rr)
	if hashed {
		n = l.zone.shade
	}
	for label := ""; rest != ""; {
		label, rest = topmost(rest)
		n = l.child(n, label, behind(rr.Header().Name, rest))
	}
	if len(n.sets) == 0 {
		n.sets = l.stock.sets.one()[:0]
		if !hashed {
			l.zone.Owners++
		}
	}
	s := n.open(rr.Header().Rrtype)
	if s.RRs == nil {
		s.RRs = l.stock.rrs.one()[:0]
	}
	if s.add(rr) {
		l.zone.Records++
		l.zone.Redirects = l.zone.Redirects || s.Type == dns.TypeDNAME
		l.signs = l.signs || signs(s.Type)
		if l.noting || n == l.zone.root {
			l.at[rr] = p
		}
	}
}

// child returns the node of a label, making it where there is none.
func (l *loader) child(n *node, label, name string) *node {
	k := n.kid(label)
	if k == nil {
		if n.kids == nil {
			n.kids = &family{}
		}
		k = l.stock.nodes.put(node{name: name})
		n.kids.add(k)
	}
	return k
}

// packable proves that a record can be put into a message: what the text allows
// is more than what the wire carries, and the time to learn it is now.
func (l *loader) packable(rr dns.RR) error {
	size := dns.Len(rr)
	if size > dns.MaxMsgSize-512 {
		return fmt.Errorf("%d octets do not fit into a message", size)
	}
	if len(l.room) < size+256 {
		l.room = make([]byte, size+256)
	}
	_, err := dns.PackRR(rr, l.room, 0, nil, false)
	return err
}

var syntaxError = regexp.MustCompile(`(?s)^(?:dns: )?(.*): ("(?:[^"\\]|\\.)*") at line: (\d+):(\d+)$`)

// syntax turns the library's error, which tells its place in text only, into
// ours. Its column is the end of the token; people look for the beginning.
func (l *loader) syntax(err error, in *lineReader) error {
	reason, p := err.Error(), place{in.line, in.column}
	var pe *dns.ParseError
	if errors.As(err, &pe) {
		if m := syntaxError.FindStringSubmatch(reason); m != nil {
			reason = m[1] + ": " + m[2]
			p.line, _ = strconv.Atoi(m[3])
			p.line += in.shift
			p.column, _ = strconv.Atoi(m[4])
			if token, err := strconv.Unquote(m[2]); err == nil && len(token) <= p.column {
				p.column -= max(len(token)-1, 0)
			}
			switch {
			case in.ended && p.line >= in.line: // it lacks what was looked for behind it, where we put words
				p, reason = in.entry, m[1]+": "+short
			case p.line < in.entry.line: // it is wrong in what it generates
				p = in.entry
			}
		}
	}
	return l.errorf(p, "%s", reason)
}

// check judges the zone as a whole. The first fault by place is told, so that
// the same file gives the same message every time.
func (l *loader) check() error {
	apex := l.zone.root
	soa := apex.set(dns.TypeSOA)
	if soa == nil {
		return l.errorf(place{}, "no SOA at %s", l.zone.Origin)
	}
	if len(soa.RRs) > 1 {
		return l.errorf(l.at[soa.RRs[1]], "a second SOA at %s", l.zone.Origin)
	}
	if apex.set(dns.TypeNS) == nil {
		return l.errorf(place{}, "no NS at %s", l.zone.Origin)
	}
	var faults []*Error
	l.zone.walk(func(name string, n *node, under bool) {
		if e := l.checkNode(name, n, under); e != nil {
			faults = append(faults, e)
		}
	})
	if err := firstFault(faults); err != nil {
		return err
	}
	return l.checkSigned()
}

// checkNode judges the types which stand at one name; under tells that it lies
// below a cut.
func (l *loader) checkNode(name string, n *node, under bool) *Error {
	if s := n.set(dns.TypeCNAME); s != nil {
		if len(s.RRs) > 1 {
			return l.errorf(l.at[s.RRs[1]], "%s: a second CNAME", name)
		}
		if o := n.other(dns.TypeCNAME, dns.TypeRRSIG, dns.TypeNSEC); o != nil {
			return l.errorf(later(l.at[o.RRs[0]], l.at[s.RRs[0]]), "%s: CNAME beside %s (RFC 1034 section 3.6.2)", name, dns.Type(o.Type))
		}
	}
	if s := n.set(dns.TypeDNAME); s != nil {
		if len(s.RRs) > 1 {
			return l.errorf(l.at[s.RRs[1]], "%s: a second DNAME", name)
		}
		if n.kids != nil {
			return l.errorf(l.at[s.RRs[0]], "%s: DNAME with names below it (RFC 6672 section 2.4)", name)
		}
	}
	if e := l.checkCut(name, n, under); e != nil {
		return e
	}
	if s := n.set(dns.TypeNS); s != nil {
		return l.checkTargets(name, s)
	}
	return nil
}

// checkCut refuses data which nobody would ever see: at a cut and below it the
// zone holds only the delegation, its DS, and addresses.
func (l *loader) checkCut(name string, n *node, under bool) *Error {
	switch {
	case under:
		if o := n.other(dns.TypeA, dns.TypeAAAA, dns.TypeRRSIG, dns.TypeNSEC); o != nil {
			return l.errorf(l.at[o.RRs[0]], "%s: %s below a zone cut, where only glue may stand", name, dns.Type(o.Type))
		}
	case n != l.zone.root && n.cut():
		if o := n.other(dns.TypeNS, dns.TypeDS, dns.TypeA, dns.TypeAAAA, dns.TypeRRSIG, dns.TypeNSEC); o != nil {
			return l.errorf(l.at[o.RRs[0]], "%s: %s at a zone cut belongs to the child zone", name, dns.Type(o.Type))
		}
	case n.set(dns.TypeDS) != nil:
		return l.errorf(l.at[n.set(dns.TypeDS).RRs[0]], "%s: DS without NS", name)
	}
	return nil
}

// checkTargets refuses a name server which is an alias (RFC 2181 section 10.3).
func (l *loader) checkTargets(name string, s *RRset) *Error {
	for _, rr := range s.RRs {
		target := rr.(*dns.NS).Ns
		if t := l.zone.node(Canonical(target)); t != nil && t.set(dns.TypeCNAME) != nil {
			return l.errorf(l.at[rr], "%s: name server %s is a CNAME", name, target)
		}
	}
	return nil
}

// other returns the first RRset whose type is none of those, or nil.
func (n *node) other(types ...uint16) *RRset {
	for i := range n.sets {
		if !slices.Contains(types, n.sets[i].Type) {
			return &n.sets[i]
		}
	}
	return nil
}
