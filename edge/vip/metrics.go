package vip

import "github.com/prometheus/client_golang/prometheus"

// metrics counts what an agent does. Labels hold names of leases only.
type metrics struct {
	owner   *prometheus.GaugeVec   // lease
	changes *prometheus.CounterVec // lease, to
	refused prometheus.Counter
	errors  *prometheus.CounterVec // lease
}

// newMetrics makes them, and registers them where somebody collects.
func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		owner: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "rhumb_edge_vip_owner",
			Help: "1 while this node owns the lease, else 0."}, []string{"lease"}),
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rhumb_edge_vip_changes_total",
			Help: "Leases taken and lost by this node."}, []string{"lease", "to"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "rhumb_edge_vip_refused_total",
			Help: "Datagrams that no member of this site can have sent."}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rhumb_edge_vip_errors_total",
			Help: "Times the kernel refused rules, addresses or announcements."}, []string{"lease"}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.owner, m.changes, m.refused, m.errors} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
