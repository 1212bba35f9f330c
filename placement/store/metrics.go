package store

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of a Store; a nil one counts nothing.
type metrics struct {
	seconds   *prometheus.HistogramVec
	failures  *prometheus.CounterVec
	relists   prometheus.Counter
	connected prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	if r == nil {
		return nil, nil
	}
	m := &metrics{
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "rhumb_store_operation_seconds", Help: "Time of store operations.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9),
		}, []string{"operation"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rhumb_store_failures_total", Help: "Store operations which failed.",
		}, []string{"operation"}),
		relists: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rhumb_store_relists_total", Help: "Whole lists read, the first one included.",
		}),
		connected: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "rhumb_store_connected", Help: "1 while the store answers linearizable reads.",
		}),
	}
	for _, c := range []prometheus.Collector{m.seconds, m.failures, m.relists, m.connected} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// begin starts the clock of an operation; the returned func stops it.
func (m *metrics) begin(operation string) func(error) {
	if m == nil {
		return func(error) {}
	}
	start := time.Now()
	return func(err error) {
		m.seconds.WithLabelValues(operation).Observe(time.Since(start).Seconds())
		if err != nil {
			m.failures.WithLabelValues(operation).Inc()
		}
	}
}

func (m *metrics) listed() {
	if m != nil {
		m.relists.Inc()
	}
}

func (m *metrics) reached(ok bool) {
	switch {
	case m == nil:
	case ok:
		m.connected.Set(1)
	default:
		m.connected.Set(0)
	}
}
