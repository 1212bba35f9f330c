package authdns

import (
	"math"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// spread is a histogram by transport which takes many equal observations at once.
type spread struct {
	desc   *prometheus.Desc
	bounds []float64
	// unit is what one is counted as: sums are kept in whole units.
	unit  float64
	proto [protoDoQ + 1]spreadProto
}

// The transports, as places in protoLabels.
const (
	protoUDP = iota
	protoTCP
	protoTLS
	protoDoH
	protoDoQ
)

// spreadProto is the part of one transport.
type spreadProto struct {
	counts []atomic.Uint64 // by bound, and one beyond the last
	sum    atomic.Uint64
}

// protoLabels are those that CoreDNS uses, so that its panels work here.
var protoLabels = [protoDoQ + 1]string{"udp", "tcp", "tls", "https", "quic"}

func newSpread(name, help string, unit float64, bounds []float64) *spread {
	s := &spread{desc: prometheus.NewDesc(name, help, []string{"proto"}, nil), bounds: bounds, unit: unit}
	for i := range s.proto {
		s.proto[i].counts = make([]atomic.Uint64, len(bounds)+1)
	}
	return s
}

func (s *spread) observe(proto int, v float64) { s.observeN(proto, v, 1) }

// place is the bucket of a value.
func (s *spread) place(v float64) int {
	at := 0
	for at < len(s.bounds) && v > s.bounds[at] {
		at++
	}
	return at
}

// collected are observations of one worker, whose cache lines no other one wants.
type collected struct {
	counts []uint64 // by bucket
	sum    uint64   // in units
}

func (s *spread) collect(c *collected, v float64) {
	if c.counts == nil {
		c.counts = make([]uint64, len(s.bounds)+1)
	}
	c.counts[s.place(v)]++
	c.sum += uint64(math.Round(v / s.unit))
}

// add takes in what was collected and empties it.
func (s *spread) add(proto int, c *collected) {
	p := &s.proto[proto]
	for i, n := range c.counts {
		if n > 0 {
			p.counts[i].Add(n)
		}
	}
	p.sum.Add(c.sum)
	clear(c.counts)
	c.sum = 0
}

func (s *spread) observeN(proto int, v float64, n uint64) {
	p := &s.proto[proto]
	p.counts[s.place(v)].Add(n)
	p.sum.Add(uint64(math.Round(v/s.unit)) * n)
}

// Describe is of prometheus.Collector.
func (s *spread) Describe(ch chan<- *prometheus.Desc) { ch <- s.desc }

// Collect is of prometheus.Collector. A transport that saw nothing is left out.
func (s *spread) Collect(ch chan<- prometheus.Metric) {
	for i := range s.proto {
		p, total, buckets := &s.proto[i], uint64(0), make(map[float64]uint64, len(s.bounds))
		for k, bound := range s.bounds {
			total += p.counts[k].Load()
			buckets[bound] = total
		}
		total += p.counts[len(s.bounds)].Load()
		if total > 0 {
			ch <- prometheus.MustNewConstHistogram(s.desc, total, float64(p.sum.Load())*s.unit, buckets, protoLabels[i])
		}
	}
}
