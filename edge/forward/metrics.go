package forward

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the forwarder's counters. They exist without a registry too, so
// that no caller asks.
type metrics struct {
	strays    *prometheus.CounterVec
	forwarded *prometheus.CounterVec
	octets    *prometheus.CounterVec
	arrivals  *prometheus.CounterVec
	refused   *prometheus.CounterVec
	byResult  map[result]prometheus.Counter
}

// newMetrics makes the counters, those of strays with all their results: a
// counter that appears only with its first event hides that event from rates.
func newMetrics() *metrics {
	counter := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	}
	m := &metrics{
		strays:    counter("rhumb_edge_strays_total", "Packets of sessions owned elsewhere, by how the owner was found.", "result"),
		forwarded: counter("rhumb_edge_forwarded_packets_total", "Packets tunnelled to the owner of their session.", "to"),
		octets:    counter("rhumb_edge_tunnel_bytes_total", "Octets of tunnelled packets, without the tunnel's own.", "to"),
		arrivals:  counter("rhumb_edge_arrived_packets_total", "Packets of this site's own sessions that came by tunnel.", "from"),
		refused:   counter("rhumb_edge_tunnel_refused_total", "Datagrams on the tunnel's port that were not believed.", "reason"),
		byResult:  make(map[result]prometheus.Counter),
	}
	for _, r := range []result{byHint, byAnnounced, byPair, byGroup, byCID, byNobody, overBudget, observed} {
		m.byResult[r] = m.strays.WithLabelValues(string(r))
	}
	return m
}

// register adds the counters, and the gauge of waiting packets, to a registry.
func (m *metrics) register(r prometheus.Registerer, held func() float64) error {
	if r == nil {
		return nil
	}
	gauge := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "rhumb_edge_held_packets",
		Help: "Packets that wait for their owner to be found or their session to be restored."}, held)
	for _, c := range []prometheus.Collector{m.strays, m.forwarded, m.octets, m.arrivals, m.refused, gauge} {
		if err := r.Register(c); err != nil {
			return fmt.Errorf("forward: register metrics: %w", err)
		}
	}
	return nil
}
