package decide

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"rhumb/placement"
)

// The words of testdata/retire.txt. There is one prefix but for what a test adds.

// says STEP SITE …: these sites say that they are at that step, and know whether they
// are anchors.
func (s *stage) says(f []string) {
	var step placement.Step
	if err := step.UnmarshalText([]byte(f[0])); err != nil {
		s.t.Fatal(err)
	}
	for _, site := range f[1:] {
		s.live = slices.DeleteFunc(slices.Clone(s.live), func(a placement.Announced) bool { return a.Site == site })
		s.live = append(s.live, placement.Announced{Prefix: scripted(), Site: site, Node: site + "-a", Step: step, Anchor: true})
	}
}

func scripted() netip.Prefix { return netip.MustParsePrefix("203.0.113.0/24") }

func (s *stage) retire([]string) {
	s.change(func(inv *placement.Inventory) {
		inv.Retirements = []placement.Retirement{{Prefix: scripted(), Audit: placement.Audit{Who: "op", Reason: "sold", Since: s.now}}}
	})
}

func (s *stage) restore([]string) {
	s.change(func(inv *placement.Inventory) { inv.Retirements[0].Ended = s.now })
}

// forget: the configuration does not name the prefix any more.
func (s *stage) forget([]string) {
	s.change(func(inv *placement.Inventory) { inv.Prefixes = nil })
}

// judgeDeletion: may it be left out now?
func (s *stage) judgeDeletion([]string) {
	next := *s.inv
	next.Prefixes = nil
	refused := JudgeDeletions(s.inv, &next, s.live)
	for i := range refused {
		s.printf("%v; %s", &refused[i], refused[i].Hint)
	}
	if len(refused) == 0 {
		s.printf("ok")
	}
}

// TestJudgeRetirement: one at a time, and no cover before what it covers.
func TestJudgeRetirement(t *testing.T) {
	local, other := netip.MustParsePrefix("203.0.113.0/25"), netip.MustParsePrefix("198.51.100.0/24")
	live := []placement.Announced{{Prefix: other, Site: "ams1"}}
	of := func(p netip.Prefix) placement.Retirement {
		return placement.Retirement{Prefix: p, Audit: placement.Audit{Who: "op", Reason: "sold"}}
	}
	cover := placement.Prefix{Prefix: local, Reach: placement.Local}
	for name, tt := range map[string]struct {
		prefixes []placement.Prefix
		standing []placement.Retirement
		live     []placement.Announced
		override string
		want     placement.RuleName
	}{
		"the only one":                     {},
		"another one is going":             {standing: []placement.Retirement{of(other)}, live: live, want: placement.RuleBlastRadius},
		"another one is going, by name":    {standing: []placement.Retirement{of(other)}, live: live, override: "blast-radius"},
		"another one is gone":              {standing: []placement.Retirement{of(other)}},
		"it covers one which stays":        {prefixes: []placement.Prefix{cover}, want: placement.RuleRetire},
		"it covers one, and no name helps": {prefixes: []placement.Prefix{cover}, override: "retire", want: placement.RuleRetire},
		"it covers one which is going too": {prefixes: []placement.Prefix{cover}, standing: []placement.Retirement{of(local)}},
	} {
		t.Run(name, func(t *testing.T) {
			inv := fleet(3)
			inv.Prefixes = append(inv.Prefixes, tt.prefixes...)
			inv.Retirements = tt.standing
			r := of(scripted())
			r.Override = strings.Fields(tt.override)
			no := JudgeRetirement(inv, tt.live, r)
			if no == nil && tt.want != "" || no != nil && no.Rule != tt.want {
				t.Errorf("%v, want rule %q", no, tt.want)
			}
		})
	}
}

// TestRetiredPrefixMayBeDeleted: what is silent at every site is no lowering any more.
func TestRetiredPrefixMayBeDeleted(t *testing.T) {
	inv, ct := fleet(3), classes(t)
	inv.Retirements = []placement.Retirement{{Prefix: scripted(), Audit: placement.Audit{Who: "op"}}}
	before := stateOf(t, inv, ct)
	next := clone(inv)
	next.Prefixes = nil
	if got := JudgeApply(inv, next, before, stateOf(t, next, ct), nil); len(got) > 0 {
		t.Errorf("refused by %s", rules(got))
	}
	if got := JudgeDeletions(inv, next, nil); len(got) > 0 {
		t.Errorf("refused by %s", rules(got))
	}
}
