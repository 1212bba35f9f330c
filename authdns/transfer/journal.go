package transfer

import (
	"iter"

	"github.com/miekg/dns"
)

// Zone is a version of a zone as it leaves. It is immutable; its records belong to
// everybody and are copied before they are packed.
type Zone interface {
	// SOA returns the start of authority.
	SOA() *dns.SOA
	// All gives every other record, each once, in an order that is the same on
	// every node.
	All() iter.Seq[dns.RR]
	// Size is the number of records.
	Size() int
}

// Delta is the way from one version to the next (RFC 1995 section 4).
type Delta struct {
	From, To       *dns.SOA
	Removed, Added []dns.RR // without the SOA
}

// size counts the records that a delta sends.
func (d *Delta) size() int { return len(d.Removed) + len(d.Added) + 2 }

// maxDeltas bounds a journal. A secondary which is further behind has slept
// through as many changes and loses little by a whole transfer.
const maxDeltas = 100

// journal holds the last deltas of a zone, the oldest first, each beginning where
// the one before ends. It is a value: step leaves the receiver as it is, so that
// transfers under way keep the one they began with.
type journal struct {
	deltas []Delta
	size   int
}

// step adds a delta which leads to a version of so many records. Deltas which
// together are longer than the version itself are of no use.
func (j journal) step(d Delta, records int) journal {
	out := journal{deltas: append(j.deltas[:len(j.deltas):len(j.deltas)], d), size: j.size + d.size()}
	for len(out.deltas) > 0 && (len(out.deltas) > maxDeltas || out.size > records) {
		out.size -= out.deltas[0].size()
		out.deltas = out.deltas[1:]
	}
	return out
}

// since returns the deltas from a serial on, nil where the journal does not reach
// back so far.
func (j journal) since(serial uint32) []Delta {
	for i := len(j.deltas) - 1; i >= 0; i-- {
		if j.deltas[i].From.Serial == serial {
			return j.deltas[i:]
		}
	}
	return nil
}

// published is a zone as secondaries get it.
type published struct {
	zone    Zone
	rules   Rules
	journal journal
}

// follow returns what is published once a version takes the place of this one.
// Where the serial does not grow, secondaries keep what they have, and no delta
// from there on would fit to it: the journal begins anew.
func (p *published) follow(z Zone, rules Rules, diff func(old Zone) (removed, added []dns.RR)) *published {
	next := &published{zone: z, rules: rules}
	if p == nil || !later(z.SOA().Serial, p.zone.SOA().Serial) {
		return next
	}
	removed, added := diff(p.zone)
	next.journal = p.journal.step(Delta{From: p.zone.SOA(), To: z.SOA(), Removed: removed, Added: added}, z.Size())
	return next
}

// records gives what answers a request: the whole zone between two copies of its
// SOA (RFC 5936 section 2.2), or, to one who has a serial, the deltas from there
// (RFC 1995 section 4); the SOA alone to one who has the newest.
func (p *published) records(incremental bool, serial uint32) (iter.Seq[dns.RR], Kind) {
	soa := p.zone.SOA()
	if incremental && !later(soa.Serial, serial) {
		return func(yield func(dns.RR) bool) { yield(soa) }, KindNone
	}
	if deltas := p.journal.since(serial); incremental && deltas != nil {
		return incrementally(soa, deltas), KindIXFR
	}
	return func(yield func(dns.RR) bool) {
		if !yield(soa) {
			return
		}
		for rr := range p.zone.All() {
			if !yield(rr) {
				return
			}
		}
		yield(soa)
	}, KindAXFR
}

// incrementally writes deltas one after another, each as the SOA and the records
// that go, then the SOA and the records that come.
func incrementally(soa *dns.SOA, deltas []Delta) iter.Seq[dns.RR] {
	return func(yield func(dns.RR) bool) {
		if !yield(soa) {
			return
		}
		for i := range deltas {
			d := &deltas[i]
			for _, part := range []struct {
				soa *dns.SOA
				rrs []dns.RR
			}{{d.From, d.Removed}, {d.To, d.Added}} {
				if !yield(part.soa) {
					return
				}
				for _, rr := range part.rrs {
					if !yield(rr) {
						return
					}
				}
			}
		}
		yield(soa)
	}
}
