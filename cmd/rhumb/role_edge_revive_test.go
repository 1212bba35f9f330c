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

// TestLose: an edge that is down, and held back or not any more, is in no list at no moment.
func TestLose(t *testing.T) {
	var e edgeRole
	var doubted []string
	told := 0
	lose := func(nextDown, nextDoubted []string) {
		t.Helper()
		before, after := either(e.down, e.doubted), either(nextDown, nextDoubted)
		look := func() {
			told++
			for _, site := range before {
				if slices.Contains(after, site) && !slices.Contains(either(e.down, doubted), site) {
					t.Errorf("%s is lost before and after, and not meanwhile", site)
				}
			}
		}
		e.lose(nextDown, nextDoubted, look, func(edges []string) { doubted = edges; look() })
		if !slices.Equal(e.down, nextDown) || !slices.Equal(doubted, nextDoubted) {
			t.Errorf("down %v, held back %v, want %v and %v", e.down, doubted, nextDown, nextDoubted)
		}
	}
	lose([]string{"fra1", "nyc1"}, []string{"lhr1"})
	lose([]string{"nyc1"}, []string{"fra1", "lhr1"})
	lose([]string{"lhr1", "nyc1"}, []string{"fra1"})
	lose([]string{"fra1"}, []string{"nyc1"})
	if told == 0 {
		t.Error("nothing was told")
	}
	told = 0
	if lose([]string{"fra1"}, []string{"nyc1"}); told != 0 {
		t.Error("what is known was told again")
	}
	lose(nil, nil)
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
