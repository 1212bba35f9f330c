package edge

import (
	"github.com/prometheus/client_golang/prometheus"

	"rhumb/edge/reserve"
)

// reserveMetrics tell how much is reserved for the loss of others.
type reserveMetrics struct {
	refusals *prometheus.CounterVec // site, reason
	refused  *prometheus.CounterVec // site, reason
	reserved *prometheus.GaugeVec   // loss
	capacity prometheus.Gauge
	bare     prometheus.Gauge
	recall   prometheus.Gauge
	declined prometheus.Counter
}

func newReserveMetrics() *reserveMetrics {
	return &reserveMetrics{
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rhumb_edge_backup_refusals_total",
			Help: "Records of this site's sessions that a Backup refused, by the Backup and its reason."}, []string{"site", "reason"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rhumb_edge_records_refused_total",
			Help: "Records of other sites' sessions refused here, by the site and the reason."}, []string{"site", "reason"}),
		reserved: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "rhumb_edge_reserved_sessions",
			Help: "Sessions that would come here, by the site or failure domain whose loss brings them."}, []string{"loss"}),
		capacity: prometheus.NewGauge(prometheus.GaugeOpts{Name: "rhumb_edge_capacity_sessions",
			Help: "Sessions that this edge serves at most, as configured."}),
		bare: prometheus.NewGauge(prometheus.GaugeOpts{Name: "rhumb_edge_unbacked_sessions",
			Help: "Sessions here without a Backup that they should have, since no site has room."}),
		recall: prometheus.NewGauge(prometheus.GaugeOpts{Name: "rhumb_edge_recall_sessions",
			Help: "Of the sessions without a Backup, those whose record is kept for the next process of this edge alone."}),
		declined: prometheus.NewCounter(prometheus.CounterOpts{Name: "rhumb_edge_pulls_declined_total",
			Help: "Times that a session whose packets arrive here was left where it is, since there is no room for it."}),
	}
}

func (m *reserveMetrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.refusals, m.refused, m.reserved, m.capacity, m.bare, m.recall, m.declined}
}

// report sets the gauges of what is reserved.
func (m *reserveMetrics) report(capacity int, l *reserve.Ledger) {
	m.capacity.Set(float64(capacity))
	m.reserved.Reset()
	l.Reserved(func(loss string, sessions int) { m.reserved.WithLabelValues(loss).Set(float64(sessions)) })
}
