package store

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"rhumb/placement"
)

// TestLateDir: what was put comes back in order, a damaged file alone is lost, and texts
// stay as long as an input names them.
func TestLateDir(t *testing.T) {
	d := NewLateDir(filepath.Join(t.TempDir(), "twin"))
	if all, refused := d.Load(); all != nil || refused != nil {
		t.Fatalf("of nothing: %v %v", all, refused)
	}
	text := []byte("@ SOA")
	sha := digest(text)
	at := time.Unix(1_700_000_000, 5).UTC()
	var want []*LateInput
	for i := range 3 {
		in := &LateInput{At: at.Add(time.Duration(i) * time.Minute), Inventory: &placement.Inventory{Revision: int64(i)}, Plan: &placement.Plan{Revision: int64(i)},
			Votes: []placement.Vote{{Object: placement.ClusterID{Site: "ams1", Name: "web"}, Vantage: "a"}}, VotesRevision: 7, Copies: map[string]LateCopy{"x.": {sha, 3}}}
		if err := d.Put(in); err != nil {
			t.Fatal(err)
		}
		want = append(want, in)
	}
	if err := d.PutCopy(sha, text); err != nil {
		t.Fatal(err)
	}
	all, refused := d.Load()
	if len(refused) > 0 || len(all) != 3 || !reflect.DeepEqual(all[1].At, want[1].At) || all[2].Inventory.Revision != 2 || !all[0].Same(want[0]) || all[0].Same(want[1]) {
		t.Fatalf("came back %v, %v", all, refused)
	}
	file := d.path(at)
	b, _ := os.ReadFile(file)
	b[len(b)-9] ^= 1
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
	if all, refused = d.Load(); len(all) != 2 || len(refused) != 1 {
		t.Errorf("with one damaged: %d whole, refused %v", len(all), refused)
	}
	if err := d.Tidy(all); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Copy(sha); err != nil || string(got) != string(text) {
		t.Errorf("a named copy: %q, %v", got, err)
	}
	if err := d.Drop(all[0].At); err != nil {
		t.Fatal(err)
	}
	if err := d.Tidy(nil); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Copy(sha); err == nil {
		t.Error("a copy that nobody names stays")
	}
}

// TestLateInventoriesAreOne: of inputs that came with one inventory none has its own after
// a restart, and one of the same number that says something else stays another.
func TestLateInventoriesAreOne(t *testing.T) {
	d := NewLateDir(t.TempDir())
	inventory := func(revision int64, mode placement.Mode) *placement.Inventory {
		return &placement.Inventory{Revision: revision, Fleet: placement.Fleet{Mode: mode}}
	}
	for i, in := range []*LateInput{
		{Inventory: inventory(7, placement.Act)},
		{Inventory: inventory(7, placement.Act), VotesRevision: 1},
		{Inventory: inventory(8, placement.Act), Planned: inventory(7, placement.Act), VotesRevision: 2},
		{Inventory: inventory(7, placement.Observe), VotesRevision: 3},
	} {
		in.At = time.Unix(1_700_000_000+int64(i), 0).UTC()
		if err := d.Put(in); err != nil {
			t.Fatal(err)
		}
	}
	all, refused := d.Load()
	if len(all) != 4 || refused != nil {
		t.Fatalf("%d, %v", len(all), refused)
	}
	if all[0].Inventory != all[1].Inventory || all[0].Inventory != all[2].Planned || all[2].Inventory.Revision != 8 {
		t.Error("an inventory stands there more than once")
	}
	if all[3].Inventory == all[0].Inventory || all[3].Inventory.Mode != placement.Observe {
		t.Error("another one was taken for it")
	}
}
