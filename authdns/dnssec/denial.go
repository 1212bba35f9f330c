package dnssec

import (
	"slices"

	"github.com/miekg/dns"
)

// Denial returns the NSEC record which says that a name has these types and no
// others, and that nothing lies between it and the next possible name (RFC 9824
// section 3). A name that does not exist has the type NXNAME. RRSIG and NSEC are
// added; the owner is in canonical form.
func Denial(owner string, types []uint16, ttl uint32) *dns.NSEC {
	bitmap := append(slices.Clone(types), dns.TypeRRSIG, dns.TypeNSEC)
	slices.Sort(bitmap)
	return &dns.NSEC{
		Hdr:        dns.RR_Header{Name: owner, Rrtype: dns.TypeNSEC, Class: dns.ClassINET, Ttl: ttl},
		NextDomain: Successor(owner), TypeBitMap: slices.Compact(bitmap),
	}
}

// Successor returns the name right after a name in canonical order (RFC 4034
// section 6.1): one label of a single zero octet more. Where that would be too long
// it is, as RFC 4471 section 3.1.2 has it, the leftmost label with a zero octet
// more, or its last octet that can grow made larger.
func Successor(name string) string {
	if name == "." {
		return "\\000."
	}
	if next := "\\000." + name; fits(next) {
		return next
	}
	buf := make([]byte, 256)
	if _, err := dns.PackDomainName(name, buf, 0, nil, false); err != nil {
		return name
	}
	label, end := slices.Clone(buf[1:1+buf[0]]), nextLabel(name)
	if next := escape(append(slices.Clone(label), 0)) + "." + end; len(label) < 63 && fits(next) {
		return next
	}
	// An octet of 255 cannot grow: the one before it does, and what follows it goes.
	for len(label) > 0 && label[len(label)-1] == 0xff {
		label = label[:len(label)-1]
	}
	if len(label) == 0 {
		return end // nothing lies between: the label was the last possible one
	}
	last := &label[len(label)-1]
	if *last++; *last >= 'A' && *last <= 'Z' {
		*last = 'Z' + 1 // capitals sort as small letters do, so they are no names of their own
	}
	return escape(label) + "." + end
}

// fits tells whether a name has at most 255 octets.
func fits(name string) bool {
	_, err := dns.PackDomainName(name, make([]byte, 255), 0, nil, false)
	return err == nil
}

// nextLabel is a name without its leftmost label.
func nextLabel(name string) string {
	if off, end := dns.NextLabel(name, 0); !end {
		return name[off:]
	}
	return "."
}

// escape writes a label as text, in the one way in which the library reads and writes
// names, so that equal names are equal strings.
func escape(label []byte) string {
	wire := append([]byte{byte(len(label))}, label...)
	s, _, err := dns.UnpackDomainName(append(wire, 0), 0)
	if err != nil {
		return ""
	}
	return s[:len(s)-1]
}
