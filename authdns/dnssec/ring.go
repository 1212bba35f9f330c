package dnssec

import (
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"github.com/miekg/dns"

	"rhumb/placement"
)

// Ring is the keys of a zone at an instant; it is immutable and safe for
// concurrent use.
type Ring struct {
	Zone      string
	At        time.Time
	published []*Key
	// apex sign DNSKEY, CDS and CDNSKEY; data sign everything else.
	apex, data []*Key
	synced     []*Key
	others     []*other
}

// reached tells whether an instant was set and has come.
func reached(t, now time.Time) bool { return !t.IsZero() && !now.Before(t) }

// Published tells whether the key is in the DNSKEY RRset.
func (t *Times) Published(now time.Time) bool {
	return *t == Times{} || reached(t.Publish, now) && !reached(t.Delete, now)
}

// Active tells whether the key signs.
func (t *Times) Active(now time.Time) bool {
	return *t == Times{} || t.Published(now) && reached(t.Activate, now) && !reached(t.Inactive, now)
}

// Synced tells whether the parent shall know the key: in its own time for that, which
// may begin before the key is published (RFC 7583 section 3.3.2) and end after;
// without one, as long as the key signs.
func (t *Times) Synced(now time.Time) bool {
	if reached(t.SyncDelete, now) {
		return false
	}
	if t.SyncPublish.IsZero() {
		return t.Active(now) || !t.SyncDelete.IsZero() && reached(t.Activate, now)
	}
	return reached(t.SyncPublish, now)
}

// NewRing sorts the keys of a zone by what they do at an instant. Every algorithm
// that is published must sign everything (RFC 4035 section 2.2): keys with SEP
// sign the keys, those without the data, and where there is only one kind it
// signs both. Keys of other providers are published beside ours and sign nothing. An
// error says what could not be signed; nothing is then.
func NewRing(zone string, keys []*Key, at time.Time, others ...placement.OtherKey) (*Ring, error) {
	r := &Ring{Zone: zone, At: at}
	algorithms := make(map[uint8]bool)
	for _, k := range keys {
		if k.Times.Published(at) {
			r.published = append(r.published, k)
			algorithms[k.Public.Algorithm] = true
		}
		if k.SEP() && k.Times.Synced(at) {
			r.synced = append(r.synced, k)
		}
	}
	sortKeys(r.published)
	sortKeys(r.synced)
	if len(r.published) == 0 {
		return nil, fmt.Errorf("dnssec: zone %s: none of %d keys is published at %s", zone, len(keys), at.UTC().Format(time.RFC3339))
	}
	for _, alg := range []uint8{P256, Ed25519} {
		if !algorithms[alg] {
			continue
		}
		sep, plain := r.active(alg, true), r.active(alg, false)
		if len(sep)+len(plain) == 0 {
			return nil, fmt.Errorf("dnssec: zone %s: no key of algorithm %d signs at %s", zone, alg, at.UTC().Format(time.RFC3339))
		}
		r.apex = append(r.apex, either(sep, plain)...)
		r.data = append(r.data, either(plain, sep)...)
	}
	if err := r.join(others, keys, algorithms); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Ring) active(alg uint8, sep bool) (out []*Key) {
	for _, k := range r.published {
		if k.Public.Algorithm == alg && k.SEP() == sep && k.Times.Active(r.At) {
			out = append(out, k)
		}
	}
	return out
}

func either(first, second []*Key) []*Key {
	if len(first) > 0 {
		return first
	}
	return second
}

// Apex returns the records that the keys put at the apex: DNSKEY, and CDS and
// CDNSKEY (RFC 7344) of the keys that the parent shall know.
func (r *Ring) Apex() []dns.RR {
	var out []dns.RR
	for _, k := range r.published {
		out = append(out, dns.Copy(k.Public))
	}
	for _, k := range r.synced {
		ds := k.DS()
		ds.Hdr.Ttl = TTL
		out = append(out, ds.ToCDS(), k.Public.ToCDNSKEY())
	}
	return append(out, r.otherApex()...)
}

// DS returns what the parent shall publish.
func (r *Ring) DS(ttl uint32) []dns.RR {
	var out []dns.RR
	for _, k := range r.synced {
		ds := k.DS()
		ds.Hdr.Ttl = ttl
		out = append(out, ds)
	}
	return append(out, r.otherDS(ttl)...)
}

// Same tells whether another ring has the same keys in the same uses.
func (r *Ring) Same(o *Ring) bool {
	if o == nil || r.Zone != o.Zone {
		return false
	}
	same := func(a, b []*Key) bool {
		return slices.EqualFunc(a, b, func(x, y *Key) bool { return dns.IsDuplicate(x.Public, y.Public) })
	}
	return same(r.published, o.published) && same(r.apex, o.apex) && same(r.data, o.data) && same(r.synced, o.synced) &&
		slices.EqualFunc(r.others, o.others, func(x, y *other) bool { return dns.IsDuplicate(x.public, y.public) && x.synced == y.synced })
}

// signers are the keys that sign a type.
func (r *Ring) signers(t uint16) []*Key {
	switch t {
	case dns.TypeDNSKEY, dns.TypeCDS, dns.TypeCDNSKEY:
		return r.apex
	}
	return r.data
}

// Sign makes the signatures of an RRset, one for each key that signs its type.
// The records carry the TTL to serve; ttl is the original one (RFC 4034 section 3.1.4).
func (r *Ring) Sign(rrset []dns.RR, ttl uint32) ([]dns.RR, error) {
	h := rrset[0].Header()
	var out []dns.RR
	for _, k := range r.signers(h.Rrtype) {
		sig, err := k.sign(rrset, WindowAt(r.At, h.Name, h.Rrtype), ttl)
		if err != nil {
			return nil, fmt.Errorf("dnssec: sign %s %s: %w", h.Name, dns.Type(h.Rrtype), err)
		}
		out = append(out, sig)
	}
	return out, nil
}

// The times of signatures.
const (
	// Validity is how long after its window began a signature holds.
	Validity = 7 * 24 * time.Hour
	// Backdate is how far the inception lies before the window, for validators
	// whose clocks are slow.
	Backdate = time.Hour
	// Refresh is how long a window is used: at any time five days are left.
	Refresh = 48 * time.Hour
	// Tick is the step in which windows begin.
	Tick = time.Hour
)

// HourOf is the instant that stands for all of an hour: its last second. All nodes sign
// alike within the hour, and a key that was made within it is used at once.
func HourOf(now time.Time) time.Time { return now.UTC().Truncate(Tick).Add(Tick - time.Second) }

// Window is the time in which a signature holds.
type Window struct{ Inception, Expiration time.Time }

// WindowAt returns the window of an RRset at an instant. Its beginning depends on
// owner and type alone, so all nodes agree on it, and spreads over Refresh, so that
// an hour's work is a forty-eighth of the whole.
func WindowAt(at time.Time, owner string, rrtype uint16) Window {
	h := fnv.New32a()
	h.Write([]byte(owner))
	h.Write([]byte{byte(rrtype >> 8), byte(rrtype)})
	shift := int64(h.Sum32()%uint32(Refresh/Tick)) * int64(Tick/time.Second)
	period := int64(Refresh / time.Second)
	// Rounding towards minus infinity, for instants before the epoch.
	into := ((at.Unix()-shift)%period + period) % period
	begin := time.Unix(at.Unix()-into, 0).UTC()
	return Window{begin.Add(-Backdate), begin.Add(Validity)}
}

// Len is the number of published keys of ours, and of other providers'.
func (r *Ring) Len() (ours, others int) { return len(r.published), len(r.others) }
