package transfer

import (
	"bytes"
	"cmp"
	"crypto/sha1"
	"encoding/base32"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// Member is a zone that a catalog lists (RFC 9432 section 4.1).
type Member struct {
	Zone string // canonical
	// ID is the label under which it is listed. The same zone under another one is
	// another zone of the same name: nothing of the one before may be kept (section 5.4).
	ID string
	// Groups are how its producer wants it to be served, in order; what they mean is ours
	// to say.
	Groups []string
	// Coo names the catalog that the zone is about to move to; "" for none.
	Coo string
}

// Catalog is a zone that lists zones.
type Catalog struct {
	Name    string
	Members []Member // in order of zone
}

// catalogVersion is the only one there is (RFC 9432 section 4.2.1).
const catalogVersion = "2"

// ReadCatalog reads the text of a catalog zone. A broken one is an error as a whole, as
// RFC 9432 section 5.1 wants it: a list that is half understood would remove zones.
func ReadCatalog(name string, text []byte) (*Catalog, error) {
	r := &catalogReader{name: dns.CanonicalName(name), members: make(map[string]*Member), seen: make(map[string]bool)}
	zp := dns.NewZoneParser(bytes.NewReader(text), r.name, "")
	for rr, ok := zp.Next(); ok; rr, ok = zp.Next() {
		r.add(rr)
	}
	if err := zp.Err(); err != nil {
		return nil, err
	}
	return r.catalog()
}

// catalogReader is one run of ReadCatalog.
type catalogReader struct {
	name     string
	versions []string
	members  map[string]*Member // by ID
	seen     map[string]bool    // properties that may be there once
	faults   []string
}

// add takes a record. What stands outside of the names of the RFC is passed over, as
// are properties that it does not know (section 4.4).
func (r *catalogReader) add(rr dns.RR) {
	owner := dns.CanonicalName(rr.Header().Name)
	below, ok := strings.CutSuffix(owner, "."+r.name)
	if !ok {
		return
	}
	path := dns.SplitDomainName(below + ".")
	slices.Reverse(path)
	switch {
	case below == "version" && rr.Header().Rrtype == dns.TypeTXT:
		r.versions = append(r.versions, strings.Join(rr.(*dns.TXT).Txt, "\x00"))
	case len(path) < 2 || path[0] != "zones":
	case len(path) == 2 && rr.Header().Rrtype == dns.TypePTR:
		r.member(path[1], dns.CanonicalName(rr.(*dns.PTR).Ptr))
	case len(path) == 3:
		r.property(r.at(path[1]), owner, path[2], rr)
	}
}

// at is the member of an ID, made where it is not there yet: records come in any order.
func (r *catalogReader) at(id string) *Member {
	if r.members[id] == nil {
		r.members[id] = &Member{ID: id}
	}
	return r.members[id]
}

func (r *catalogReader) member(id, zone string) {
	m := r.at(id)
	if m.Zone != "" {
		r.fault("%s.zones lists two zones (RFC 9432 section 4.1)", id)
	}
	m.Zone = zone
}

// property takes one of a member.
func (r *catalogReader) property(m *Member, owner, name string, rr dns.RR) {
	switch p := rr.(type) {
	case *dns.PTR:
		if name != "coo" {
			return
		}
		if m.Coo != "" {
			r.fault("%s has two values (RFC 9432 section 4.3.2)", owner)
		}
		m.Coo = dns.CanonicalName(p.Ptr)
	case *dns.TXT:
		if name == "group" {
			m.Groups = append(m.Groups, strings.Join(p.Txt, ""))
		}
	}
}

func (r *catalogReader) fault(format string, args ...any) {
	r.faults = append(r.faults, fmt.Sprintf(format, args...))
}

// catalog judges the whole.
func (r *catalogReader) catalog() (*Catalog, error) {
	out := &Catalog{Name: r.name}
	switch {
	case len(r.versions) == 0:
		r.fault("no version property (RFC 9432 section 4.2.1)")
	case len(r.versions) > 1 || r.versions[0] != catalogVersion:
		r.fault("version %q, want %q alone (RFC 9432 section 4.2.1)", r.versions, catalogVersion)
	}
	listed := make(map[string]string)
	for _, id := range slices.Sorted(maps.Keys(r.members)) {
		m := r.members[id]
		if m.Zone == "" {
			continue // properties of nothing
		}
		if other := listed[m.Zone]; other != "" {
			r.fault("%s is listed twice, as %s and %s (RFC 9432 section 4.1)", m.Zone, other, id)
		}
		if m.Zone == r.name {
			r.fault("lists itself")
		}
		listed[m.Zone] = id
		slices.Sort(m.Groups)
		out.Members = append(out.Members, *m)
	}
	if len(r.faults) > 0 {
		slices.Sort(r.faults)
		return nil, errors.New("broken catalog: " + strings.Join(r.faults, "; "))
	}
	slices.SortFunc(out.Members, func(a, b Member) int { return cmp.Compare(a.Zone, b.Zone) })
	return out, nil
}

// Names are the zones that a catalog lists; the shrink rule judges them.
func (c *Catalog) Names() []string {
	var out []string
	for i := range c.Members {
		out = append(out, c.Members[i].Zone)
	}
	return out
}

// Text is the catalog as a master file with a serial. Equal catalogs of one serial give
// equal text on every node; IDs are left to MemberID where there is none.
func (c *Catalog) Text(serial uint32) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s 3600 IN SOA invalid. invalid. %d 3600 600 2147483646 60\n", c.Name, serial)
	fmt.Fprintf(&b, "%s 3600 IN NS invalid.\nversion.%s 3600 IN TXT %q\n", c.Name, c.Name, catalogVersion)
	for i := range c.Members {
		m := &c.Members[i]
		at := cmp.Or(m.ID, MemberID(m.Zone)) + ".zones." + c.Name
		fmt.Fprintf(&b, "%s 3600 IN PTR %s\n", at, m.Zone)
		for _, g := range m.Groups {
			fmt.Fprintln(&b, &dns.TXT{Hdr: dns.RR_Header{Name: "group." + at, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 3600}, Txt: []string{g}})
		}
		if m.Coo != "" {
			fmt.Fprintf(&b, "coo.%s 3600 IN PTR %s\n", at, m.Coo)
		}
	}
	return b.Bytes()
}

