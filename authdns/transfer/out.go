package transfer

import (
	"errors"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Rules say who may have a zone, and who is told of a new version.
type Rules struct {
	// Allow are the prefixes that may ask; Keys the names of keys of which a
	// request must be signed with one. Where both are given both must hold; where
	// neither is, nobody may ask.
	Allow []netip.Prefix
	Keys  []string
	// Notify are told of each new version, signed with NotifyKey where that is set.
	Notify    []netip.AddrPort
	NotifyKey string
}

// equal tells whether two sets of rules say the same.
func (r Rules) equal(o Rules) bool {
	return slices.Equal(r.Allow, o.Allow) && slices.Equal(r.Keys, o.Keys) &&
		slices.Equal(r.Notify, o.Notify) && r.NotifyKey == o.NotifyKey
}

// permit tells whether a request from an address, signed with a key or with none
// (""), may have the zone.
func (r Rules) permit(from netip.Addr, key string) bool {
	if len(r.Allow) == 0 && len(r.Keys) == 0 {
		return false
	}
	if len(r.Keys) > 0 && !slices.Contains(r.Keys, key) {
		return false
	}
	return len(r.Allow) == 0 || slices.ContainsFunc(r.Allow, func(p netip.Prefix) bool { return p.Contains(from) })
}

// Kind is how a zone was sent or received.
type Kind string

// The kinds.
const (
	KindAXFR Kind = "axfr"
	KindIXFR Kind = "ixfr"
	KindNone Kind = "none" // the other side has the newest version
)

// Teller is told which targets must hear of a zone's new version, or that the
// zone is gone (no targets).
type Teller interface {
	Tell(zone string, soa *dns.SOA, rules Rules)
}

// Out holds what secondaries may have. Its methods are safe for concurrent use.
type Out struct {
	// Max is how many transfers may run at once; it is set before use.
	Max int
	// Teller hears of new versions; nil: nobody is notified.
	Teller Teller

	mu      sync.Mutex
	zones   map[string]*published
	running int
	sent    map[sentKey]uint64
}

// sentKey is what transfers are counted by.
type sentKey struct {
	zone   string
	result string
}

// Outgoing is a zone in force, and who may have it.
type Outgoing struct {
	Name  string // canonical
	Zone  Zone
	Rules Rules
	// Diff compares an earlier version, which this side handed in before, with Zone.
	Diff func(old Zone) (removed, added []dns.RR)
}

// Set replaces what may leave. A zone which is the same value as before costs
// nothing.
func (o *Out) Set(zones []Outgoing) {
	o.mu.Lock()
	defer o.mu.Unlock()
	next := make(map[string]*published, len(zones))
	for _, z := range zones {
		old := o.zones[z.Name]
		switch {
		case old != nil && old.zone == z.Zone && old.rules.equal(z.Rules):
			next[z.Name] = old
			continue
		case old != nil && old.zone == z.Zone:
			next[z.Name] = &published{zone: z.Zone, rules: z.Rules, journal: old.journal}
		default:
			next[z.Name] = old.follow(z.Zone, z.Rules, z.Diff)
		}
		if o.Teller != nil {
			o.Teller.Tell(z.Name, z.Zone.SOA(), z.Rules)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(o.zones)) {
		if next[name] == nil && o.Teller != nil {
			o.Teller.Tell(name, nil, Rules{})
		}
	}
	o.zones = next
}

// begin takes one of the places for transfers; false means that none is free.
func (o *Out) begin() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.running >= o.Max {
		return false
	}
	o.running++
	return true
}

// end counts a transfer that has ended, and gives its place back.
func (o *Out) end(zone, result string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.running--
	o.count(zone, result)
}

// refused counts a request that was turned away.
func (o *Out) refused(zone, why string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.count(zone, why)
}

// count adds to what Sent tells; mu is held.
func (o *Out) count(zone, result string) {
	if o.sent == nil {
		o.sent = make(map[sentKey]uint64)
	}
	o.sent[sentKey{zone, result}]++
}

// Sent is how many transfers of a zone ended how: axfr, ixfr, none, refused, busy, broken.
type Sent struct {
	Zone, Result string
	Count        uint64
}

// Sent returns the counts so far, in order.
func (o *Out) Sent() []Sent {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := make([]Sent, 0, len(o.sent))
	for k, n := range o.sent {
		out = append(out, Sent{k.zone, k.result, n})
	}
	slices.SortFunc(out, func(a, b Sent) int {
		if a.Zone != b.Zone {
			return compare(a.Zone, b.Zone)
		}
		return compare(a.Result, b.Result)
	})
	return out
}

// find returns a zone that is published, or nil.
func (o *Out) find(name string) *published {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.zones[name]
}

// permitted returns the zone that a request may have, or the RCODE which turns it
// away.
func (o *Out) permitted(r *Request, from netip.Addr) (*published, int) {
	p := o.find(r.q.name)
	switch {
	case p == nil && r.key == nil:
		return nil, dns.RcodeRefused // says no more than any query for it would
	case p == nil:
		return nil, dns.RcodeNotAuth // RFC 5936 section 2.2.1
	case !p.rules.permit(from.Unmap(), r.keyName()):
		o.refused(r.q.name, "refused")
		return nil, dns.RcodeRefused
	}
	return p, dns.RcodeSuccess
}

// send streams a zone to a request; write takes each message, and fails where the
// reader is gone or too slow. The buffer is for one message.
func (o *Out) send(r *Request, p *published, buf []byte, write func([]byte) error) error {
	if !o.begin() {
		o.refused(r.q.name, "busy")
		// A secondary comes back after its retry time, to this primary or the next.
		return write(r.seal(buf[:answerTo(buf, r.msg, r.q, dns.RcodeServerFailure, false)]))
	}
	rrs, kind := p.records(r.q.typ == dns.TypeIXFR, r.serial)
	err := stream(rrs, r, buf, write)
	result := string(kind)
	if err != nil {
		result = "broken"
	}
	o.end(r.q.name, result)
	return err
}

// messageSize is where a message of a stream is closed. Compression cannot point
// beyond 16 KiB, so larger messages hardly gain (RFC 1035 section 4.1.4).
const messageSize = 16 << 10

var errTooLarge = errors.New("a record does not fit into a message")

// stream packs records into messages, as many each as fit, and writes them.
func stream(rrs iter.Seq[dns.RR], r *Request, buf []byte, write func([]byte) error) error {
	m := newPacker(r, buf)
	for rr := range rrs {
		if m.add(rr) {
			continue
		}
		if m.count == 0 {
			return errTooLarge
		}
		if err := write(r.seal(m.close())); err != nil {
			return err
		}
		m = newPacker(r, buf)
		if !m.add(rr) {
			return errTooLarge
		}
	}
	return write(r.seal(m.close()))
}

// packer fills one message.
type packer struct {
	buf   []byte
	end   int
	count uint16
	names map[string]int
}

// newPacker begins a message with the question, which RFC 5936 section 2.2.1 lets
// stand in each. Room for a signature is left at the end of the buffer.
func newPacker(r *Request, buf []byte) *packer {
	// Two octets say how long a message is, however large the buffer (RFC 1035 section 4.2.2).
	m := &packer{buf: buf[:min(len(buf), dns.MaxMsgSize)-maxSignature], names: make(map[string]int)}
	m.end = answerTo(buf, r.msg, r.q, dns.RcodeSuccess, true)
	return m
}

// add packs a record; false means that the message is full. The first one may be
// as large as the message.
func (m *packer) add(rr dns.RR) bool {
	// Packing writes to the record, which belongs to everybody.
	n, err := dns.PackRR(dns.Copy(rr), m.buf, m.end, m.names, true)
	if err != nil || m.count > 0 && n > messageSize {
		return false
	}
	m.end = n
	m.count++
	return true
}

// close writes the count and returns the message.
func (m *packer) close() []byte {
	m.buf[6], m.buf[7] = byte(m.count>>8), byte(m.count)
	return m.buf[:m.end]
}

// writeTimeout is how long one message may take to be written: a reader slower
// than 16 KiB in that time holds a place that others need.
const writeTimeout = 20 * time.Second
