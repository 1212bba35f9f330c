package main

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/placement"
)

// cappedCounter counts how often the removal cap began to keep something in service
// which measures down: a gauge that is scraped misses what is over sooner. Owned by the
// goroutine that applies.
type cappedCounter struct {
	total  *prometheus.CounterVec
	capped map[placement.ClusterID]bool
}

func newCappedCounter(reg prometheus.Registerer) *cappedCounter {
	c := &cappedCounter{total: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rhumb_health_removals_capped_total",
		Help: "Verdicts of down which the removal cap kept in service, when they began."}, []string{"site"})}
	if reg != nil {
		reg.MustRegister(c.total)
	}
	return c
}

// Apply counts what is new in a snapshot.
func (c *cappedCounter) Apply(_ context.Context, s *placement.Snapshot) {
	now := make(map[placement.ClusterID]bool)
	for i := range s.Verdicts {
		v := &s.Verdicts[i]
		if !v.Capped {
			continue
		}
		now[v.Object] = true
		if !c.capped[v.Object] {
			c.total.WithLabelValues(v.Object.Site).Inc()
		}
	}
	c.capped = now
}
