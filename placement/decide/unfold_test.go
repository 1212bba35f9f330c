package decide

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"rhumb/placement"
)

func TestUnfoldDeadSiteMovesItsClientsOnly(t *testing.T) {
	inv, ct := fleet(3), classes(t)
	votes := allUp(inv)
	plan, refusals := Plan(PlanInput{Inventory: inv, Classes: ct, Votes: votes, VotesRevision: 1, Now: epoch()})
	if len(refusals) > 0 {
		t.Fatal(refusals)
	}
	up := mustUnfold(t, inv, ct, plan, votes, 1)
	if r := up.Check(); r != nil {
		t.Fatal(r)
	}
	if up.Digest != plan.Digest {
		t.Errorf("digest %s, plan says %s", up.Digest, plan.Digest)
	}
	want := []string{"ams1", "nyc1", "sin1", "ams1", "nyc1", "sin1", "ams1:333 nyc1:334 sin1:333"}
	if got := heads(up, "www"); !slices.Equal(got, want) {
		t.Errorf("all up: %q, want %q", got, want)
	}
	dead := killed(inv, votes, "ams1", time.Minute)
	down := mustUnfold(t, inv, ct, plan, dead, 2)
	want = []string{"nyc1", "nyc1", "sin1", "nyc1", "nyc1", "sin1", "nyc1:500 sin1:500"}
	if got := heads(down, "www"); !slices.Equal(got, want) {
		t.Errorf("ams1 dead: %q, want %q", got, want)
	}
	next, _ := Plan(PlanInput{Inventory: inv, Classes: ct, Votes: dead, VotesRevision: 2, Prev: plan, Now: epoch().Add(time.Minute)})
	if got := heads(mustUnfold(t, inv, ct, next, dead, 2), "www"); !slices.Equal(got, want) {
		t.Errorf("the next plan moves clients again: %q, want %q", got, want)
	}
	back := mustUnfold(t, inv, ct, next, votes, 3)
	if got := heads(back, "www"); !slices.Equal(got, want) {
		t.Errorf("up again, but no plan yet: %q, want %q", got, want)
	}
	if out := back.Map("www").Rows[0].Candidates[0].Out; out != placement.OutDialled {
		t.Errorf("ams1 is %v, want dialled", out)
	}
}

// TestSurvivesTheStore: a plan and an inventory that went through JSON unfold to
// the same digest, whatever the policy is made of.
func TestSurvivesTheStore(t *testing.T) {
	eachHistory(t, 20, func(t *testing.T, h *history) {
		var plan placement.Plan
		var inv placement.Inventory
		var votes []placement.Vote
		for _, pair := range [][2]any{{h.plan, &plan}, {h.inv, &inv}, {h.votes, &votes}} {
			text, err := json.Marshal(pair[0])
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(text, pair[1]); err != nil {
				t.Fatal(err)
			}
		}
		want := h.state(t)
		got := mustUnfold(t, &inv, h.ct, &plan, votes, h.rev)
		if got.Digest != want.Digest {
			t.Errorf("digest %s, through the store %s", want.Digest, got.Digest)
		}
	})
}
