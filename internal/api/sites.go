package api

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"rhumb/placement"
)

// Site is a row: DNS, routes and sessions of one site together.
type Site struct {
	Name   string    `json:"name"`
	City   string    `json:"city,omitempty"`
	Region string    `json:"region,omitempty"`
	Status string    `json:"status"`
	Since  time.Time `json:"since,omitzero"`
	Reason string    `json:"reason,omitempty"`
	// Phase of the drain: dns, ttl, gshut, sessions, withdraw, drained, returning.
	Phase    string   `json:"phase,omitempty"`
	DNS      SiteDNS  `json:"dns"`
	Load     SiteLoad `json:"load"`
	Routes   []Route  `json:"routes"`
	BGP      SiteBGP  `json:"bgp"`
	Sessions int      `json:"sessions"` // of our own server and of others on the VIPs
	Edge     SiteEdge `json:"edge"`
	// Silent is set while the site is down and none of its units has reported since: routes,
	// neighbours and sessions are their last word.
	Silent bool `json:"silent,omitempty"`
	// Clusters and Nodes in detail.
	Clusters []Cluster  `json:"clusters"`
	Nodes    []string   `json:"nodes"`
	Intents  SiteIntent `json:"intents"`
}

// SiteDNS is what answers do with a site.
type SiteDNS struct {
	// Share of the demand which answers send here by the snapshot, 0..1.
	Share float64 `json:"share"`
	// Answers per second which named the site, measured by every unit.
	Answers float64 `json:"answers_per_second"`
}

// SiteLoad is a site's use; Capacity 0 means without limit.
type SiteLoad struct {
	QPS      int64 `json:"qps"` // of the clusters whose requests are counted
	Capacity int64 `json:"capacity_qps"`
	// Use is the part of the capacity in use, of those clusters that have a limit and whose
	// requests are counted; absent without any.
	Use *float64 `json:"use,omitempty"`
}

// SiteBGP counts neighbours.
type SiteBGP struct {
	Established int `json:"established"`
	Configured  int `json:"configured"`
}

// SiteEdge counts client sessions.
type SiteEdge struct {
	Own       int   `json:"own"`
	Foreign   int   `json:"foreign"`
	Forwarded int   `json:"forwarded"`
	Moving    int   `json:"moving"`
	MovedIn   int64 `json:"moved_in"`
	MovedOut  int64 `json:"moved_out"`
	Failed    int64 `json:"failed"`
	// Relays are the sites that are reached by a third one.
	Relays []placement.EdgeRelay `json:"relays,omitempty"`
	// Prepared is what is made ready for the sessions of suspected sites.
	Prepared []placement.EdgePrepared `json:"prepared,omitempty"`
	// Listeners are those of our own server.
	Listeners []placement.EdgeListener `json:"listeners,omitempty"`
	// Handoffs are the services of kind handoff, by node.
	Handoffs []placement.EdgeHandoff `json:"handoffs,omitempty"`
	// Reserves are what is kept free for the sessions of others, by node.
	Reserves []placement.EdgeReserve `json:"reserves,omitempty"`
}

// SiteIntent is the operator's word on a site.
type SiteIntent struct {
	Drain *placement.Drain  `json:"drain,omitempty"`
	Force []placement.Force `json:"force,omitempty"`
	Dial  *placement.Dial   `json:"dial,omitempty"`
	// ClusterDials are the dials of its clusters.
	ClusterDials []placement.Dial `json:"cluster_dials,omitempty"`
	Pin          *placement.Pin   `json:"pin,omitempty"`
}

// Cluster is a cluster of a site with its verdict.
type Cluster struct {
	Name      string            `json:"name"`
	Addresses []netip.AddrPort  `json:"addresses"`
	CNAME     string            `json:"cname,omitempty"` // of others who serve
	Capacity  int64             `json:"capacity_qps,omitempty"`
	QPS       int64             `json:"qps"` // if Counted
	Counted   bool              `json:"counted,omitempty"`
	Sessions  int64             `json:"sessions,omitempty"`
	Usable    bool              `json:"usable"`
	Verdict   placement.Verdict `json:"verdict"`
}

