package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/authdns/transfer"
	"rhumb/placement"
)

// catalogsTold is what is known of catalogs, for status and metrics; immutable.
type catalogsTold struct {
	// catalogs are in order of name.
	catalogs []catalogTold
	// owners are the catalogs that list zones, by zone.
	owners map[string]string
}

// catalogTold is one of them.
type catalogTold struct {
	name string
	// members are how many zones it lists, and conflicts those that somebody else has.
	members   int
	conflicts []string
	// copied is set for one that is followed.
	copied bool
}

// maxMembersTold bounds the listed zones that a unit reports one by one: what it reports
// goes to the store each second, and a catalog may list a hundred thousand.
const maxMembersTold = 200

// some names a few of many.
func some(names []string, between string) string {
	const most = 3
	if len(names) <= most {
		return strings.Join(names, between)
	}
	return fmt.Sprintf("%s%sand %d more", strings.Join(names[:most], between), between, len(names)-most)
}

// tell publishes what is in force.
func (c *catalogs) tell() {
	out := &catalogsTold{owners: make(map[string]string, len(c.claims))}
	for zone, claim := range c.claims {
		out.owners[zone] = claim.Catalog
	}
	conflicts := make(map[string][]string)
	for _, what := range c.conflicts {
		conflicts[what.Catalog] = append(conflicts[what.Catalog], what.String())
	}
	for name, l := range c.lists {
		out.catalogs = append(out.catalogs, catalogTold{name, len(l.list.Members), conflicts[name], true})
	}
	for name, l := range c.made {
		out.catalogs = append(out.catalogs, catalogTold{name: name, members: l.members})
	}
	slices.SortFunc(out.catalogs, func(a, b catalogTold) int { return cmp.Compare(a.name, b.name) })
	c.told.Store(out)
}

// report adds to the zones of a unit who lists them, and what a catalog lists. Of listed
// zones those with errors come first, and the rest only as far as there is room.
func (c *catalogs) report(zones []placement.ZoneStatus) []placement.ZoneStatus {
	told := c.told.Load()
	if told == nil {
		return zones
	}
	var out, well, ill []placement.ZoneStatus
	for _, z := range zones {
		z.Catalog = told.owners[z.Name]
		at, ok := slices.BinarySearchFunc(told.catalogs, z.Name, func(t catalogTold, name string) int { return cmp.Compare(t.name, name) })
		if ok {
			t := &told.catalogs[at]
			z.Members, z.Conflict = t.members, some(t.conflicts, "; ")
		}
		switch {
		case z.Catalog == "":
			out = append(out, z)
		case z.Error != "":
			ill = append(ill, z)
		default:
			well = append(well, z)
		}
	}
	listed := append(ill, well...)
	return append(out, listed[:min(len(listed), maxMembersTold)]...)
}

// catalogMetrics tells of catalogs when somebody looks.
type catalogMetrics struct {
	catalogs                  *catalogs
	held                      func(string) (transfer.Held, bool)
	zones, conflicts, refused *prometheus.Desc
}

// register makes the series of a unit's catalogs.
func (c *catalogs) register(reg prometheus.Registerer, held func(string) (transfer.Held, bool)) error {
	describe := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, []string{"zone"}, nil)
	}
	return reg.Register(&catalogMetrics{c, held,
		describe("rhumb_catalog_zones", "Zones that a catalog lists."),
		describe("rhumb_catalog_conflicts", "Zones that a catalog lists and somebody else has."),
		describe("rhumb_catalog_refused", "1 while the newest version of a catalog is not followed: broken, or too many zones gone."),
	})
}

// Describe is of prometheus.Collector.
func (m *catalogMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.zones, m.conflicts, m.refused} {
		ch <- d
	}
}

// Collect is of prometheus.Collector.
func (m *catalogMetrics) Collect(ch chan<- prometheus.Metric) {
	told := m.catalogs.told.Load()
	if told == nil {
		return
	}
	for i := range told.catalogs {
		t := &told.catalogs[i]
		gauge := func(d *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, t.name)
		}
		gauge(m.zones, float64(t.members))
		if t.copied {
			h, _ := m.held(t.name)
			gauge(m.conflicts, float64(len(t.conflicts)))
			gauge(m.refused, number(h.Refused))
		}
	}
}
