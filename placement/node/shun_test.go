package node

import (
	"testing"
	"testing/synctest"
	"time"

	"rhumb/placement"
)

// TestShunsAloneAndTakesBack: a site that this one alone cannot reach is left out of
// this node's answers, under a name of its own, and no state of it is kept on disk;
// a word of any other site ends it, and a freeze does not.
func TestShunsAloneAndTakesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, new(fakeDisk))
		b.run()
		defer b.stop()
		from := func(site, of string, s placement.State, seq uint64) placement.Vote {
			v := says(site, s, seq)
			v.Object = placement.SiteID(of)
			return v
		}
		up := []placement.Vote{from("ams1", "ams1", placement.Up, 1), from("nyc1", "nyc1", placement.Up, 1), from("sin1", "sin1", placement.Up, 1)}
		plan := b.plan(5, up, 1)
		b.show(View{Inventory: b.inv, Plan: plan, Votes: up, VotesRevision: 1, Connected: true, Heartbeat: time.Now()})
		b.want("5.1")
		kept := len(b.disk.saved)
		nyc := placement.ClusterID{Site: "nyc1", Name: "web"}

		down := append(up, from("ams1", "nyc1", placement.Down, 2))
		b.show(View{Inventory: b.inv, Plan: plan, Votes: down, VotesRevision: 2, Connected: true, Heartbeat: time.Now()})
		s := b.want("5.2+p")
		if v := s.Verdict(nyc); !v.Shunned || v.State == placement.Down || v.Usable() {
			t.Errorf("%+v, want shunned and not down", v)
		}
		for _, a := range s.Announcements {
			if a.Want != placement.Announce {
				t.Errorf("a route is lowered for it: %+v", a)
			}
		}
		if len(b.disk.saved) != kept {
			t.Error("a state of this node alone is kept on disk")
		}

		b.heard <- []placement.Vote{from("sin1", "nyc1", placement.Up, 2)}
		synctest.Wait()
		if v := b.want("5.2+p").Verdict(nyc); v.Shunned || !v.Usable() {
			t.Errorf("sin1 hears it, yet %+v", v)
		}
		b.heard <- nil
		synctest.Wait()
		if !b.want("5.2+p").Verdict(nyc).Shunned {
			t.Error("sin1 is silent again")
		}
		frozen := *b.inv
		frozen.Freeze = placement.Freeze{Audit: placement.Audit{Who: "op", Reason: "x", Since: time.Now()}}
		b.show(View{Inventory: &frozen, Recent: []*placement.Inventory{b.inv}, Plan: plan, Votes: down, VotesRevision: 2, Connected: true, Heartbeat: time.Now()})
		if v := b.current.Load().Verdict(nyc); !v.Shunned {
			t.Errorf("decisions are frozen, and it changed: %+v", v)
		}
	})
}
