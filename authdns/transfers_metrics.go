package authdns

import (
	"github.com/prometheus/client_golang/prometheus"

	"rhumb/authdns/transfer"
)

// transferMetrics reads what the desk has counted, when somebody looks.
type transferMetrics struct {
	desk                         *transfer.Desk
	out, in, confirmed, unserved *prometheus.Desc
}

// newTransferMetrics makes the series of a desk and registers them; a nil
// Registerer, or no desk, keeps them to ourselves.
func newTransferMetrics(reg prometheus.Registerer, desk *transfer.Desk) error {
	if reg == nil || desk == nil {
		return nil
	}
	describe := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return reg.Register(&transferMetrics{desk: desk,
		out:       describe("rhumb_transfer_out_total", "Transfers to secondaries by how they ended.", "zone", "result"),
		in:        describe("rhumb_transfer_in_total", "What came of asking primaries.", "zone", "result"),
		confirmed: describe("rhumb_zone_confirmed_timestamp_seconds", "When a primary last showed that a copied zone is its newest.", "zone"),
		unserved:  describe("rhumb_zone_unserved", "1 while a copied zone must not be answered: never received, or expired.", "zone"),
	})
}

// Describe is of prometheus.Collector.
func (m *transferMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.out, m.in, m.confirmed, m.unserved} {
		ch <- d
	}
}

// Collect is of prometheus.Collector.
func (m *transferMetrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.desk.Out.Sent() {
		ch <- prometheus.MustNewConstMetric(m.out, prometheus.CounterValue, float64(c.Count), c.Zone, c.Result)
	}
	for _, z := range m.desk.In.Copies() {
		for _, c := range z.Results {
			ch <- prometheus.MustNewConstMetric(m.in, prometheus.CounterValue, float64(c.Count), z.Zone, c.Result)
		}
		unserved := 0.0
		if z.Unserved {
			unserved = 1
		}
		ch <- prometheus.MustNewConstMetric(m.unserved, prometheus.GaugeValue, unserved, z.Zone)
		if !z.Confirmed.IsZero() {
			ch <- prometheus.MustNewConstMetric(m.confirmed, prometheus.GaugeValue, float64(z.Confirmed.Unix()), z.Zone)
		}
	}
}
