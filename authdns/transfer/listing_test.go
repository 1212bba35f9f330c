package transfer

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// TestListing: which zones of one name are the same zone, so that what is kept of the
// one is the other's.
func TestListing(t *testing.T) {
	none, one := Listing{}, Listing{Catalog: "a.", ID: "1"}
	for _, c := range []struct {
		name     string
		was, now Listing
		want     bool
	}{
		{"the same", one, one, true},
		{"RFC 9432 5.4: another label", one, Listing{Catalog: "a.", ID: "2"}, false},
		{"RFC 9432 4.4.1: handed over, the label the same", one, Listing{Catalog: "b.", ID: "1", From: "a."}, true},
		{"RFC 9432 4.4.1: handed over, another label", one, Listing{Catalog: "b.", ID: "2", From: "a."}, false},
		{"RFC 9432 5.5: removed there, added here", one, Listing{Catalog: "b.", ID: "1"}, false},
		{"RFC 9432 5.5: handed over by somebody else", one, Listing{Catalog: "b.", ID: "1", From: "c."}, false},
		{"listed, and now configured by itself", one, none, true},
		{"configured by itself, and now listed", none, one, true},
	} {
		if got := c.was.becomes(c.now); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// members are lines of a catalog named demo.test.
func members(from, to int) []string {
	lines := []string{"version.demo.test. 0 IN TXT 2"}
	for i := from; i < to; i++ {
		lines = append(lines, fmt.Sprintf("m%d.zones.demo.test. 0 IN PTR z%d.test.", i, i))
	}
	return lines
}

// relabelled are the same zones under other labels.
func relabelled(lines []string) []string {
	var out []string
	for _, l := range lines {
		if l[0] == 'm' {
			l = "n" + l
		}
		out = append(out, l)
	}
	return out
}

// TestCatalogVersions: which versions of a catalog are taken. What is not taken changes
// nothing, through a restart too, and it is said why.
func TestCatalogVersions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, dir := newPrimary(t), t.TempDir()
		serial := uint32(1)
		p.set(makeZone(t, serial, members(0, 10)...))
		catalog := Incoming{Name: "demo.test.", Primaries: primaryAddr[:], Key: "one.test", KeepNames: 0.7, Catalog: true}
		n := startNode(t, p, dir, 0.7)
		n.in.Set([]Incoming{catalog})
		synctest.Wait()
		n.is(t, "RFC 9432 4.2: ten zones", 1, "", "")
		step := func(name string, taken bool, fault string, lines []string) {
			t.Helper()
			h, _ := n.in.Held("demo.test.")
			before := h.Serial
			serial++
			p.set(makeZone(t, serial, lines...))
			n.in.Refresh("demo.test.")
			synctest.Wait()
			if taken {
				before = serial
			}
			n.is(t, name, before, "", fault)
			if h, _ := n.in.Held("demo.test."); h.Refused == taken {
				t.Errorf("%s: told as refused %t", name, h.Refused)
			}
		}
		step("RFC 9432 5.1: broken", false, "no version property", members(0, 10)[1:])
		step("RFC 9432 5.1: mended", true, "", members(0, 11))
		step("RFC 9432 6: empty", false, "0 of 11 listed zones left with their labels", members(0, 0))
		step("RFC 9432 6: half of it", false, "5 of 11 listed zones left with their labels", members(0, 5))
		step("RFC 9432 6: other zones, as many", false, "1 of 11 listed zones left with their labels", members(10, 21))
		step("RFC 9432 5.4: the same zones under other labels", false, "0 of 11 listed zones left with their labels", relabelled(members(0, 11)))
		step("RFC 9432 5.4: one under another label", true, "", append(members(0, 10), relabelled(members(10, 11))[1]))
		step("three of eleven go", true, "", members(0, 8))

		p.set(makeZone(t, serial+1, members(0, 0)...))
		serial++
		n.stop()
		n = startNode(t, p, dir, 0.7)
		n.in.Set([]Incoming{catalog})
		synctest.Wait()
		n.is(t, "RFC 9432 5.1: a restart, and it is empty", serial-1, "", "0 of 8 listed zones left with their labels")
		// The clock of a version on disk is the file system's.
		for left := 7; left > 0; left-- {
			step(fmt.Sprintf("one goes, %d are left", left), true, "", members(0, left))
		}
		step("the last one goes", false, "0 of 1 listed zones left with their labels", members(0, 0))
		p.with(func() { p.down = true })
		time.Sleep(25 * time.Hour)
		synctest.Wait()
		n.is(t, "RFC 9432 5.1: expired", serial-1, "expired", "connection refused")
		if h, _ := n.in.Held("demo.test."); len(h.Data) == 0 {
			t.Error("RFC 9432 5.1: an expired catalog is not held, its members would go")
		}
		p.with(func() { p.down = false })
		catalog.KeepNames = 0
		n.in.Set([]Incoming{catalog})
		synctest.Wait()
		n.is(t, "the last one goes, and may", serial, "", "")
		n.stop()
	})
}

