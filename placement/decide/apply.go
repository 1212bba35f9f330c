package decide

import (
	"fmt"
	"net/netip"
	"slices"

	"rhumb/placement"
)

// sampledClients is how many client prefixes stand for all when two
// configurations are compared.
const sampledClients = 4096

// JudgeApply says what stands against a new configuration, beside the one in
// force: all refusals, not the first only, so that an operator sees the whole.
// The snapshots are of the same votes.
func JudgeApply(oldInv, newInv *placement.Inventory, oldSnap, newSnap *placement.Snapshot, overrides []string) []placement.Refusal {
	l := newLimits(newInv.Safety, overrides)
	var all []*placement.Refusal
	all = append(all, emptySelectors(newInv)...)
	all = append(all, newSnap.Check())
	all = append(all, blast(oldInv, newInv, oldSnap, newSnap)...)
	all = append(all, l.shrink(oldInv, newInv)...)
	all = append(all, serials(oldInv, newInv)...)
	if on := sitesOn(newInv, newSnap, ""); len(on) < l.MinSites && len(on) < len(sitesOn(oldInv, oldSnap, "")) {
		all = append(all, &placement.Refusal{Rule: placement.RuleMinSites, Object: "fleet", Have: fmt.Sprintf("%d sites would stay on", len(on)), Limit: fmt.Sprint(l.MinSites)})
	}
	if r := l.headroom(newSnap, Change{}, "fleet"); r != nil && l.headroom(oldSnap, Change{}, "fleet") == nil {
		all = append(all, r)
	}
	all = append(all, l.answerChange(oldSnap, newSnap))
	var out []placement.Refusal
	for _, r := range all {
		if l.stands(r) {
			out = append(out, *r)
		}
	}
	return out
}

// emptySelectors finds what would match nothing: an empty filter is a mistake,
// never "all".
func emptySelectors(inv *placement.Inventory) []*placement.Refusal {
	var out []*placement.Refusal
	refuse := func(object, have string) {
		out = append(out, &placement.Refusal{Rule: placement.RuleEmptySelector, Object: object, Have: have, Limit: "at least 1"})
	}
	if len(inv.Sites) == 0 {
		refuse("fleet", "no site")
	}
	for i := range inv.Services {
		if s := &inv.Services[i]; len(inv.Eligible(s)) == 0 {
			refuse(s.Name, "no eligible cluster")
		}
	}
	for i := range inv.Prefixes {
		p := &inv.Prefixes[i]
		if !slices.ContainsFunc(inv.AnnouncingSites(p), func(s string) bool { return inv.Site(s) != nil }) {
			refuse(p.Prefix.String(), "no site which may announce it")
		}
	}
	return out
}

// lowered is where one prefix would be announced more quietly, or not at all.
type lowered struct {
	prefix netip.Prefix
	sites  []string
	slots  int
}

// blast judges how many announcements one intent lowers. The leave of one whole
// site is a drain by another name, and is judged by the other rules.
func blast(oldInv, newInv *placement.Inventory, oldSnap, newSnap *placement.Snapshot) []*placement.Refusal {
	var all []lowered
	touched := make(map[string]bool)
	for i := range oldInv.Prefixes {
		l := lower(&oldInv.Prefixes[i], newInv, oldSnap, newSnap)
		for _, s := range l.sites {
			touched[s] = true
		}
		if len(l.sites) > 0 {
			all = append(all, l)
		}
	}
	if len(touched) <= 1 {
		return nil
	}
	var out []*placement.Refusal
	for _, l := range all {
		if len(l.sites) > max(1, l.slots) {
			out = append(out, &placement.Refusal{Rule: placement.RuleBlastRadius, Object: l.prefix.String(),
				Have: fmt.Sprintf("lowered at %d sites", len(l.sites)), Limit: fmt.Sprint(max(1, l.slots))})
		}
	}
	if limit := max(1, int(blastPrefixes*float64(len(oldInv.Prefixes)))); len(all) > limit {
		out = append(out, &placement.Refusal{Rule: placement.RuleBlastRadius, Object: "prefixes",
			Have: fmt.Sprintf("%d prefixes lowered", len(all)), Limit: fmt.Sprint(limit)})
	}
	return out
}

func lower(p *placement.Prefix, newInv *placement.Inventory, oldSnap, newSnap *placement.Snapshot) lowered {
	l := lowered{prefix: p.Prefix, slots: p.Slots}
	for _, a := range oldSnap.Announcements {
		if a.Prefix != p.Prefix || a.Want == placement.Withdrawn {
			continue // lower than that it cannot go
		}
		i := slices.IndexFunc(newSnap.Announcements, func(b placement.Announcement) bool { return b.Prefix == a.Prefix && b.Site == a.Site })
		if i < 0 || newInv.Site(a.Site) == nil || newSnap.Announcements[i].Want > a.Want {
			l.sites = append(l.sites, a.Site)
		}
	}
	return l
}

