package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rhumb/authdns/zone"
	"rhumb/placement"
)

// readZone is the reader that the product uses, so that the samples are judged
// as they would be in the field.
func readZone(origin, file string, data []byte) (ZoneInfo, error) {
	z, err := zone.Parse(file, origin, strings.NewReader(string(data)))
	if err != nil {
		return ZoneInfo{}, err
	}
	info := ZoneInfo{Names: z.Names(), Serial: z.Serial(), Taken: z.Addressed}
	if z.Signed != nil {
		info.Signed = fmt.Sprintf("%s:%d", file, z.Signed.Line)
	}
	return info, nil
}

// TestGoodSamples: what is right loads.
func TestGoodSamples(t *testing.T) {
	for _, file := range []string{"testdata/good/small/fleet.yaml", "testdata/good/checks/fleet.yaml", "testdata/good/local/fleet.yaml", "../../etc/lab/fleet/fleet.yaml", "../../etc/lab/root/fleet.yaml", "../../etc/fleet.yaml"} {
		if _, err := LoadFleet(file, readZone); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// TestBadSamples: every kept mistake is refused where it stands and for what it is.
// The file `want` holds FILE:LINE:COLUMN (or its beginning) and a part of the reason.
func TestBadSamples(t *testing.T) {
	dirs, err := filepath.Glob("testdata/bad/*")
	if err != nil || len(dirs) < 20 {
		t.Fatalf("found %d samples (%v), want at least 20", len(dirs), err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			b, err := os.ReadFile(filepath.Join(dir, "want"))
			if err != nil {
				t.Fatal(err)
			}
			want := strings.SplitN(strings.TrimRight(string(b), "\n"), "\n", 2)
			want = append(want, "")
			fleet, err := LoadFleet(filepath.Join(dir, "fleet.yaml"), readZone)
			if err == nil {
				t.Fatal("was accepted")
			}
			if fleet != nil {
				t.Error("a refused fleet came back")
			}
			if !strings.Contains(err.Error(), filepath.Join(dir, want[0])) {
				t.Errorf("want position %s, have:\n%v", want[0], err)
			}
			if !strings.Contains(err.Error(), want[1]) {
				t.Errorf("want reason %q, have:\n%v", want[1], err)
			}
		})
	}
}

// TestIgnoreECS: a policy ignores client subnets where it says so.
func TestIgnoreECS(t *testing.T) {
	f, err := LoadFleet("testdata/good/local/fleet.yaml", readZone)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"nearest": true, "referral": false} {
		if p := f.Policy(name); p == nil || p.IgnoreECS != want {
			t.Errorf("policy %s: %+v, want ignore_ecs %v", name, p, want)
		}
	}
}

// TestRecovery: a fleet that says nothing has the defaults, one that names a key
// keeps those of the others, and 0 is a value.
func TestRecovery(t *testing.T) {
	load := func(more string) placement.Recovery {
		t.Helper()
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS("testdata/good/small")); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "fleet.yaml")
		b, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(file, append(b, more...), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		f, err := LoadFleet(file, readZone)
		if err != nil {
			t.Fatal(err)
		}
		return f.Comeback()
	}
	want := placement.DefaultRecovery()
	if have := load(""); have != want {
		t.Errorf("%+v, want %+v", have, want)
	}
	want.Delay, want.Floor = 0, 250
	if have := load("recovery: {delay: 0s, floor: 0.25}\n"); have != want {
		t.Errorf("%+v, want %+v", have, want)
	}
}
