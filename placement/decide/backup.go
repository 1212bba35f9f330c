package decide

import (
	"cmp"
	"slices"
	"strings"

	"rhumb/placement"
)

// backups orders, for each site, those which may take over its sessions: usable
// ones first, then those in another failure domain, then the nearest, then the
// largest. The epoch, under which a takeover needs no store, rises with each
// change of the order, so that an owner of the past is told by it.
func backups(in *PlanInput, plan *placement.Plan, verdicts []placement.Verdict) []placement.Backup {
	var out []placement.Backup
	for i := range in.Inventory.Sites {
		site := &in.Inventory.Sites[i]
		if site.Foreign() {
			continue
		}
		b := placement.Backup{Site: site.Name, Order: backupOrder(in.Inventory, plan, verdicts, site), Epoch: 1}
		if old := previousBackup(in.Prev, site.Name); old != nil {
			b.Epoch = old.Epoch
			if !slices.Equal(old.Order, b.Order) {
				b.Epoch++
			}
		}
		out = append(out, b)
	}
	slices.SortFunc(out, func(a, b placement.Backup) int { return strings.Compare(a.Site, b.Site) })
	return out
}

func previousBackup(prev *placement.Plan, site string) *placement.Backup {
	if prev == nil {
		return nil
	}
	for i := range prev.Backups {
		if prev.Backups[i].Site == site {
			return &prev.Backups[i]
		}
	}
	return nil
}

func backupOrder(inv *placement.Inventory, plan *placement.Plan, verdicts []placement.Verdict, site *placement.Site) []string {
	var others []*placement.Site
	for i := range inv.Sites {
		if inv.Sites[i].Name != site.Name && !inv.Sites[i].Foreign() {
			others = append(others, &inv.Sites[i])
		}
	}
	fit := func(s *placement.Site) bool {
		d := plan.Drain(s.Name)
		return verdictOf(verdicts, placement.SiteID(s.Name)).Usable() && (d == nil || d.Phase == placement.PhaseReturning)
	}
	slices.SortFunc(others, func(a, b *placement.Site) int {
		return cmp.Or(
			compareBools(fit(b), fit(a)),
			compareBools(sharesFate(site, a), sharesFate(site, b)),
			cmp.Compare(placement.DistanceCost(site.At, a.At), placement.DistanceCost(site.At, b.At)),
			cmp.Compare(siteCapacity(inv, b.Name), siteCapacity(inv, a.Name)),
			strings.Compare(a.Name, b.Name))
	})
	names := make([]string, 0, len(others))
	for _, s := range others {
		names = append(names, s.Name)
	}
	return names
}

// sharesFate tells whether two sites have a failure domain in common.
func sharesFate(a, b *placement.Site) bool {
	return slices.ContainsFunc(a.Domains, func(d string) bool { return slices.Contains(b.Domains, d) })
}
