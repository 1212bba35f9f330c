package store

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"rhumb/placement"
)

func stateAt(plan, votes int64) *State {
	f, _ := sample(nil)
	return &State{Name: placement.Name{Plan: plan, Votes: votes}, Digest: fmt.Sprintf("d%d", plan),
		Inventory: &placement.Inventory{Revision: 7, Fleet: *f}, Plan: &placement.Plan{Revision: plan},
		Votes: []placement.Vote{{Object: placement.ClusterID{Site: "ams1", Name: "web"}, State: placement.Down}}}
}

// saveAt saves a state as if it had been written at that second.
func saveAt(t *testing.T, d *Disk, s *State, second int64) {
	t.Helper()
	if err := d.Save(s); err != nil {
		t.Fatal(err)
	}
	at := time.Unix(second, 0)
	if err := os.Chtimes(filepath.Join(d.dir, s.file()), at, at); err != nil {
		t.Fatal(err)
	}
}

func TestDiskKeepsTheLastThree(t *testing.T) {
	d := NewDisk(filepath.Join(t.TempDir(), "states"))
	if s, refused := d.Load(); s != nil || refused != nil {
		t.Errorf("before the first: %v, %v", s, refused)
	}
	for i := range int64(5) {
		saveAt(t, d, stateAt(1000+i, i), 100+i)
	}
	names, err := d.names()
	if err != nil || strings.Join(names, " ") != "snapshot-1004.4-d1004 snapshot-1003.3-d1003 snapshot-1002.2-d1002" {
		t.Errorf("kept %v, %v", names, err)
	}
	s, refused := d.Load()
	if len(refused) > 0 || s == nil || s.Name.String() != "1004.4" || s.Inventory.Revision != 7 ||
		len(s.Inventory.Sites) != 3 || s.Votes[0].State != placement.Down {
		t.Errorf("loaded %+v, refused %v", s, refused)
	}
}

func TestDiskDamage(t *testing.T) {
	whole := encodeState(stateAt(1002, 1))
	for _, tt := range []struct {
		name string
		file []byte
		want string
	}{
		{"empty", nil, "not a state file"},
		{"cut short", whole[:len(whole)/2], "checksum"},
		{"one bit", append(bytes.Clone(whole[:len(whole)-1]), whole[len(whole)-1]^1), "checksum"},
		{"another release's", []byte("rhumb-state-2 x\n"), "not a state file"},
		{"under another name", encodeState(stateAt(1001, 1)), "holds snapshot-1001.1-d1001"},
		{"without a plan", encodeState(&State{Name: placement.Name{Plan: 1002, Votes: 1}, Digest: "d1002"}), "without inventory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := NewDisk(t.TempDir())
			saveAt(t, d, stateAt(1000, 9), 100)
			bad := stateAt(1002, 1)
			saveAt(t, d, bad, 200)
			path := filepath.Join(d.dir, bad.file())
			if err := os.WriteFile(path, tt.file, 0o600); err != nil {
				t.Fatal(err)
			}
			s, refused := d.Load()
			if s == nil || s.Name.String() != "1000.9" {
				t.Fatalf("loaded %v", s)
			}
			if len(refused) != 1 || !strings.Contains(refused[0].Error(), tt.want) {
				t.Errorf("refused %v, want %q", refused, tt.want)
			}
		})
	}
}

// Units of one machine write the same states at the same time.
func TestDiskSharedByUnits(t *testing.T) {
	dir := t.TempDir()
	var units sync.WaitGroup
	for range 4 {
		units.Go(func() {
			d := NewDisk(dir)
			for i := range int64(8) {
				if err := d.Save(stateAt(1000+i, 1)); err != nil {
					t.Error(err)
				}
				if s, refused := d.Load(); s == nil {
					t.Errorf("nothing whole while others write: %v", refused)
				}
			}
		})
	}
	units.Wait()
	if s, refused := NewDisk(dir).Load(); s == nil || len(refused) > 0 {
		t.Errorf("after all: %v, %v", s, refused)
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) > keptStates+3 { // each of four may keep three at a moment; tmp files must be gone
		t.Errorf("%d files left", len(entries))
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			t.Errorf("left behind: %s", e.Name())
		}
	}
}

func FuzzDecodeState(f *testing.F) {
	f.Add(encodeState(stateAt(1, 1)))
	f.Add([]byte(stateMagic + "\n"))
	f.Add([]byte(stateMagic + digest(nil) + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeState(b)
		if err != nil {
			return
		}
		again, err := decodeState(encodeState(s))
		if err != nil || again.file() != s.file() {
			t.Errorf("%v does not come back: %v", s.file(), err)
		}
	})
}