// Route is one prefix at one site: the loudest of its nodes.
type Route struct {
	Prefix    netip.Prefix       `json:"prefix"`
	Want      placement.Step     `json:"want"`
	Announced placement.Step     `json:"announced"`
	Cause     string             `json:"cause,omitempty"`
	Since     time.Time          `json:"since,omitzero"`
	Refusal   *placement.Refusal `json:"refusal,omitempty"`
	Mode      placement.Mode     `json:"mode,omitempty"`
	Anchor    bool               `json:"anchor,omitempty"`
	Slot      int                `json:"slot,omitempty"`
	MED       uint32             `json:"med,omitempty"`
	// Origin is what the RPKI says of the route, and OriginText by which VRPs.
	Origin     string `json:"origin,omitempty"`
	OriginText string `json:"origin_text,omitempty"`
	// Reported is false while no unit of the site tells what it announces.
	Reported bool `json:"reported"`
}

// Sites returns a row for every site, worst first. rates are answers per second
// by site; nil when nothing was measured.
func Sites(s State, rates map[string]float64) []Site {
	inv, shares := s.inventory(), shares(s.Snapshot)
	out := make([]Site, 0, len(inv.Sites))
	for i := range inv.Sites {
		row := siteRow(&s, inv, &inv.Sites[i])
		row.DNS = SiteDNS{Share: shares[row.Name], Answers: rates[row.Name]}
		out = append(out, row)
	}
	slices.SortStableFunc(out, func(a, b Site) int {
		return cmp.Or(cmp.Compare(severity(a.Status), severity(b.Status)), strings.Compare(a.Name, b.Name))
	})
	return out
}

func siteRow(s *State, inv *placement.Inventory, site *placement.Site) Site {
	row := Site{Name: site.Name, City: site.City, Region: site.Region, Intents: intents(inv, site.Name)}
	row.clusters(s, site)
	row.nodes(s)
	row.routes(s, inv)
	row.judge(s)
	row.Silent = row.silent(s)
	return row
}

// silent tells whether what the units report is from before the site was found down.
func (row *Site) silent(s *State) bool {
	if s.Snapshot == nil {
		return false
	}
	v := s.Snapshot.Verdict(placement.SiteID(row.Name))
	return v.State == placement.Down && !slices.ContainsFunc(s.Nodes, func(n placement.Node) bool { return n.Site == row.Name && n.At.After(v.Since) })
}

// intents gathers the standing orders on a site and its clusters.
func intents(inv *placement.Inventory, site string) SiteIntent {
	out := SiteIntent{Drain: inv.Drained(site)}
	for _, f := range inv.Forces {
		if f.Object.Site == site && f.Live() && f.State != placement.NoForce {
			out.Force = append(out.Force, f)
		}
	}
	for i := range inv.Dials {
		d := &inv.Dials[i]
		switch in, _, _ := strings.Cut(d.Site, "/"); {
		case in != site || !d.Live() || d.PerMille >= 1000:
		case d.OfCluster():
			out.ClusterDials = append(out.ClusterDials, *d)
		default:
			out.Dial = d
		}
	}
	for i := range inv.Pins {
		if p := &inv.Pins[i]; p.Site == site && p.Live() && p.Revision > 0 {
			out.Pin = p
		}
	}
	return out
}

func (row *Site) clusters(s *State, site *placement.Site) {
	row.Clusters = make([]Cluster, 0, len(site.Clusters))
	var used, limit int64
	for _, c := range site.Clusters {
		id := placement.ClusterID{Site: site.Name, Name: c.Name}
		view := Cluster{Name: c.Name, Addresses: append([]netip.AddrPort{}, c.Addresses...), CNAME: c.CNAME, Capacity: c.Capacity, Verdict: placement.Verdict{Object: id}}
		if s.Snapshot != nil {
			view.Verdict = s.Snapshot.Verdict(id)
		}
		view.Usable = view.Verdict.Usable()
		for _, l := range s.Loads {
			if l.Cluster == id {
				view.QPS, view.Sessions, view.Counted = view.QPS+l.QPS, view.Sessions+l.Sessions, view.Counted || l.Counted
			}
		}
		row.Load.QPS += view.QPS
		row.Load.Capacity += c.Capacity
		if view.Counted && c.Capacity > 0 {
			used, limit = used+view.QPS, limit+c.Capacity
		}
		row.Clusters = append(row.Clusters, view)
	}
	if limit > 0 {
		use := float64(used) / float64(limit)
		row.Load.Use = &use
	}
}

