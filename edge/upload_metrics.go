package edge

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/edge/hold"
)

// uploadMetrics count objects that clients send.
type uploadMetrics struct {
	total  *prometheus.CounterVec // status
	staged prometheus.Gauge
	octets prometheus.Gauge
	held   prometheus.Gauge
	toHold prometheus.Gauge
	time   prometheus.Histogram
	lost   prometheus.Counter
	known  uint64 // of lost; uploads.Run's
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
		toHold: prometheus.NewGauge(prometheus.GaugeOpts{Name: "rhumb_edge_acks_to_hold",
			Help: "Addresses of services whose freshness wants that."}),
		time: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "rhumb_edge_ack_hold_seconds",
			Help: "How long acknowledgements to clients were held, of those that were.", Buckets: prometheus.ExponentialBuckets(.0005, 2.5, 12)}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{Name: "rhumb_edge_acks_dropped_total",
			Help: "Held segments that were given up: they had waited too long, or were too many."}),
	}
}

func (m *uploadMetrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.total, m.staged, m.octets, m.held, m.toHold, m.time, m.lost}
}

func (m *uploadMetrics) ended(status int) { m.total.WithLabelValues(strconv.Itoa(status)).Inc() }

func (m *uploadMetrics) count(staged int, octets int64) {
	m.staged.Set(float64(staged))
	m.octets.Set(float64(octets))
}

// watch tells of the hold, nil if there is none, and of how many addresses it is for.
func (m *uploadMetrics) watch(h *hold.Hold, addresses int) {
	m.toHold.Set(float64(addresses))
	m.held.Set(0)
	if h == nil {
		return
	}
	if h.Works() {
		m.held.Set(1)
	}
	dropped := h.Counts().Dropped
	m.lost.Add(float64(dropped - m.known))
	m.known = dropped
}

func (m *uploadMetrics) waited(d time.Duration) { m.time.Observe(d.Seconds()) }
