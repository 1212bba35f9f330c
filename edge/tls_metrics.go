package edge

import "github.com/prometheus/client_golang/prometheus"

// Results of a handshake.
const (
	shakeSealed = "sealed" // our record layer took over
	shakeKept   = "kept"   // crypto/tls goes on: the session stays at this site
	shakeFailed = "failed"
)

// tlsMetrics counts what the TLS of services does.
type tlsMetrics struct {
	handshakes *prometheus.CounterVec // service, result
	expiry     *prometheus.GaugeVec   // service
	rejected   *prometheus.GaugeVec   // service
}

func newTLSMetrics(self prometheus.Labels) *tlsMetrics {
	return &tlsMetrics{
		handshakes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rhumb_edge_tls_handshakes_total",
			Help: "Handshakes with clients: sealed, the session can move; kept, it stays here; failed.", ConstLabels: self}, []string{"service", "result"}),
		expiry: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "rhumb_edge_certificate_expiry_seconds",
			Help: "When the certificate in service expires, in Unix time.", ConstLabels: self}, []string{"service"}),
		rejected: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "rhumb_edge_certificate_rejected",
			Help: "1 while the certificate's files are no good and the last good one is served.", ConstLabels: self}, []string{"service"}),
	}
}

func (m *tlsMetrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.handshakes, m.expiry, m.rejected}
}
