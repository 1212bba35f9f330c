package edge

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// entered are sessions with a Backup each, told of once, at an agent with links to both of its peers.
func entered(t *testing.T, n int) (*Agent, []*session, map[string]*link) {
	t.Helper()
	a, first, links := backed(t)
	for _, l := range links {
		l.out = make(chan []byte, 1<<12)
	}
	all := []*session{first}
	for i := 1; i < n; i++ {
		s := &session{key: testKey(1 + i), svc: first.svc}
		s.changed = a.replica.changed
		s.turn.Store(idleTurn(s.svc.id))
		a.tab.add(s, n)
		all = append(all, s)
	}
	for _, s := range all {
		a.replica.tell(t.Context(), s, time.Now())
	}
	a.replica.out.flush()
	return a, all, links
}

// at counts the sessions of each Backup.
func at(all []*session) map[string]int {
	out := map[string]int{}
	for _, s := range all {
		b := s.backup[tierFar].Load()
		if b == nil {
			out[""]++
			continue
		}
		out[*b]++
	}
	return out
}

// TestDoubtedIsNoBackup: a site that is down but for the removal cap gets no record, and those that it has go elsewhere
// and are taken back there; where all others are in doubt nothing moves, and nothing is told twice.
func TestDoubtedIsNoBackup(t *testing.T) {
	a, all, links := entered(t, 40)
	had := at(all)
	if had["a"] == 0 || had["c"] == 0 {
		t.Fatalf("Backups %v", had)
	}
	links["a"].frames(t)
	links["c"].frames(t)
	sweep := func() string {
		t.Helper()
		a.replica.sweep(t.Context(), time.Now())
		a.replica.out.flush()
		return fmt.Sprintf("%v, %d words to a, %d to c", at(all), len(links["a"].frames(t)), len(links["c"].frames(t)))
	}
	a.SetDoubted([]string{"a", "c"})
	if got, want := sweep(), fmt.Sprintf("%v, 0 words to a, 0 to c", had); got != want {
		t.Errorf("all are in doubt: %s, want %s", got, want)
	}
	a.SetDoubted([]string{"a"})
	if got, want := sweep(), fmt.Sprintf("map[c:40], %d words to a, %d to c", had["a"], had["a"]); got != want {
		t.Errorf("a is in doubt: %s, want %s", got, want)
	}
	s := &session{key: testKey(99), svc: all[0].svc}
	s.changed = a.replica.changed
	s.turn.Store(idleTurn(s.svc.id))
	a.tab.add(s, 100)
	for range 9 { // by its order it would be a's
		if order := rendezvous(s.key, a.view.Load().peers); order[0].Name == "a" {
			break
		}
		a.tab.remove(s)
		s.key.Client = testKey(int(s.key.Client.Port()) + 1).Client
		a.tab.add(s, 100)
	}
	a.replica.tell(t.Context(), s, time.Now())
	if b := s.backup[tierFar].Load(); b == nil || *b != "c" {
		t.Errorf("a new session's Backup is %v", b)
	}
	if first := a.First(s.key); !slices.Equal(first, []string{"c"}) {
		t.Errorf("asked first is %v", first)
	}
	if targets := a.targets(&drain{}); len(targets) != 1 || targets[0].Name != "c" {
		t.Errorf("a drain goes to %v", targets)
	}
	if targets := a.targets(&drain{to: []string{"a"}}); len(targets) != 1 || targets[0].Name != "a" {
		t.Errorf("a drain to a goes to %v", targets)
	}
}

// TestPlacedAnewInTurn: of a site's records so many leave in one sweep, the others with the next; who has a new turn
// does not wait.
func TestPlacedAnewInTurn(t *testing.T) {
	a, all, _ := entered(t, 3*anewMost)
	had := at(all)["a"]
	if had <= anewMost || had >= 2*anewMost {
		t.Fatalf("%d of %d are a's: this shows nothing", had, len(all))
	}
	a.SetDown([]string{"a"})
	a.replica.sweep(t.Context(), time.Now())
	a.replica.out.flush()
	if left := at(all)["a"]; left != had-anewMost {
		t.Errorf("%d of %d are left, want %d to have gone", left, had, anewMost)
	}
	i := slices.IndexFunc(all, func(s *session) bool { return *s.backup[tierFar].Load() == "a" })
	all[i].turn.Store(idleTurn(all[i].svc.id))
	if a.replica.anew(t.Context(), all[i], tierFar, time.Now(), false) != 1 {
		t.Error("a new turn waits for the next sweep")
	}
	a.replica.out.flush()
	a.replica.sweep(t.Context(), time.Now())
	a.replica.out.flush()
	if got := at(all); got["c"] != len(all) {
		t.Errorf("after the next sweep %v", got)
	}
}
