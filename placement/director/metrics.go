package director

import "github.com/prometheus/client_golang/prometheus"

// metrics count what a director does; they cost nothing where nobody registers them.
type metrics struct {
	leads     prometheus.Gauge
	published prometheus.Counter
	refused   prometheus.Counter
	seconds   prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) metrics {
	m := metrics{
		leads: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "rhumb_director_leads", Help: "1 while this node holds the director's lease."}),
		published: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rhumb_director_plans_total", Help: "Plans published by this node."}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rhumb_director_refusals_total", Help: "Plans that were not published: refused, or not written."}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "rhumb_director_plan_seconds", Help: "Time to make one plan.", Buckets: prometheus.ExponentialBuckets(.001, 2, 14)}),
	}
	if r != nil {
		r.MustRegister(m.leads, m.published, m.refused, m.seconds)
	}
	return m
}
