package rpki

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// Known remembers on disk which routes this node has announced. What turns invalid
// after that is an alarm, whether the process was restarted meanwhile or not: else
// one wrong ROA, and an upgrade from site to site, would take the prefix off the
// world. Safe for concurrent use.
type Known struct {
	path string

	mu     sync.Mutex
	routes []Origin
}

// Origin is a route's prefix and the AS which originates it.
type Origin struct {
	Prefix netip.Prefix `json:"prefix"`
	ASN    uint32       `json:"asn"`
}

// OpenKnown reads what was announced before. An unreadable file is told, and counts
// as none: the data then judge as if all were new.
func OpenKnown(path string) (*Known, error) {
	k := &Known{path: path}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return k, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &k.routes)
	}
	if err != nil {
		return k, fmt.Errorf("rpki: routes announced before: %w", err)
	}
	return k, nil
}

// Has tells whether the route was announced before.
func (k *Known) Has(o Origin) bool {
	if k == nil {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Contains(k.routes, o)
}

// Add remembers a route; one that is known costs nothing.
func (k *Known) Add(o Origin) error {
	if k == nil || k.Has(o) {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.routes = append(k.routes, o)
	b, err := json.Marshal(k.routes)
	if err == nil {
		err = replace(k.path, b)
	}
	if err != nil {
		return fmt.Errorf("rpki: remember %s: %w", o.Prefix, err)
	}
	return nil
}

// replace writes a file whole or not at all.
func replace(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".known-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
