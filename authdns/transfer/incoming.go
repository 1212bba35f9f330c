package transfer

import (
	"errors"
	"fmt"

	"github.com/miekg/dns"
)

// maxIncoming bounds what a primary may send, as a file is bounded.
const maxIncoming = 2_000_000

// incoming puts the records of a reply together. It is a value machine: records
// in, in their order; it says when the last one was there.
type incoming struct {
	have    uint32 // serial held, of an incremental request
	partial bool   // an incremental reply is possible

	soa    *dns.SOA // the version that the reply leads to
	count  int
	whole  []dns.RR // AXFR, without SOA
	deltas []Delta  // IXFR
	// adding tells on which side of a delta records are expected.
	adding bool
	done   bool
}

// single tells whether the reply is the SOA alone so far: all that a primary sends
// to one who has the newest version.
func (in *incoming) single() bool { return in.soa != nil && in.count == 1 }

// add takes one record.
func (in *incoming) add(rr dns.RR) error {
	if in.count++; in.count > maxIncoming {
		return fmt.Errorf("more than %d records", maxIncoming)
	}
	soa, isSOA := rr.(*dns.SOA)
	switch {
	case in.done:
		return errors.New("records behind the last SOA")
	case in.soa == nil && !isSOA:
		return errors.New("the reply does not begin with a SOA")
	case in.soa == nil:
		in.soa = soa
	case in.count == 2 && isSOA && in.partial && soa.Serial == in.have && soa.Serial != in.soa.Serial:
		in.deltas = []Delta{{From: soa}}
	case in.deltas != nil:
		return in.step(rr, soa)
	case isSOA && soa.Serial != in.soa.Serial:
		return fmt.Errorf("ends with serial %d, began with %d: the zone changed on the way", soa.Serial, in.soa.Serial)
	case isSOA:
		in.done = true
	default:
		in.whole = append(in.whole, rr)
	}
	return nil
}

// step takes a record of an incremental reply (RFC 1995 section 4): each delta is
// the old SOA, what goes, the new SOA, what comes.
func (in *incoming) step(rr dns.RR, soa *dns.SOA) error {
	d := &in.deltas[len(in.deltas)-1]
	switch {
	case soa == nil && in.adding:
		d.Added = append(d.Added, rr)
	case soa == nil:
		d.Removed = append(d.Removed, rr)
	case !in.adding:
		d.To, in.adding = soa, true
		if !later(soa.Serial, d.From.Serial) {
			return fmt.Errorf("a difference leads from serial %d back to %d", d.From.Serial, soa.Serial)
		}
	case d.To.Serial == in.soa.Serial:
		in.done = true
		if soa.Serial != in.soa.Serial {
			return fmt.Errorf("ends with serial %d, began with %d", soa.Serial, in.soa.Serial)
		}
	case soa.Serial != d.To.Serial:
		return fmt.Errorf("a difference begins at serial %d, the one before ended at %d", soa.Serial, d.To.Serial)
	default:
		in.deltas, in.adding = append(in.deltas, Delta{From: soa}), false
	}
	return nil
}

// kind tells how the zone came.
func (in *incoming) kind() Kind {
	if in.deltas != nil {
		return KindIXFR
	}
	return KindAXFR
}
