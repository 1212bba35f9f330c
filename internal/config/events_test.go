package config

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestEvents: where event streams are, and the file of their secrets, are read as they
// stand; the mistakes are in testdata/bad.
func TestEvents(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/bad/events-path")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "fleet.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte("path: /live}"), []byte("path: /live/, strict: true}"), 1)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := LoadFleet(file, readZone)
	if err != nil {
		t.Fatal(err)
	}
	if e := f.Service("www").Edge; e.Events != "/live/" || !e.EventsStrict {
		t.Errorf("event streams at %q, strict %v", e.Events, e.EventsStrict)
	}
	file = filepath.Join(dir, "node.yaml")
	node := "version: 1\nnode: {name: ams1-a, site: ams1, roles: [edge]}\nstore: file\nidentity: id\nedge: {tokens: secrets/tokens}\n"
	if err := os.WriteFile(file, []byte(node), 0o600); err != nil {
		t.Fatal(err)
	}
	n, err := LoadNode(file)
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(dir, "secrets", "tokens"); n.Edge.Tokens != want {
		t.Errorf("secrets of tokens in %q, want %q", n.Edge.Tokens, want)
	}
}
