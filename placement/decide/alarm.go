package decide

import (
	"fmt"

	"rhumb/placement"
)

// The alarms which a decision raises. They change nothing by themselves.
const (
	AlarmFailOpen     = placement.AlarmFailOpen
	AlarmFailClosed   = "FailClosed"
	AlarmRemovalCap   = "RemovalCapped"
	AlarmDrainExpired = "DrainExpired"
	AlarmKept         = "ServiceKept"
	AlarmOverload     = "Overload"
	AlarmPlanOutdated = "PlanOutdated"
)

// alarm says what becomes of a pool of which measurement may not have all. A policy
// that fails closed believes it, and that is loud as well.
func (p *pool) alarm(policy *placement.Policy, kept int) placement.Alarm {
	if policy != nil && failsClosed(policy) {
		return placement.Alarm{Kind: AlarmFailClosed, Object: p.service.Name, Text: fmt.Sprintf(
			"%d of %d clusters are down, and the policy fails closed: %d that the cap would keep are out", p.dead+p.gone, len(p.members), kept)}
	}
	if p.broken() {
		return placement.Alarm{Kind: AlarmFailOpen, Object: p.service.Name, Text: fmt.Sprintf(
			"%d of %d clusters look dead: the monitor is taken for broken, %d stay in service", p.dead+p.gone, len(p.members), kept)}
	}
	return placement.Alarm{Kind: AlarmRemovalCap, Object: p.service.Name, Text: fmt.Sprintf(
		"%d of %d clusters are down; %d of them stay in service", p.dead+p.gone, len(p.members), kept)}
}

// openAlarms says loudly which services are answered as if all were up, since
// nobody is usable for some of their clients.
func openAlarms(s *placement.Snapshot) []placement.Alarm {
	var out []placement.Alarm
	for i := range s.Maps {
		m, open := &s.Maps[i], 0
		for _, row := range m.Rows {
			if row.FailOpen {
				open++
			}
		}
		if open > 0 && !s.FailOpen(m.Service.Name) {
			out = append(out, placement.Alarm{Kind: AlarmFailOpen, Object: m.Service.Name, Text: fmt.Sprintf(
				"no cluster is usable for %d of %d client classes: they are answered %s", open, len(m.Rows), openly(m.Policy))})
		}
	}
	return out
}

// openly says how clients are answered whom nobody usable serves.
func openly(p *placement.Policy) string {
	switch p.AllDown {
	case placement.LastGood:
		return "as before the last of them fell"
	case placement.Closest:
		return "with the closest"
	}
	return "as if all were up"
}

// planAlarms are the loud conditions that a plan carries along.
func planAlarms(inv *placement.Inventory, plan *placement.Plan) []placement.Alarm {
	var out []placement.Alarm
	if need, why := inv.MinAlgorithm(); plan.Inputs.Algorithm < need {
		out = append(out, placement.Alarm{Kind: AlarmPlanOutdated, Object: plan.By, Text: fmt.Sprintf(
			"%s needs algorithm %d, and the director's plan is of algorithm %d: releases before answer some clients otherwise; upgrade it", why, need, plan.Inputs.Algorithm)})
	}
	for _, d := range plan.Drains {
		if d.Expired {
			out = append(out, placement.Alarm{Kind: AlarmDrainExpired, Object: d.Site,
				Text: "the drain's time has run out; the site stays drained until somebody ends it"})
		}
	}
	for _, s := range plan.Services {
		if s.Kept && s.Refusal != nil {
			out = append(out, placement.Alarm{Kind: AlarmKept, Object: s.Service, Text: s.Refusal.Error()})
		}
	}
	return out
}
