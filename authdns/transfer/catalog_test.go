package transfer

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

const catalogHead = `catalog.test. 60 IN SOA invalid. invalid. 1 60 60 600 60
catalog.test. 60 IN NS invalid.
`

// TestReadCatalog: what RFC 9432 allows is read; what it calls broken is an error as a
// whole, and the error says where.
func TestReadCatalog(t *testing.T) {
	const version = "version.catalog.test. 60 IN TXT \"2\"\n"
	member := func(id, zone string) string { return id + ".zones.catalog.test. 60 IN PTR " + zone + "\n" }
	for _, c := range []struct{ name, text, want string }{
		{"RFC 9432 3: empty", version, ""},
		{"RFC 9432 4.2: members", version + member("b2", "B.test.") + member("a1", "a.test."), "a.test. a1 [] | b.test. b2 []"},
		{"RFC 9432 4.2: labels in any case, with any octet", version + member(`A\.1`, "a.test.") + member(`b\ \009`, "b.test."), `a.test. a\.1 [] | b.test. b\ \009 []`},
		{"RFC 2181 5: one record said twice", version + member("a1", "a.test.") + member("a1", "A.test."), "a.test. a1 []"},
		{"RFC 9432 4.4.1: coo", version + member("a1", "a.test.") + "coo.a1.zones.catalog.test. 60 IN PTR other.test.\n", "a.test. a1 [] other.test."},
		{"RFC 9432 4.4.2: groups, before the member", version + "group.a1.zones.catalog.test. 60 IN TXT z\ngroup.a1.zones.catalog.test. 60 IN TXT \"a b\"\n" + member("a1", "a.test."), "a.test. a1 [a b z]"},
		{"RFC 9432 4.3: known names, types nobody knows", version + member("a1", "a.test.") + "coo.a1.zones.catalog.test. 60 IN TXT other.test.\ngroup.a1.zones.catalog.test. 60 IN A 192.0.2.1\na1.zones.catalog.test. 60 IN TXT x\nversion.catalog.test. 60 IN A 192.0.2.1\n", "a.test. a1 []"},
		{"RFC 9432 4.5: properties of others", version + member("a1", "a.test.") + "x.a1.zones.catalog.test. 60 IN TXT y\nx.ext.a1.zones.catalog.test. 60 IN TXT y\next.catalog.test. 60 IN A 192.0.2.1\n", "a.test. a1 []"},
		{"RFC 9432 4.4: properties of nothing", version + "group.a1.zones.catalog.test. 60 IN TXT z\n", ""},
		{"RFC 9432 4.3.1: no version", member("a1", "a.test."), "ERR no version property"},
		{"RFC 9432 4.3.1: another version", "version.catalog.test. 60 IN TXT \"1\"\n" + member("a1", "a.test."), `ERR version ["1"], want "2" alone`},
		{"RFC 9432 4.3.1: two versions", version + "version.catalog.test. 60 IN TXT \"3\"\n", "ERR version "},
		{"RFC 9432 4.3.1: version in two strings", "version.catalog.test. 60 IN TXT \"2\" \"\"\n", "ERR version "},
		{"RFC 9432 4.2: two zones under one label", version + member("a1", "a.test.") + member("a1", "b.test."), "ERR a1.zones lists two zones"},
		{"RFC 9432 4.2: one zone twice", version + member("a1", "a.test.") + member("b1", "A.test."), "ERR a.test. is listed twice, as a1 and b1"},
		{"RFC 9432 4.2: another class", version + "a1.zones.catalog.test. 60 CH PTR a.test.\n", "ERR a1.zones.catalog.test. has class CH"},
		{"RFC 9432 4.4.1: two coo", version + member("a1", "a.test.") + "coo.a1.zones.catalog.test. 60 IN PTR x.test.\ncoo.a1.zones.catalog.test. 60 IN PTR y.test.\n", "ERR coo.a1.zones.catalog.test. has two values"},
		{"RFC 9432 4.2: itself", version + member("a1", "catalog.test."), "ERR lists itself"},
		{"RFC 1035 5: no zone file", "(", "ERR "},
	} {
		got, err := ReadCatalog("Catalog.test.", []byte(catalogHead+c.text))
		if seen := showCatalog(got, err); seen != c.want && (!strings.HasPrefix(c.want, "ERR") || !strings.Contains(seen, strings.TrimPrefix(c.want, "ERR "))) {
			t.Errorf("%s: %s, want %s", c.name, seen, c.want)
		}
	}
}

func showCatalog(c *Catalog, err error) string {
	if err != nil {
		return "ERR " + err.Error()
	}
	var out []string
	for _, m := range c.Members {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %v %s", m.Zone, m.ID, m.Groups, m.Coo)))
	}
	return strings.Join(out, " | ")
}

