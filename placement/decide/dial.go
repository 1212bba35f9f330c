package decide

import (
	"fmt"
	"slices"
	"strings"

	"rhumb/placement"
)

// JudgeDial says whether a site, or one of its clusters, may be dialled to a part of
// its clients.
func JudgeDial(inv *placement.Inventory, s *placement.Snapshot, d placement.Dial, overrides []string) *placement.Refusal {
	l := newLimits(inv.Safety, append(slices.Clone(overrides), d.Override...))
	site := dialSite(inv, d.Site)
	if site == nil {
		return &placement.Refusal{Rule: placement.RuleEmptySelector, Object: d.Site, Have: "no such site or cluster", Limit: "a site of the fleet, or SITE/CLUSTER"}
	}
	ch := Change{Dial: map[string]int{d.Site: d.PerMille}}
	var rules []*placement.Refusal
	if ch.silences(inv, site) {
		rules = append(rules, l.minSites(inv, s, site.Name))
	}
	if d.OfCluster() {
		rules = append(rules, l.minServing(inv, s, ch, d.Site))
	}
	for _, r := range append(rules, l.headroom(s, ch, d.Site)) {
		if l.stands(r) {
			return r
		}
	}
	return nil
}

// dialSite returns the site of what is dialled, or nil where the fleet has no such object.
func dialSite(inv *placement.Inventory, object string) *placement.Site {
	name, cluster, ofCluster := strings.Cut(object, "/")
	if ofCluster && inv.Cluster(placement.ClusterID{Site: name, Name: cluster}) == nil {
		return nil
	}
	return inv.Site(name)
}

// minServing counts, for each service, the sites that would still serve it: as many as
// must stay on, or as do now where there are fewer.
func (l *limits) minServing(inv *placement.Inventory, s *placement.Snapshot, ch Change, object string) *placement.Refusal {
	on := sitesOn(inv, s, "")
	for i := range s.Maps {
		m := &s.Maps[i]
		if m.Service.IsNameServer() || !slices.ContainsFunc(m.Clusters, func(id placement.ClusterID) bool { return id.String() == object }) {
			continue
		}
		before, after := servingSites(inv, m, on, Change{}), servingSites(inv, m, on, ch)
		if want := min(l.MinSites, before); after < want {
			return &placement.Refusal{Rule: placement.RuleMinSites, Object: object,
				Have: fmt.Sprintf("%d sites would serve %s", after, m.Service.Name), Limit: fmt.Sprint(want)}
		}
	}
	return nil
}

// servingSites counts the sites with a cluster of a service that is not dialled to nothing.
func servingSites(inv *placement.Inventory, m *placement.ServiceMap, on []string, ch Change) int {
	seen := make(map[string]bool)
	for _, id := range m.Clusters {
		if slices.Contains(on, id.Site) && ch.dials(inv, id) > 0 {
			seen[id.Site] = true
		}
	}
	return len(seen)
}

// silences tells whether a change, with the dials that stand, leaves a site no clients.
func (ch Change) silences(inv *placement.Inventory, site *placement.Site) bool {
	clusters := site.Clusters
	return len(clusters) == 0 && ch.of(inv, site.Name) <= 0 ||
		len(clusters) > 0 && !slices.ContainsFunc(clusters, func(c placement.Cluster) bool {
			return ch.dials(inv, placement.ClusterID{Site: site.Name, Name: c.Name}) > 0
		})
}

// dialled is what the dials leave a cluster, in per mille; false where the change
// dials neither it nor its site.
func (ch Change) dialled(inv *placement.Inventory, id placement.ClusterID) (int, bool) {
	_, site := ch.Dial[id.Site]
	_, cluster := ch.Dial[id.String()]
	if !site && !cluster {
		return 0, false
	}
	return ch.dials(inv, id), true
}

// dials multiplies the dial of a cluster and that of its site, as limit.dial does.
func (ch Change) dials(inv *placement.Inventory, id placement.ClusterID) int {
	return ch.of(inv, id.Site) * ch.of(inv, id.String()) / whole
}

// of is the dial of one object: by the change, else the live one, else whole.
func (ch Change) of(inv *placement.Inventory, object string) int {
	limit, ok := ch.Dial[object]
	if i := slices.IndexFunc(inv.Dials, func(d placement.Dial) bool { return d.Site == object && d.Live() }); !ok && i >= 0 {
		limit, ok = inv.Dials[i].PerMille, true
	}
	if !ok {
		return whole
	}
	return min(max(0, limit), whole)
}
