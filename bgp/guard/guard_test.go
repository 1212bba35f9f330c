package guard

import (
	"net/netip"
	"testing"
	"time"

	"rhumb/placement"
)

var (
	anycast = netip.MustParsePrefix("192.0.2.0/24")
	second  = netip.MustParsePrefix("198.51.100.0/24")
)

// request is the plainest wish: ams, no anchor, own listener dead, at gshut,
// wants to withdraw, holds Slot 1.
func request(change ...func(*Request)) Request {
	r := Request{
		Prefix: placement.Prefix{Prefix: anycast, Slots: 1, MinAnnouncing: 2, Witness: placement.WitnessAdvisory},
		Site:   "ams", Node: "ams1",
		At: placement.GShut, Want: placement.Withdrawn, Fault: placement.LocalFault,
		Anchors: []string{"fra", "lon"}, Sites: []string{"ams", "fra", "lon"}, Prefixes: 100,
		Evidence: Evidence{Announcing: 2, Slot: &placement.Slot{Prefix: anycast, Number: 1, Site: "ams"}},
	}
	for _, c := range change {
		c(&r)
	}
	return r
}

func noSlot(r *Request) { r.Slot = nil }
func quorum(r *Request) { r.Fault = placement.NoFault }
func shared(r *Request) { r.Fault = placement.SharedFault }
func seen(r *Request)   { r.Seen = true }
func anchor(r *Request) { r.Anchors = []string{"ams", "fra"} }
func intent(r *Request) { r.Intent, r.Fault = true, placement.NoFault }
func longAt(r *Request) { r.AtGShut, r.StoreAway = StoreAwayHold, StoreForgets }
func alone(r *Request)  { r.Announcing = 1 }
func from(s placement.Step) func(*Request) {
	return func(r *Request) { r.At = s }
}
func to(s placement.Step) func(*Request)         { return func(r *Request) { r.Want = s } }
func witness(w placement.Witness) func(*Request) { return func(r *Request) { r.Prefix.Witness = w } }
func override(rules ...string) func(*Request) {
	return func(r *Request) { r.Overrides = rules }
}
func slotsFull(r *Request) {
	r.Slot = nil
	r.SlotRefusal = &placement.Refusal{Rule: placement.RuleSlots, Object: "192.0.2.0/24", Have: "held by lon", Limit: "1"}
}
func otherNode(r *Request) { r.Others = 1 }
func left(r *Request)      { r.Left = true }
func counted(r *Request)   { r.StoreAway = StoreForgets - 1 }
func covered(r *Request)   { r.Covered = true }
func coverSeen(r *Request) { r.CoverSeen = true }
func forgotten(r *Request) { r.Order = Forgotten }
func retired(r *Request)   { r.Order = Retired }
func few(r *Request)       { r.Prefixes = 2 }
func lowered(prefixes ...placement.Announcement) func(*Request) {
	return func(r *Request) { r.Lowered = prefixes }
}
func at(p netip.Prefix, site string) placement.Announcement {
	return placement.Announcement{Prefix: p, Site: site, Want: placement.Withdrawn, Intent: true}
}

