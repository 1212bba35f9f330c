package decide

import (
	"cmp"
	"slices"
	"strings"

	"rhumb/placement"
)

// Standing is the part of a plan that bears on routes alone: the anchors, and the
// steps that the plan's drains ask for. The plan's drains must be there.
func Standing(in *PlanInput, plan *placement.Plan, verdicts []placement.Verdict) {
	plan.Anchors = anchors(in, plan, verdicts)
	plan.Steps = steps(in, plan)
}

// anchors names, for each prefix, the sites that go on announcing whatever
// their own votes say. They are stable: who is one and still fit stays one. They
// move in two plans: the successor joins first, and the predecessor leaves only
// when a later plan sees that enough successors announce and know that they stay.
// A site that holds a slot is never named: it is silent, or may be at any moment.
func anchors(in *PlanInput, plan *placement.Plan, verdicts []placement.Verdict) []placement.Anchors {
	var out []placement.Anchors
	for i := range in.Inventory.Prefixes {
		p := &in.Inventory.Prefixes[i]
		sites := in.Inventory.AnnouncingSites(p)
		e := election{in: in, plan: plan, verdicts: verdicts, prefix: p, want: p.MinAnchors(len(sites))}
		out = append(out, placement.Anchors{Prefix: p.Prefix, Sites: e.elect(sites)})
	}
	slices.SortFunc(out, func(a, b placement.Anchors) int {
		return compareAnnouncements(placement.Announcement{Prefix: a.Prefix}, placement.Announcement{Prefix: b.Prefix})
	})
	return out
}

type election struct {
	in       *PlanInput
	plan     *placement.Plan
	verdicts []placement.Verdict
	prefix   *placement.Prefix
	want     int
}

func (e *election) elect(sites []string) []string {
	var present []string
	if e.in.Prev != nil {
		for _, a := range e.in.Prev.Anchors {
			if a.Prefix == e.prefix.Prefix {
				present = a.Sites // those which may announce no more leave by the same door
			}
		}
	}
	var stay, leave []string
	for _, s := range present {
		if slices.Contains(sites, s) && e.fit(s) {
			stay = append(stay, s)
		} else {
			leave = append(leave, s)
		}
	}
	chosen := slices.Clone(stay)
	if len(chosen) > e.want && !slices.ContainsFunc(chosen, func(s string) bool { return !e.acknowledged(s) }) {
		slices.SortStableFunc(chosen, func(a, b string) int { return compareBools(e.ramping(a), e.ramping(b)) })
		chosen = chosen[:e.want]
	}
	for _, s := range e.ranked(sites, chosen) {
		if len(chosen) >= e.want {
			break
		}
		chosen = append(chosen, s)
	}
	for _, s := range leave {
		if !slices.Contains(chosen, s) && !e.replaced(chosen, stay) {
			chosen = append(chosen, s)
		}
	}
	slices.Sort(chosen)
	return chosen
}

// replaced tells whether enough anchors were so before this plan, and have said that
// they know it.
func (e *election) replaced(chosen, stay []string) bool {
	heard := 0
	for _, s := range stay {
		if slices.Contains(chosen, s) && e.acknowledged(s) {
			heard++
		}
	}
	return heard >= e.want
}

// fit tells whether a site may be (or stay) an anchor by choice: not about to
// leave by intent, not dead, and not holding a slot to be silent.
func (e *election) fit(site string) bool {
	d := e.plan.Drain(site)
	v := verdictOf(e.verdicts, placement.SiteID(site))
	return e.in.Inventory.Site(site) != nil && (d == nil || d.Phase == placement.PhaseReturning) && v.Usable() && v.Own != placement.Down &&
		!e.holder(site)
}

// holder tells whether a site holds a slot of the prefix.
func (e *election) holder(site string) bool {
	return slices.ContainsFunc(e.in.Slots, func(s placement.Slot) bool { return s.Prefix == e.prefix.Prefix && s.Site == site })
}

// acknowledged tells whether a site announces the prefix and all its nodes which do
// know that it is an anchor, as far as anybody reports announcements at all: where
// the prefix is only observed, nobody does. One node that does not know it could be
// the last of its site, and go. An input-delayed twin counts for nothing: it will know
// of it when it is too late, and nobody stays or leaves because of it.
func (e *election) acknowledged(site string) bool {
	reported, announces := false, false
	for _, a := range e.in.Announced {
		if a.Prefix != e.prefix.Prefix {
			continue
		}
		reported = true
		if a.Site != site || a.Step == placement.Withdrawn || a.Twin {
			continue
		}
		if !a.Anchor {
			return false
		}
		announces = true
	}
	return announces || !reported || e.prefix.Mode.Or(e.in.Inventory.RoleMode("bgp")) != placement.Act
}

// ranked lists the candidates, best first: fit ones, then the healthiest, then
// those in a failure domain of their own, then the larger, then by name.
func (e *election) ranked(sites, chosen []string) []string {
	var out []string
	for _, s := range sites {
		if !slices.Contains(chosen, s) && !e.holder(s) {
			out = append(out, s)
		}
	}
	taken := make(map[string]bool)
	for _, s := range chosen {
		taken[e.domain(s)] = true
	}
	slices.SortStableFunc(out, func(a, b string) int {
		return cmp.Or(
			compareBools(e.fit(b), e.fit(a)),
			cmp.Compare(e.health(a), e.health(b)),
			compareBools(!taken[e.domain(b)], !taken[e.domain(a)]),
			cmp.Compare(siteCapacity(e.in.Inventory, b), siteCapacity(e.in.Inventory, a)),
			strings.Compare(a, b))
	})
	return out
}

// ramping tells whether a site has only just come back.
func (e *election) ramping(site string) bool {
	return slices.ContainsFunc(e.plan.Ramps, func(r placement.Ramp) bool { return r.Cluster.Site == site })
}

func (e *election) domain(site string) string {
	if s := e.in.Inventory.Site(site); s != nil {
		return s.Domain()
	}
	return site
}

// health ranks states from best to worst over the site and its clusters.
func (e *election) health(site string) int {
	worst := 0
	rank := map[placement.State]int{placement.Up: 0, placement.Unknown: 1, placement.Degraded: 2, placement.Path: 3, placement.Down: 4}
	for i := range e.verdicts {
		if v := &e.verdicts[i]; v.Object.Site == site {
			worst = max(worst, rank[v.State])
		}
	}
	return worst
}

func siteCapacity(inv *placement.Inventory, site string) int64 {
	var sum int64
	if s := inv.Site(site); s != nil {
		for i := range s.Clusters {
			sum += s.Clusters[i].Capacity
		}
	}
	return sum
}

// compareBools orders false before true.
func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