// MemberID is a label for a zone that stays the same as long as the zone has its name.
func MemberID(zone string) string {
	sum := sha1.Sum([]byte(dns.CanonicalName(zone)))
	return strings.ToLower(base32.HexEncoding.EncodeToString(sum[:]))
}

// Claim is who lists a zone, and as what.
type Claim struct {
	Catalog string
	Member
}

// Assign gives each listed zone to one catalog. Who has it keeps it for as long as he
// lists it, and hands it over by naming the catalog that lists it as well (RFC 9432
// section 4.3.2); whoever else lists it is told of. A zone that is configured by itself
// belongs to no catalog. Catalogs come in order of name, so that all nodes agree on what
// nobody has yet.
func Assign(catalogs []*Catalog, before func(zone string) string, configured func(zone string) bool) (claims []Claim, conflicts []string) {
	lists := make(map[string][]Claim)
	for _, c := range catalogs {
		for _, m := range c.Members {
			lists[m.Zone] = append(lists[m.Zone], Claim{c.Name, m})
		}
	}
	for _, zone := range slices.Sorted(maps.Keys(lists)) {
		all := lists[zone]
		if configured(zone) {
			conflicts = append(conflicts, fmt.Sprintf("%s is listed by %s, and configured by itself", zone, all[0].Catalog))
			continue
		}
		by := func(name string) int {
			return slices.IndexFunc(all, func(c Claim) bool { return c.Catalog == name })
		}
		at := max(by(before(zone)), 0)
		if next := by(all[at].Coo); next >= 0 {
			at = next
		}
		claims = append(claims, all[at])
		for i, c := range all {
			if i != at && c.Coo != all[at].Catalog {
				conflicts = append(conflicts, fmt.Sprintf("%s is listed by %s, and belongs to %s", zone, c.Catalog, all[at].Catalog))
			}
		}
	}
	return claims, conflicts
}