func TestLower(t *testing.T) {
	type mods = []func(*Request)
	tests := []struct {
		name string
		mods mods
		want placement.Step
		rule placement.RuleName // "" means permitted
	}{
		{"local fault with a slot", nil, placement.Withdrawn, ""},
		{"fewer words are always allowed up", mods{to(placement.Announce), shared}, placement.Announce, ""},
		{"prepend needs nobody", mods{from(placement.Announce), to(placement.Prepend), shared, noSlot}, placement.Prepend, ""},
		{"gshut needs nobody, an anchor neither", mods{from(placement.Announce), to(placement.GShut), anchor, noSlot}, placement.GShut, ""},

		{"fault: a shared one stops at gshut, slot or not", mods{shared, seen}, placement.GShut, placement.RuleFault},
		{"fault: from announce it is sent to gshut", mods{shared, from(placement.Announce)}, placement.GShut, placement.RuleFault},
		{"fault: no override", mods{shared, override("fault")}, placement.GShut, placement.RuleFault},
		{"fault: nor for the node of several", mods{shared, otherNode, left}, placement.GShut, placement.RuleFault},

		{"quorum: slot and witness", mods{quorum, seen}, placement.Withdrawn, ""},
		{"quorum: slot alone", mods{quorum}, placement.GShut, placement.RuleWitness},
		{"quorum: witness alone", mods{quorum, seen, noSlot, longAt}, placement.GShut, placement.RuleSlots},

		{"retire: deleted only, by intent", mods{intent, forgotten}, placement.GShut, placement.RuleRetire},
		{"retire: deleted only, and every rule set aside", mods{intent, forgotten, override("anchors", "slots", "witness", "min-sites", "blast-radius", "retire")}, placement.GShut, placement.RuleRetire},
		{"retire: deleted only, from announce", mods{intent, forgotten, from(placement.Announce)}, placement.GShut, placement.RuleRetire},
		{"retire: deleted only, and its own server dead", mods{forgotten}, placement.Withdrawn, ""},
		{"retire: the last one, an anchor, no slot, nobody left", mods{intent, retired, anchor, noSlot, alone}, placement.Withdrawn, ""},
		{"retire: with the store away", mods{intent, retired, noSlot, func(r *Request) { r.StoreAway = time.Hour }}, placement.Withdrawn, ""},
		{"retire: a failure of a retired prefix's site is still a failure", mods{retired, anchor}, placement.GShut, placement.RuleAnchors},
		{"retire: at every site of the prefix", mods{intent, retired, from(placement.Announce), to(placement.Prepend), lowered(at(anycast, "fra"), at(anycast, "lon"))}, placement.Prepend, ""},
		{"retire: one prefix, and not many", mods{intent, retired, few, from(placement.Announce), to(placement.Prepend), lowered(at(anycast, "fra"), at(second, "lon"))}, placement.Announce, placement.RuleBlastRadius},

		{"anchors: own votes", mods{anchor, seen}, placement.GShut, placement.RuleAnchors},
		{"anchors: a drain names another first", mods{anchor, intent}, placement.GShut, placement.RuleAnchors},
		{"anchors: by name", mods{anchor, intent, override("anchors")}, placement.Withdrawn, ""},
		{"anchors: a measured failure overrides nothing", mods{anchor, override("anchors")}, placement.GShut, placement.RuleAnchors},

		{"slots: taken by another", mods{slotsFull, seen, longAt}, placement.GShut, placement.RuleSlots},
		{"slots: override still asks the witness", mods{intent, slotsFull, override("slots")}, placement.GShut, placement.RuleWitness},
		{"slots: override, seen, long at gshut", mods{intent, slotsFull, override("slots"), seen, longAt, func(r *Request) { r.StoreAway = 0 }}, placement.Withdrawn, ""},
		{"slots and witness overridden", mods{intent, slotsFull, override("slots", "witness")}, placement.Withdrawn, ""},

		{"witness: store away, seen long enough", mods{noSlot, seen, longAt}, placement.Withdrawn, ""},
		{"witness: store away, too soon", mods{noSlot, seen}, placement.GShut, placement.RuleWitness},
		{"witness: store away, but it may still count on us", mods{noSlot, seen, longAt, func(r *Request) { r.StoreAway-- }}, placement.GShut, placement.RuleWitness},
		{"witness: store away, nothing seen", mods{noSlot, longAt}, placement.GShut, placement.RuleWitness},
		{"witness: off and store away", mods{noSlot, seen, longAt, witness(placement.WitnessOff)}, placement.GShut, placement.RuleSlots},
		{"witness: required with a slot", mods{witness(placement.WitnessRequired)}, placement.GShut, placement.RuleWitness},
		{"witness: required with a slot and seen", mods{witness(placement.WitnessRequired), seen}, placement.Withdrawn, ""},

		{"last-node: one of two leaves, anchor or not", mods{anchor, noSlot, otherNode, left}, placement.Withdrawn, ""},
		{"last-node: the transaction failed", mods{noSlot, otherNode}, placement.GShut, placement.RuleWitness},
		{"last-node: left without others is nothing", mods{anchor, left}, placement.GShut, placement.RuleAnchors},

		{"covered: all sites of a local prefix go, anchors or not", mods{anchor, slotsFull, covered}, placement.Withdrawn, ""},
		{"covered: and by intent", mods{anchor, slotsFull, covered, intent, alone}, placement.Withdrawn, ""},
		{"covered: what the store said is nothing while it is away", mods{anchor, noSlot, covered, seen, longAt}, placement.GShut, placement.RuleAnchors},
		{"covered: seen at our router while the store is away", mods{anchor, noSlot, coverSeen, longAt}, placement.Withdrawn, ""},
		{"covered: seen, but too soon", mods{anchor, noSlot, coverSeen}, placement.GShut, placement.RuleWitness},
		{"covered: seen, but the store may count on us", mods{noSlot, seen, coverSeen, longAt, counted}, placement.GShut, placement.RuleWitness},
		{"covered: not for a quorum", mods{quorum, slotsFull, covered}, placement.GShut, placement.RuleSlots},

		{"min-sites: an intent leaves two", mods{intent}, placement.Withdrawn, ""},
		{"min-sites: an intent would leave one", mods{intent, alone}, placement.GShut, placement.RuleMinSites},
		{"min-sites: by name", mods{intent, alone, override("min-sites")}, placement.Withdrawn, ""},
		{"min-sites: a failure is no intent", mods{alone}, placement.Withdrawn, ""},
		{"min-sites: the fleet's own number", mods{intent, alone, func(r *Request) { r.MinSites = 1 }}, placement.Withdrawn, ""},
		{"min-sites: of two sites one is left", mods{intent, alone, func(r *Request) { r.Sites = []string{"ams", "fra"} }}, placement.Withdrawn, ""},
		{"min-sites: nobody counts", mods{intent, func(r *Request) { r.Announcing = -1 }}, placement.Withdrawn, ""},
		{"min-sites: gshut takes nobody away", mods{intent, alone, from(placement.Prepend), to(placement.GShut)}, placement.GShut, ""},

		{"blast-radius: two sites of one prefix", mods{intent, from(placement.Announce), lowered(at(anycast, "ams"), at(anycast, "fra"))}, placement.Announce, placement.RuleBlastRadius},
		{"blast-radius: by name", mods{intent, from(placement.Announce), to(placement.GShut), override("blast-radius"), lowered(at(anycast, "ams"), at(anycast, "fra"))}, placement.GShut, ""},
		{"blast-radius: not for failures", mods{lowered(at(anycast, "fra"), at(anycast, "lon"))}, placement.Withdrawn, ""},
		{"blast-radius: a whole site", mods{intent, func(r *Request) { r.Prefixes = 2 }, lowered(at(anycast, "ams"), at(second, "ams"))}, placement.Withdrawn, ""},
		{"blast-radius: prefixes of several sites", mods{intent, func(r *Request) { r.Prefixes = 2 }, lowered(at(anycast, "ams"), at(second, "fra"))}, placement.GShut, placement.RuleBlastRadius},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, no := Lower(request(tt.mods...))
			if got != tt.want {
				t.Errorf("step %v, want %v (%v)", got, tt.want, no)
			}
			if name := ruleOf(no); name != tt.rule {
				t.Errorf("rule %q, want %q", name, tt.rule)
			}
		})
	}
}

