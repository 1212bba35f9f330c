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
	relay     relayMetrics
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
		relay:     newRelayMetrics(counter),
	}
	for _, r := range []result{byHint, byAnnounced, byPair, byGroup, byNeighbour, byOrder, byCID, byNobody, overBudget, observed} {
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
	for _, c := range append(m.relay.all(), m.strays, m.forwarded, m.octets, m.arrivals, m.refused, gauge) {
		if err := r.Register(c); err != nil {
			return fmt.Errorf("forward: register metrics: %w", err)
		}
	}
	return nil
}

// relayMetrics are those of ways by a third site.
type relayMetrics struct {
	// active is set by the goroutine that decides about ways, and by nobody else.
	active          *prometheus.GaugeVec
	packets, octets *prometheus.CounterVec
	drops           *prometheus.CounterVec
	dropped         map[string]prometheus.Counter
	shown           map[string]int
}

func newRelayMetrics(counter func(name, help, label string) *prometheus.CounterVec) relayMetrics {
	m := relayMetrics{
		active: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "rhumb_edge_relay_active",
			Help: "Sites which this one reaches by a relay, since the direct path is broken."}, []string{"via"}),
		packets: counter("rhumb_edge_relayed_packets_total", "Datagrams passed on for another site.", "from"),
		octets:  counter("rhumb_edge_relayed_bytes_total", "Octets of those datagrams, without UDP and IP.", "from"),
		drops:   counter("rhumb_edge_relay_dropped_total", "Datagrams that were to be passed on for another site and were not.", "reason"),
		dropped: make(map[string]prometheus.Counter), shown: make(map[string]int),
	}
	for _, why := range []string{droppedOff, droppedUnknown, droppedPath, droppedBudget, droppedSize} {
		m.dropped[why] = m.drops.WithLabelValues(why)
	}
	return m
}

func (m *relayMetrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.active, m.packets, m.octets, m.drops}
}

// show counts the sites behind each relay. One that was in use stays at 0.
func (m *relayMetrics) show(list []Relay) {
	if len(list) == 0 && len(m.shown) == 0 {
		return
	}
	for via := range m.shown {
		m.shown[via] = 0
	}
	for _, r := range list {
		m.shown[r.Via]++
	}
	for via, n := range m.shown {
		m.active.WithLabelValues(via).Set(float64(n))
	}
}
