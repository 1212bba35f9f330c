package main

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/authdns/transfer"
	"rhumb/placement"
)

// listHeld is a catalog "zone label [coo]; …" as it is held.
func listHeld(name, sha, list string) transfer.Held {
	c := transfer.Catalog{Name: name}
	for _, m := range strings.Split(list, ";") {
		if f := append(strings.Fields(m), "", ""); f[0] != "" {
			c.Members = append(c.Members, transfer.Member{Zone: f[0], ID: f[1], Coo: f[2]})
		}
	}
	return transfer.Held{Data: c.Text(1), SHA256: sha}
}

// followedBy is an inventory of catalogs, each with the address of its primary, and of
// zones that are configured.
func followedBy(catalogs []string, zones ...string) *placement.Inventory {
	inv := &placement.Inventory{Revision: 1}
	inv.Safety.KeepNames = 0.7
	for i, name := range catalogs {
		from := []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), 53)}
		inv.Zones = append(inv.Zones, placement.Zone{Name: name, Secondary: &placement.Secondary{Primaries: from, Key: "k.", AllowShrink: true}, Catalog: &placement.Catalog{}})
	}
	for _, name := range zones {
		inv.Zones = append(inv.Zones, placement.Zone{Name: name, SHA256: "1"})
	}
	return inv
}

