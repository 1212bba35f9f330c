package decide

import (
	"fmt"

	"rhumb/placement"
)

// The alarms which a decision raises. They change nothing by themselves.
const (
	AlarmFailOpen     = "FailOpenActive"
	AlarmRemovalCap   = "RemovalCapped"
	AlarmDrainExpired = "DrainExpired"
	AlarmKept         = "ServiceKept"
	AlarmOverload     = "Overload"
)

func (p *pool) alarm(kept int) placement.Alarm {
	if p.broken() {
		return placement.Alarm{Kind: AlarmFailOpen, Object: p.service.Name, Text: fmt.Sprintf(
			"%d of %d clusters look dead: the monitor is taken for broken, %d stay in service", p.dead, len(p.members), kept)}
	}
	return placement.Alarm{Kind: AlarmRemovalCap, Object: p.service.Name, Text: fmt.Sprintf(
		"%d of %d clusters are down; %d of them stay in service", p.dead, len(p.members), kept)}
}

// planAlarms are the loud conditions that a plan carries along.
func planAlarms(plan *placement.Plan) []placement.Alarm {
	var out []placement.Alarm
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
