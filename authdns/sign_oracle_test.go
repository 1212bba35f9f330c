package authdns

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"rhumb/authdns/dnssec"
	"rhumb/authdns/zone"
	"rhumb/placement"
)

var signedAt = time.Date(2026, 11, 22, 12, 20, 0, 0, time.UTC)

// keysOf makes the keys of a zone: of one that is a CSK by Ed25519, else a KSK and a
// ZSK by P-256.
func keysOf(t testing.TB, name string, csk bool) []*dnssec.Key {
	t.Helper()
	var out []*dnssec.Key
	for _, k := range map[bool][]struct {
		alg uint8
		sep bool
	}{true: {{dnssec.Ed25519, true}}, false: {{dnssec.P256, true}, {dnssec.P256, false}}}[csk] {
		key, err := dnssec.Generate(name, k.alg, k.sep, dnssec.Times{})
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, key)
	}
	return out
}

// signedSources are the fixture's zones, signed.
func signedSources(t testing.TB) []Source {
	out := sources()
	for i := range out {
		out[i].Zone.DNSSEC, out[i].Keys = placement.Online, keysOf(t, out[i].Zone.Name, i == 1)
	}
	return out
}

// loadedBy loads sources as a Server does at an instant.
func loadedBy(t testing.TB, now func() time.Time, budget int, src ...Source) *Server {
	t.Helper()
	s, err := New(Config{Site: self.Site, Node: self.Node, Version: self.Version, Now: now, SignBudget: budget})
	if err != nil {
		t.Fatal(err)
	}
	if errs := s.SetZones(src); errs != nil {
		t.Fatal(errs)
	}
	return s
}

func at(now time.Time) func() time.Time { return func() time.Time { return now } }

// signedState compiles signed zones with a Snapshot.
func signedState(t testing.TB, snap *placement.Snapshot, src ...Source) *state {
	t.Helper()
	return compile(self, loadedBy(t, at(signedAt), 1<<20, src...).zones, snap, nil)
}

// signedSource is a zone of any level, signed where it has keys.
func signedSource(name string, keys []*dnssec.Key, text string) Source {
	s := textSource("", name, "", text)
	if s.Keys = keys; keys != nil {
		s.Zone.DNSSEC = placement.Online
	}
	return s
}

// rounds is how often something random is tried, here and in the long form.
func rounds(short, long int) int {
	if os.Getenv("RHUMB_SOAK") != "" {
		return long
	}
	return short
}

func do(m *dns.Msg) { m.SetEdns0(4096, true) }
func co(m *dns.Msg) { do(m); m.IsEdns0().SetCo() }

// bogus says why a validator would not believe a reply, or "". It is no validator:
// it holds the rules of RFC 4035 section 5 for what this server sends.
func bogus(z *served, m *dns.Msg, now time.Time) string {
	q := m.Question[0]
	referral := !m.Authoritative
	sections := [][]dns.RR{m.Answer, m.Ns}
	if !referral && (q.Qtype == dns.TypeHTTPS || q.Qtype == dns.TypeSVCB) { // RFC 9460 section 4.1
		sections = append(sections, slices.DeleteFunc(slices.Clone(m.Extra), func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeOPT }))
		m = m.Copy()
		m.Extra = nil
	}
	name := zone.Canonical(q.Name)
	for _, rr := range m.Answer {
		if c, ok := rr.(*dns.CNAME); ok {
			name = zone.Canonical(c.Target)
		}
	}
	for _, section := range sections {
		for i := 0; i < len(section); {
			var set, sigs []dns.RR
			for set = section[i : i+1]; i+len(set) < len(section) && sameSet(section[i], section[i+len(set)]); {
				set = section[i : i+len(set)+1]
			}
			i += len(set)
			for ; i < len(section) && section[i].Header().Rrtype == dns.TypeRRSIG; i++ {
				sigs = append(sigs, section[i])
			}
			h := set[0].Header()
			if h.Rrtype == dns.TypeRRSIG || h.Rrtype == dns.TypeCNAME && fromDNAME(section, h.Name) || referral && h.Rrtype == dns.TypeNS {
				if len(sigs) > 0 {
					return "signed, though it must not be: " + set[0].String()
				}
				continue
			}
			if why := believed(z, set, sigs, now); why != "" {
				return fmt.Sprintf("%s %s: %s", h.Name, dns.Type(h.Rrtype), why)
			}
		}
	}
	for _, rr := range m.Extra {
		if t := rr.Header().Rrtype; t != dns.TypeOPT && !referral {
			return "additional record without signature: " + rr.String()
		}
	}
	return unproven(z, m, name, referral)
}

func fromDNAME(section []dns.RR, name string) bool {
	return slices.ContainsFunc(section, func(rr dns.RR) bool {
		h := rr.Header()
		return h.Rrtype == dns.TypeDNAME && h.Name != name && dns.IsSubDomain(h.Name, name)
	})
}

func believed(z *served, set, sigs []dns.RR, now time.Time) string {
	if len(sigs) == 0 {
		return "no signature"
	}
	keys := z.zone.RRset(z.name, dns.TypeDNSKEY)
	for _, rr := range sigs {
		sig := rr.(*dns.RRSIG)
		if sig.TypeCovered != set[0].Header().Rrtype {
			return "signature of " + dns.Type(sig.TypeCovered).String()
		}
		i := slices.IndexFunc(keys, func(k dns.RR) bool { return k.(*dns.DNSKEY).KeyTag() == sig.KeyTag })
		if i < 0 {
			return "signed by a key which is not published"
		}
		if err := sig.Verify(keys[i].(*dns.DNSKEY), set); err != nil {
			return err.Error()
		}
		if !sig.ValidityPeriod(now) || sig.OrigTtl < set[0].Header().Ttl || sig.Hdr.Ttl != set[0].Header().Ttl ||
			int(sig.Labels) != dns.CountLabel(strings.TrimPrefix(set[0].Header().Name, "*.")) {
			return "window, TTL or labels: " + sig.String()
		}
	}
	return ""
}

// unproven says what is missing to believe a denial or a referral.
func unproven(z *served, m *dns.Msg, name string, referral bool) string {
	var nsec *dns.NSEC
	for _, rr := range slices.Concat(m.Ns, m.Answer) {
		if n, ok := rr.(*dns.NSEC); ok {
			nsec = n
		}
	}
	has := func(t uint16) bool { return slices.Contains(nsec.TypeBitMap, t) }
	q := m.Question[0]
	switch {
	case referral && nsec == nil:
		if !slices.ContainsFunc(m.Ns, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeDS }) {
			return "a referral with neither DS nor proof of none"
		}
	case referral:
		if nsec.Hdr.Name != m.Ns[0].Header().Name || has(dns.TypeDS) || has(dns.TypeSOA) || !has(dns.TypeNS) {
			return "no proof of an insecure cut: " + nsec.String()
		}
	case nsec != nil && q.Qtype != dns.TypeNSEC:
		exists := z.zone.At(name).Exists || z.zone.At(name).Wildcard
		if zone.Canonical(nsec.Hdr.Name) != name || nsec.NextDomain != dnssec.Successor(name) || has(q.Qtype) && q.Qtype != dns.TypeRRSIG || has(dns.TypeCNAME) ||
			has(dns.TypeNXNAME) == exists || !has(dns.TypeRRSIG) || !has(dns.TypeNSEC) {
			return "no proof of denial: " + nsec.String()
		}
	case nsec == nil && len(m.Ns) > 0:
		return "a denial without proof"
	}
	return ""
}