// shown are the zones of an inventory that its catalogs list, with primary, and how they
// are wanted.
func shown(z *zoneKeeper, inv, given *placement.Inventory) string {
	var out []string
	for _, m := range inv.Zones[len(given.Zones):] {
		c := z.catalogs.claims[m.Name]
		text := fmt.Sprintf("%s %s %s/%s", m.Name, m.Secondary.Primaries[0].Addr(), c.Catalog, c.ID)
		if m.Secondary.AllowShrink {
			text += " may shrink"
		}
		if c.From != "" {
			text += " from " + c.From
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

// TestFollow: the zones that a node serves, event by event.
func TestFollow(t *testing.T) {
	held := &fakeCopies{held: map[string]transfer.Held{}, listed: map[string]transfer.Listing{"kept.": {Catalog: "b.", ID: "9"}}}
	var log strings.Builder
	z := &zoneKeeper{copies: held, log: slog.New(slog.NewTextHandler(&log, nil))}
	both := followedBy([]string{"a.", "b."}, "own.")
	for _, c := range []struct {
		name string
		inv  *placement.Inventory
		a, b string // what they list from now on; "": as before
		want string
		log  string
	}{
		{"never received", both, "", "", "", ""},
		{"RFC 9432 5.1: received", both, "y. 1; x. 2", "-", "x. 192.0.2.1 a./2, y. 192.0.2.1 a./1", "added"},
		{"RFC 9432 5.2: listed twice, and configured", both, "", "x. 3; own. 4", "x. 192.0.2.1 a./2, y. 192.0.2.1 a./1", "own. is listed by b., and configured by itself"},
		{"RFC 9432 4.4.1: handed over", both, "y. 1; x. 2 b.", "", "x. 192.0.2.2 b./3 from a., y. 192.0.2.1 a./1", "moved=x."},
		{"RFC 9432 4.4.1: nothing new", both, "", "", "x. 192.0.2.2 b./3, y. 192.0.2.1 a./1", ""},
		{"RFC 9432 5.3: removed where it is no more", both, "y. 1", "", "x. 192.0.2.2 b./3, y. 192.0.2.1 a./1", ""},
		{"RFC 9432 5.1: the copy is gone", both, "gone", "gone", "x. 192.0.2.2 b./3, y. 192.0.2.1 a./1", ""},
		{"RFC 9432 5.1: what is held is broken", both, "broken", "", "x. 192.0.2.2 b./3, y. 192.0.2.1 a./1", "the last list stays"},
		{"RFC 9432 5.4: another label", both, "y. 7", "x. 3", "x. 192.0.2.2 b./3, y. 192.0.2.1 a./7", ""},
		{"RFC 9432 5.2: after a start the disk knows", both, "kept. 8; y. 7", "x. 3; kept. 9", "kept. 192.0.2.2 b./9, x. 192.0.2.2 b./3, y. 192.0.2.1 a./7", "kept. is listed by a., and belongs to b."},
		{"RFC 9432 5.3: removed", both, "-", "x. 3; kept. 9", "kept. 192.0.2.2 b./9, x. 192.0.2.2 b./3", "removed=y."},
		{"one is followed no more", followedBy([]string{"a."}), "x. 5", "", "x. 192.0.2.1 a./5", "removed=kept."},
		{"none is", followedBy(nil, "own."), "", "", "", ""},
	} {
		log.Reset()
		for name, list := range map[string]string{"a.": c.a, "b.": c.b} {
			switch list {
			case "":
			case "gone":
				held.held[name] = transfer.Held{Unserved: "not received yet"}
			case "broken":
				held.held[name] = transfer.Held{Data: []byte("."), SHA256: c.name}
			default:
				held.held[name] = listHeld(name, c.name, strings.TrimPrefix(list, "-"))
			}
		}
		// The first look may find what was handed over, the second one finds it settled.
		inv := z.expand(c.inv)
		if got := shown(z, inv, c.inv); got != c.want {
			t.Errorf("%s: %s\nwant %s", c.name, got, c.want)
		}
		z.want(inv)
		if !strings.Contains(log.String(), c.log) || c.log == "" && log.Len() > 0 {
			t.Errorf("%s: the log says %q, want %q", c.name, log.String(), c.log)
		}
		copied := 0
		for _, m := range inv.Zones {
			if m.Secondary != nil {
				copied++
			}
		}
		if len(held.wanted) != copied {
			t.Errorf("%s: asked for %q, want %d zones", c.name, held.wanted, copied)
		}
	}
}

// lateCopies hold a catalog only once it was asked for, as what lies on disk does.
type lateCopies struct {
	fakeCopies
	list string
}

func (l *lateCopies) Set(zones []transfer.Incoming) {
	l.fakeCopies.Set(zones)
	if l.held == nil {
		l.held = map[string]transfer.Held{"a.": listHeld("a.", "1", l.list)}
	}
}

// TestFollowFromDisk: after a start what the kept list names is asked for at once.
func TestFollowFromDisk(t *testing.T) {
	held := &lateCopies{list: "x. 1; y. 2"}
	z := &zoneKeeper{copies: held, log: slog.New(slog.DiscardHandler)}
	given := followedBy([]string{"a."})
	if got, want := shown(z, z.follow(given), given), "x. 192.0.2.1 a./1, y. 192.0.2.1 a./2"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if len(held.wanted) != 3 {
		t.Errorf("asked for %q, want the list and two zones", held.wanted)
	}
}

// TestMembers: the settings of a listed zone.
func TestMembers(t *testing.T) {
	own := &placement.Secondary{Primaries: []netip.AddrPort{netip.MustParseAddrPort("198.51.100.1:53")}}
	catalog := &followedBy([]string{"a."}).Zones[0]
	catalog.Catalog = &placement.Catalog{Members: placement.CatalogMembers{Level: placement.TopLevel},
		Groups: map[string]placement.CatalogMembers{"far": {Level: placement.LowLevel, Secondary: own}, "near": {Transfer: &placement.Transfer{}}}}
	for _, c := range []struct{ name, groups, want string }{
		{"RFC 9432 4.4.2: no group", "", "top 192.0.2.1:53 false"},
		{"RFC 9432 4.4.2: a group of somebody else's", "x", "top 192.0.2.1:53 false"},
		{"RFC 9432 4.4.2: a group", "x far", "low 198.51.100.1:53 false"},
		{"RFC 9432 4.4.2: the first of two", "near far", " 192.0.2.1:53 true"},
	} {
		m := member(catalog, &transfer.Member{Zone: "z.", Groups: strings.Fields(c.groups)})
		if got := fmt.Sprintf("%s %s %v", m.Level, m.Secondary.Primaries[0], m.Transfer != nil); got != c.want || m.Secondary.AllowShrink || m.Catalog != nil {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestMadeCatalogs: what our catalogs list, and when their serials change.
func TestMadeCatalogs(t *testing.T) {
	zone := func(name string, listed ...placement.Listed) placement.Zone {
		z := placement.Zone{Name: name, Transfer: &placement.Transfer{}}
		if len(listed) > 0 {
			z.Listed = &listed[0]
		}
		return z
	}
	b := func(in, coo, from string) placement.Zone {
		return zone("b.", placement.Listed{In: in, Coo: coo, From: from, Group: "far"})
	}
	base := []placement.Zone{{Name: "one.", Transfer: &placement.Transfer{}, Catalog: &placement.Catalog{}}, {Name: "two.", Transfer: &placement.Transfer{}, Catalog: &placement.Catalog{}}, {Name: "nobodys."}}
	var c catalogs
	for _, step := range []struct {
		name     string
		revision uint32
		zones    []placement.Zone
		want     string
	}{
		{"RFC 9432 3: empty", 5, nil, "one. 5: | two. 5:"},
		{"RFC 9432 4.2: one everywhere, one in one", 6, []placement.Zone{zone("a."), b("one.", "", "")}, "one. 6: a. b.(far) | two. 6: a."},
		{"a revision that changes no list", 7, []placement.Zone{zone("a."), b("one.", "", "")}, "one. 6: a. b.(far) | two. 6: a."},
		{"RFC 9432 4.4.1: one is about to move", 8, []placement.Zone{zone("a."), b("one.", "two.", "")}, "one. 8: a. b.(far)>two. | two. 6: a."},
		{"RFC 9432 4.4.1: it moves", 9, []placement.Zone{zone("a."), b("two.", "", "one.")}, "one. 8: a. b.(far)>two. | two. 9: a. b.(far)"},
		{"RFC 9432 4.4.1: it has moved", 10, []placement.Zone{zone("a."), b("two.", "", "")}, "one. 10: a. | two. 9: a. b.(far)"},
		{"RFC 9432 4.4.1: one moves to somebody else", 11, []placement.Zone{zone("a.", placement.Listed{In: "one.", Coo: "theirs."})}, "one. 11: a.>theirs. | two. 11:"},
		{"RFC 9432 5.3: one is in none", 12, []placement.Zone{zone("a.", placement.Listed{Off: true})}, "one. 12: | two. 11:"},
	} {
		zones := append(slices.Clone(base), step.zones...)
		c.make(zones, step.revision)
		var got []string
		for _, z := range zones[:2] {
			list, err := transfer.ReadCatalog(z.Name, c.made[z.Name].text)
			if err != nil || z.SHA256 == "" || z.Size == 0 {
				t.Fatalf("%s: %+v: %v", step.name, z, err)
			}
			text := fmt.Sprintf("%s %d:", z.Name, z.Serial)
			for _, m := range list.Members {
				text += " " + m.Zone
				if len(m.Groups) > 0 {
					text += "(" + strings.Join(m.Groups, " ") + ")"
				}
				if m.Coo != "" {
					text += ">" + m.Coo
				}
				if m.ID != transfer.MemberID(m.Zone) {
					t.Errorf("%s: %s is listed as %s: its state would be thrown away", step.name, m.Zone, m.ID)
				}
			}
			got = append(got, text)
		}
		if text := strings.Join(got, " | "); text != step.want {
			t.Errorf("%s: %s, want %s", step.name, text, step.want)
		}
	}
}

// TestCatalogsTold: what status and metrics say.
func TestCatalogsTold(t *testing.T) {
	var c catalogs
	zones := []placement.ZoneStatus{{Name: "a."}, {Name: "own."}}
	if got := c.report(zones); len(got) != 2 || got[0].Catalog != "" {
		t.Errorf("without catalogs: %+v", got)
	}
	big := &transfer.Catalog{Name: "a."}
	var claims []transfer.Claim
	for i := range 3 * maxMembersTold {
		m := transfer.Member{Zone: fmt.Sprintf("z%d.", i)}
		big.Members = append(big.Members, m)
		claims = append(claims, transfer.Claim{Catalog: "a.", Member: m})
		zones = append(zones, placement.ZoneStatus{Name: m.Zone})
	}
	zones[len(zones)-1].Error = "expired"
	z := &zoneKeeper{log: slog.New(slog.DiscardHandler)}
	z.catalogs.lists = map[string]heldList{"a.": {"1", big}}
	z.catalogs.made = map[string]madeList{"made.": {members: 4}}
	z.settle(claims, []transfer.Conflict{{Zone: "own.", Catalog: "a."}})
	got := z.catalogs.report(zones)
	if len(got) != 2+maxMembersTold || got[2].Error != "expired" || got[2].Catalog != "a." {
		t.Errorf("%d rows, the first of a listed zone %+v", len(got), got[2])
	}
	if want := "own. is listed by a., and configured by itself"; got[0].Members != len(claims) || got[0].Conflict != want {
		t.Errorf("of the catalog: %+v, want %q", got[0], want)
	}
	held := func(name string) (transfer.Held, bool) {
		return transfer.Held{Refused: true, Fault: "0 of 600 listed zones left"}, name == "a."
	}
	reg := prometheus.NewRegistry()
	if err := z.catalogs.register(reg, held); err != nil {
		t.Fatal(err)
	}
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var text []string
	for _, f := range all {
		for _, m := range f.Metric {
			text = append(text, fmt.Sprintf("%s %s %g", f.GetName(), m.Label[0].GetValue(), m.Gauge.GetValue()))
		}
	}
	if got, want := strings.Join(text, ", "), "rhumb_catalog_conflicts a. 1, rhumb_catalog_refused a. 1, rhumb_catalog_zones a. 600, rhumb_catalog_zones made. 4"; got != want {
		t.Errorf("metrics %s, want %s", got, want)
	}
}
