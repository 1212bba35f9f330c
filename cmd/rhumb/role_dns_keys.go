package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"rhumb/authdns/dnssec"
	"rhumb/placement"
)

// keyEvery is how often the directory of keys is looked at.
const keyEvery = time.Minute

// keyDir is the directory of key files of this node; owned by the zoneKeeper.
type keyDir struct {
	dir  string
	seen string // names, sizes and times of what was read last
}

// load reads the keys of a zone that is to be signed here. What becomes of the zone
// without them the server says; the error is why they are missing.
func (k *keyDir) load(z placement.Zone, log *slog.Logger) ([]*dnssec.Key, error) {
	if z.DNSSEC == "" {
		return nil, nil
	}
	k.seen = k.listing()
	keys, err := dnssec.Load(k.dir, z.Name)
	if k.dir == "" {
		err = errors.New("the node file names no directory of keys (dnssec.keys)")
	}
	if err != nil {
		log.Error("zone is to be signed and has no usable keys", "zone", z.Name, "err", err)
	}
	return keys, err
}

// changed tells whether key files came, went or changed since they were read.
func (k *keyDir) changed() bool { return k.dir != "" && k.listing() != k.seen }

// listing is all that tells files apart without reading them. A directory that cannot be
// read is a listing, too: its keys come back when it does.
func (k *keyDir) listing() string {
	entries, err := os.ReadDir(k.dir)
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for _, e := range entries {
		if info, err := e.Info(); err == nil && strings.HasPrefix(e.Name(), "K") {
			fmt.Fprintln(&b, e.Name(), info.Size(), info.ModTime().UnixNano(), info.Mode())
		}
	}
	return b.String()
}

// signs tells whether any zone is signed by the nodes.
func signs(inv *placement.Inventory) bool {
	for i := range inv.Zones {
		if inv.Zones[i].DNSSEC != "" {
			return true
		}
	}
	return false
}
