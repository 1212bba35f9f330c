package main

import (
	"strconv"
	"strings"
	"testing"

	"rhumb/internal/api"
	"rhumb/placement"
)

// serveOps serves the changes of a unit on a socket, which the command line finds.
func serveOps(t *testing.T, u *unit) {
	t.Helper()
	serveAPI(t, api.Config{State: u.apiState, Past: u.past, Delegation: u.delegation, Ops: newOps(u), Identity: api.Identity{Node: "ams1-a", Unit: "rhumb"}})
}

// showFleet lets the unit see what is in the store, as its loop would.
func showFleet(t *testing.T, u *unit) {
	t.Helper()
	for v := range u.store.Follow(t.Context()) {
		if v.Inventory != nil {
			w := *u.views.view()
			w.Inventory, w.Revision = v.Inventory, v.Revision
			u.views.publish(&w)
			return
		}
	}
	t.Fatal("the store shows no inventory")
}

// TestHistoryByHand: what was applied is listed, compared and applied anew.
func TestHistoryByHand(t *testing.T) {
	u := opsUnit(t)
	first := u.views.view().Inventory.Revision
	showFleet(t, u)
	next := u.views.view().Inventory.Fleet
	next.Policies = append([]placement.Policy(nil), next.Policies...)
	next.Policies[0].Pick++
	second, err := u.store.PutFleet(t.Context(), &next, nil, 0, "ann", "one more")
	if err != nil {
		t.Fatal(err)
	}
	showFleet(t, u)
	serveOps(t, u)
	rev := strconv.FormatInt(first, 10)

	code, out, errs := cli(t.Context(), "config", "history", "-o", "name")
	if want := strconv.FormatInt(second, 10) + "\n" + rev + "\n"; code != exitOK || out != want {
		t.Errorf("history: exit %d %q %s, want %q", code, out, errs, want)
	}
	if code, out, _ = cli(t.Context(), "config", "history"); code != exitOK || !strings.Contains(out, "in force") || !strings.Contains(out, "one more") {
		t.Errorf("history: exit %d\n%s", code, out)
	}
	if code, out, _ = cli(t.Context(), "config", "get", rev); code != exitOK || !strings.Contains(out, `"name": "`+next.Policies[0].Name+`"`) {
		t.Errorf("get: exit %d\n%s", code, out)
	}
	field := "pick " + strconv.Itoa(next.Policies[0].Pick-1) + " to " + strconv.Itoa(next.Policies[0].Pick)
	if code, out, _ = cli(t.Context(), "config", "diff", rev); code != exitOK || !strings.Contains(out, field) {
		t.Errorf("diff: exit %d\n%s, want %q", code, out, field)
	}
	if code, out, _ = cli(t.Context(), "config", "diff", rev, rev); code != exitOK || !strings.Contains(out, "nothing changes") {
		t.Errorf("diff with itself: exit %d\n%s", code, out)
	}

	if code, _, errs = cli(t.Context(), "config", "rollback", rev); code != exitUsage || !strings.Contains(errs, "--reason") {
		t.Errorf("without a reason: exit %d %s", code, errs)
	}
	if code, _, errs = cli(t.Context(), "config", "rollback", rev, "--reason", "CHG-9"); code != exitUsage || !strings.Contains(errs, "--yes") {
		t.Errorf("with nobody to ask: exit %d %s", code, errs)
	}
	code, out, errs = cli(t.Context(), "config", "rollback", rev, "--reason", "CHG-9", "--yes", "--override", "min-headroom")
	if code != exitOK || !strings.Contains(out, "applied as revision") {
		t.Fatalf("rollback: exit %d %s%s", code, out, errs)
	}
	now, err := u.store.FleetAt(t.Context(), 0)
	if err != nil || now.Policies[0].Pick != next.Policies[0].Pick-1 {
		t.Errorf("in force: %+v, %v", now, err)
	}
	all, err := u.store.History(t.Context())
	if err != nil || len(all) != 3 || all[0].Note != "back to revision "+rev+": CHG-9" {
		t.Errorf("history afterwards: %+v, %v", all, err)
	}
	showFleet(t, u)
	if code, out, _ = cli(t.Context(), "config", "rollback", rev, "--reason", "again"); code != exitOK || !strings.Contains(out, "nothing changes") {
		t.Errorf("a second time: exit %d %s", code, out)
	}
	if code, _, errs = cli(t.Context(), "config", "rollback", "99999999", "--reason", "x", "--yes"); code != exitNotFound || !strings.Contains(errs, "config history") {
		t.Errorf("to nowhere: exit %d %s", code, errs)
	}
	if code, _, _ = cli(t.Context(), "config", "diff", "yesterday"); code != exitUsage {
		t.Errorf("no revision: exit %d", code)
	}
}

// A rollback is judged like an apply, and loses against a change in between.
func TestRollbackIsJudged(t *testing.T) {
	u := opsUnit(t)
	first := u.views.view().Inventory.Revision
	showFleet(t, u)
	serveOps(t, u)
	fleet := u.views.view().Inventory.Fleet
	fleet.Sites = fleet.Sites[:1] // one site less than the rule min-sites wants
	bad, err := u.store.PutFleet(t.Context(), &fleet, nil, 0, "ann", "")
	if err != nil {
		t.Fatal(err)
	}
	good, err := ops{u}.FleetAt(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.store.PutFleet(t.Context(), good, nil, 0, "ann", ""); err != nil {
		t.Fatal(err)
	}
	showFleet(t, u)
	code, _, errs := cli(t.Context(), "config", "rollback", strconv.FormatInt(bad, 10), "--reason", "x", "--yes")
	if code != exitRefused || !strings.Contains(errs, "rollback") || !strings.Contains(errs, "refused: rule") {
		t.Errorf("exit %d %s", code, errs)
	}
	if _, err := (ops{u}).FleetAt(t.Context(), 12345678); err == nil {
		t.Error("an unknown revision was found")
	}
}

func TestFieldChanges(t *testing.T) {
	old := placement.Site{Name: "ams1", City: "Amsterdam", Clusters: []placement.Cluster{{Name: "web", Capacity: 1}, {Name: "dns"}}}
	next := placement.Site{Name: "ams1", City: strings.Repeat("é", 60), Domains: []string{"isp-a"}, Clusters: []placement.Cluster{{Name: "web", Capacity: 2}, {Name: "api"}}}
	got := fieldChanges(old, next)
	for _, want := range []string{"city Amsterdam to " + strings.Repeat("é", 48) + "…", `domains nothing to ["isp-a"]`, "clusters.web.capacity 1 to 2", "clusters.dns {"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
	if got := fieldChanges(old, old); got != "" {
		t.Errorf("nothing changed: %q", got)
	}
}
