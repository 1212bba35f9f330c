package placement

import (
	"encoding"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// TestTextRoundTrips: every value prints as a text which reads as the value.
func TestTextRoundTrips(t *testing.T) {
	for s := Unknown; s <= Down; s++ {
		roundTrip(t, s, new(State))
	}
	for s := Announce; s <= Withdrawn; s++ {
		roundTrip(t, s, new(Step))
	}
	for _, d := range []Duration{0, 1, Duration(300 * time.Millisecond), Duration(36 * time.Hour)} {
		roundTrip(t, d, new(Duration))
	}
	for _, id := range []ClusterID{{"ams1", "web"}, SiteID("ams1")} {
		roundTrip(t, id, new(ClusterID))
	}
}

func roundTrip[V interface {
	comparable
	encoding.TextMarshaler
}, P interface {
	*V
	encoding.TextUnmarshaler
}](t *testing.T, v V, into P) {
	t.Helper()
	b, err := v.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	if err := into.UnmarshalText(b); err != nil || *into != v {
		t.Errorf("%v prints as %q and reads as %v (%v)", v, b, *into, err)
	}
}

// TestTextRefused: what no value prints is refused and leaves the value alone: a
// typo in a mode or a step must not act.
func TestTextRefused(t *testing.T) {
	for _, c := range []struct {
		into  encoding.TextUnmarshaler
		texts []string
	}{
		{new(State), []string{"", "Up", "dead"}},
		{new(Step), []string{"", "gshut ", "lowered"}},
		{new(Mode), []string{"acting", "ACT", "off"}},
		{new(Duration), []string{"", "3", "-1s", "soon", "9999999h99"}},
		{new(ClusterID), []string{"", "ams1", "/web", "ams1/", "ams1/web/1"}},
	} {
		before := fmt.Sprintf("%v", c.into)
		for _, text := range c.texts {
			if err := c.into.UnmarshalText([]byte(text)); err == nil || fmt.Sprintf("%v", c.into) != before {
				t.Errorf("%T reads %q as %v (%v)", c.into, text, c.into, err)
			}
		}
	}
}

// FuzzTexts: whatever a parser takes it prints, and reads again as the same.
func FuzzTexts(f *testing.F) {
	for _, s := range []string{"up", "gshut", "act", "1m30s", "ams1/web", "ams1/-", "-1s", "\x00/\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var s State
		if s.UnmarshalText([]byte(text)) == nil && s.String() != text {
			t.Errorf("state %q reads as %v", text, s)
		}
		var p Step
		if p.UnmarshalText([]byte(text)) == nil && p.String() != text {
			t.Errorf("step %q reads as %v", text, p)
		}
		var m Mode
		if m.UnmarshalText([]byte(text)) == nil && string(m) != text {
			t.Errorf("mode %q reads as %v", text, m)
		}
		var id ClusterID
		if id.UnmarshalText([]byte(text)) == nil && id.String() != text {
			t.Errorf("cluster %q reads as %v", text, id)
		}
		var d Duration
		if d.UnmarshalText([]byte(text)) == nil {
			if d < 0 {
				t.Errorf("duration %q reads as %v", text, d)
			}
			roundTrip(t, d, new(Duration))
		}
	})
}

func TestVerdictUsable(t *testing.T) {
	for _, c := range []struct {
		state  State
		force  ForceState
		capped bool
		want   bool
	}{
		{Unknown, NoForce, false, true}, // start-up is not down
		{Up, NoForce, false, true},
		{Degraded, NoForce, false, true},
		{Path, NoForce, false, true}, // the site lives
		{Down, NoForce, false, false},
		{Down, NoForce, true, true}, // the removal cap keeps it in
		{Down, ForceUp, false, true},
		{Down, ForceDown, true, false}, // a person's word stands above the cap
		{Up, ForceDown, false, false},
		{Up, ForceUp, false, true},
	} {
		v := Verdict{State: c.state, Force: c.force, Capped: c.capped}
		if v.Usable() != c.want {
			t.Errorf("%+v: usable %v", v, v.Usable())
		}
	}
}

// TestNewer: votes of a vantage are ordered by incarnation, then by number, and
// no vote replaces itself.
func TestNewer(t *testing.T) {
	order := []Vote{{Incarnation: 1, Seq: 1}, {Incarnation: 1, Seq: 9}, {Incarnation: 2, Seq: 1}, {Incarnation: 2, Seq: 2}}
	for i := range order {
		for k := range order {
			if order[i].Newer(&order[k]) != (i > k) {
				t.Errorf("%+v newer than %+v: %v", order[i], order[k], i <= k)
			}
		}
	}
}

