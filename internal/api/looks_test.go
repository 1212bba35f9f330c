package api

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"rhumb/placement"
)

func (f *fakeOps) LookNow(_ context.Context, r placement.LookRequest) (placement.LookRequest, error) {
	r.ID = "l1"
	return r, f.err
}

// looking is ams1 with two vantages, of which one has answered a request, and nyc1.
func looking(answers ...placement.LookAnswer) State {
	return State{Looks: []placement.LookRequest{{ID: "l1", Site: "ams1", Who: "ann"}}, Looked: answers, Nodes: []placement.Node{
		{Name: "ams1-a", Site: "ams1", Roles: []string{"bgp", "health"}}, {Name: "ams1-a", Site: "ams1", Roles: []string{"authdns"}},
		{Name: "ams1-b", Site: "ams1", Roles: []string{"health"}}, {Name: "nyc1-a", Site: "nyc1", Roles: []string{"health"}}}}
}

func TestLookReport(t *testing.T) {
	whole := placement.LookAnswer{Request: "l1", Vantage: "ams1-a", Total: 3, Failed: 1}
	part := placement.LookAnswer{Request: "l1", Vantage: "ams1-b", Total: 1, Blind: 1, Open: 2}
	other := placement.LookAnswer{Request: "l0", Vantage: "ams1-b", Total: 9, Failed: 9}
	for name, c := range map[string]struct {
		answers []placement.LookAnswer
		awaited string
	}{
		"nobody yet":   {nil, "ams1-a ams1-b"},
		"one of two":   {[]placement.LookAnswer{other, whole}, "ams1-b"},
		"one in part":  {[]placement.LookAnswer{part, whole}, "ams1-b"},
		"all of them":  {[]placement.LookAnswer{whole, {Request: "l1", Vantage: "ams1-b"}}, ""},
		"one has left": {[]placement.LookAnswer{whole, {Request: "l1", Vantage: "ams1-b"}, {Request: "l1", Vantage: "ams1-c", Total: 1}}, ""},
	} {
		r, ok := LookReportOf(looking(c.answers...), "l1")
		if !ok || strings.Join(r.Awaited, " ") != c.awaited || r.Done != (c.awaited == "") {
			t.Errorf("%s: want %q awaited, have %+v", name, c.awaited, r)
		}
	}
	r, _ := LookReportOf(looking(part, whole, other), "l1")
	if r.Failed != 1 || r.Blind != 1 || r.Answers[0].Vantage != "ams1-a" {
		t.Errorf("want one failed and one blind, ams1-a first, have %+v", r)
	}
	if _, ok := LookReportOf(looking(), "l2"); ok {
		t.Error("a request that nobody made is known")
	}
}

func TestLookOverHTTP(t *testing.T) {
	ops := &fakeOps{}
	s := testServer(t, ops)
	for name, c := range map[string]struct {
		who  caller
		body string
		code int
		want string
	}{
		"whole fleet":        {operator(), `{}`, 200, `"id":"l1"`},
		"one cluster":        {operator(), `{"site":"ams1","cluster":"web","reason":"new disk"}`, 200, `"reason":"new disk"`},
		"who asks is noted":  {operator(), `{"site":"ams1"}`, 200, `"who":"eve"`},
		"readers may not":    {caller{role: roleRead, who: "bob"}, `{}`, 403, "read only"},
		"no such site":       {operator(), `{"site":"sin1"}`, 404, "sin1"},
		"no such cluster":    {operator(), `{"site":"ams1","cluster":"gone"}`, 404, "ams1/gone"},
		"no such check":      {operator(), `{"check":"gone"}`, 404, "gone"},
		"cluster of no site": {operator(), `{"cluster":"web"}`, 400, "name it, too"},
	} {
		w := as(s, c.who, "POST", "/api/v1/checks/looks", c.body)
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s: %d %s, want %d with %q", name, w.Code, w.Body, c.code, c.want)
		}
		var r LookReport
		if c.code == 200 && (json.Unmarshal(w.Body.Bytes(), &r) != nil || r.Done) {
			t.Errorf("%s: done before the store has told of it: %s", name, w.Body)
		}
	}
	if w := as(s, caller{role: roleRead}, "GET", "/api/v1/checks/looks/l9", ""); w.Code != 404 {
		t.Errorf("an unknown request: %d, want 404", w.Code)
	}
}