func ruleOf(r *placement.Refusal) placement.RuleName {
	if r == nil {
		return ""
	}
	return r.Rule
}

// TestOverrides holds the guard's own table equal to the one of all rules.
func TestOverrides(t *testing.T) {
	for _, own := range lastStep() {
		found := false
		for _, r := range placement.Rules() {
			if r.Name == own.name {
				found = true
				if r.Override != own.override {
					t.Errorf("rule %s: override %v here, %v in placement.Rules", r.Name, own.override, r.Override)
				}
			}
		}
		if !found {
			t.Errorf("rule %s is not in placement.Rules", own.name)
		}
	}
}

func TestRaise(t *testing.T) {
	tests := []struct {
		name string
		in   Ascent
		rule placement.RuleName
	}{
		{"all there", Ascent{Prefix: anycast}, ""},
		{"address: silent listener", Ascent{Prefix: anycast, Missing: "no listener"}, placement.RuleAddress},
		{"address: no override", Ascent{Prefix: anycast, Missing: "no listener", Overrides: []string{"address"}}, placement.RuleAddress},
		{"max-announced: below", Ascent{Prefix: anycast, Announced: 9, Max: 10}, ""},
		{"max-announced: at the ceiling", Ascent{Prefix: anycast, Announced: 10, Max: 10}, placement.RuleMaxAnnounced},
		{"rpki-invalid: another's ROA", Ascent{Prefix: anycast, Invalid: "192.0.2.0/24-24 AS64501"}, placement.RuleRPKIInvalid},
		{"rpki-invalid: what was announced before is announced again", Ascent{Prefix: anycast, Invalid: "192.0.2.0/24-24 AS64501", Before: true}, ""},
		{"rpki-invalid: by name", Ascent{Prefix: anycast, Invalid: "192.0.2.0/24-24 AS64501", Overrides: []string{"rpki-invalid"}}, ""},
		{"max-announced: by name", Ascent{Prefix: anycast, Announced: 10, Max: 10, Overrides: []string{"max-announced"}}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := ruleOf(Raise(tt.in)); got != tt.rule {
				t.Errorf("rule %q, want %q", got, tt.rule)
			}
		})
	}
}

func TestSeen(t *testing.T) {
	list := []Sighting{{anycast, 1, false}, {anycast, 2, true}, {second, 3, false}}
	if Seen(list, anycast, 1) {
		t.Error("own route, a route at gshut and another prefix are no witness")
	}
	if !Seen(append(list, Sighting{anycast, 3, false}), anycast, 1) {
		t.Error("another site's plain route is a witness")
	}
}