func TestMinAnchors(t *testing.T) {
	for _, c := range []struct{ say, sites, want int }{
		{0, 5, 2}, {0, 3, 2}, {0, 2, 1}, {0, 1, 1}, {0, 0, 0}, {3, 5, 3}, {3, 2, 1}, {9, 4, 4}, {1, 5, 1}, {-1, 5, 2},
	} {
		p := Prefix{MinAnnouncing: c.say}
		if got := p.MinAnchors(c.sites); got != c.want {
			t.Errorf("min_announcing %d at %d sites: %d anchors, want %d", c.say, c.sites, got, c.want)
		}
	}
}

func TestAnnouncingSites(t *testing.T) {
	f := Fleet{Sites: []Site{{Name: "b"}, {Name: "a"}}}
	for _, c := range []struct{ say, want []string }{
		{nil, []string{"a", "b"}}, {[]string{"b"}, []string{"b"}}, {[]string{"b", "a", "b"}, []string{"a", "b"}},
	} {
		if got := f.AnnouncingSites(&Prefix{Sites: c.say}); !slices.Equal(got, c.want) {
			t.Errorf("sites %v: %v, want %v", c.say, got, c.want)
		}
	}
}

func TestForced(t *testing.T) {
	web, over := ClusterID{"ams1", "web"}, Audit{Ended: time.Unix(1, 0)}
	for _, c := range []struct {
		name   string
		forces []Force
		want   ForceState
	}{
		{"none", nil, NoForce},
		{"the site's holds for its clusters", []Force{{Object: SiteID("ams1"), State: ForceDown}}, ForceDown},
		{"its own beats the site's", []Force{{Object: SiteID("ams1"), State: ForceDown}, {Object: web, State: ForceUp}}, ForceUp},
		{"in either order", []Force{{Object: web, State: ForceUp}, {Object: SiteID("ams1"), State: ForceDown}}, ForceUp},
		{"an ended one is nothing", []Force{{Object: web, State: ForceUp, Audit: over}}, NoForce},
		{"another's", []Force{{Object: ClusterID{"ams1", "dns"}, State: ForceDown}}, NoForce},
	} {
		in := Intents{Forces: c.forces}
		if got := in.Forced(web); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestIntents: an intent holds until somebody ends it, also when its time is over.
func TestIntents(t *testing.T) {
	now := time.Unix(1000, 0)
	past := Audit{Reason: "work", Until: now.Add(-time.Second)}
	in := Intents{Drains: []Drain{{Site: "ams1", Audit: past}, {Site: "nyc1", Audit: Audit{Ended: now}}}}
	if d := in.Drained("ams1"); d == nil || !d.Live() || !d.Expired(now) {
		t.Errorf("an expired drain: %+v", d)
	}
	if in.Drained("nyc1") != nil || in.Drained("fra1") != nil {
		t.Error("a site is drained which is not")
	}
	if in.Frozen() {
		t.Error("frozen by nobody")
	}
	in.Freeze = Freeze{Audit{Who: "op", Reason: "stop"}}
	if !in.Frozen() {
		t.Error("not frozen")
	}
	open := Audit{}
	if open.Expired(now) {
		t.Error("an intent without an end expired")
	}
}

// TestLookups: names are found exactly; a drain of AMS1 must not pass for one of ams1.
func TestLookups(t *testing.T) {
	p := netip.MustParsePrefix("192.0.2.0/24")
	f := Fleet{Sites: []Site{{Name: "ams1", Clusters: []Cluster{{Name: "web"}}}}, Services: []Service{{Name: "www"}},
		Policies: []Policy{{Name: "p"}}, Checks: []Check{{Name: "c"}}, Zones: []Zone{{Name: "a.test."}}, Prefixes: []Prefix{{Prefix: p}}}
	if f.Site("ams1") == nil || f.Service("www") == nil || f.Policy("p") == nil || f.Check("c") == nil ||
		f.Zone("a.test.") == nil || f.Prefix(p) == nil || f.Cluster(ClusterID{"ams1", "web"}) == nil {
		t.Error("what is there is not found")
	}
	if f.Site("AMS1") != nil || f.Site("") != nil || f.Cluster(ClusterID{"nyc1", "web"}) != nil ||
		f.Cluster(ClusterID{"ams1", "dns"}) != nil || f.Prefix(netip.MustParsePrefix("192.0.2.0/25")) != nil {
		t.Error("something is found that is not there")
	}
	if f.RoleMode("bgp") != Observe {
		t.Error("a fleet which says nothing acts")
	}
	f.Mode, f.Roles = Act, map[string]Mode{"bgp": Observe}
	if f.RoleMode("bgp") != Observe || f.RoleMode("authdns") != Act {
		t.Error("the mode of a role is not its own, else the fleet's")
	}
}

// TestDistanceCost: known round trips, in ms by the formula of the comment, and
// what every node relies on: the same both ways, whole turns do not count.
func TestDistanceCost(t *testing.T) {
	ams, nyc, tyo := Position{52.37, 4.90}, Position{40.71, -74.01}, Position{35.68, 139.69}
	for _, c := range []struct {
		a, b Position
		ms   float64
	}{
		{ams, ams, 3}, {ams, nyc, 3 + .018*5864}, {ams, tyo, 3 + .018*9293},
		{Position{0, 179.99}, Position{0, -179.99}, 3 + .018*2.2}, {Position{90, 0}, Position{-90, 0}, 3 + .018*20015},
	} {
		got := DistanceCost(c.a, c.b)
		if math.Abs(got.Milliseconds()-c.ms) > .15 || got != DistanceCost(c.b, c.a) {
			t.Errorf("%v to %v: %v ms and back %v, want %v", c.a, c.b, got.Milliseconds(), DistanceCost(c.b, c.a).Milliseconds(), c.ms)
		}
	}
	r := rand.New(rand.NewPCG(4, 4))
	for range 1000 {
		a := Position{r.Float64()*180 - 90, r.Float64()*360 - 180}
		b := Position{r.Float64()*180 - 90, r.Float64()*360 - 180}
		c := DistanceCost(a, b)
		if c != DistanceCost(b, a) || c < 48 || c > 16*364 {
			t.Fatalf("%v to %v costs %d, back %d", a, b, c, DistanceCost(b, a))
		}
	}
}

// TestRules: every rule stands once in the table and says what it does.
func TestRules(t *testing.T) {
	seen := make(map[RuleName]bool)
	for _, r := range Rules() {
		if seen[r.Name] || r.Threshold == "" || r.Enforcer == "" {
			t.Errorf("%+v is doubled or empty", r)
		}
		seen[r.Name] = true
	}
	e := Refusal{Rule: RuleAnchors, Object: "192.0.2.0/24", Have: "1 anchors", Limit: "2"}
	if !seen[e.Rule] || e.Error() != "refused: rule anchors, object 192.0.2.0/24, have 1 anchors, limit 2" {
		t.Errorf("%v", e.Error())
	}
}

func TestCurrent(t *testing.T) {
	var c Current
	if c.Load() != nil {
		t.Error("a snapshot before the first")
	}
	s := &Snapshot{}
	c.Store(s)
	if c.Load() != s {
		t.Error("another snapshot than the stored one")
	}
}

// FuzzInventory: an inventory comes from the store, and so from any writer; what
// decodes is printed and decodes as the same again, and its lookups hold.
func FuzzInventory(f *testing.F) {
	seed, _ := json.Marshal(Inventory{Revision: 7, Fleet: Fleet{Mode: Act, Sites: []Site{{Name: "ams1", Clusters: []Cluster{{Name: "web"}}}},
		Services: []Service{{Name: "www", Clusters: []string{"web"}}}, Prefixes: []Prefix{{Prefix: netip.MustParsePrefix("192.0.2.0/24")}}},
		Intents: Intents{Forces: []Force{{Object: SiteID("ams1"), State: ForceDown}}}})
	f.Add(seed)
	f.Add([]byte(`{"sites":[{"name":"a","at":[1,2],"beat":"192.0.2.1:1"}],"ecs":{},"forces":[{"object":"a/-"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var inv, again Inventory
		if json.Unmarshal(data, &inv) != nil {
			return
		}
		first, err := json.Marshal(&inv)
		if err != nil {
			return // a time beyond year 9999, say: read, and never written
		}
		if err := json.Unmarshal(first, &again); err != nil {
			t.Skip() // ids without site or cluster print as "/", and are refused
		}
		if second, _ := json.Marshal(&again); string(first) != string(second) {
			t.Errorf("%s\nreads as\n%s", first, second)
		}
		for i := range inv.Services {
			for _, id := range inv.Eligible(&inv.Services[i]) {
				if inv.Site(id.Site) == nil {
					t.Errorf("%v is eligible in no site", id)
				}
			}
		}
		for i := range inv.Prefixes {
			n := len(inv.AnnouncingSites(&inv.Prefixes[i]))
			if k := inv.Prefixes[i].MinAnchors(n); k < 0 || k > n {
				t.Errorf("%d anchors of %d sites", k, n)
			}
		}
	})
}
