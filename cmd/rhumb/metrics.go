package main

import (
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/placement"
	"rhumb/placement/store"
)

// seen is what a unit knows at one moment, as its metrics are drawn from it.
type seen struct {
	snapshot *placement.Snapshot // nil before the first
	view     *store.View
	now      time.Time
}

// stateMetrics shows the fleet as this unit sees it. Everything is computed when
// it is asked for, from one consistent look, so that no gauge can be forgotten
// when its site or drain is gone. Safe for concurrent use.
type stateMetrics struct {
	look func() seen

	build, plan, votes, frozen, leader, site, failOpen, drain, age *prometheus.Desc
}

func newStateMetrics(look func() seen) *stateMetrics {
	return &stateMetrics{look: look,
		build:    describe("rhumb_build_info", "1; the labels say which build runs.", "version", "revision", "goversion"),
		plan:     describe("rhumb_snapshot_plan_revision", "Plan revision of the snapshot in force."),
		votes:    describe("rhumb_snapshot_votes_revision", "Votes revision of the snapshot in force."),
		frozen:   describe("rhumb_frozen", "1 while an operator has stopped every automatic decision."),
		leader:   describe("rhumb_leader", "1 for the node which directs; no series while nobody does.", "node"),
		site:     describe("rhumb_site_state", "1 for the state in which the site is measured to be.", "site", "state"),
		failOpen: describe("rhumb_fail_open", "1 while answers of the service, whose names lie in the zone, are given as if what measures down were up.", "zone", "service"),
		drain:    describe("rhumb_drain_expiry_timestamp_seconds", "When the time of the site's drain runs out; no series for one without.", "site"),
		age:      describe("rhumb_state_age_seconds", "Time since the source was last heard of.", "source")}
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// Describe lists every metric there can be.
func (m *stateMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.build, m.plan, m.votes, m.frozen, m.leader, m.site, m.failOpen, m.drain, m.age} {
		out <- d
	}
}

// Collect computes the values of this moment.
func (m *stateMetrics) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	s := m.look()
	gauge(m.build, 1, version, revision(), runtime.Version())
	m.snapshot(s.snapshot, gauge)
	m.fleet(&s, gauge)
}

// snapshot shows the state in force; nothing before there is one.
func (m *stateMetrics) snapshot(s *placement.Snapshot, gauge func(*prometheus.Desc, float64, ...string)) {
	if s == nil {
		return
	}
	gauge(m.plan, float64(s.Name.Plan))
	gauge(m.votes, float64(s.Name.Votes))
	for i := range s.Inventory.Sites {
		name := s.Inventory.Sites[i].Name
		v := s.Verdict(placement.SiteID(name))
		for state := placement.Unknown; state <= placement.Down; state++ {
			gauge(m.site, number(v.State == state), name, state.String())
		}
	}
	for i := range s.Inventory.Services {
		svc := &s.Inventory.Services[i]
		gauge(m.failOpen, number(s.FailOpen(svc.Name)), zoneOf(s.Inventory, svc), svc.Name)
	}
}

// zoneOf is the zone in which a service's names lie: the longest that holds the
// first of them; empty for a service without names.
func zoneOf(inv *placement.Inventory, svc *placement.Service) string {
	if svc.IsNameServer() {
		return svc.Zone
	}
	zone := ""
	for i := range inv.Zones {
		z := inv.Zones[i].Name
		if len(svc.Names) > 0 && len(z) > len(zone) && (svc.Names[0] == z || strings.HasSuffix(svc.Names[0], "."+z)) {
			zone = z
		}
	}
	return zone
}

// fleet shows what the store says, and how old that is.
func (m *stateMetrics) fleet(s *seen, gauge func(*prometheus.Desc, float64, ...string)) {
	v := s.view
	if v.Leader != "" {
		gauge(m.leader, 1, v.Leader)
	}
	if inv := v.Inventory; inv != nil {
		gauge(m.frozen, number(inv.Frozen()))
		for i := range inv.Drains {
			if d := &inv.Drains[i]; d.Live() && !d.Until.IsZero() {
				gauge(m.drain, float64(d.Until.UnixMilli())/1000, d.Site)
			}
		}
	}
	if !v.Heartbeat.IsZero() {
		gauge(m.age, max(0, s.now.Sub(v.Heartbeat).Seconds()), "director")
	}
	if v.Revision != 0 {
		away := 0.0
		if !v.Connected {
			away = max(0, s.now.Sub(v.Since).Seconds())
		}
		gauge(m.age, away, "store")
	}
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// revision is the commit from which the binary was built, empty where the build
// did not record it.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}

// seen looks at the unit as it is now.
func (u *unit) seen() seen {
	return seen{snapshot: u.current.Load(), view: u.views.view(), now: time.Now()}
}
