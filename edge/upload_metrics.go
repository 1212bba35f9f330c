package edge

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/edge/hold"
)

// uploadMetrics count objects that clients send.
type uploadMetrics struct {
	total  *prometheus.CounterVec // status
	staged prometheus.Gauge
	octets prometheus.Gauge
	held   prometheus.Gauge
}

func newUploadMetrics() *uploadMetrics {
	return &uploadMetrics{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rhumb_edge_uploads_total",
			Help: "Uploads from clients of this site, by the HTTP status of their answer; 0: the connection was cut."}, []string{"status"}),
		staged: prometheus.NewGauge(prometheus.GaugeOpts{Name: "rhumb_edge_uploads_staged",
			Help: "Uploads on their way that are staged here, those of other sites with them."}),
		octets: prometheus.NewGauge(prometheus.GaugeOpts{Name: "rhumb_edge_uploads_staged_bytes",
			Help: "Bytes set aside for them."}),
		held: prometheus.NewGauge(prometheus.GaugeOpts{Name: "rhumb_edge_acks_held",
			Help: "1 while acknowledgements to clients can be held until a Backup has what they acknowledge."}),
	}
}

func (m *uploadMetrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.total, m.staged, m.octets, m.held}
}

func (m *uploadMetrics) ended(status int) { m.total.WithLabelValues(strconv.Itoa(status)).Inc() }

func (m *uploadMetrics) count(staged int, octets int64, h *hold.Hold) {
	m.staged.Set(float64(staged))
	m.octets.Set(float64(octets))
	m.held.Set(0)
	if h.Works() {
		m.held.Set(1)
	}
}
