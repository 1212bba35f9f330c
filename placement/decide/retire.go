package decide

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"rhumb/placement"
)

// A retired prefix leaves one site after another, in an order that every plan finds
// again from the plan before and from what is announced: those who are no anchors
// first, so that what is left of it is where it was meant to stay. Only when a site is
// silent is the next one told to go; whoever takes the retirement back brings all of
// them back at once.

// retiring adds the steps of the retired prefixes to those of the drains.
func retiring(in *PlanInput, steps []placement.Announcement) []placement.Announcement {
	for i := range in.Inventory.Retirements {
		if r := &in.Inventory.Retirements[i]; r.Live() {
			for _, a := range in.departures(r) {
				steps = lowest(steps, a)
			}
		}
	}
	return steps
}

// lowest puts a step among others, in place of a louder one for the same route.
func lowest(steps []placement.Announcement, a placement.Announcement) []placement.Announcement {
	i := slices.IndexFunc(steps, func(s placement.Announcement) bool { return s.Prefix == a.Prefix && s.Site == a.Site })
	if i < 0 {
		return append(steps, a)
	}
	if steps[i].Want < a.Want {
		steps[i] = a
	}
	return steps
}

// departures says where each site of a retired prefix stands: gone, on its way, or not
// yet. A prefix which the fleet does not name any more was held at gshut, and waits there.
func (in *PlanInput) departures(r *placement.Retirement) []placement.Announcement {
	mode, waiting := in.Inventory.RoleMode("bgp"), placement.GShut
	if p := in.Inventory.Prefix(r.Prefix); p != nil {
		mode, waiting = p.Mode.Or(mode), placement.Announce
	}
	sites := in.leaving(r.Prefix)
	told := func(site string) bool { return in.Prev != nil && in.Prev.Step(r.Prefix, site) == placement.Withdrawn }
	// One that was told to go and still announces is under way: the others wait for it.
	busy := slices.ContainsFunc(sites, func(s string) bool { return told(s) && in.loud(r.Prefix, s) })
	var out []placement.Announcement
	for _, site := range sites {
		want := placement.Withdrawn
		if in.loud(r.Prefix, site) && !told(site) {
			if busy {
				want = waiting
			}
			busy = true
		}
		if want > placement.Announce {
			out = append(out, placement.Announcement{Prefix: r.Prefix, Site: site, Want: want, Intent: true, Cause: retiredBy(r), Mode: mode})
		}
	}
	return out
}

// leaving lists the sites of a retired prefix in the order in which they go.
func (in *PlanInput) leaving(p netip.Prefix) []string {
	var sites, anchors []string
	if known := in.Inventory.Prefix(p); known != nil {
		sites = slices.Clone(in.Inventory.AnnouncingSites(known))
	}
	for _, a := range in.Announced {
		if a.Prefix == p && a.Step < placement.Withdrawn && !slices.Contains(sites, a.Site) {
			sites = append(sites, a.Site)
		}
	}
	if in.Prev != nil {
		for _, a := range in.Prev.Anchors {
			if a.Prefix == p {
				anchors = a.Sites
			}
		}
	}
	slices.SortFunc(sites, func(a, b string) int {
		if c := compareBools(slices.Contains(anchors, a), slices.Contains(anchors, b)); c != 0 {
			return c
		}
		return strings.Compare(a, b)
	})
	return sites
}

// loud tells whether any node of a site says that it announces a prefix. A dead one
// says so until its lease ends, and is gone then.
func (in *PlanInput) loud(p netip.Prefix, site string) bool {
	return announcedAt(in.Announced, p, site)
}

func announcedAt(live []placement.Announced, p netip.Prefix, site string) bool {
	return slices.ContainsFunc(live, func(a placement.Announced) bool {
		return a.Prefix == p && a.Site == site && a.Step < placement.Withdrawn
	})
}