// TestListedZone: what is kept of a zone as its listing changes, while its primary is away.
func TestListedZone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, dir := newPrimary(t), t.TempDir()
		p.set(makeZone(t, 5, hosts(3)...))
		n := startNode(t, p, dir, 0)
		file := filepath.Join(dir, "demo.test.zone")
		zone := Incoming{Name: "demo.test.", Primaries: primaryAddr[:], Key: "one.test"}
		catalogs := []Incoming{{Name: "a.test.", Primaries: primaryAddr[:], Catalog: true}, {Name: "b.test.", Primaries: primaryAddr[:], Catalog: true}}
		list := func(name string, l Listing, serial uint32) {
			t.Helper()
			zone.Listed = l
			n.in.Set(append(catalogs, zone))
			synctest.Wait()
			if h, _ := n.in.Held("demo.test."); h.Serial != serial || (h.Unserved == "") != (serial != 0) {
				t.Errorf("%s: serial %d, unserved %q; want serial %d", name, h.Serial, h.Unserved, serial)
			}
			if disk := NewIn(Config{Dir: dir}).Listed("demo.test."); serial != 0 && !disk.same(l) {
				t.Errorf("%s: after a restart it would be listed as %+v, want %+v", name, disk, l)
			}
		}
		list("listed", Listing{Catalog: "a.test.", ID: `x\ y`}, 5)
		p.with(func() { p.down = true })
		list("RFC 9432 5.4: under another label", Listing{Catalog: "a.test.", ID: "2"}, 0)
		list("and under the first again: the file is still there", Listing{Catalog: "a.test.", ID: `x\ y`}, 5)
		list("RFC 9432 4.4.1: handed over", Listing{Catalog: "b.test.", ID: `x\ y`, From: "a.test."}, 5)
		list("RFC 9432 4.4.1: long since", Listing{Catalog: "b.test.", ID: `x\ y`}, 5)
		list("RFC 9432 5.5: by another catalog", Listing{Catalog: "a.test.", ID: `x\ y`}, 0)
		list("configured by itself", Listing{}, 5)
		list("and listed", Listing{Catalog: "a.test.", ID: "3"}, 5)

		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		zone.Key = "two.test"
		list("other settings, and the disk is gone", Listing{Catalog: "a.test.", ID: "3"}, 5)
		n.in.Set(nil)
		if _, err := os.Stat(file); err != nil {
			t.Errorf("the catalog was left out as well: %v, want the file of its member kept", err)
		}
		list("the catalog is there again", Listing{Catalog: "a.test.", ID: "3"}, 5)
		n.in.Set(catalogs)
		if _, err := os.Stat(file); err == nil {
			t.Error("RFC 9432 5.3: the catalog lists it no more, and its file is there still")
		}
		list("RFC 9432 5.3: listed anew", Listing{Catalog: "a.test.", ID: "3"}, 0)
		n.stop()
	})
}
