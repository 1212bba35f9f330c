package authdns

import (
	"maps"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// outsideMetrics tell of each name of others that aliases have for target. The label is a
// name of the configuration, never one that a client chose.
type outsideMetrics struct {
	o                    *outside
	age, stale, failures *prometheus.Desc
}

// metrics are the series of the targets; none where no resolvers are configured, since
// nothing is looked up then.
func (o *outside) metrics() []prometheus.Collector {
	if o == nil {
		return nil
	}
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, []string{"target"}, nil)
	}
	return []prometheus.Collector{&outsideMetrics{o,
		desc("rhumb_alias_age_seconds", "Time since both kinds of addresses of an alias's target were heard; none before they were."),
		desc("rhumb_alias_stale", "1 while an alias's target has not been resolved for so long that notice AliasStale tells of it."),
		desc("rhumb_alias_lookup_failures_total", "Lookups of an alias's target that failed, or found no address.")}}
}

// Describe is of prometheus.Collector.
func (m *outsideMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.age, m.stale, m.failures} {
		ch <- d
	}
}

// Collect is of prometheus.Collector.
func (m *outsideMetrics) Collect(ch chan<- prometheus.Metric) {
	held, now := m.o.held(), m.o.now()
	for _, name := range slices.Sorted(maps.Keys(held)) {
		v := held[name]
		if last := v.heard(); !last.IsZero() {
			ch <- prometheus.MustNewConstMetric(m.age, prometheus.GaugeValue, now.Sub(last).Seconds(), name)
		}
		stale := 0.0
		if v.complaint(now) != "" {
			stale = 1
		}
		ch <- prometheus.MustNewConstMetric(m.stale, prometheus.GaugeValue, stale, name)
		ch <- prometheus.MustNewConstMetric(m.failures, prometheus.CounterValue, float64(v.failures), name)
	}
}
