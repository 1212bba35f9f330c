package dnssec

import (
	"fmt"
	"time"

	"github.com/miekg/dns"

	"rhumb/placement"
)

// A zone may have several providers, each of which signs with keys that no other has
// (RFC 8901 section 2.1.2). A resolver takes the keys from one of them and the data from
// another: it believes both where each of them publishes the keys of all.

// other is a key of another provider.
type other struct {
	public *dns.DNSKEY
	synced bool // the parent shall know it
}

// OtherError says which key of another provider cannot stand beside ours.
type OtherError struct {
	Name   string // the operator's for the key
	Reason string
}

func (e *OtherError) Error() string { return "key " + e.Name + " of another provider: " + e.Reason }

// join puts keys of others beside ours. An algorithm that we do not sign with would make
// our answers forgeries to whoever wants all that are published (RFC 8901 section 4); a
// key that a signature cannot tell from one of ours, a file to come included, makes
// validators try twice, and is in most cases ours itself.
func (r *Ring) join(list []placement.OtherKey, ours []*Key, algorithms map[uint8]bool) error {
	for i := range list {
		o := &list[i]
		fail := func(format string, args ...any) error {
			return fmt.Errorf("dnssec: zone %s: %w", r.Zone, &OtherError{o.Name, fmt.Sprintf(format, args...)})
		}
		if !algorithms[o.Algorithm] {
			return fail("no key of ours signs with its algorithm %d (RFC 8901 section 4)", o.Algorithm)
		}
		for _, k := range ours {
			if k.Public.Algorithm == o.Algorithm && k.Tag() == o.Tag() && !reached(k.Times.Delete, r.At) {
				return fail("has the tag %d and the algorithm of our own %s", o.Tag(), k.Name())
			}
		}
		public := &dns.DNSKEY{Flags: o.Flags, Protocol: 3, Algorithm: o.Algorithm, PublicKey: o.Public,
			Hdr: dns.RR_Header{Name: r.Zone, Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: TTL}}
		if public.ToDS(dns.SHA256) == nil {
			return fail("cannot be written into a message")
		}
		r.others = append(r.others, &other{public, o.CDS})
	}
	return nil
}

// otherApex is what others' keys add to ours at the apex. What the parent shall know is
// the same at all providers, since it may ask any of them (RFC 8901 section 8).
func (r *Ring) otherApex() (out []dns.RR) {
	for _, o := range r.others {
		out = append(out, dns.Copy(o.public))
		if o.synced {
			ds := o.public.ToDS(dns.SHA256)
			ds.Hdr.Ttl = TTL
			out = append(out, ds.ToCDS(), o.public.ToCDNSKEY())
		}
	}
	return out
}

// otherDS is what the parent shall publish of others' keys.
func (r *Ring) otherDS(ttl uint32) (out []dns.RR) {
	for _, o := range r.others {
		if o.synced {
			ds := o.public.ToDS(dns.SHA256)
			ds.Hdr.Ttl = ttl
			out = append(out, ds)
		}
	}
	return out
}

// Export are the keys that other providers of the zone are to publish beside theirs: those
// that sign its data at an instant, or are to do so later.
func Export(keys []*Key, at time.Time) (out []dns.RR) {
	plain := false
	for _, k := range keys {
		plain = plain || !k.SEP() && !reached(k.Times.Delete, at)
	}
	for _, k := range keys {
		if !reached(k.Times.Delete, at) && (!plain || !k.SEP()) {
			out = append(out, dns.Copy(k.Public))
		}
	}
	return out
}
