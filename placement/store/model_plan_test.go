package store

import (
	"net/netip"
	"slices"
	"time"

	"rhumb/placement"
	"rhumb/placement/decide"
)

// plan is the director: it sees the store as it is, and makes the next plan.
func (m *model) plan() {
	if m.noPlans || m.gate.inside || !m.changed {
		return
	}
	m.changed = false
	held := m.slots()
	in := decide.PlanInput{Inventory: m.inv, Announced: m.live, Slots: held, Now: modelEpoch[0].Add(m.now)}
	if m.state != nil {
		in.Prev = m.state.plan
	}
	switch m.off {
	case "anchors acknowledge":
		in.Announced = slices.Clone(m.live)
		for i := range in.Announced {
			in.Announced[i].Anchor = true
		}
	case "holders are not named":
		in.Slots = nil
	}
	plan := &placement.Plan{Inputs: placement.Inputs{Inventory: m.inv.Revision}, Drains: m.phases()}
	decide.Standing(&in, plan, m.verdicts())
	for _, a := range plan.Anchors {
		for _, s := range held {
			if s.Prefix == a.Prefix && slices.Contains(a.Sites, s.Site) && !m.wasAnchor(a.Prefix, s.Site) {
				m.fail("%s holds a slot and is named an anchor of %s", s.Site, a.Prefix)
			}
		}
	}
	m.changed = m.state != nil && len(plan.Drains) > 0
	m.checkMove(plan)
	next := &modelState{plan, m.inv}
	if m.state != nil && m.state.inv == m.inv && decide.Same(plan, m.state.plan) {
		return
	}
	if r := (&placement.Snapshot{Inventory: m.inv, Anchors: plan.Anchors}).Check(); r != nil {
		if m.tracing {
			m.say("no plan: %v", r)
		}
		return
	}
	m.state, m.changed = next, true
	if m.tracing {
		m.say("plan: anchors %v, steps %v", plan.Anchors, stepsText(plan))
	}
}

func stepsText(p *placement.Plan) (out []string) {
	for _, s := range p.Steps {
		out = append(out, s.Site+" "+s.Want.String())
	}
	return out
}

func (m *model) wasAnchor(p netip.Prefix, site string) bool {
	return m.state != nil && slices.ContainsFunc(m.state.plan.Anchors, func(a placement.Anchors) bool {
		return a.Prefix == p && slices.Contains(a.Sites, site)
	})
}

// checkMove asks, where a plan lets an anchor go, whether enough of those who stay know
// that they are anchors; who has died or started since the store last heard of it may
// have forgotten. No plan can ask a node which is cut off, nor one which came back this
// moment and has not said yet that it announces again: the store knows it as silent, or
// not at all. Nobody counts on such a route, and by going again it takes nothing away:
// what the plan counts on is its sibling, which knows, and stays.
func (m *model) checkMove(next *placement.Plan) {
	if m.state == nil {
		return
	}
	for i, a := range m.state.plan.Anchors {
		p := m.inv.Prefix(a.Prefix)
		if p == nil || i >= len(next.Anchors) {
			continue // deleted: it is not the plan that keeps it up
		}
		gone := slices.ContainsFunc(a.Sites, func(s string) bool { return !slices.Contains(next.Anchors[i].Sites, s) })
		know := 0
		for _, s := range next.Anchors[i].Sites {
			some, all := false, true
			for _, n := range m.nodesOf(s) {
				lately := n.dead && m.now-n.died < 12*time.Second || n.booted > 0 && m.now-n.booted < 12*time.Second
				knows := lately || m.anchor(n, n.routes[i]) && !n.old
				some = some || knows
				all = all && (knows || n.dead || n.cut || n.routes[i].unsaid || n.routes[i].ladder.At == placement.Withdrawn)
			}
			if some && all {
				know++
			}
		}
		if gone && know < p.MinAnchors(len(p.Sites)) {
			m.fail("the plan names %v anchors of %s after %v, and only %d of them know it", next.Anchors[i].Sites, p.Prefix, a.Sites, know)
		}
	}
}

// phases takes each drain to its last phase in two plans.
func (m *model) phases() (out []placement.DrainState) {
	for _, site := range m.sites {
		if m.drains[site] == nil {
			continue
		}
		d := placement.DrainState{Site: site, Phase: placement.PhaseGShut}
		if m.state != nil && m.state.plan.Drain(site) != nil {
			d.Phase = placement.PhaseWithdraw
		}
		out = append(out, d)
	}
	return out
}

func (m *model) verdicts() []placement.Verdict {
	out := make([]placement.Verdict, len(m.sites))
	for i, site := range m.sites {
		v := placement.Verdict{Object: placement.SiteID(site), State: placement.Up, Own: placement.Up}
		lives := false
		for _, n := range m.nodes {
			if n.site != site {
				continue
			}
			lives = lives || !n.dead && !n.cut
			if n.sick && !n.dead {
				v.Own, v.Fault = placement.Down, n.fault
			}
		}
		if !lives || m.blamed[site] {
			v.State = placement.Down
		}
		if m.force[site] {
			v.Force = placement.ForceDown
		}
		out[i] = v
	}
	return out
}
