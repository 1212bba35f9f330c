package house

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestTopLevel: a newcomer sees the architecture from the folders.
func TestTopLevel(t *testing.T) {
	allowed := []string{"authdns", "bgp", "health", "placement", "edge", "etc", "cmd", "internal", "docs", ".ci", ".git", ".gitignore",
		"go.mod", "go.sum", "Makefile", "README.md", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE"}
	local := []string{"bin", ".lab"} // built or written here, never committed
	entries, err := os.ReadDir(root(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.Contains(allowed, e.Name()) && !slices.Contains(local, e.Name()) {
			t.Errorf("stray top-level entry %s", e.Name())
		}
	}
	for _, want := range allowed {
		if want == ".git" {
			continue // an export of the tree has none
		}
		if _, err := os.Stat(filepath.Join(root(t), want)); err != nil {
			t.Errorf("missing: %s", want)
		}
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root(t), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestMakefileIsShort(t *testing.T) {
	if n := strings.Count(read(t, "Makefile"), "\n"); n >= 80 {
		t.Errorf("Makefile has %d lines, want fewer than 80", n)
	}
}

// TestMultipathTCPIsOff: a multipath listener cannot carry TCP-MD5, so a BGP
// peer without the password would be let in. Test binaries read go.mod only, the
// product's main file wins over it: both lines must stand.
func TestMultipathTCPIsOff(t *testing.T) {
	if !strings.Contains(read(t, "go.mod"), "\ngodebug multipathtcp=0\n") {
		t.Error("go.mod lacks: godebug multipathtcp=0")
	}
	if !strings.Contains(read(t, "cmd/rhumb/main.go"), "//go:debug multipathtcp=0\n") {
		t.Error("cmd/rhumb/main.go lacks: //go:debug multipathtcp=0")
	}
}

func TestFilesAreWhole(t *testing.T) {
	for _, p := range load(t) {
		for file := range p.files {
			if n := strings.Count(read(t, file), "\n"); n > 800 {
				t.Errorf("%s has %d lines, want at most 800", file, n)
			}
		}
	}
}
