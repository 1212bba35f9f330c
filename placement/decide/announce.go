package decide

import (
	"fmt"
	"slices"

	"rhumb/placement"
)

// announcements says for each prefix and each site that may announce it which
// step is wanted, in order of prefix and site. The guard decides what of it may
// be done; here are only the causes, of which the lowest wins:
//
//	cause                                                fault    step
//	the plan's intents (drain, return, retirement)       -        as planned
//	operator's force on the site or a gating cluster     -        withdrawn
//	the site's own votes, all local                      local    withdrawn
//	the site's own votes, otherwise                      shared   gshut
//	a quorum's verdict, the site's own votes being up    -        gshut
func announcements(inv *placement.Inventory, plan *placement.Plan, verdicts []placement.Verdict) []placement.Announcement {
	var out []placement.Announcement
	for i := range inv.Prefixes {
		p := &inv.Prefixes[i]
		mode := p.Mode.Or(inv.RoleMode("bgp"))
		for _, site := range inv.AnnouncingSites(p) {
			a := intended(inv, plan, p, site)
			for _, cause := range causes(p, site, verdicts) {
				if cause.Want > a.Want {
					a = cause
				}
			}
			a.Prefix, a.Site, a.Mode = p.Prefix, site, mode
			out = append(out, a)
		}
	}
	slices.SortStableFunc(out, compareAnnouncements)
	return out
}

func compareAnnouncements(a, b placement.Announcement) int {
	if c := a.Prefix.Addr().Compare(b.Prefix.Addr()); c != 0 {
		return c
	}
	if a.Prefix.Bits() != b.Prefix.Bits() {
		return a.Prefix.Bits() - b.Prefix.Bits()
	}
	return placement.SiteID(a.Site).Compare(placement.SiteID(b.Site))
}

// intended is what the plan asks.
func intended(inv *placement.Inventory, plan *placement.Plan, p *placement.Prefix, site string) placement.Announcement {
	a := placement.Announcement{Want: plan.Step(p.Prefix, site)}
	if a.Want == placement.Announce {
		return a
	}
	a.Intent, a.Cause = true, "by plan"
	if r := inv.Retired(p.Prefix); r != nil {
		a.Cause = retiredBy(r)
	} else if d := inv.Drained(site); d != nil {
		a.Cause = fmt.Sprintf("drained by %s: %s", d.Who, d.Reason)
	}
	return a
}

// causes lists what health and force have against a prefix at a site.
func causes(p *placement.Prefix, site string, verdicts []placement.Verdict) []placement.Announcement {
	var out []placement.Announcement
	whole := verdictOf(verdicts, placement.SiteID(site))
	if whole.State == placement.Down && whole.Own != placement.Down && whole.Force == placement.NoForce && !whole.Capped {
		out = append(out, placement.Announcement{Want: placement.GShut, Cause: whole.Cause})
	}
	gating := []*placement.Verdict{whole}
	for _, name := range p.Clusters {
		gating = append(gating, verdictOf(verdicts, placement.ClusterID{Site: site, Name: name}))
	}
	for _, v := range gating {
		switch {
		case v.Force == placement.ForceDown:
			out = append(out, placement.Announcement{Want: placement.Withdrawn, Intent: true,
				Cause: v.Object.String() + " is forced down"})
		case v.Force == placement.ForceUp || v.Own != placement.Down:
		case v.Fault == placement.LocalFault:
			out = append(out, placement.Announcement{Want: placement.Withdrawn, Fault: v.Fault, Cause: v.Object.String() + ": " + v.Cause})
		default:
			out = append(out, placement.Announcement{Want: placement.GShut, Fault: placement.SharedFault, Cause: v.Object.String() + ": " + v.Cause})
		}
	}
	return out
}
