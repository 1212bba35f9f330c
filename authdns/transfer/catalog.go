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
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// Member is a zone that a catalog lists (RFC 9432 section 4.2).
type Member struct {
	Zone string // canonical
	// ID is the label under which it is listed.
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

// catalogVersion is the only one there is (RFC 9432 section 4.3.1).
const catalogVersion = "2"

// ReadCatalog reads the text of a catalog zone. A broken one is an error as a whole, as
// RFC 9432 section 5.1 wants it: a list that is half understood would remove zones.
func ReadCatalog(name string, text []byte) (*Catalog, error) {
	r := &catalogReader{name: dns.CanonicalName(name), members: make(map[string]*Member)}
	r.depth = dns.CountLabel(r.name)
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
	depth    int // labels of the name
	versions []string
	members  map[string]*Member // by ID
	faults   []string
}

// add takes a record. What stands outside of the names of the RFC is passed over, as
// are properties that it does not know (RFC 9432 sections 3 and 4.3).
func (r *catalogReader) add(rr dns.RR) {
	h := rr.Header()
	owner := dns.CanonicalName(h.Name)
	if !dns.IsSubDomain(r.name, owner) {
		return
	}
	if h.Class != dns.ClassINET {
		r.fault("%s has class %s (RFC 9432 section 4.2)", owner, dns.Class(h.Class))
	}
	path := dns.SplitDomainName(owner)
	path = path[:len(path)-r.depth]
	slices.Reverse(path)
	switch {
	case len(path) == 1 && path[0] == "version" && h.Rrtype == dns.TypeTXT:
		r.versions = append(r.versions, strings.Join(rr.(*dns.TXT).Txt, "\x00"))
	case len(path) < 2 || path[0] != "zones":
	case len(path) == 2 && h.Rrtype == dns.TypePTR:
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

// member takes what a label stands for. The same record once more is no second one
// (RFC 2181 section 5).
func (r *catalogReader) member(id, zone string) {
	m := r.at(id)
	if m.Zone != "" && m.Zone != zone {
		r.fault("%s.zones lists two zones (RFC 9432 section 4.2)", id)
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
		to := dns.CanonicalName(p.Ptr)
		if m.Coo != "" && m.Coo != to {
			r.fault("%s has two values (RFC 9432 section 4.4.1)", owner)
		}
		m.Coo = to
	case *dns.TXT:
		if name == "group" {
			m.Groups = append(m.Groups, plain(strings.Join(p.Txt, "")))
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
		r.fault("no version property (RFC 9432 section 4.3.1)")
	case len(r.versions) > 1 || r.versions[0] != catalogVersion:
		r.fault("version %q, want %q alone (RFC 9432 section 4.3.1)", r.versions, catalogVersion)
	}
	listed := make(map[string]string)
	for _, id := range slices.Sorted(maps.Keys(r.members)) {
		m := r.members[id]
		if m.Zone == "" {
			continue // properties of nothing
		}
		if other := listed[m.Zone]; other != "" {
			r.fault("%s is listed twice, as %s and %s (RFC 9432 section 4.2)", m.Zone, other, id)
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

// entries are the zones that a catalog lists, each with its label: a zone whose label
// changes is thrown away like one that goes. The shrink rule judges them.
func (c *Catalog) entries() []string {
	var out []string
	for i := range c.Members {
		out = append(out, c.Members[i].Zone+" "+c.Members[i].ID)
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
			fmt.Fprintf(&b, "group.%s 3600 IN TXT %s\n", at, quoted(g))
		}
		if m.Coo != "" {
			fmt.Fprintf(&b, "coo.%s 3600 IN PTR %s\n", at, m.Coo)
		}
	}
	return b.Bytes()
}

// quoted writes octets as character strings of a master file (RFC 1035 section 5.1).
func quoted(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(text) {
		if i > 0 && i%255 == 0 {
			b.WriteString(`" "`)
		}
		switch c := text[i]; {
		case c == '"' || c == '\\':
			b.WriteString(`\` + string(c))
		case c < ' ' || c > '~':
			fmt.Fprintf(&b, `\%03d`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String() + `"`
}

// plain takes the escapes out of a character string, which the library leaves in.
func plain(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c == '\\' && i+1 < len(text) {
			i++
			c = text[i]
			if n, err := strconv.ParseUint(text[i:min(i+3, len(text))], 10, 8); err == nil && i+3 <= len(text) {
				c = byte(n)
				i += 2
			}
		}
		b.WriteByte(c)
	}
	return b.String()
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
	// From is the catalog that hands the zone over, in this very step; "" for none.
	From string
}

// Conflict is a zone that a catalog lists and does not get.
type Conflict struct {
	Zone, Catalog string
	// Owner is the catalog that has it; "" where it is configured by itself.
	Owner string
}

// String says it in a sentence.
func (c Conflict) String() string {
	if c.Owner == "" {
		return fmt.Sprintf("%s is listed by %s, and configured by itself", c.Zone, c.Catalog)
	}
	return fmt.Sprintf("%s is listed by %s, and belongs to %s", c.Zone, c.Catalog, c.Owner)
}

// Assign gives each listed zone to one catalog (RFC 9432 section 5.2). Who has it keeps
// it for as long as he lists it, and hands it over by naming the catalog that lists it
// as well (section 4.4.1); whoever else lists it is told of. A zone that is configured
// by itself belongs to no catalog. Of a zone that nobody has yet the first catalog by
// name gets it, so that all nodes agree. Before tells who has one that several list.
func Assign(catalogs []*Catalog, before func(zone string) string, configured func(zone string) bool) (claims []Claim, conflicts []Conflict) {
	lists := make(map[string][]Claim)
	for _, c := range slices.SortedFunc(slices.Values(catalogs), func(a, b *Catalog) int { return cmp.Compare(a.Name, b.Name) }) {
		for _, m := range c.Members {
			lists[m.Zone] = append(lists[m.Zone], Claim{Catalog: c.Name, Member: m})
		}
	}
	for _, zone := range slices.Sorted(maps.Keys(lists)) {
		all := lists[zone]
		if configured(zone) {
			for _, c := range all {
				conflicts = append(conflicts, Conflict{Zone: zone, Catalog: c.Catalog})
			}
			continue
		}
		owner := all[0]
		if len(all) > 1 {
			owner = choose(all, before(zone))
		}
		claims = append(claims, owner)
		for _, c := range all {
			if c.Catalog != owner.Catalog && c.Coo != owner.Catalog {
				conflicts = append(conflicts, Conflict{zone, c.Catalog, owner.Catalog})
			}
		}
	}
	return claims, conflicts
}

// choose is the claim that counts of several on one zone. Two catalogs that each name
// the other would pass the zone to and fro for ever: it stays then.
func choose(all []Claim, before string) Claim {
	by := func(catalog string) int {
		return slices.IndexFunc(all, func(c Claim) bool { return c.Catalog == catalog })
	}
	owner := all[max(by(before), 0)]
	next := by(owner.Coo)
	if next < 0 || all[next].Catalog == owner.Catalog || all[next].Coo == owner.Catalog {
		return owner
	}
	heir := all[next]
	heir.From = owner.Catalog
	return heir
}
