package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rhumb/authdns/zone"
)

// readZone is the reader that the product uses, so that the samples are judged
// as they would be in the field.
func readZone(origin, file string, data []byte) (ZoneInfo, error) {
	z, err := zone.Parse(file, origin, strings.NewReader(string(data)))
	if err != nil {
		return ZoneInfo{}, err
	}
	return ZoneInfo{Names: z.Names()}, nil
}

// TestGoodSamples: what is right loads.
func TestGoodSamples(t *testing.T) {
	for _, file := range []string{"testdata/good/small/fleet.yaml", "testdata/good/local/fleet.yaml", "../../etc/lab/fleet/fleet.yaml", "../../etc/lab/root/fleet.yaml", "../../etc/fleet.yaml"} {
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
