package main

import (
	"context"
	"strings"
	"testing"

	"rhumb/placement"
	"rhumb/placement/decide"
	"rhumb/placement/node"
	"rhumb/placement/store"
)

// TestExplainThePast: the answer of a state in which a site was down, asked when it
// is up again: from the store's plans and votes, and from the disk.
func TestExplainThePast(t *testing.T) {
	u := opsUnit(t)
	u.cfg.Node.DataDir = t.TempDir()
	showFleet(t, u)
	inv := u.views.view().Inventory
	ctx := t.Context()
	name, dead := publishedState(t, u, inv, "ams1")
	serveOps(t, u)

	service := inv.Services[0]
	for i := range inv.Services {
		if len(inv.Services[i].Names) > 0 {
			service = inv.Services[i]
		}
	}
	ask := []string{"explain", service.Names[0], "--client", "192.0.2.1"}
	code, out, errs := cli(ctx, ask...)
	if code != exitOK || strings.Contains(out, "as it was at") {
		t.Fatalf("now: exit %d\n%s%s", code, out, errs)
	}
	code, out, errs = cli(ctx, append(ask, "--at", name.String(), "-v")...)
	if code != exitOK || !strings.Contains(out, "as it was at "+name.String()) || !strings.Contains(out, "snapshot "+name.String()) || !strings.Contains(out, "down") {
		t.Errorf("then: exit %d\n%s%s", code, out, errs)
	}
	if now := u.current.Load().Name.String(); now == name.String() {
		t.Fatal("the state of the past is in force")
	} else if code, out, _ = cli(ctx, append(ask, "--at", now)...); code != exitOK || strings.Contains(out, "as it was") {
		t.Errorf("the present by its name: exit %d\n%s", code, out)
	}

	for at, want := range map[string]int{"9999.1": exitNotFound, "1.99999999": exitNotFound, name.String() + "+p": exitNotFound, "yesterday": exitUsage} {
		if code, _, errs := cli(ctx, append(ask, "--at", at)...); code != want {
			t.Errorf("--at %s: exit %d %s", at, code, errs)
		}
	}

	// A state whose plan the store never had: the disk knows it.
	kept := *dead.Plan
	kept.Revision = 777
	s, err := decide.Unfold(inv, dead.Classes, &kept, decide.Fold(inv, votesOf(inv, "ams1"), &kept), 5, false)
	if err != nil {
		t.Fatal(err)
	}
	save := func(digest, table string) {
		plan := kept
		plan.Inputs.ClassTable = table
		if err := diskOf(u.cfg.Node.DataDir).Save(node.State{Inventory: inv, Plan: &plan, Votes: votesOf(inv, "ams1"), Name: "777.5", Digest: digest}); err != nil {
			t.Fatal(err)
		}
	}
	save(s.Digest, dead.Classes.Digest)
	if code, out, errs := cli(ctx, append(ask, "--at", "777.5")...); code != exitOK || !strings.Contains(out, "777.5") {
		t.Errorf("from the disk: exit %d\n%s%s", code, out, errs)
	}
	u.cfg.Node.DataDir = t.TempDir()
	save("another", dead.Classes.Digest)
	if code, _, errs := cli(ctx, append(ask, "--at", "777.5")...); code != exitNotFound || !strings.Contains(errs, "another release") {
		t.Errorf("another digest: exit %d %s", code, errs)
	}
	u.cfg.Node.DataDir = t.TempDir()
	save(s.Digest, "another")
	if code, _, errs := cli(ctx, append(ask, "--at", "777.5")...); code != exitNotFound || !strings.Contains(errs, "class table") {
		t.Errorf("another class table: exit %d %s", code, errs)
	}
}

// publishedState puts a plan and votes into the store, by which a site is down, and
// then the votes by which it is up again.
func publishedState(t *testing.T, u *unit, inv *placement.Inventory, dead string) (placement.Name, *placement.Snapshot) {
	t.Helper()
	ctx := t.Context()
	snap := snapshotOf(t, inv, u.classes, dead, 1)
	term, err := u.store.Campaign(ctx, "ams1-a")
	if err != nil {
		t.Fatal(err)
	}
	plan := *snap.Plan
	plan.Inputs.Inventory, plan.Inputs.ClassTable = inv.Revision, snap.Classes.Digest
	plan.Digest = ""
	name := placement.Name{}
	if name.Plan, err = u.store.Publish(ctx, term, &plan); err != nil {
		t.Fatal(err)
	}
	session := u.store.Session("ams1-a", 0)
	run, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- session.Run(run) }()
	t.Cleanup(func() { stop(); <-ended })
	name.Votes = castVotes(t, u, session, votesOf(inv, dead))
	castVotes(t, u, session, votesOf(inv, ""))
	return name, snap
}

// castVotes casts votes and returns the revision at which all of them stand.
func castVotes(t *testing.T, u *unit, session *store.Session, votes []placement.Vote) int64 {
	t.Helper()
	type key struct {
		object  placement.ClusterID
		vantage string
	}
	want := make(map[key]placement.State)
	for _, v := range votes {
		want[key{v.Object, v.Vantage}] = v.State
		session.SetVote(v)
	}
	for v := range u.store.Follow(t.Context()) {
		standing := 0
		for _, vote := range v.Votes {
			if want[key{vote.Object, vote.Vantage}] == vote.State {
				standing++
			}
		}
		if standing == len(want) {
			return v.VotesRevision
		}
	}
	t.Fatal("the votes never stood")
	return 0
}
