package api

import (
	"slices"
	"strings"
	"testing"
)

// TestRollback: the kept fleet goes to the Applier in the caller's name, with why,
// and nothing that was revoked since is believed again.
func TestRollback(t *testing.T) {
	ops := &fakeOps{}
	s := testServer(t, ops)
	w := as(s, operator(), "POST", "/api/v1/config/rollback", `{"revision":800,"reason":"CHG-7","expect":900,"override":["min-headroom"]}`)
	if w.Code != 200 || !strings.Contains(w.Body.String(), `"revision":901`) {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	a := ops.apply
	if a.Fleet.Mode != "act" || a.Who != "eve" || a.Note != "back to revision 800: CHG-7" || a.Expect != 900 || a.DryRun || len(a.Override) != 1 {
		t.Errorf("applied %+v", a)
	}
	if !slices.Equal(a.Fleet.Revoked, []string{"aa", "bb"}) {
		t.Errorf("revoked %v", a.Fleet.Revoked)
	}
	for body, want := range map[string]int{
		`{"revision":800}`:                                   400, // no reason
		`{"reason":"x"}`:                                     400,
		`{"revision":-1,"reason":"x"}`:                       400,
		`{"revision":800,"reason":"x","override":["luck"]}`:  400,
		`{"revision":801,"reason":"x"}`:                      404,
		`{"revision":800,"reason":"x","dry_run":true}`:       200,
		`{"revision":800,"reason":"x","without_rules":true}`: 400,
	} {
		if w := as(s, operator(), "POST", "/api/v1/config/rollback", body); w.Code != want {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
	if w := as(s, caller{role: roleRead}, "POST", "/api/v1/config/rollback", `{"revision":800,"reason":"x"}`); w.Code != 403 {
		t.Errorf("a reader went back: %d", w.Code)
	}
	for path, want := range map[string]int{"/api/v1/config/801": 404, "/api/v1/config/x": 400, "/api/v1/config/diff?from=-1": 400, "/api/v1/config/diff?from=801": 404} {
		if w := as(s, operator(), "GET", path, ""); w.Code != want {
			t.Errorf("GET %s: %d", path, w.Code)
		}
	}
}
