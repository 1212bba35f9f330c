package dnssec

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// The algorithms that are signed with (RFC 8624 section 3.1).
const (
	P256    = dns.ECDSAP256SHA256 // the default
	Ed25519 = dns.ED25519
)

// TTL of DNSKEY, CDS and CDNSKEY in seconds. How long a key must be published
// before it may sign follows from it.
const TTL = 3600

// Times say what a key is used for when. They are those of dnssec-settime(8), with
// the same meaning: the zero Time is never, but a key without any times, as old
// tools made them, is always in use.
type Times struct {
	Created, Publish, Activate, Inactive, Delete time.Time
	// SyncPublish and SyncDelete bound the time in which the parent is asked to
	// know the key (RFC 7344); zero: as long as it signs.
	SyncPublish, SyncDelete time.Time
}

// Key is a key pair of a zone; it is immutable and safe for concurrent use.
type Key struct {
	Public *dns.DNSKEY
	Times  Times
	// File is where it was read from, without the suffix; empty for a new one.
	File   string
	signer crypto.Signer
}

// Generate makes a key pair. A key with SEP signs the DNSKEY RRset; where a zone
// has no other, it signs everything.
func Generate(zone string, algorithm uint8, sep bool, t Times) (*Key, error) {
	k := &dns.DNSKEY{Flags: dns.ZONE, Protocol: 3, Algorithm: algorithm,
		Hdr: dns.RR_Header{Name: dns.CanonicalName(zone), Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: TTL}}
	if sep {
		k.Flags |= dns.SEP
	}
	if !supported(algorithm) {
		return nil, fmt.Errorf("dnssec: generate key of %s: algorithm %d: want %d (ECDSA P-256) or %d (Ed25519)", zone, algorithm, P256, Ed25519)
	}
	private, err := k.Generate(256)
	if err != nil {
		return nil, fmt.Errorf("dnssec: generate key of %s: %w", zone, err)
	}
	return newKey(k, private, t)
}

func supported(algorithm uint8) bool { return algorithm == P256 || algorithm == Ed25519 }

// newKey joins both halves, and proves that they are of one pair.
func newKey(public *dns.DNSKEY, private crypto.PrivateKey, t Times) (*Key, error) {
	s, ok := private.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("dnssec: key %s: cannot sign", public.Hdr.Name)
	}
	k := &Key{Public: public, Times: t, signer: steady{s}}
	set := []dns.RR{public}
	sig, err := k.sign(set, Window{Inception: time.Unix(0, 0), Expiration: time.Unix(1, 0)}, TTL)
	if err != nil {
		return nil, fmt.Errorf("dnssec: key %s: %w", k.Name(), err)
	}
	if err := sig.Verify(public, set); err != nil {
		return nil, fmt.Errorf("dnssec: key %s: private and public half do not belong together: %w", k.Name(), err)
	}
	return k, nil
}

// Zone is the owner of the key.
func (k *Key) Zone() string { return k.Public.Hdr.Name }

// Tag is the key tag (RFC 4034 appendix B).
func (k *Key) Tag() uint16 { return k.Public.KeyTag() }

// SEP tells whether the key is a secure entry point (RFC 4034 section 2.1.1).
func (k *Key) SEP() bool { return k.Public.Flags&dns.SEP != 0 }

// Name is what the key's files are called, without suffix.
func (k *Key) Name() string {
	return fmt.Sprintf("K%s+%03d+%05d", strings.ReplaceAll(k.Zone(), "/", "%2F"), k.Public.Algorithm, k.Tag())
}

// DS is the digest which the parent publishes, by SHA-256 (RFC 8624 section 3.3).
func (k *Key) DS() *dns.DS { return k.Public.ToDS(dns.SHA256) }

// steady signs without randomness, so that all nodes make the same signature of
// the same thing: by RFC 6979, or by an algorithm which needs none.
type steady struct{ crypto.Signer }

// Sign is of crypto.Signer; without a source of randomness the nonce of ECDSA comes from
// key and digest.
func (s steady) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	switch k := s.Signer.(type) {
	case *ecdsa.PrivateKey:
		return k.Sign(nil, digest, opts)
	case ed25519.PrivateKey:
		return k.Sign(nil, digest, opts)
	}
	return nil, fmt.Errorf("a key of type %T cannot sign", s.Signer)
}

// sign makes the signature of an RRset in one window; ttl is the original one.
func (k *Key) sign(rrset []dns.RR, w Window, ttl uint32) (*dns.RRSIG, error) {
	sig := &dns.RRSIG{Algorithm: k.Public.Algorithm, KeyTag: k.Tag(), SignerName: k.Zone(), OrigTtl: ttl,
		Inception: uint32(w.Inception.Unix()), Expiration: uint32(w.Expiration.Unix()),
		Hdr: dns.RR_Header{Ttl: rrset[0].Header().Ttl}}
	if err := sig.Sign(k.signer, rrset); err != nil {
		return nil, err
	}
	return sig, nil
}

// Use says in words what the key does at an instant.
func (k *Key) Use(now time.Time) string {
	t := &k.Times
	switch {
	case t.Active(now):
		return "signs"
	case Waiting([]*Key{k}) != nil:
		return "waits for its DS"
	case t.Published(now) && reached(t.Inactive, now):
		return "signs no more"
	case t.Published(now):
		return "published"
	case reached(t.Delete, now):
		return "gone"
	}
	return "not yet"
}

// Next is the first of the key's times after an instant, and its name; "" when there
// is none.
func (k *Key) Next(now time.Time) (what string, at time.Time) {
	t := k.Times
	for _, f := range t.fields() {
		if f.at.After(now) && (what == "" || f.at.Before(at)) {
			what, at = f.name, *f.at
		}
	}
	return what, at
}
