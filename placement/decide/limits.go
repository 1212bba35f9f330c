package decide

import (
	"fmt"
	"slices"

	"rhumb/placement"
)

// The thresholds where the fleet says nothing.
const (
	defaultMinSites     = 2
	defaultMaxDrains    = 1
	defaultMinHeadroom  = 0.15
	defaultAnswerChange = 0.40
	defaultKeepNames    = 0.70
	shrinkCapacity      = 0.30 // of all capacity, where more than one site loses some
	blastPrefixes       = 0.05 // of all prefixes, at least one
)

// limits are the thresholds in force.
type limits struct {
	placement.Safety
	overrides []string
}

func newLimits(s placement.Safety, overrides []string) limits {
	l := limits{s, overrides}
	l.MinSites = orDefault(s.MinSites, defaultMinSites)
	l.MaxDrains = orDefault(s.MaxDrains, defaultMaxDrains)
	l.MinHeadroom = orDefault(s.MinHeadroom, defaultMinHeadroom)
	l.MaxAnswerChange = orDefault(s.MaxAnswerChange, defaultAnswerChange)
	l.KeepNames = orDefault(s.KeepNames, defaultKeepNames)
	return l
}

func orDefault[T int | float64](v, d T) T {
	if v == 0 {
		return d
	}
	return v
}

// stands tells whether a refusal holds: an operator may set some rules aside, by
// name.
func (l *limits) stands(r *placement.Refusal) bool {
	if r == nil || !slices.Contains(l.overrides, string(r.Rule)) {
		return r != nil
	}
	for _, rule := range placement.Rules() {
		if rule.Name == r.Rule {
			return !rule.Override
		}
	}
	return true
}

// JudgeDrain says whether a site may be drained in the state of a snapshot, by
// sites left, drains at once and a forecast of the load. Overrides name the rules
// that the operator sets aside.
func JudgeDrain(inv *placement.Inventory, s *placement.Snapshot, d placement.Drain, overrides []string) *placement.Refusal {
	l := newLimits(inv.Safety, append(slices.Clone(overrides), d.Override...))
	if node, ok := inv.Node(d.Site); ok {
		if r := l.minNodes(inv, node); l.stands(r) {
			return r
		}
		return nil
	}
	if inv.Site(d.Site) == nil {
		return &placement.Refusal{Rule: placement.RuleEmptySelector, Object: d.Site, Have: "no such site", Limit: "a site of the fleet, or SITE/NODE"}
	}
	for _, r := range []*placement.Refusal{l.maxDrains(inv, d.Site), l.minSites(inv, s, d.Site), l.headroom(s, Change{Drain: []string{d.Site}}, d.Site)} {
		if l.stands(r) {
			return r
		}
	}
	return nil
}

func (l *limits) maxDrains(inv *placement.Inventory, site string) *placement.Refusal {
	n := 1
	for i := range inv.Drains {
		if d := &inv.Drains[i]; d.Live() && d.Site != site && !d.OfNode() {
			n++
		}
	}
	if n <= l.MaxDrains {
		return nil
	}
	return &placement.Refusal{Rule: placement.RuleMaxDrains, Object: site, Have: fmt.Sprintf("%d sites drained at once", n),
		Limit: fmt.Sprint(l.MaxDrains), Hint: "end the other drain first"}
}

// minNodes wants a neighbour that takes the sessions of a node.
func (l *limits) minNodes(inv *placement.Inventory, node placement.Member) *placement.Refusal {
	for _, m := range inv.Site(node.Site).Members() {
		if m.Name != node.Name && inv.Drained(m.Name) == nil {
			return nil
		}
	}
	return &placement.Refusal{Rule: placement.RuleMinSites, Object: node.Name, Have: "no other node of " + node.Site + " would take its sessions",
		Limit: "1", Hint: "rhumb drain " + node.Site}
}

// minSites counts the sites that would stay on.
func (l *limits) minSites(inv *placement.Inventory, s *placement.Snapshot, without string) *placement.Refusal {
	if n := len(sitesOn(inv, s, without)); n < l.MinSites {
		return &placement.Refusal{Rule: placement.RuleMinSites, Object: without, Have: fmt.Sprintf("%d sites would stay on", n),
			Limit: fmt.Sprint(l.MinSites)}
	}
	return nil
}

// sitesOn lists the sites that take clients: not drained, not dialled to nothing, not down.
func sitesOn(inv *placement.Inventory, s *placement.Snapshot, without string) []string {
	var out []string
	for i := range inv.Sites {
		name := inv.Sites[i].Name
		off := Change{}.silences(inv, &inv.Sites[i])
		v := s.Verdict(placement.SiteID(name))
		if name != without && !inv.Sites[i].Foreign() && inv.Drained(name) == nil && !off && v.Usable() {
			out = append(out, name)
		}
	}
	return out
}

// headroom asks the forecast.
func (l *limits) headroom(s *placement.Snapshot, ch Change, object string) *placement.Refusal {
	f := Simulate(s, ch)
	if f.Headroom >= l.MinHeadroom && f.Utilisation <= 1 {
		return nil
	}
	return &placement.Refusal{Rule: placement.RuleMinHeadroom, Object: object,
		Have:  fmt.Sprintf("%.0f %% of capacity left, fullest cluster at %.0f %%", 100*f.Headroom, 100*f.Utilisation),
		Limit: fmt.Sprintf("%.0f %% left", 100*l.MinHeadroom)}
}
