package authdns

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"rhumb/authdns/zone"
	"rhumb/placement"
)

// presignedSource is signed.test as a signer has written it; its signatures hold from
// 2020 to 2040.
func presignedSource(t testing.TB, kind string) Source {
	t.Helper()
	b, err := os.ReadFile("zone/testdata/" + kind + ".zone")
	if err != nil {
		t.Fatal(err)
	}
	return Source{Zone: placement.Zone{Name: "signed.test."}, Data: b}
}

// presignedNames are all names of signed.test, their ancestors and wildcards, and for
// each some that are not there: below, before and after it, and far from all.
func presignedNames(t testing.TB) []string {
	t.Helper()
	z := zonesOf(t, presignedSource(t, "nsec"))["signed.test."].zone
	var out []string
	for _, name := range z.Names() {
		for ; name != "test."; name = name[strings.Index(name, ".")+1:] {
			if strings.HasPrefix(name, "\\") {
				out = append(out, name)
				break // the dot within is none
			}
			out = append(out, name, "nix."+name, "a.nix."+name, "*."+name, "www."+name)
			if name != "signed.test." {
				label, rest, _ := strings.Cut(name, ".")
				out = append(out, label+"0."+rest, label[:max(1, len(label)-1)]+"."+rest, "\\000."+name)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// judge is a validator with the keys of one zone: it believes nothing but what is
// signed, and takes denials by the rules for those who check them (RFC 4035 section
// 5.4, RFC 5155 section 8), with the library's own reading of NSEC3.
type judge struct {
	keys  []dns.RR
	proof []dns.RR // NSEC and NSEC3 of the reply that were signed
}

// sets takes a section apart; each RRset must be signed but for those that cannot be.
func (j *judge) sets(section []dns.RR, unsigned func(dns.RR) bool) (wild []string, err error) {
	for i := 0; i < len(section); {
		h := section[i].Header()
		var set, sigs []dns.RR
		for ; i < len(section) && section[i].Header().Rrtype == h.Rrtype && section[i].Header().Name == h.Name && h.Rrtype != dns.TypeRRSIG; i++ {
			set = append(set, section[i])
		}
		for ; i < len(section) && section[i].Header().Rrtype == dns.TypeRRSIG && len(set) > 0; i++ {
			sigs = append(sigs, section[i])
		}
		if len(set) == 0 {
			return nil, fmt.Errorf("a signature without its records: %s", section[i])
		}
		if unsigned(set[0]) {
			if len(sigs) > 0 {
				return nil, fmt.Errorf("signed, and must not be: %s", set[0])
			}
			continue
		}
		sig, err := j.believe(set, sigs)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", h.Name, dns.Type(h.Rrtype), err)
		}
		if t := h.Rrtype; t == dns.TypeNSEC || t == dns.TypeNSEC3 {
			j.proof = append(j.proof, set[0])
		}
		if int(sig.Labels) < dns.CountLabel(h.Name) && !strings.HasPrefix(h.Name, "*.") {
			wild = append(wild, h.Name)
		}
	}
	return wild, nil
}

func (j *judge) believe(set, sigs []dns.RR) (*dns.RRSIG, error) {
	err := fmt.Errorf("no signature")
	for _, rr := range sigs {
		sig := rr.(*dns.RRSIG)
		if sig.TypeCovered != set[0].Header().Rrtype || sig.Hdr.Ttl != set[0].Header().Ttl || sig.OrigTtl < sig.Hdr.Ttl {
			return nil, fmt.Errorf("type or TTL: %s", sig)
		}
		for _, k := range j.keys {
			if k := k.(*dns.DNSKEY); k.KeyTag() == sig.KeyTag {
				if err = sig.Verify(k, set); err == nil {
					return sig, nil
				}
			}
		}
	}
	return nil, err
}

// order compares names as RFC 4034 section 6.1 does, label by label.
func order(a, b string) int {
	la, lb := dns.SplitDomainName(a), dns.SplitDomainName(b)
	slices.Reverse(la)
	slices.Reverse(lb)
	octets := func(label string) []byte {
		buf := make([]byte, 256)
		n, err := dns.PackDomainName(label+".", buf, 0, nil, false)
		if err != nil {
			panic(err)
		}
		return []byte(strings.ToLower(string(buf[1 : n-1])))
	}
	return slices.CompareFunc(la, lb, func(x, y string) int { return slices.Compare(octets(x), octets(y)) })
}

// covers tells whether a proof says that a name has no records of its own and is none;
// an NSEC which the name is an ancestor of the next of says so of its records alone.
func covers(rr dns.RR, name string, ent bool) bool {
	switch p := rr.(type) {
	case *dns.NSEC3:
		return p.Cover(name)
	case *dns.NSEC:
		after, before := order(p.Hdr.Name, name) < 0, order(name, p.NextDomain) < 0 || order(p.NextDomain, p.Hdr.Name) <= 0
		if cut := slices.Contains(p.TypeBitMap, dns.TypeNS) && !slices.Contains(p.TypeBitMap, dns.TypeSOA); (cut || slices.Contains(p.TypeBitMap, dns.TypeDNAME)) && dns.IsSubDomain(p.Hdr.Name, name) {
			return false // RFC 6840 section 4.1: nobody's business
		}
		return after && before && ent == dns.IsSubDomain(name, p.NextDomain)
	}
	return false
}

func matches(rr dns.RR, name string) bool {
	switch p := rr.(type) {
	case *dns.NSEC3:
		return p.Match(name)
	case *dns.NSEC:
		return order(p.Hdr.Name, name) == 0
	}
	return false
}

// absent proves that a name does not exist; it returns the closest encloser.
func (j *judge) absent(name string) (encloser string, optOut, ok bool) {
	covered := func(name string) (dns.RR, bool) {
		i := slices.IndexFunc(j.proof, func(rr dns.RR) bool { return covers(rr, name, false) })
		if i < 0 {
			return nil, false
		}
		return j.proof[i], true
	}
	if rr, ok := covered(name); ok && rr.Header().Rrtype == dns.TypeNSEC {
		n := rr.(*dns.NSEC) // the encloser is what the name has in common with one of both ends
		most := max(dns.CompareDomainName(name, n.Hdr.Name), dns.CompareDomainName(name, n.NextDomain))
		labels := dns.SplitDomainName(name)
		return strings.Join(labels[len(labels)-most:], ".") + ".", false, true
	}
	for next := name; next != "test."; {
		up := next[strings.Index(next, ".")+1:]
		if slices.ContainsFunc(j.proof, func(rr dns.RR) bool { return matches(rr, up) }) {
			rr, ok := covered(next)
			return up, ok && rr.(*dns.NSEC3).Flags&1 == 1, ok
		}
		next = up
	}
	return "", false, false
}

// lacks proves that a name exists and has not a type.
func (j *judge) lacks(name string, t uint16) bool {
	return slices.ContainsFunc(j.proof, func(rr dns.RR) bool {
		if covers(rr, name, true) && rr.Header().Rrtype == dns.TypeNSEC {
			return true
		}
		var types []uint16
		switch p := rr.(type) {
		case *dns.NSEC:
			types = p.TypeBitMap
		case *dns.NSEC3:
			types = p.TypeBitMap
		}
		parent := slices.Contains(types, dns.TypeNS) && !slices.Contains(types, dns.TypeSOA)
		alias := slices.Contains(types, dns.TypeCNAME) && t != dns.TypeNSEC && t != dns.TypeRRSIG // which stand beside one
		return matches(rr, name) && !slices.Contains(types, t) && !alias && parent == (t == dns.TypeDS && parent)
	})
}

// verdict tells why a reply is not to be believed.
func (j *judge) verdict(m *dns.Msg) error {
	j.proof = nil
	none := func(dns.RR) bool { return false }
	wild, err := j.sets(m.Answer, func(rr dns.RR) bool {
		return rr.Header().Rrtype == dns.TypeCNAME && fromDNAME(m.Answer, rr.Header().Name)
	})
	if err != nil {
		return err
	}
	referral := !m.Authoritative
	if _, err := j.sets(m.Ns, func(rr dns.RR) bool { return referral && rr.Header().Rrtype == dns.TypeNS }); err != nil {
		return err
	}
	for _, name := range wild {
		if _, _, ok := j.absent(name); !ok && !slices.ContainsFunc(j.proof, func(rr dns.RR) bool { return j.next(m, rr, name) }) {
			return fmt.Errorf("no proof that %s is the wildcard's", name)
		}
	}
	name := zone.Canonical(m.Question[0].Name)
	for _, rr := range m.Answer {
		if c, ok := rr.(*dns.CNAME); ok {
			name = zone.Canonical(c.Target)
		}
	}
	_, err = j.sets(nil, none)
	switch t := m.Question[0].Qtype; {
	case err != nil:
		return err
	case referral:
		return j.insecure(m)
	case len(m.Ns) == 0 || m.Ns[0].Header().Rrtype != dns.TypeSOA:
		return nil
	case m.Rcode == dns.RcodeNameError:
		encloser, _, ok := j.absent(name)
		if _, _, none := j.absent("*." + encloser); !ok || !none && !slices.ContainsFunc(j.proof, func(rr dns.RR) bool { return covers(rr, "*."+encloser, false) }) {
			return fmt.Errorf("no proof that %s and *.%s do not exist", name, encloser)
		}
		return nil
	default:
		if j.lacks(name, t) {
			return nil
		}
		encloser, optOut, ok := j.absent(name)
		if ok && (j.lacks("*."+encloser, t) || optOut) {
			return nil
		}
		return fmt.Errorf("no proof that %s has no %s", name, dns.Type(t))
	}
}

// next tells whether an NSEC3 covers the next closer name of what a wildcard answered.
func (j *judge) next(m *dns.Msg, rr dns.RR, name string) bool {
	for _, a := range m.Answer {
		if sig, ok := a.(*dns.RRSIG); ok && sig.Hdr.Name == name {
			labels := dns.SplitDomainName(name)
			return covers(rr, strings.Join(labels[len(labels)-int(sig.Labels)-1:], ".")+".", false)
		}
	}
	return false
}

// insecure judges a referral: DS, or the proof of none.
func (j *judge) insecure(m *dns.Msg) error {
	cut := m.Ns[0].Header().Name
	if slices.ContainsFunc(m.Ns, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeDS && rr.Header().Name == cut }) {
		return nil
	}
	if j.lacks(cut, dns.TypeDS) {
		return nil
	}
	if _, optOut, ok := j.absent(cut); ok && optOut {
		return nil
	}
	return fmt.Errorf("neither DS nor proof of none at %s", cut)
}

var presignedKinds = []string{"nsec", "nsec3", "optout"}

// TestPresignedReplies: whatever is asked of a zone that its owner has signed, who
// validates believes the answer, and who does not gets what the plain zone says.
func TestPresignedReplies(t *testing.T) {
	names := presignedNames(t)
	for _, kind := range presignedKinds {
		st := compiled(t, nil, presignedSource(t, kind))
		z := st.low["signed.test."].zone
		j := &judge{keys: z.RRset("signed.test.", dns.TypeDNSKEY)}
		seen := map[zone.Kind]int{}
		for _, name := range names {
			for _, qtype := range []uint16{dns.TypeA, dns.TypeTXT, dns.TypeDS, dns.TypeNS, dns.TypeCNAME, dns.TypeNSEC, dns.TypeRRSIG, dns.TypeDNSKEY, dns.TypeNSEC3, dns.TypeANY} {
				q := fmt.Sprintf("%s %s", name, dns.Type(qtype))
				m := st.reply(t, ask(t, q, do), from(elsewhere, low))
				plain := st.reply(t, ask(t, q), from(elsewhere, low))
				seen[z.Lookup(zone.Canonical(name), qtype).Kind]++
				if qtype == dns.TypeRRSIG && m.Rcode == dns.RcodeSuccess && len(m.Answer) > 0 {
					continue // signatures are not signed
				}
				if err := j.verdict(m); err != nil {
					t.Fatalf("%s: %s: %v\n%s", kind, q, err, m)
				}
				if qtype != dns.TypeRRSIG && strip(m) != strip(plain) {
					t.Fatalf("%s: %s: with DO\n%s\nwithout\n%s", kind, q, m, plain)
				}
			}
		}
		for _, k := range []zone.Kind{zone.Answer, zone.NoData, zone.NXDomain, zone.Delegation, zone.CNAME, zone.DNAME} {
			if seen[k] < 20 {
				t.Errorf("%s: only %d questions met %s", kind, seen[k], k)
			}
		}
	}
}

// strip is a reply without what DO adds and what it leaves out.
func strip(m *dns.Msg) string {
	m = m.Copy()
	q := m.Question[0].Qtype
	drop := func(rr dns.RR) bool {
		t := rr.Header().Rrtype
		return t != q && (t == dns.TypeRRSIG || t == dns.TypeNSEC || t == dns.TypeNSEC3 || t == dns.TypeDS)
	}
	m.Answer = slices.DeleteFunc(m.Answer, drop)
	m.Ns = slices.DeleteFunc(m.Ns, func(rr dns.RR) bool { return rr.Header().Rrtype != dns.TypeSOA && rr.Header().Rrtype != dns.TypeNS })
	m.Extra = nil
	return show(m)
}

// TestPresignedSections: the proofs that the RFCs ask for, and none beside them.
func TestPresignedSections(t *testing.T) {
	for _, c := range []struct{ name, question, nsec, nsec3, optout string }{
		{"RFC 4035 3.1.1: positive", "www.signed.test. A", "NOERROR A A RRSIG(A)", "", ""},
		{"RFC 4035 3.1.3.1: no data", "www.signed.test. MX", "NOERROR ns SOA RRSIG(SOA) NSEC(www) RRSIG(NSEC)", "NOERROR ns SOA RRSIG(SOA) NSEC3 RRSIG(NSEC3)", ""},
		{"RFC 4035 3.1.3.2: no name", "nix.signed.test. A", "NXDOMAIN ns SOA RRSIG(SOA) NSEC(mail) RRSIG(NSEC) NSEC(\\001) RRSIG(NSEC)", "", ""},
		{"RFC 4035 3.1.3.3: wildcard answer", "x.wild.signed.test. A", "NOERROR A RRSIG(A) ns NSEC(there.wild) RRSIG(NSEC)", "NOERROR A RRSIG(A) ns NSEC3 RRSIG(NSEC3)", ""},
		{"RFC 4035 3.1.4.1: DS at the cut", "a.secure.signed.test. A", "NOERROR ns NS DS RRSIG(DS) ar A", "", ""},
		{"RFC 4035 3.1.4.1: no DS at the cut", "insecure.signed.test. A", "NOERROR ns NS NSEC(insecure) RRSIG(NSEC) ar A", "NOERROR ns NS NSEC3 RRSIG(NSEC3) ar A", "NOERROR ns NS NSEC3 RRSIG(NSEC3) NSEC3 RRSIG(NSEC3) ar A"},
		{"RFC 5155 7.2.4: DS where opting out left no NSEC3", "insecure2.signed.test. DS", "NOERROR ns SOA RRSIG(SOA) NSEC(insecure2) RRSIG(NSEC)", "NOERROR ns SOA RRSIG(SOA) NSEC3 RRSIG(NSEC3)", "NOERROR ns SOA RRSIG(SOA) NSEC3 RRSIG(NSEC3) NSEC3 RRSIG(NSEC3)"},
		{"RFC 6672 5.3.1: what a DNAME means is not signed", "mail.dnout.signed.test. CNAME", "NOERROR DNAME RRSIG(DNAME) CNAME", "", ""},
		{"RFC 8482 4.1: ANY is one RRset, signed", "www.signed.test. ANY", "NOERROR A A RRSIG(A)", "", ""},
		{"RFC 8482 4.1: signatures of one RRset", "www.signed.test. RRSIG", "NOERROR RRSIG(A)", "", ""},
		{"NSEC asked for", "mail.signed.test. NSEC", "NOERROR NSEC(mail) RRSIG(NSEC)", "NOERROR ns SOA RRSIG(SOA) NSEC3 RRSIG(NSEC3)", ""},
	} {
		for i, want := range []string{c.nsec, c.nsec3, c.optout} {
			if want == "" && i == 2 {
				want = c.nsec3
			}
			if want == "" {
				if want = c.nsec; strings.Contains(want, "NSEC(") {
					continue
				}
			}
			st := compiled(t, nil, presignedSource(t, presignedKinds[i]))
			if got := outline(st.reply(t, ask(t, c.question, do), from(elsewhere, low))); got != want {
				t.Errorf("%s, %s: %s\n%s, want\n%s", c.name, presignedKinds[i], c.question, got, want)
			}
		}
	}
}

// outline writes the types of a reply.
func outline(m *dns.Msg) string {
	out := dns.RcodeToString[m.Rcode]
	for i, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		if i > 0 && slices.ContainsFunc(section, func(rr dns.RR) bool { return rr.Header().Rrtype != dns.TypeOPT }) {
			out += []string{"", " ns", " ar"}[i]
		}
		for _, rr := range section {
			switch rr := rr.(type) {
			case *dns.OPT:
			case *dns.RRSIG:
				out += " RRSIG(" + dns.Type(rr.TypeCovered).String() + ")"
			case *dns.NSEC:
				name := strings.TrimSuffix(strings.TrimSuffix(rr.Hdr.Name, "signed.test."), ".")
				if name == "" {
					name = "@"
				}
				out += " NSEC(" + name + ")"
			default:
				out += " " + dns.Type(rr.Header().Rrtype).String()
			}
		}
	}
	return out
}

// TestPresignedQuick: the fast path says what the slow one does, with DO and without,
// and takes most of the load.
func TestPresignedQuick(t *testing.T) {
	r := rand.New(rand.NewPCG(40, 35))
	names := presignedNames(t)
	for _, kind := range presignedKinds {
		p := newPaths(t, compiled(t, nil, presignedSource(t, kind)), low)
		asked := 0
		for _, name := range names {
			for _, qtype := range []uint16{dns.TypeA, dns.TypeTXT, dns.TypeDS, dns.TypeMX, dns.TypeDNSKEY} {
				q := fmt.Sprintf("%s %s", name, dns.Type(qtype))
				change := []func(*dns.Msg){do, co, edns0()}[r.IntN(3)]
				for range 2 { // made, and kept
					p.compare(t, ask(t, q, change, func(m *dns.Msg) { m.Question[0].Name = mixedCase(r, m.Question[0].Name) }), elsewhere)
				}
				asked += 2
			}
		}
		if p.quick < asked/2 {
			t.Errorf("%s: %d of %d queries took the fast path", kind, p.quick, asked)
		}
		p.compareCounts(t)
	}
}

// TestPresignedForeign: what is chosen here cannot be signed in such a zone. It is told,
// and the zone stays as its owner has it, at every level.
func TestPresignedForeign(t *testing.T) {
	snap := fleet(t, plan{})
	signed := presignedSource(t, "nsec")
	signed.Data = []byte(strings.ReplaceAll(string(signed.Data), "signed.test.", "cdn.demo.test."))
	_, err := zone.Parse("cdn.demo.test.zone", "cdn.demo.test.", strings.NewReader(string(signed.Data)))
	if err == nil || !strings.Contains(err.Error(), "changed after") {
		t.Fatalf("renamed, the signatures would hold: %v", err)
	}
	src := presignedSource(t, "nsec")
	for i := range snap.Inventory.Services {
		if svc := &snap.Inventory.Services[i]; svc.Name == "www" {
			svc.Names = []string{"www.signed.test.", "fresh.signed.test."}
		}
	}
	s := loadedBy(t, at(signedAt), 0, src)
	s.Apply(t.Context(), snap)
	st := s.current.Load()
	j := &judge{keys: s.zones["signed.test."].zone.RRset("signed.test.", dns.TypeDNSKEY)}
	for _, q := range []string{"www.signed.test. A", "fresh.signed.test. A"} {
		m := st.reply(t, ask(t, q, do), from(euResolver, low))
		if err := j.verdict(m); err != nil || len(m.Answer) > 0 && m.Answer[0].(*dns.A).A.String() != "192.0.2.80" {
			t.Errorf("%s: %v\n%s", q, err, m)
		}
	}
	want := "signed.test.zone:2:1: the zone is signed by its owner: steered name fresh.signed.test. cannot be signed, and stays as the zone has it"
	if got := s.Status().Zones[0].Error; got != want {
		t.Errorf("status says %q, want %q", got, want)
	}

	src.Zone.NameServers = "ns"
	if errs := s.SetZones([]Source{src}); errs != nil {
		t.Fatal(errs)
	}
	m := s.current.Load().reply(t, ask(t, "signed.test. NS", do), from(euResolver, low))
	if err := j.verdict(m); err != nil || outline(m) != "NOERROR NS NS RRSIG(NS)" {
		t.Errorf("apex NS: %v\n%s", err, m)
	}
	if got := s.Status().Zones[0].Error; !strings.Contains(got, "the choice of its name servers cannot be signed") {
		t.Errorf("status says %q", got)
	}

	src.Zone.NameServers, src.Zone.DNSSEC, src.Keys = "", placement.Online, keysOf(t, "signed.test.", true)
	errs := s.SetZones([]Source{src})
	if len(errs) != 1 || !strings.Contains(errs[0].Error(), "signed.test.zone:2:1: the zone is to be signed here, and its owner has signed it already") {
		t.Errorf("signed twice: %v", errs)
	}
	if m := s.current.Load().reply(t, ask(t, "www.signed.test. A", do), from(euResolver, low)); j.verdict(m) != nil {
		t.Errorf("the version before is gone:\n%s", m)
	}
}

// TestPresignedEnds: signatures that end are told of a day before, and after; the zone
// is answered all the same, since most resolvers do not validate.
func TestPresignedEnds(t *testing.T) {
	end := time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		now  time.Time
		want string
	}{
		{end.Add(-25 * time.Hour), ""},
		{end.Add(-23 * time.Hour), "signatures end at 2040-01-01T00:00:00Z"},
		{end, "signatures have ended at 2040-01-01T00:00:00Z: validating resolvers answer with SERVFAIL"},
	} {
		s := loadedBy(t, at(c.now), 0, presignedSource(t, "nsec3"))
		if got := s.Status().Zones[0]; got.Warning != c.want || got.Error != "" {
			t.Errorf("at %s: %q and %q, want %q", c.now, got.Warning, got.Error, c.want)
		}
		if got := gauge(t, s, "rhumb_zone_signature_expiry_timestamp_seconds"); got != float64(end.Unix()) {
			t.Errorf("the metric says %v, want %d", got, end.Unix())
		}
		if m := s.current.Load().reply(t, ask(t, "www.signed.test. A", do), from(elsewhere, low)); outline(m) != "NOERROR A A RRSIG(A)" {
			t.Errorf("at %s: %s", c.now, m)
		}
	}
}
