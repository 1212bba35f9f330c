package decide

import (
	"fmt"
	"testing"
	"time"

	"rhumb/placement"
)

// TestQuorum is the table in the comment above Fold, counted out: n domains vote
// on a site, and k of them say down.
func TestQuorum(t *testing.T) {
	needed := map[int]int{2: 2, 3: 2, 4: 3, 5: 3}
	for n := 1; n <= 5; n++ {
		for k := 0; k <= n; k++ {
			t.Run(fmt.Sprintf("%d of %d", k, n), func(t *testing.T) {
				inv := fleet(6)
				var votes []placement.Vote
				for i, s := range inv.Sites[1 : n+1] {
					state := placement.Up
					if i < k {
						state = placement.Down
					}
					votes = append(votes, vote(s.Name, inv.Sites[0].Name+"/-", state, placement.NoFault, time.Duration(i)*time.Second))
				}
				for _, s := range inv.Sites[1:] { // all are fresh
					votes = append(votes, vote(s.Name, s.Name+"/web", placement.Up, placement.NoFault, 0))
				}
				got := verdictOf(Fold(inv, votes, nil), placement.SiteID(inv.Sites[0].Name))
				want := placement.Up
				switch need := needed[n]; {
				case need > 0 && k >= need:
					want = placement.Down
				case k > 0:
					want = placement.Path
				}
				if got.State != want || got.Domains != n || got.DownDomains != k {
					t.Errorf("%v by %d of %d, want %v", got.State, got.DownDomains, got.Domains, want)
				}
				if want == placement.Down && !got.Since.Equal(epoch().Add(time.Duration(needed[n]-1)*time.Second)) {
					t.Errorf("since %v: not when the quorum was reached", got.Since.Sub(epoch()))
				}
			})
		}
	}
}

func TestOneVote(t *testing.T) {
	web := placement.ClusterID{Site: "ams1", Name: "web"}
	cases := []struct {
		name  string
		votes []placement.Vote
		want  placement.State
		fault placement.Fault
	}{
		{"nothing heard", nil, placement.Unknown, ""},
		{"own local", []placement.Vote{vote("ams1", "ams1/web", placement.Down, placement.LocalFault, 0)}, placement.Down, placement.LocalFault},
		{"own shared", []placement.Vote{vote("ams1", "ams1/web", placement.Down, placement.SharedFault, 0)}, placement.Down, placement.SharedFault},
		{"own degraded", []placement.Vote{vote("ams1", "ams1/web", placement.Degraded, "", 0)}, placement.Degraded, ""},
		{"one of two own vantages still sees it up", []placement.Vote{
			vote("ams1", "ams1/web", placement.Down, placement.LocalFault, 0), second(vote("ams1", "ams1/web", placement.Up, "", 0))}, placement.Up, ""},
		{"two own vantages disagree on the fault", []placement.Vote{
			vote("ams1", "ams1/web", placement.Down, placement.LocalFault, 0), second(vote("ams1", "ams1/web", placement.Down, placement.SharedFault, 0))}, placement.Down, placement.SharedFault},
		{"a later vote of the same vantage", []placement.Vote{
			vote("ams1", "ams1/web", placement.Down, placement.LocalFault, 0), vote("ams1", "ams1/web", placement.Up, "", time.Second)}, placement.Up, ""},
		{"a vantage that has left the fleet", []placement.Vote{vote("old1", "ams1/web", placement.Down, "", 0)}, placement.Unknown, ""},
		{"one foreign domain", []placement.Vote{vote("nyc1", "ams1/web", placement.Down, "", 0)}, placement.Path, ""},
		{"two foreign domains beat the own word", []placement.Vote{vote("ams1", "ams1/web", placement.Up, "", 0),
			vote("nyc1", "ams1/web", placement.Down, "", 0), vote("sin1", "ams1/web", placement.Down, "", 0)}, placement.Down, ""},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			inv := fleet(3)
			votes := tc.votes
			for _, s := range inv.Sites[1:] { // enough are fresh
				votes = append(votes, vote(s.Name, s.Name+"/dns", placement.Up, "", 0))
			}
			got := verdictOf(Fold(inv, votes, nil), web)
			if got.State != tc.want || got.Fault != tc.fault {
				t.Errorf("%v (%q), want %v (%q)", got.State, got.Fault, tc.want, tc.fault)
			}
		})
	}
}

// second makes it the vote of another node of the site.
func second(v placement.Vote) placement.Vote {
	v.Vantage = v.Site + "-b"
	return v
}