func TestCovered(t *testing.T) {
	local := placement.Prefix{Prefix: netip.MustParsePrefix("192.0.2.0/25"), Reach: placement.Local}
	cover := placement.Prefix{Prefix: anycast, Reach: placement.Global}
	two := func(*placement.Prefix) int { return 2 }
	live := []placement.Announced{
		{Prefix: anycast, Site: "ams", Step: placement.Announce},
		{Prefix: anycast, Site: "fra", Step: placement.Announce},
		{Prefix: anycast, Site: "lon", Step: placement.GShut},
	}
	all := []placement.Prefix{local, cover}
	covers := Covers(&local, all)
	if !Covered(covers, live, "ams", two) {
		t.Error("two other sites announce the cover")
	}
	if Covered(covers, live[:2], "ams", two) {
		t.Error("only one other site announces the cover")
	}
	if len(Covers(&cover, all)) != 0 {
		t.Error("a global prefix has no cover")
	}
}

func TestLadder(t *testing.T) {
	timing := Timing{}.Or()
	zero := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	after := func(d time.Duration) time.Time { return zero.Add(d) }
	tests := []struct {
		name string
		l    Ladder
		wish Wish
		now  time.Time
		want placement.Step
		due  time.Duration // from zero; 0 means none
	}{
		{"first step down at once", Ladder{At: placement.Announce, Since: zero}, Wish{Step: placement.Withdrawn}, after(0), placement.Prepend, 0},
		{"local fault jumps to gshut", Ladder{At: placement.Announce, Since: zero}, Wish{Step: placement.Withdrawn, Jump: true}, after(0), placement.GShut, 0},
		{"a jump goes no further", Ladder{At: placement.GShut, Since: zero}, Wish{Step: placement.Withdrawn, Jump: true}, after(0), placement.GShut, 250 * time.Millisecond},
		{"dwell", Ladder{At: placement.Prepend, Since: zero}, Wish{Step: placement.Withdrawn}, after(100 * time.Millisecond), placement.Prepend, 250 * time.Millisecond},
		{"dwell over", Ladder{At: placement.Prepend, Since: zero}, Wish{Step: placement.Withdrawn}, after(250 * time.Millisecond), placement.GShut, 0},
		{"no dwell when the listener is gone", Ladder{At: placement.GShut, Since: zero}, Wish{Step: placement.Withdrawn, Now: true}, after(0), placement.Withdrawn, 0},
		{"up waits for the warm-up", Ladder{At: placement.GShut, Since: zero}, Wish{}, after(0), placement.GShut, time.Second},
		{"up one step", Ladder{At: placement.GShut, Since: zero, Calm: zero}, Wish{}, after(time.Second), placement.Prepend, 0},
		{"from silence to prepend", Ladder{At: placement.Withdrawn, Since: zero, Calm: zero}, Wish{}, after(time.Second), placement.Prepend, 0},
		{"from silence no louder than asked", Ladder{At: placement.Withdrawn, Since: zero, Calm: zero}, Wish{Step: placement.GShut}, after(time.Second), placement.GShut, 0},
		{"flaps double the warm-up", Ladder{At: placement.GShut, Since: zero, Calm: zero, Falls: 3}, Wish{}, after(time.Second), placement.GShut, 4 * time.Second},
		{"there already", Ladder{At: placement.GShut, Since: zero}, Wish{Step: placement.GShut}, after(0), placement.GShut, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, got, due := tt.l.Next(tt.wish, timing, tt.now)
			if got != tt.want {
				t.Errorf("rung %v, want %v", got, tt.want)
			}
			if want := (time.Time{}); tt.due == 0 && !due.Equal(want) || tt.due != 0 && !due.Equal(after(tt.due)) {
				t.Errorf("due %v, want %v after", due, tt.due)
			}
		})
	}
}

// TestFlapPenalty drives a ladder through flaps and through quiet.
func TestFlapPenalty(t *testing.T) {
	timing, now := Timing{}.Or(), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	l := Ladder{At: placement.Announce, Since: now, Settled: now}
	for range 20 {
		l = l.To(placement.GShut, timing, now).To(placement.Announce, timing, now)
	}
	if got := l.WarmUp(timing); got != 5*time.Minute {
		t.Errorf("after 20 falls the warm-up is %v, want 5m", got)
	}
	l = l.To(placement.GShut, timing, now.Add(24*time.Hour))
	if got := l.WarmUp(timing); got != time.Second {
		t.Errorf("after a quiet day the warm-up is %v, want 1s", got)
	}
}
