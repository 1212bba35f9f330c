package authdns

import (
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/authdns/tap"
)

// tell copies a query and its reply of size octets, 0 for none, for the collector, if it
// is one of the sample. It allocates nothing and waits for nobody.
func (w *worker) tell(i, size int) {
	if !w.tap.Wanted() {
		return
	}
	w.tap.Put(&tap.Exchange{Protocol: tap.UDP, Client: w.batch.Source(i), Server: w.local, Asked: w.guard.now, Told: w.server.now(),
		Query: w.batch.Query(i), Reply: w.batch.Out(i)[:size]})
}

// handleTold is handle for what came over a stream, for the collector as well.
func (s *Server) handleTold(in, out []byte, from asker, t *tally) int {
	if s.streams == nil {
		return s.handle(in, out, from, t)
	}
	asked := s.now()
	n := s.handle(in, out, from, t)
	s.streams.PutShared(&tap.Exchange{Protocol: tapProtocols[proto(from)], Client: from.addr, Server: from.local, Asked: asked, Told: s.now(),
		Query: in, Reply: out[:n]})
	return n
}

// tapProtocols are dnstap's numbers of the transports in protoLabels.
var tapProtocols = [protoDoQ + 1]tap.Protocol{tap.UDP, tap.TCP, tap.DoT, tap.DoH, tap.DoQ}

// specified is an address that says which of ours it is, else the zero value.
func specified(a netip.AddrPort) netip.AddrPort {
	if a.Addr().IsUnspecified() {
		return netip.AddrPort{}
	}
	return unmap(a)
}

// tapMetrics tell how the collector fares.
type tapMetrics struct {
	tap                      *tap.Tap
	sent, dropped, connected *prometheus.Desc
}

func newTapMetrics(reg prometheus.Registerer, t *tap.Tap) error {
	if reg == nil || t == nil {
		return nil
	}
	desc := func(name, help string) *prometheus.Desc { return prometheus.NewDesc(name, help, nil, nil) }
	return reg.Register(&tapMetrics{t,
		desc("rhumb_dnstap_exchanges_total", "Queries that the dnstap collector was told, with their replies."),
		desc("rhumb_dnstap_dropped_total", "Queries that it was not told, as it was slow or away."),
		desc("rhumb_dnstap_connected", "1 while a dnstap collector listens.")})
}

// Describe is of prometheus.Collector.
func (m *tapMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- m.sent
	ch <- m.dropped
	ch <- m.connected
}

// Collect is of prometheus.Collector.
func (m *tapMetrics) Collect(ch chan<- prometheus.Metric) {
	sent, dropped, connected := m.tap.Counts()
	flag := 0.0
	if connected {
		flag = 1
	}
	ch <- prometheus.MustNewConstMetric(m.sent, prometheus.CounterValue, float64(sent))
	ch <- prometheus.MustNewConstMetric(m.dropped, prometheus.CounterValue, float64(dropped))
	ch <- prometheus.MustNewConstMetric(m.connected, prometheus.GaugeValue, flag)
}