// TestSharedDomainIsOneVoice: observers behind one provider count once, and only
// if they agree.
func TestSharedDomainIsOneVoice(t *testing.T) {
	inv := fleet(6)
	for _, name := range []string{"nyc1", "lax1"} {
		inv.Site(name).Domains = []string{"isp-a"}
	}
	down := func(sites ...string) *placement.Verdict {
		votes := allUp(inv)
		for _, s := range sites {
			votes = append(votes, vote(s, "ams1/-", placement.Down, "", time.Minute))
		}
		return verdictOf(Fold(inv, votes, nil), placement.SiteID("ams1"))
	}
	if v := down("nyc1", "fra1"); v.DownDomains != 1 || v.Domains != 4 || v.State != placement.Path {
		t.Errorf("lax1 sees it up, so isp-a must not count: %+v", v)
	}
	if v := down("nyc1", "lax1", "fra1", "sin1"); v.DownDomains != 3 || v.State != placement.Down {
		t.Errorf("three of four: %+v", v)
	}
}

func TestTwoSites(t *testing.T) {
	inv := fleet(2)
	votes := append(allUp(inv), vote("nyc1", "ams1/-", placement.Down, "", time.Minute))
	if v := verdictOf(Fold(inv, votes, nil), placement.SiteID("ams1")); v.State != placement.Path {
		t.Errorf("its own site still speaks, yet %v", v.State)
	}
	if v := verdictOf(Fold(inv, without(votes, "ams1"), nil), placement.ClusterID{Site: "ams1", Name: "web"}); v.State != placement.Down || v.Capped {
		t.Errorf("silent and not reached, yet %+v", v)
	}
}

// TestCapPrefersWhatIsOut: who went first stays out, whatever the later votes
// say of their age.
func TestCapPrefersWhatIsOut(t *testing.T) {
	inv := fleet(6)
	web := func(site string) placement.ClusterID { return placement.ClusterID{Site: site, Name: "web"} }
	votes := append(allUp(inv), vote("ams1", "ams1/web", placement.Down, placement.LocalFault, time.Minute), vote("nyc1", "nyc1/web", placement.Down, placement.LocalFault, time.Second))
	if v := Fold(inv, votes, nil); !verdictOf(v, web("ams1")).Capped || verdictOf(v, web("nyc1")).Capped {
		t.Error("the older one must go")
	}
	plan := &placement.Plan{Down: []placement.ClusterID{web("ams1")}}
	if v := Fold(inv, votes, plan); verdictOf(v, web("ams1")).Capped || !verdictOf(v, web("nyc1")).Capped {
		t.Error("the one that is out already must stay out")
	}
}

// TestDrainedSitesDoNotCount: a site under repair is no evidence that the
// monitor is broken.
func TestDrainedSitesDoNotCount(t *testing.T) {
	inv := fleet(3)
	inv.Drains = []placement.Drain{{Site: "ams1", Audit: placement.Audit{Who: "op", Reason: "power"}}}
	votes := killed(inv, allUp(inv), "ams1", time.Second)
	votes = append(votes, vote("nyc1", "nyc1/web", placement.Down, placement.LocalFault, time.Minute))
	if v := verdictOf(Fold(inv, votes, nil), placement.ClusterID{Site: "nyc1", Name: "web"}); v.State != placement.Down || v.Capped {
		t.Errorf("nyc1/web %+v, want down and out", v)
	}
}

func TestPatch(t *testing.T) {
	up, down := vote("ams1", "ams1/web", placement.Up, "", 0), vote("ams1", "ams1/web", placement.Down, placement.LocalFault, time.Second)
	other := vote("nyc1", "nyc1/web", placement.Up, "", 0)
	again := up
	again.Seq++
	cases := []struct {
		name          string
		stored, heard []placement.Vote
		patched       bool
		want          placement.State
	}{
		{"nothing heard", []placement.Vote{up, other}, nil, false, placement.Up},
		{"heard what is stored", []placement.Vote{up, other}, []placement.Vote{up}, false, placement.Up},
		{"heard anew, says the same", []placement.Vote{up, other}, []placement.Vote{again}, false, placement.Up},
		{"ahead", []placement.Vote{up, other}, []placement.Vote{down}, true, placement.Down},
		{"the store is ahead", []placement.Vote{down, other}, []placement.Vote{up}, false, placement.Down},
		{"the store has none", []placement.Vote{other}, []placement.Vote{down, up}, true, placement.Down},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			votes, patched := Patch(tc.stored, tc.heard)
			got := verdictOf(Fold(fleet(3), votes, nil), placement.ClusterID{Site: "ams1", Name: "web"})
			if patched != tc.patched || got.State != tc.want {
				t.Errorf("patched %v, %v; want %v, %v", patched, got.State, tc.patched, tc.want)
			}
		})
	}
}
