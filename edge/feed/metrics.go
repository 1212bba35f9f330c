package feed

import "github.com/prometheus/client_golang/prometheus"

// Metrics counts event streams and what their tokens came to, for all services of a site.
type Metrics struct {
	requests   *prometheus.CounterVec // service, result
	open       *prometheus.GaugeVec   // service
	superseded *prometheus.CounterVec // service
	asked      prometheus.Histogram
}

// NewMetrics makes them with the labels of the site. They are registered by who made them.
func NewMetrics(self prometheus.Labels) *Metrics {
	return &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rhumb_edge_stream_requests_total",
			Help: "Requests for event streams, by what they came to.", ConstLabels: self}, []string{"service", "result"}),
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "rhumb_edge_streams",
			Help: "Event streams that are open.", ConstLabels: self}, []string{"service"}),
		superseded: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rhumb_edge_streams_superseded_total",
			Help: "Event streams ended here because their session goes on elsewhere.", ConstLabels: self}, []string{"service"}),
		asked: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "rhumb_edge_token_ask_seconds",
			Help: "Time in which the keepers of a session said whether a token's epoch is the newest.", ConstLabels: self,
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 12)}),
	}
}

// Collectors are all of them.
func (m *Metrics) Collectors() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.open, m.superseded, m.asked}
}
