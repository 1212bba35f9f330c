package decide

import (
	"net/netip"
	"slices"
	"time"

	"rhumb/placement"
)

// How long the phases of a drain last where nothing else tells.
const (
	dnsDwell      = time.Second      // every node has unfolded the plan without the site
	defaultTTL    = 20 * time.Second // of an answer, where neither service nor policy says
	gshutDwell    = 10 * time.Second // the Internet's own convergence, but for its long tail
	sessionsLimit = 5 * time.Minute  // what has not ended by then is forwarded or lost
	prependDwell  = 5 * time.Second  // on the way back: first heard, then plain
)

// drains brings every drain one phase further where what the phase waits for
// has come to pass; never more than one a plan, so that each is seen.
func drains(in *PlanInput, verdicts []placement.Verdict) []placement.DrainState {
	var out []placement.DrainState
	for i := range in.Inventory.Sites {
		site := in.Inventory.Sites[i].Name
		if d, ok := in.drain(site, verdicts); ok {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b placement.DrainState) int { return placement.SiteID(a.Site).Compare(placement.SiteID(b.Site)) })
	return out
}

func (in *PlanInput) drain(site string, verdicts []placement.Verdict) (placement.DrainState, bool) {
	intent := in.Inventory.Drained(site)
	var prev *placement.DrainState
	if in.Prev != nil {
		prev = in.Prev.Drain(site)
	}
	switch {
	case intent == nil && prev == nil:
		return placement.DrainState{}, false
	case prev == nil:
		return placement.DrainState{Site: site, Phase: placement.PhasePlan, Since: in.Now}, true
	}
	d := *prev
	d.Expired = intent != nil && intent.Expired(in.Now)
	if next := in.next(&d, intent, verdicts); next != d.Phase {
		d.Phase, d.Since = next, in.Now
	}
	return d, d.Phase != ""
}

// next is the phase after d's, or d's own as long as it waits; "" when all is over.
func (in *PlanInput) next(d *placement.DrainState, intent *placement.Drain, verdicts []placement.Verdict) placement.Phase {
	passed := in.Now.Sub(d.Since)
	if d.Phase == placement.PhaseReturning {
		return in.returned(d, intent)
	}
	if intent == nil || (d.Expired && intent.Return == "auto" && in.green(d, verdicts)) {
		return placement.PhaseReturning
	}
	switch d.Phase {
	case placement.PhasePlan:
		return placement.PhaseDNS
	case placement.PhaseDNS:
		return after(d.Phase, passed >= dnsDwell, placement.PhaseTTL)
	case placement.PhaseTTL:
		return after(d.Phase, passed >= longestTTL(in.Inventory, d.Site), placement.PhaseGShut)
	case placement.PhaseGShut:
		return after(d.Phase, passed >= gshutDwell && in.stepsReached(d.Site, placement.GShut), placement.PhaseSessions)
	case placement.PhaseSessions:
		return after(d.Phase, in.Sessions[d.Site] == 0 || passed >= sessionsLimit, placement.PhaseWithdraw)
	case placement.PhaseWithdraw:
		return after(d.Phase, in.stepsReached(d.Site, placement.Withdrawn), placement.PhaseDrained)
	}
	return d.Phase
}

func after(phase placement.Phase, done bool, next placement.Phase) placement.Phase {
	if done {
		return next
	}
	return phase
}

// returned ends a return when the site is back for good. One that came back by
// itself goes on returning until the operator takes the drain away: else it
// would begin anew.
func (in *PlanInput) returned(d *placement.DrainState, intent *placement.Drain) placement.Phase {
	switch {
	case intent != nil && !d.Expired:
		return placement.PhasePlan // drained again
	case intent != nil || in.Now.Sub(d.Since) < prependDwell+in.comeback():
		return d.Phase
	}
	return ""
}

