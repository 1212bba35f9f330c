package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rhumb/edge"
	"rhumb/internal/config"
)

// TestReadTokens: secrets that everybody can read are none, and no error tells one.
func TestReadTokens(t *testing.T) {
	line := strings.Repeat("5a", 32)
	for _, c := range []struct {
		name, text string
		mode       os.FileMode
		want       int
		err        string
	}{
		{"good", line + "\n", 0o640, 1, ""},
		{"two", line + "\n" + line, 0o600, 2, ""},
		{"readable", line, 0o644, 0, "everybody can read it"},
		{"short", line[2:], 0o600, 0, "line 1"},
	} {
		file := filepath.Join(t.TempDir(), "tokens")
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, c.mode); err != nil {
			t.Fatal(err)
		}
		got, err := readTokens(file)
		if len(got) != c.want || (err != nil) != (c.err != "") || err != nil && (!strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "5a5a")) {
			t.Errorf("%s: %d secrets, %v, want %d and %q", c.name, len(got), err, c.want, c.err)
		}
	}
	if got, err := readTokens(""); got != nil || err != nil {
		t.Errorf("no file: %v, %v", got, err)
	}
	if _, err := readTokens(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a file that is not there was read")
	}
}

// TestEventsReachTheAgent: what the fleet file says of event streams is what the agent
// is given.
func TestEventsReachTheAgent(t *testing.T) {
	inv := edgeInventory()
	inv.Services[0].Edge.Events, inv.Services[0].Edge.EventsStrict = "/live/", true
	s := contentServices(inv, &unit{cfg: &config.Node{}})
	if want := (edge.Events{Path: "/live/", Strict: true}); len(s) != 1 || s[0].Events != want {
		t.Errorf("services %+v, want one with %+v", s, want)
	}
}