// nodes sums what the units of the site report.
func (row *Site) nodes(s *State) {
	row.Nodes = []string{}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if n.Site != row.Name {
			continue
		}
		if !slices.Contains(row.Nodes, n.Name) {
			row.Nodes = append(row.Nodes, n.Name)
		}
		if n.BGP != nil {
			row.BGP.Configured += len(n.BGP.Peers)
			for _, p := range n.BGP.Peers {
				if established(p.State) {
					row.BGP.Established++
				}
			}
		}
		row.Edge.add(n.Edge)
	}
	slices.Sort(row.Nodes)
	row.Sessions = row.Edge.Own + row.Edge.Foreign
}

func established(state string) bool { return strings.EqualFold(state, "established") }

func (e *SiteEdge) add(n *placement.EdgeStats) {
	if n == nil {
		return
	}
	e.Own += n.Sessions
	e.Foreign += n.Foreign
	e.Forwarded += n.Forwarded
	e.Moving += n.Moving
	e.MovedIn += n.MovedIn
	e.MovedOut += n.MovedOut
	e.Failed += n.Failed
	e.Relays = append(e.Relays, n.Relays...)
	e.Prepared = append(e.Prepared, n.Prepared...)
	e.Listeners = append(e.Listeners, n.Listeners...)
	e.Handoffs = append(e.Handoffs, n.Handoffs...)
	if n.Reserve != nil {
		e.Reserves = append(e.Reserves, *n.Reserve)
	}
}

// routes lists the prefixes which the site may announce: what is wanted, and
// what the loudest of its nodes says it announces.
func (row *Site) routes(s *State, inv *placement.Inventory) {
	row.Routes = []Route{}
	for i := range inv.Prefixes {
		p := &inv.Prefixes[i]
		if !slices.Contains(inv.AnnouncingSites(p), row.Name) {
			continue
		}
		r := Route{Prefix: p.Prefix, Announced: placement.Withdrawn, Mode: p.Mode.Or(inv.RoleMode("bgp"))}
		if s.Snapshot != nil {
			r.Anchor = slices.Contains(s.Snapshot.AnchorSites(p.Prefix), row.Name)
			r.wanted(s.Snapshot.Announcements, row.Name)
		}
		r.reported(s, row.Name)
		for _, slot := range s.Slots {
			if slot.Prefix == p.Prefix && slot.Site == row.Name {
				r.Slot = slot.Number
			}
		}
		row.Routes = append(row.Routes, r)
	}
}

func (r *Route) wanted(all []placement.Announcement, site string) {
	for i := range all {
		if a := &all[i]; a.Prefix == r.Prefix && a.Site == site {
			r.Want, r.Cause = a.Want, a.Cause
		}
	}
}

func (r *Route) reported(s *State, site string) {
	var node *placement.Refusal // of a node that is drained alone and stays, loudest or not
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if n.Site != site || n.BGP == nil {
			continue
		}
		for _, st := range n.BGP.Routes {
			if st.Prefix != r.Prefix {
				continue
			}
			if st.Refusal != nil && st.Refusal.Rule == placement.RuleLastNode {
				node = st.Refusal
			}
			if r.Reported && st.Announced >= r.Announced {
				continue
			}
			r.Reported, r.Announced, r.Since, r.MED, r.Refusal = true, st.Announced, st.Since, st.MED, st.Refusal
			r.Origin, r.OriginText = st.Origin, st.OriginText
			r.Mode = st.Mode.Or(r.Mode)
			r.Cause = cmp.Or(st.Cause, r.Cause)
		}
	}
	r.Refusal = cmp.Or(r.Refusal, node)
	for _, a := range s.Announced {
		if !r.Reported && a.Prefix == r.Prefix && a.Site == site {
			r.Reported, r.Announced = true, a.Step
		}
	}
}
