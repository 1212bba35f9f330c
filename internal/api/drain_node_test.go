package api

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/placement"
)

// TestDrainOfANode: a node is drained by its name, SITE/NODE, and does not return by itself.
func TestDrainOfANode(t *testing.T) {
	st, ops := testState(t), &fakeOps{}
	st.Inventory.Sites[1].Nodes = []placement.EdgeNode{{Name: "n1"}, {Name: "n2"}}
	s, err := New(Config{State: func() State { return st }, Gatherer: prometheus.NewRegistry(), Ops: Ops{Drainer: ops}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path, body string
		code       int
		want       string
	}{
		{"nyc1%2Fn1/drain", `{"reason":"disk"}`, 200, `"object":"nyc1/n1"`},
		{"nyc1%2Fn1/drain", `{"reason":"disk","for":"1m","return":"auto"}`, 400, "by itself"},
		{"nyc1%2Fn3/drain", `{"reason":"disk"}`, 404, "nyc1/n3"},
		{"nyc1%2Fn1/undrain", `{}`, 200, ""},
		{"nyc1%2Fn1/dial", `{"percent":10,"reason":"heat"}`, 404, "nyc1/n1"},
	} {
		w := as(s, operator(), "POST", "/api/v1/sites/"+c.path, c.body)
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s %s: %d %s", c.path, c.body, w.Code, w.Body)
		}
	}
	if ops.drain.Site != "nyc1/n1" {
		t.Errorf("drained %+v", ops.drain)
	}
}