// TestCatalogText: what we write is what we read, and the label of a zone stays.
func TestCatalogText(t *testing.T) {
	c := &Catalog{Name: "catalog.test.", Members: []Member{
		{Zone: "a.test.", ID: MemberID("A.test."), Groups: []string{`a "b" \`, "c"}}, {Zone: "b.test.", ID: "x", Coo: "other.test."}}}
	got, err := ReadCatalog(c.Name, c.Text(7))
	if err != nil || showCatalog(got, nil) != showCatalog(c, nil) {
		t.Errorf("wrote %s, read %s (%v)", showCatalog(c, nil), showCatalog(got, nil), err)
	}
	if a, b := MemberID("a.test."), MemberID("b.test."); a == b || len(a) != 32 {
		t.Errorf("labels %s and %s", a, b)
	}
}

// TestAssign: who has a zone, event by event: each line changes what the catalogs list.
func TestAssign(t *testing.T) {
	has := map[string]string{}
	for _, c := range []struct{ name, a, b, want, conflict string }{
		{"RFC 9432 4.2: one lists it", "", "z", "z: b", ""},
		{"RFC 9432 5.2: another lists it as well, and it stays", "z", "z", "z: b", "z. is listed by a., and belongs to b."},
		{"RFC 9432 4.4.1: the owner names the other one", "z", "z>a", "z: a from b", ""},
		{"RFC 9432 4.4.1: and is not asked again", "z", "z>a", "z: a", ""},
		{"RFC 9432 5.2: the former owner names nobody any more", "z", "z", "z: a", "z. is listed by b., and belongs to a."},
		{"RFC 9432 4.4.1: the owner names one who does not list it", "z>b", "", "z: a", ""},
		{"RFC 9432 4.4.1: each names the other", "z>b", "z>a", "z: a", ""},
		{"RFC 9432 4.4.1: it names itself", "z>a", "z", "z: a", "z. is listed by b., and belongs to a."},
		{"RFC 9432 5.5: the owner lists it no more", "", "z", "z: b", ""},
		{"RFC 9432 5.3: nobody does", "", "", "", ""},
		{"RFC 9432 5.2: both do at once, by name", "z", "z", "z: a", "z. is listed by b., and belongs to a."},
		{"RFC 9432 5.2: a zone that is configured", "own", "z own", "z: b", "own. is listed by a., and configured by itself; own. is listed by b., and configured by itself"},
	} {
		list := func(name, text string) *Catalog {
			out := &Catalog{Name: name + "."}
			for _, m := range strings.Fields(text) {
				zone, coo, moves := strings.Cut(m, ">")
				if moves {
					coo += "."
				}
				out.Members = append(out.Members, Member{Zone: zone + ".", ID: zone + "-" + name, Coo: coo})
			}
			return out
		}
		claims, conflicts := Assign([]*Catalog{list("b", c.b), list("a", c.a)}, func(zone string) string { return has[zone] }, func(zone string) bool { return zone == "own." })
		has = map[string]string{}
		var got, told []string
		for _, claim := range claims {
			has[claim.Zone] = claim.Catalog
			text := claim.Zone + ": " + claim.Catalog
			if claim.From != "" {
				text += " from " + claim.From
			}
			got = append(got, strings.ReplaceAll(text, ".", ""))
		}
		for _, conflict := range conflicts {
			told = append(told, conflict.String())
		}
		if strings.Join(got, " ") != c.want || strings.Join(told, "; ") != c.conflict {
			t.Errorf("%s: %v, %v; want %s and %q", c.name, got, told, c.want, c.conflict)
		}
	}
}

// FuzzReadCatalog: whatever a primary sends, a catalog is read or refused, and what was
// read reads the same when it is written.
func FuzzReadCatalog(f *testing.F) {
	f.Add(catalogHead + "version.catalog.test. 60 IN TXT \"2\"\na.zones.catalog.test. 60 IN PTR a.test.\ngroup.a.zones.catalog.test. 60 IN TXT \"g\\\"\\000\"\n")
	f.Add(catalogHead + "version.catalog.test. 60 IN TXT \"2\"\na.zones.catalog.test. 60 IN PTR .\ncoo.a.zones.catalog.test. 60 IN PTR c.test.\n\\..zones.catalog.test. 60 IN PTR b.test.\n")
	f.Add(catalogHead + "version.catalog.test. 60 IN TXT \"2\"\nA\\032\\001.zones.catalog.test. 60 IN PTR a.test.\ngroup.a\\ \\001.zones.catalog.test. 60 IN TXT a b\nzones.catalog.test. 60 IN PTR b.test.\n")
	f.Add("version.catalog.test. 60 IN TXT \"1\"\n")
	f.Add("a.zones.catalog.test. CH PTR a.test.\na\\.zones.catalog.test. 60 IN PTR c.test.\nx\\.catalog.test. 60 IN PTR c.test.\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ReadCatalog("catalog.test.", []byte(text))
		if err != nil {
			return
		}
		again, err := ReadCatalog("catalog.test.", c.Text(1))
		if err != nil || showCatalog(again, nil) != showCatalog(c, nil) || !slices.Equal(again.entries(), c.entries()) {
			t.Fatalf("%s\nread %s\nthen %s (%v)", text, showCatalog(c, nil), showCatalog(again, nil), err)
		}
	})
}
