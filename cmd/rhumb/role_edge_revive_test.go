package main

import (
	"slices"
	"testing"
	"time"

	"rhumb/placement"
)

// TestDownSites: only sites, only others, only what is down; what is held back apart.
func TestDownSites(t *testing.T) {
	s := &placement.Snapshot{Verdicts: []placement.Verdict{
		{Object: placement.SiteID("ams1"), State: placement.Down},
		{Object: placement.ClusterID{Site: "fra1", Name: "web"}, State: placement.Down},
		{Object: placement.SiteID("fra1"), State: placement.Path},
		{Object: placement.SiteID("lhr1"), State: placement.Down, Capped: true},
		{Object: placement.SiteID("nyc1"), State: placement.Down},
	}}
	if got := downSites(s, "ams1", false); !slices.Equal(got, []string{"nyc1"}) {
		t.Errorf("down: %v, want nyc1 alone", got)
	}
	if got := downSites(s, "ams1", true); !slices.Equal(got, []string{"lhr1"}) {
		t.Errorf("down and held back: %v, want lhr1 alone", got)
	}
}

func TestRevivedEvents(t *testing.T) {
	var told int64
	if ev := revivedEvents(&told, 12, time.Unix(1, 0)); len(ev) != 1 || ev[0].Text != "12 sessions revived here after a crash" {
		t.Errorf("told %+v", ev)
	}
	if ev := revivedEvents(&told, 12, time.Unix(2, 0)); len(ev) != 0 {
		t.Errorf("told again: %+v", ev)
	}
}
