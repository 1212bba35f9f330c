package zone

import (
	"bytes"
	"net/netip"

	"github.com/miekg/dns"
)

// Nearly all of a large zone are lines of one shape: owner, TTL, class, type, and an
// address or a name, without escapes, quotes and parentheses. They are read here, in a
// tenth of the time that the library takes for whatever a master file may hold. What is
// not of this shape to the last octet, faults above all, goes to the library, which says
// what it means (see entries); so there is one reading of a master file and not two.

// context is what an entry of a master file takes over from those before it.
type context struct {
	origin string
	owner  string // as it came; "" before the first record
	ttl    uint32 // of records without one
	known  bool   // such records may be
	fixed  bool   // by $TTL, so that a record's own is for itself alone
}

// plainReader reads plain lines. The records that it makes lie in its slabs.
type plainReader struct {
	context
	names   strs
	four    slab[[4]byte]
	a       slab[dns.A]
	sixteen slab[[16]byte]
	aaaa    slab[dns.AAAA]
	ns      slab[dns.NS]
	cname   slab[dns.CNAME]
	ptr     slab[dns.PTR]
	mx      slab[dns.MX]
	buf     [255]byte // a name in the making
}

// strip takes comment and white space off the end of a line; ok is false where it holds
// anything but printable ASCII without a meaning of its own, or a directive.
func strip(line []byte) (plain []byte, ok bool) {
	if len(line) > 0 && line[0] == '$' {
		return nil, false
	}
	line = bytes.TrimSuffix(line, []byte("\r"))
	for i, c := range line {
		switch {
		case c == ';':
			return bytes.TrimRight(line[:i], " \t"), true
		case c == '"' || c == '(' || c == ')' || c == '\\' || c > '~' || c < ' ' && c != '\t':
			return nil, false
		}
	}
	return bytes.TrimRight(line, " \t"), true
}

// field cuts the first word off a line.
func field(line []byte) (word, rest []byte) {
	for len(line) > 0 && blank(line[0]) {
		line = line[1:]
	}
	end := 0
	for end < len(line) && !blank(line[end]) {
		end++
	}
	return line[:end], line[end:]
}

func blank(c byte) bool { return c == ' ' || c == '\t' }

// read reads the record of a line that strip has let through; ok is false for what
// only looks like one.
func (r *plainReader) read(line []byte) (rr dns.RR, ok bool) {
	h, next, rest, ok := r.header(line)
	if !ok {
		return nil, false
	}
	data, rest := field(rest)
	if h.Rrtype == dns.TypeMX {
		rr, rest = r.exchange(h, data, rest)
	} else {
		rr = r.record(h, data)
	}
	if rr == nil || len(rest) > 0 {
		return nil, false
	}
	r.context = next
	return rr, true
}

// header reads owner, TTL, class and type, and says what the next entry takes over.
func (r *plainReader) header(line []byte) (h dns.RR_Header, next context, rest []byte, ok bool) {
	next, rest = r.context, line
	if !blank(line[0]) {
		var owner []byte
		owner, rest = field(line)
		if next.owner, ok = r.name(owner, true); !ok {
			return h, next, nil, false
		}
	}
	h = dns.RR_Header{Name: next.owner, Class: dns.ClassINET, Ttl: next.ttl}
	ttl, class := false, false
	for {
		var word []byte
		word, rest = field(rest)
		switch n, number := decimal(word, 1<<31-1); {
		case len(word) == 0:
			return h, next, nil, false
		case number && !ttl:
			h.Ttl, ttl = n, true
		case string(word) == "IN" && !class:
			class = true
		default:
			h.Rrtype = plainType(word)
			if ttl && !next.fixed {
				next.ttl, next.known = h.Ttl, true
			}
			return h, next, rest, h.Rrtype != 0 && next.owner != "" && (ttl || next.known)
		}
	}
}

// plainType is the type of a word, 0 for all that are rare in large zones.
func plainType(word []byte) uint16 {
	switch string(word) {
	case "A":
		return dns.TypeA
	case "AAAA":
		return dns.TypeAAAA
	case "NS":
		return dns.TypeNS
	case "CNAME":
		return dns.TypeCNAME
	case "PTR":
		return dns.TypePTR
	case "MX":
		return dns.TypeMX
	}
	return 0
}

// record makes a record of one word; nil where that is not plain.
func (r *plainReader) record(h dns.RR_Header, data []byte) dns.RR {
	switch h.Rrtype {
	case dns.TypeA:
		addr, ok := ipv4(data)
		if !ok {
			return nil
		}
		return r.a.put(dns.A{Hdr: h, A: r.four.put(addr)[:]})
	case dns.TypeAAAA:
		addr, err := netip.ParseAddr(string(data))
		if err != nil || !addr.Is6() || addr.Zone() != "" {
			return nil
		}
		return r.aaaa.put(dns.AAAA{Hdr: h, AAAA: r.sixteen.put(addr.As16())[:]})
	}
	name, ok := r.name(data, false)
	switch {
	case !ok:
		return nil
	case h.Rrtype == dns.TypeNS:
		return r.ns.put(dns.NS{Hdr: h, Ns: name})
	case h.Rrtype == dns.TypeCNAME:
		return r.cname.put(dns.CNAME{Hdr: h, Target: name})
	}
	return r.ptr.put(dns.PTR{Hdr: h, Ptr: name})
}

// exchange makes an MX record.
func (r *plainReader) exchange(h dns.RR_Header, preference, rest []byte) (dns.RR, []byte) {
	n, ok := decimal(preference, 1<<16-1)
	word, rest := field(rest)
	name, ok2 := r.name(word, false)
	if !ok || !ok2 {
		return nil, nil
	}
	return r.mx.put(dns.MX{Hdr: h, Preference: uint16(n), Mx: name}), rest
}

// name makes a word a whole name, in lower case where that is wanted; ok is false for
// what is not a name of letters that nobody ever escapes, and at most as long as one may be.
func (r *plainReader) name(word []byte, lower bool) (name string, ok bool) {
	if string(word) == "@" {
		return r.origin, true
	}
	label := 0
	for _, c := range word {
		switch {
		case special(c) || c == '.' && label == 0:
			return "", false
		case c == '.':
			label = 0
		default:
			if label++; label > 63 {
				return "", false
			}
		}
	}
	if len(word) == 0 || len(word)+1+len(r.origin) > 254 {
		return "", false
	}
	buf := append(r.buf[:0], word...)
	if label > 0 {
		buf = append(buf, '.')
		if r.origin != "." {
			buf = append(buf, r.origin...)
		}
	}
	if lower {
		toLower(buf)
	}
	return r.names.keep(buf), true
}

func toLower(b []byte) {
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
}

// decimal reads digits alone; ok is false for all else, and beyond a limit.
func decimal(word []byte, limit uint32) (n uint32, ok bool) {
	if len(word) == 0 || len(word) > 10 {
		return 0, false
	}
	var sum uint64
	for _, c := range word {
		if c < '0' || c > '9' {
			return 0, false
		}
		sum = 10*sum + uint64(c-'0')
	}
	return uint32(sum), sum <= uint64(limit)
}

// ipv4 reads an address in the one way in which it is written.
func ipv4(word []byte) (addr [4]byte, ok bool) {
	for i := range addr {
		part := word
		if i < 3 {
			if part, word, ok = bytes.Cut(word, []byte(".")); !ok {
				return addr, false
			}
		}
		n, ok := decimal(part, 255)
		if !ok || len(part) > 3 || len(part) > 1 && part[0] == '0' {
			return addr, false
		}
		addr[i] = byte(n)
	}
	return addr, true
}
