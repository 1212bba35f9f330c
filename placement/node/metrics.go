package node

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/placement"
)

// metrics say what is in force and how old it is.
type metrics struct {
	plan, votes, patched, stale, age prometheus.Gauge
	changes, unsaved                 prometheus.Counter
	seconds                          prometheus.Histogram
	alarm                            *prometheus.GaugeVec
}

func newMetrics(r prometheus.Registerer) metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "rhumb_snapshot_" + name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "rhumb_snapshot_" + name, Help: help})
	}
	m := metrics{
		plan:    gauge("plan", "Plan revision in force."),
		votes:   gauge("votes", "Votes revision in force."),
		patched: gauge("patched", "1 while votes ahead of the store are in force."),
		stale:   gauge("stale", "1 while the last snapshot stays because a new one cannot be made."),
		age:     gauge("age_seconds", "Time since the director was last heard of."),
		changes: counter("changes_total", "Snapshots put in force."),
		unsaved: counter("unsaved_total", "States that could not be written to disk."),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "rhumb_snapshot_unfold_seconds",
			Help: "Time from a change to the snapshot in force.", Buckets: prometheus.ExponentialBuckets(.0005, 2, 14)}),
		alarm: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "rhumb_alarm", Help: "1 while a condition is loud."}, []string{"kind", "object"}),
	}
	if r != nil {
		r.MustRegister(m.plan, m.votes, m.patched, m.stale, m.age, m.changes, m.unsaved, m.seconds, m.alarm)
	}
	return m
}

func (m *metrics) applied(s *placement.Snapshot, took time.Duration) {
	m.plan.Set(float64(s.Name.Plan))
	m.votes.Set(float64(s.Name.Votes))
	m.patched.Set(flag(s.Name.Patched))
	m.changes.Inc()
	m.seconds.Observe(took.Seconds())
}
