package edge

import "github.com/prometheus/client_golang/prometheus"

// prepareMetrics counts what is made ready at a suspicion.
type prepareMetrics struct {
	suspicions *prometheus.CounterVec // site, result
	objects    *prometheus.CounterVec // result
	sessions   *prometheus.GaugeVec   // site, state
}

func newPrepareMetrics() *prepareMetrics {
	return &prepareMetrics{
		suspicions: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rhumb_edge_suspicions_total",
			Help: "Suspicions of sites, by how they ended."}, []string{"site", "result"}),
		objects: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rhumb_edge_prepared_objects_total",
			Help: "Objects of sessions of suspected sites, by what was done to have them at hand."}, []string{"result"}),
		sessions: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "rhumb_edge_prepared_sessions",
			Help: "Sessions of a suspected site that would go on here, by whether all they need is at hand."}, []string{"site", "state"}),
	}
}

func (m *prepareMetrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.suspicions, m.objects, m.sessions}
}

// forget ends what is shown of a site that is suspected no more.
func (m *prepareMetrics) forget(site string) {
	m.sessions.DeletePartialMatch(prometheus.Labels{"site": site})
}
