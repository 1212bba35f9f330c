package transfer

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// contents are the records of a zone by what makes two of them the same: all but
// the TTL (RFC 2136 section 1.1).
type contents struct {
	soa *dns.SOA
	rrs map[string]dns.RR
}

// keyOf is what two records of the same key have in common.
func keyOf(rr dns.RR) string {
	h := rr.Header()
	text := rr.String()
	// The header is name, TTL, class and type, separated by tabs.
	rest := text[min(len(h.String()), len(text)):]
	return dns.CanonicalName(h.Name) + "\t" + dns.Type(h.Rrtype).String() + "\t" + rest
}

// newContents takes whole records; a second of the same key changes nothing.
func newContents(soa *dns.SOA, rrs []dns.RR) *contents {
	c := &contents{soa: soa, rrs: make(map[string]dns.RR, len(rrs))}
	for _, rr := range rrs {
		c.rrs[keyOf(rr)] = rr
	}
	return c
}

// readContents reads what text wrote.
func readContents(origin string, text []byte) (*contents, error) {
	c := &contents{rrs: make(map[string]dns.RR)}
	zp := dns.NewZoneParser(bytes.NewReader(text), origin, "")
	for rr, ok := zp.Next(); ok; rr, ok = zp.Next() {
		if soa, is := rr.(*dns.SOA); is {
			c.soa = soa
			continue
		}
		c.rrs[keyOf(rr)] = rr
	}
	if err := zp.Err(); err != nil {
		return nil, err
	}
	if c.soa == nil {
		return nil, errors.New("no SOA")
	}
	return c, nil
}

// readSOA reads the record that text writes first.
func readSOA(origin string, text []byte) (*dns.SOA, error) {
	zp := dns.NewZoneParser(bytes.NewReader(text), origin, "")
	rr, _ := zp.Next()
	if soa, ok := rr.(*dns.SOA); ok {
		return soa, nil
	}
	return nil, errors.Join(errors.New("does not begin with a SOA"), zp.Err())
}

// apply follows deltas. What is removed must be there, and what is added must not:
// otherwise this is not the version that the primary believes us to have.
func (c *contents) apply(deltas []Delta) error {
	for i := range deltas {
		d := &deltas[i]
		if d.From.Serial != c.soa.Serial || d.To == nil {
			return fmt.Errorf("a difference from serial %d does not fit to %d", d.From.Serial, c.soa.Serial)
		}
		for _, rr := range d.Removed {
			k := keyOf(rr)
			if c.rrs[k] == nil {
				return fmt.Errorf("a difference removes what is not there: %s", rr)
			}
			delete(c.rrs, k)
		}
		for _, rr := range d.Added {
			k := keyOf(rr)
			if c.rrs[k] != nil {
				return fmt.Errorf("a difference adds what is there: %s", rr)
			}
			c.rrs[k] = rr
		}
		c.soa = d.To
	}
	return nil
}

// text writes a master file (RFC 1035 section 5): the SOA, then everything else in
// order. Equal contents give equal text, so that nodes can be compared by digest.
func (c *contents) text() []byte {
	lines := make([]string, 0, len(c.rrs))
	for _, rr := range c.rrs {
		lines = append(lines, rr.String())
	}
	slices.Sort(lines)
	var b strings.Builder
	b.WriteString(c.soa.String() + "\n")
	for _, l := range lines {
		b.WriteString(l + "\n")
	}
	return []byte(b.String())
}