// shrink judges what would vanish: names of a zone, all that a catalog lists, and capacity.
func (l *limits) shrink(oldInv, newInv *placement.Inventory) []*placement.Refusal {
	out := unfollowed(oldInv, newInv)
	for i := range oldInv.Zones {
		was, is := &oldInv.Zones[i], 0
		if z := newInv.Zone(was.Name); z != nil {
			is = z.Names
			if z.Secondary != nil {
				continue // what its primaries send is judged where it arrives
			}
		}
		if float64(is) < l.KeepNames*float64(was.Names) {
			out = append(out, &placement.Refusal{Rule: placement.RuleShrink, Object: was.Name,
				Have: fmt.Sprintf("%d of %d names left", is, was.Names), Limit: fmt.Sprintf("%.0f %%", 100*l.KeepNames)})
		}
	}
	lost, total, losing := lostCapacity(oldInv, newInv)
	if len(sitesOf(losing)) > 1 && float64(lost) > shrinkCapacity*float64(total) {
		out = append(out, &placement.Refusal{Rule: placement.RuleShrink, Object: "capacity",
			Have: fmt.Sprintf("%d of %d qps taken away at %d sites", lost, total, len(sitesOf(losing))), Limit: fmt.Sprintf("%.0f %%", 100*shrinkCapacity)})
	}
	return out
}

func lostCapacity(oldInv, newInv *placement.Inventory) (lost, total int64, losing []placement.ClusterID) {
	for i := range oldInv.Sites {
		site := &oldInv.Sites[i]
		for k := range site.Clusters {
			id := placement.ClusterID{Site: site.Name, Name: site.Clusters[k].Name}
			was := site.Clusters[k].Capacity
			total += was
			if less := was - capacityOf(newInv, id); was > 0 && less > 0 && !(newInv.Cluster(id) != nil && capacityOf(newInv, id) == 0) {
				lost += less
				losing = append(losing, id)
			}
		}
	}
	return lost, total, losing
}

// answerChange compares what sampled clients would be told.
func (l *limits) answerChange(oldSnap, newSnap *placement.Snapshot) *placement.Refusal {
	part, worst := AnswerChange(oldSnap, newSnap)
	if part <= l.MaxAnswerChange {
		return nil
	}
	return &placement.Refusal{Rule: placement.RuleAnswerChange, Object: worst,
		Have: fmt.Sprintf("%.0f %% of the answers change", 100*part), Limit: fmt.Sprintf("%.0f %%", 100*l.MaxAnswerChange)}
}

// AnswerChange returns the part of the answers that differ between two
// snapshots, over all services of the older one, and the service with most.
func AnswerChange(oldSnap, newSnap *placement.Snapshot) (part float64, worst string) {
	clients := sample(oldSnap.Classes)
	changed, most := 0, -1
	for i := range oldSnap.Maps {
		service, n := oldSnap.Maps[i].Service.Name, 0
		for _, client := range clients {
			if answer(oldSnap, service, client) != answer(newSnap, service, client) {
				n++
			}
		}
		changed += n
		if n > most {
			most, worst = n, service
		}
	}
	if total := len(clients) * len(oldSnap.Maps); total > 0 {
		part = float64(changed) / float64(total)
	}
	return part, worst
}

// answer is what a client is told, as far as it can tell the difference.
func answer(s *placement.Snapshot, service string, client netip.Addr) string {
	c, ok := s.Choose(service, client, nil)
	if !ok {
		return ""
	}
	if _, ok := c.Cluster(); !ok {
		return string(c.Map.Policy.AllDown)
	}
	text := ""
	for _, i := range c.Clusters(client, nil) {
		id := c.Map.Clusters[i]
		text += id.String()
		if cl := s.Inventory.Cluster(id); cl != nil {
			text += fmt.Sprint(cl.Addresses)
		}
	}
	return text
}

// sample takes client addresses evenly from a class table, and one of whom
// nothing is known.
func sample(t *placement.ClassTable) []netip.Addr {
	out := []netip.Addr{netip.IPv6Unspecified()}
	if t == nil || t.Prefixes == nil {
		return out
	}
	step, i := max(1, t.Prefixes.Len()/sampledClients), 0
	for p := range t.Prefixes.All() {
		if i%step == 0 {
			out = append(out, p.Addr())
		}
		i++
	}
	return out
}
