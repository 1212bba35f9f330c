package bgp

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"rhumb/placement"
)

// remembering gives a speaker a memory in a file, and lo.
func remembering(t *testing.T, path string) func(*Config, *bench) {
	return func(c *Config, b *bench) {
		m, err := OpenMemory(path, c.Site)
		if err != nil {
			t.Fatalf("the memory is not read: %v", err)
		}
		c.Memory, c.Host = m, &fakeHost{bound: make(map[netip.Addr]bool), log: b.engine}
		b.snap.Inventory.Prefixes[0].Reach = placement.Local
		b.snap.Inventory.Sites[0].Clusters = []placement.Cluster{{Name: "web", Addresses: []netip.AddrPort{netip.AddrPortFrom(vip, 53)}}}
	}
}

// noClusters lets the fleet forget the site's servers, too.
func (b *bench) noClusters() {
	inv := *b.snap.Inventory
	inv.Sites = slices.Clone(inv.Sites)
	inv.Sites[0].Clusters = nil
	b.snap.Inventory = &inv
}

// heldOn returns the prefixes in a memory's file.
func heldOn(t *testing.T, path string) (out []netip.Prefix) {
	t.Helper()
	b, err := os.ReadFile(path)
	var f memoryFile
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err != nil {
		t.Fatalf("the memory's file: %v", err)
	}
	for _, h := range f.Held {
		out = append(out, h.Prefix.Prefix)
	}
	return out
}

// TestRestartForgetsNothing: a prefix that was deleted while the process was away is held
// at gshut by the next one, with the attributes and addresses which it had; retired at last,
// it goes, its address with it, and the process after that knows it no more.
func TestRestartForgetsNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "held.json")
	bubble(t, func(t *testing.T) {
		b := start(t, remembering(t, path))
		b.up()
		b.end()
	})
	if got := heldOn(t, path); !slices.Contains(got, anycast) {
		t.Fatalf("a clean exit left %v in the memory, want %s in it", got, anycast)
	}
	bubble(t, func(t *testing.T) {
		b := start(t, remembering(t, path))
		b.noClusters()
		b.fleetOf(true, false)
		b.expect(placement.GShut)
		b.rule(placement.RuleRetire)
		if a, _ := b.engine.get(anycast); !a.NoExport || a.MED != 50 || !a.GShut() {
			t.Errorf("announced with %+v, want NO_EXPORT, MED 50 and gshut", a)
		}
		if ok, _ := b.s.cfg.Host.Bound(vip); !ok {
			t.Errorf("%s is not on lo, though the prefix is announced", vip)
		}
		b.end() // and once more: it is not the last process alone that counts
	})
	bubble(t, func(t *testing.T) {
		b := start(t, remembering(t, path))
		b.noClusters()
		b.fleetOf(true, false)
		b.expect(placement.GShut)
		b.fleetOf(true, true)
		b.expect(placement.Withdrawn)
		if ok, _ := b.s.cfg.Host.Bound(vip); ok {
			t.Errorf("%s is on lo still, though no cluster has it and the prefix is retired", vip)
		}
		b.end()
	})
	if got := heldOn(t, path); slices.Contains(got, anycast) {
		t.Fatalf("retired and withdrawn, and yet %v is remembered", got)
	}
}

// TestMemoryYields: what was remembered binds only where it must.
func TestMemoryYields(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Config)
		then   func(*bench)
		want   placement.Step
	}{
		"named again": {nil, func(b *bench) { b.up() }, placement.Announce},
		"this site left out, with a Slot": {nil, func(b *bench) {
			b.live = here("ams", "fra", "lon")
			b.fleetWithout()
		}, placement.Withdrawn},
		"this site left out, without a Slot": {func(c *Config) { c.Slots.(*fakeStore).max = 0 }, func(b *bench) {
			b.live = here("ams", "fra", "lon")
			b.fleetWithout()
		}, placement.GShut},
		"an empty snapshot": {nil, func(b *bench) { b.empty() }, placement.GShut},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "held.json")
			bubble(t, func(t *testing.T) {
				b := start(t, remembering(t, path))
				b.up()
				b.end()
			})
			bubble(t, func(t *testing.T) {
				b := start(t, func(c *Config, b *bench) {
					remembering(t, path)(c, b)
					if tt.change != nil {
						tt.change(c)
					}
				})
				tt.then(b)
				b.pass(20 * time.Second)
				b.expect(tt.want)
				b.end()
			})
		})
	}
}

// fleetWithout hands over a snapshot in which this site does not announce the prefix.
func (b *bench) fleetWithout() {
	snap := b.snap
	snap.Announcements = []placement.Announcement{{Prefix: anycast, Site: "fra"}, {Prefix: anycast, Site: "lon"}}
	b.s.Apply(b.t.Context(), &snap, b.live)
	b.pass(10 * time.Second)
}

// empty hands over a snapshot in which nothing is announced, nor named.
func (b *bench) empty() {
	inv := *b.snap.Inventory
	inv.Prefixes = nil
	snap := b.snap
	snap.Inventory = &inv
	b.s.Apply(b.t.Context(), &snap, b.live)
	b.pass(10 * time.Second)
}

// TestMemoryOnDisk: another site's file and a broken one count as none, and what the disk
// refused is written once it can be.
func TestMemoryOnDisk(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sub", "held.json")
	list := []held{{Prefix: placement.Prefix{Prefix: anycast}, Addresses: []netip.Addr{vip}}}
	bubble(t, func(t *testing.T) {
		m, err := OpenMemory(path, "ams")
		if err != nil {
			t.Fatal(err)
		}
		go m.write(New(Config{}).log)
		if err := m.keep(list); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, err := os.Stat(path); err == nil {
			t.Fatal("written into a folder which is not there")
		}
		if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		time.Sleep(rewriteAfter)
		synctest.Wait()
		m.end()
	})
	for site, want := range map[string]int{"ams": 1, "fra": 0} {
		m, err := OpenMemory(path, site)
		if err != nil || len(m.held) != want {
			t.Errorf("site %s: %d prefixes, %v; want %d", site, len(m.held), err, want)
		}
	}
	if err := os.WriteFile(path, []byte(`{"site":`), 0o644); err != nil {
		t.Fatal(err)
	}
	if m, err := OpenMemory(path, "ams"); err == nil || m == nil || len(m.held) > 0 {
		t.Errorf("a broken file: %+v, %v; want an error, and a memory without prefixes", m, err)
	}
}
