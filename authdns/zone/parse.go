package zone

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"

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
	l := &loader{
		file: name, zone: &Zone{Origin: origin, root: &node{}, shade: &node{}},
		at: make(map[dns.RR]place), in: &lineReader{r: bufio.NewReader(r), line: 1},
	}
	if err := l.read(); err != nil {
		return nil, err
	}
	if err := l.check(); err != nil {
		return nil, err
	}
	return l.zone, nil
}

// loader is one run of Parse.
type loader struct {
	file string
	zone *Zone
	in   *lineReader
	at   map[dns.RR]place // where each record stands, for the checks after reading
}

// errorf makes an error at a place.
func (l *loader) errorf(p place, format string, args ...any) *Error {
	return &Error{File: l.file, Line: p.line, Column: p.column, Reason: fmt.Sprintf(format, args...)}
}

// read takes the file record by record and stops at the first fault.
func (l *loader) read() error {
	zp := dns.NewZoneParser(l.in, l.zone.Origin, "")
	for rr, ok := zp.Next(); ok; rr, ok = zp.Next() {
		if err := l.add(rr, l.in.entry); err != nil {
			return err
		}
	}
	if l.in.err != nil {
		return l.errorf(place{l.in.line, l.in.column}, "cannot be read: %v", l.in.err)
	}
	if err := zp.Err(); err != nil {
		return l.syntax(err)
	}
	return nil
}

// add judges a record by itself and puts it into the tree.
func (l *loader) add(rr dns.RR, p place) error {
	h := rr.Header()
	h.Name = Canonical(h.Name)
	path, inside := labels(h.Name, l.zone.Origin)
	switch {
	case l.zone.Records >= MaxRecords:
		return l.errorf(p, "more than %d records", MaxRecords)
	case h.Class != dns.ClassINET:
		return l.errorf(p, "%s: class %s is not served, only IN", h.Name, dns.Class(h.Class))
	case !inside:
		return l.errorf(p, "%s lies outside the zone %s", h.Name, l.zone.Origin)
	case h.Rrtype == dns.TypeSOA && len(path) > 0:
		return l.errorf(p, "%s: a SOA belongs to the apex alone", h.Name)
	case len(path) > 0 && path[len(path)-1] == "*" && (h.Rrtype == dns.TypeNS || h.Rrtype == dns.TypeDNAME):
		return l.errorf(p, "%s: %s at a wildcard has no meaning (RFC 4592 section 4)", h.Name, dns.Type(h.Rrtype))
	case h.Ttl > 1<<31-1:
		return l.errorf(p, "%s: TTL %d is above 2147483647 (RFC 2181 section 8)", h.Name, h.Ttl)
	}
	if err := packable(rr); err != nil {
		return l.errorf(p, "%s %s: %v", h.Name, dns.Type(h.Rrtype), err)
	}
	n := l.zone.root
	if hashedName(rr) {
		if len(path) != 1 {
			return l.errorf(p, "%s %s: the name of an NSEC3 is one label below the apex (RFC 5155 section 3)", h.Name, dns.Type(h.Rrtype))
		}
		n = l.zone.shade
	}
	for _, label := range path {
		n = n.child(label)
	}
	if len(n.sets) == 0 && !hashedName(rr) {
		l.zone.Owners++
	}
	if n.add(rr) {
		l.zone.Records++
		l.at[rr] = p
	}
	return nil
}

// child returns the node of a label, making it where there is none.
func (n *node) child(label string) *node {
	if n.kids == nil {
		n.kids = make(map[string]*node)
	}
	if n.kids[label] == nil {
		n.kids[label] = &node{}
	}
	return n.kids[label]
}

// packable proves that a record can be put into a message: what the text allows
// is more than what the wire carries, and the time to learn it is now.
func packable(rr dns.RR) error {
	size := dns.Len(rr)
	if size > dns.MaxMsgSize-512 {
		return fmt.Errorf("%d octets do not fit into a message", size)
	}
	buf := make([]byte, size+256)
	_, err := dns.PackRR(rr, buf, 0, nil, false)
	return err
}

var syntaxError = regexp.MustCompile(`(?s)^(?:dns: )?(.*): ("(?:[^"\\]|\\.)*") at line: (\d+):(\d+)$`)

// syntax turns the library's error, which tells its place in text only, into
// ours. Its column is the end of the token; people look for the beginning.
func (l *loader) syntax(err error) error {
	reason, p := err.Error(), place{l.in.line, l.in.column}
	var pe *dns.ParseError
	if errors.As(err, &pe) {
		if m := syntaxError.FindStringSubmatch(reason); m != nil {
			reason = m[1] + ": " + m[2]
			p.line, _ = strconv.Atoi(m[3])
			p.column, _ = strconv.Atoi(m[4])
			if token, err := strconv.Unquote(m[2]); err == nil && len(token) <= p.column {
				p.column -= max(len(token)-1, 0)
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
		if len(n.kids) > 0 {
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