// announcers lists the sites which say that they announce a prefix.
func announcers(live []placement.Announced, p netip.Prefix) []string {
	var out []string
	for _, a := range live {
		if a.Prefix == p && a.Step < placement.Withdrawn {
			out = append(out, a.Site)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Retiring tells whether some retired prefix is still announced anywhere.
func Retiring(inv *placement.Inventory, live []placement.Announced) bool {
	return slices.ContainsFunc(inv.Retirements, func(r placement.Retirement) bool {
		return r.Live() && len(announcers(live, r.Prefix)) > 0
	})
}

func retiredBy(r *placement.Retirement) string {
	return fmt.Sprintf("retired by %s: %s", r.Who, r.Reason)
}

// JudgeRetirement says whether a prefix may be retired: not under a local one that would
// lose its fallback with it, and no more of them at once than one intent may lower. What
// is silent already does not count.
func JudgeRetirement(inv *placement.Inventory, live []placement.Announced, r placement.Retirement) *placement.Refusal {
	l := newLimits(inv.Safety, r.Override)
	for _, no := range []*placement.Refusal{coverOf(inv, r.Prefix), tooMany(inv, live, r.Prefix)} {
		if l.stands(no) {
			return no
		}
	}
	return nil
}

// coverOf refuses to retire the fallback of a local prefix before that.
func coverOf(inv *placement.Inventory, prefix netip.Prefix) *placement.Refusal {
	for i := range inv.Prefixes {
		p := &inv.Prefixes[i]
		if p.Reach == placement.Local && p.Prefix != prefix && prefix.Bits() < p.Prefix.Bits() && prefix.Contains(p.Prefix.Addr()) &&
			inv.Retired(p.Prefix) == nil {
			return &placement.Refusal{Rule: placement.RuleRetire, Object: prefix.String(), Have: "the cover of " + p.Prefix.String() + ", which stays",
				Limit: "a local prefix has a cover", Hint: "rhumb prefixes retire " + p.Prefix.String() + " --reason …"}
		}
	}
	return nil
}

// tooMany counts the retirements under way, this one among them.
func tooMany(inv *placement.Inventory, live []placement.Announced, prefix netip.Prefix) *placement.Refusal {
	n := 1
	for i := range inv.Retirements {
		if r := &inv.Retirements[i]; r.Live() && r.Prefix != prefix && len(announcers(live, r.Prefix)) > 0 {
			n++
		}
	}
	limit := max(1, int(blastPrefixes*float64(len(inv.Prefixes))))
	if n <= limit {
		return nil
	}
	return &placement.Refusal{Rule: placement.RuleBlastRadius, Object: prefix.String(), Have: fmt.Sprintf("%d prefixes retiring at once", n),
		Limit: fmt.Sprint(limit), Hint: "wait until the other is silent: rhumb prefixes"}
}

// JudgeDeletions says which prefixes a configuration may not leave out: those which act,
// and which nobody has retired, or which are not silent yet. It may not be set aside:
// the guard would hold them all the same.
func JudgeDeletions(oldInv, newInv *placement.Inventory, live []placement.Announced) []placement.Refusal {
	var out []placement.Refusal
	for i := range oldInv.Prefixes {
		p := &oldInv.Prefixes[i]
		if newInv.Prefix(p.Prefix) != nil || p.Mode.Or(oldInv.RoleMode("bgp")) != placement.Act {
			continue
		}
		no := placement.Refusal{Rule: placement.RuleRetire, Object: p.Prefix.String(), Have: "deleted, and in service",
			Limit: "retired first, and silent everywhere", Hint: "rhumb prefixes retire " + p.Prefix.String() + " --reason …"}
		if at := announcers(live, p.Prefix); oldInv.Retired(p.Prefix) != nil {
			if len(at) == 0 {
				continue
			}
			no.Have, no.Hint = "retired, and still announced at "+strings.Join(at, ", "), "wait until it is silent: rhumb prefixes"
		}
		out = append(out, no)
	}
	return out
}
