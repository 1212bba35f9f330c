//go:build e2e

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"rhumb/authdns"
	"rhumb/internal/config"
	"rhumb/placement"
)

// catalogNode is our side: a name server with all that catalogs take.
type catalogNode struct {
	keeper *zoneKeeper
	copies *transfers
	log    *spoken
	stop   func()
}

// startCatalogNode runs one on what its data directory holds.
func startCatalogNode(t *testing.T, dir string, blob func(context.Context, string) ([]byte, error)) *catalogNode {
	t.Helper()
	n := &catalogNode{log: &spoken{}}
	log := slog.New(slog.NewTextHandler(n.log, nil))
	keys := filepath.Join(dir, "keys")
	if err := os.WriteFile(keys, []byte("hmac-sha256:"+catalogKey+":"+catalogSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	n.copies, err = newTransfers(&unit{name: "rhumb-dns", log: log, cfg: &config.Node{Node: config.Self{DataDir: dir}, Transfers: config.Transfers{Keys: keys, Source: netip.MustParseAddr("127.0.0.1")}}})
	if err != nil {
		t.Fatal(err)
	}
	srv, err := authdns.New(authdns.Config{Site: "ams1", Node: "ams1-a", Workers: 1, Logger: log, Transfers: n.copies.desk,
		Listeners: []authdns.Listener{{Level: placement.LowLevel, Addr: netip.MustParseAddrPort(catalogOurs)}}})
	if err != nil {
		t.Fatal(err)
	}
	n.keeper = &zoneKeeper{zones: srv, blob: blob, copies: n.copies.in, changed: n.copies.changed, log: log, wanted: newBox[*placement.Inventory]()}
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	for _, run := range []func(context.Context) error{srv.Run, n.keeper.run, n.copies.notifier.Run, n.copies.in.Run} {
		group.Go(func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	n.stop = sync.OnceFunc(func() {
		cancel()
		group.Wait()
	})
	t.Cleanup(func() {
		n.stop()
		if t.Failed() {
			t.Logf("we said:\n%s", n.log.tail(40))
		}
	})
	return n
}

// catalogFleet makes the inventories of the test; its zones are kept by digest.
type catalogFleet struct {
	revision int64
	told     []netip.AddrPort
	mu       sync.Mutex
	blobs    map[string][]byte
}

// blob hands a zone out as the store does.
func (f *catalogFleet) blob(_ context.Context, sha string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if b, ok := f.blobs[sha]; ok {
		return b, nil
	}
	return nil, errors.New("no such blob")
}

// inventory has both catalogs of ours, both of Knot's, and zones.
func (f *catalogFleet) inventory(zones ...placement.Zone) *placement.Inventory {
	f.revision += 10
	inv := &placement.Inventory{Revision: f.revision}
	inv.Safety.KeepNames = 0.7
	rules := &placement.Transfer{Keys: []string{catalogKey}, Notify: f.told, NotifyKey: catalogKey}
	for _, name := range []string{"catz1.test.", "catz2.test."} {
		inv.Zones = append(inv.Zones, placement.Zone{Name: name, Level: placement.LowLevel, Transfer: rules, Catalog: &placement.Catalog{}})
	}
	for _, name := range []string{"catz.knot.test.", "hand.knot.test.", "next.knot.test."} {
		inv.Zones = append(inv.Zones, placement.Zone{Name: name, Level: placement.LowLevel,
			Secondary: &placement.Secondary{Primaries: []netip.AddrPort{netip.MustParseAddrPort(catalogKnot)}, Key: catalogKey},
			Catalog:   &placement.Catalog{Members: placement.CatalogMembers{Level: placement.LowLevel}}})
	}
	for _, z := range zones {
		z.Level, z.Transfer = placement.LowLevel, rules
		inv.Zones = append(inv.Zones, z)
	}
	return inv
}

// zone is one of the fleet, at a serial.
func (f *catalogFleet) zone(name string, serial uint32, listed placement.Listed) placement.Zone {
	text := catalogZone(name, serial)
	sha := fmt.Sprintf("%s %d", name, serial)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.blobs[sha] = []byte(text)
	return placement.Zone{Name: name, SHA256: sha, Serial: serial, Listed: &listed}
}

// catalogZone is a zone whose timers are so long that only a NOTIFY makes anybody ask.
func catalogZone(name string, serial uint32) string {
	return fmt.Sprintf("$ORIGIN %s\n$TTL 300\n@ SOA ns h %d 86400 86400 864000 60\n@ NS ns\nns A 127.0.0.1\n", name, serial)
}
