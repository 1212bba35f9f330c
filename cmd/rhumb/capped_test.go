package main

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/placement"
)

// TestCappedCounter: each beginning counts once, however many snapshots say so.
func TestCappedCounter(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := newCappedCounter(reg)
	web := placement.ClusterID{Site: "ams1", Name: "web"}
	for _, capped := range []bool{false, true, true, false, true} {
		c.Apply(t.Context(), &placement.Snapshot{Verdicts: []placement.Verdict{{Object: web, State: placement.Down, Capped: capped}}})
	}
	all, err := reg.Gather()
	if err != nil || len(all) != 1 || len(all[0].Metric) != 1 || all[0].Metric[0].GetCounter().GetValue() != 2 {
		t.Errorf("%v %v, want 2", all, err)
	}
}