// green tells whether a drained site has proven that it can serve: nothing down, and
// each cluster heard of that anybody can look at.
func (in *PlanInput) green(d *placement.DrainState, verdicts []placement.Verdict) bool {
	withdrawn := d.Phase == placement.PhaseWithdraw || d.Phase == placement.PhaseDrained
	for i := range verdicts {
		v := &verdicts[i]
		switch {
		case v.Object.Site != d.Site:
		case !v.Usable() || v.Capped:
			return false
		case v.Object.IsSite() || v.State == placement.Up:
		case v.State == placement.Unknown && withdrawn && announcedOnly(in.Inventory, v.Object):
		default:
			return false
		}
	}
	return in.Inventory.Site(d.Site) != nil
}

// announcedOnly tells whether all addresses of a cluster are of prefixes that its site
// announces. They are off its hosts while those are withdrawn, and whoever started to look
// since then knows nothing of them until they are back.
func announcedOnly(inv *placement.Inventory, id placement.ClusterID) bool {
	c := inv.Cluster(id)
	if c == nil || len(c.Addresses) == 0 {
		return false
	}
	return !slices.ContainsFunc(c.Addresses, func(a netip.AddrPort) bool {
		return !slices.ContainsFunc(inv.Prefixes, func(p placement.Prefix) bool {
			return p.Prefix.Contains(a.Addr()) && slices.Contains(inv.AnnouncingSites(&p), id.Site)
		})
	})
}

// longestTTL is how long caches may still send clients to a site.
func longestTTL(inv *placement.Inventory, site string) time.Duration {
	longest := defaultTTL
	for i := range inv.Services {
		s := &inv.Services[i]
		if s.IsNameServer() {
			continue // the name server of a drained site goes on answering; others stand beside it in every set
		}
		if !slices.ContainsFunc(inv.Eligible(s), func(id placement.ClusterID) bool { return id.Site == site }) {
			continue
		}
		if p := inv.Policy(s.Policy); p != nil {
			longest = max(longest, s.TTL.Or(p.TTL.Or(defaultTTL)))
		}
	}
	return longest
}

// stepsReached tells whether nothing of a site is announced louder than a step.
// Prefixes that only observe, or that the site has to keep as an anchor, are not
// waited for, nor is an input-delayed twin, which hears of the drain when it is over.
func (in *PlanInput) stepsReached(site string, step placement.Step) bool {
	for _, a := range in.Announced {
		p := in.Inventory.Prefix(a.Prefix)
		if a.Site != site || a.Twin || a.Step >= step || p == nil || p.Mode.Or(in.Inventory.RoleMode("bgp")) != placement.Act {
			continue
		}
		return false
	}
	return true
}

// steps lists the lowerings by intent. A site that is still an anchor goes no
// lower than gshut: its successor joins first.
func steps(in *PlanInput, plan *placement.Plan) []placement.Announcement {
	var out []placement.Announcement
	for i := range in.Inventory.Prefixes {
		p := &in.Inventory.Prefixes[i]
		for _, site := range in.Inventory.AnnouncingSites(p) {
			d := plan.Drain(site)
			if d == nil {
				continue
			}
			want := stepOf(d, in.Now)
			if want == placement.Withdrawn && isAnchor(plan.Anchors, p, site) {
				want = placement.GShut
			}
			if want == placement.Announce {
				continue
			}
			out = append(out, placement.Announcement{Prefix: p.Prefix, Site: site, Want: want, Intent: true,
				Cause: "drain: " + string(d.Phase), Mode: p.Mode.Or(in.Inventory.RoleMode("bgp"))})
		}
	}
	out = retiring(in, out)
	slices.SortStableFunc(out, compareAnnouncements)
	return out
}

func isAnchor(all []placement.Anchors, p *placement.Prefix, site string) bool {
	return slices.ContainsFunc(all, func(a placement.Anchors) bool {
		return a.Prefix == p.Prefix && slices.Contains(a.Sites, site)
	})
}

// stepOf is how loud a draining or returning site may be.
func stepOf(d *placement.DrainState, now time.Time) placement.Step {
	switch d.Phase {
	case placement.PhaseGShut, placement.PhaseSessions:
		return placement.GShut
	case placement.PhaseWithdraw, placement.PhaseDrained:
		return placement.Withdrawn
	case placement.PhaseReturning:
		if now.Sub(d.Since) < prependDwell {
			return placement.Prepend
		}
	}
	return placement.Announce
}
