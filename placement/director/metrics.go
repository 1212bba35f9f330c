package director

import (
	"github.com/prometheus/client_golang/prometheus"

	"rhumb/placement"
)

// metrics count what a director does; they cost nothing where nobody registers them.
type metrics struct {
	leads     prometheus.Gauge
	published prometheus.Counter
	refused   prometheus.Counter
	seconds   prometheus.Histogram
	demand    *prometheus.GaugeVec
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
		demand: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "rhumb_director_demand_rps", Help: "Requests per second that the plan counts for a service whose demand is measured."}, []string{"service"}),
	}
	if r != nil {
		r.MustRegister(m.leads, m.published, m.refused, m.seconds, m.demand)
	}
	return m
}

// planned shows what a plan counts where demand is measured.
func (m *metrics) planned(plan *placement.Plan) {
	m.demand.Reset()
	for i := range plan.Services {
		sum := int64(0)
		for _, d := range plan.Services[i].Demand {
			sum += d.QPS
		}
		if sum > 0 {
			m.demand.WithLabelValues(plan.Services[i].Service).Set(float64(sum))
		}
	}
}
