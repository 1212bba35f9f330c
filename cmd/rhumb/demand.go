package main

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/placement"
	"rhumb/placement/decide"
)

// How often a name server's demand is looked at, and written if it has changed: after
// this time and a random part of as much again, so that no two nodes keep step.
const demandEvery = 10 * time.Second

// demandKeeper tells the fleet what this node's name server is asked.
type demandKeeper struct {
	measure func() placement.DemandReport
	tell    func(placement.DemandReport)
	told    placement.DemandReport // the last one

	asked   *prometheus.GaugeVec
	reports prometheus.Counter
}

func newDemandKeeper(measure func() placement.DemandReport, tell func(placement.DemandReport), reg prometheus.Registerer) *demandKeeper {
	k := &demandKeeper{measure: measure, tell: tell,
		asked: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "rhumb_dns_asked_qps", Help: "Queries per second that this node's name server answers for a service, smoothed over a minute."}, []string{"service"}),
		reports: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rhumb_dns_demand_reports_total", Help: "Times that this node has told the fleet what it is asked."})}
	reg.MustRegister(k.asked, k.reports)
	return k
}

// run looks until ctx ends. A report stands in the store until the next one, or until
// the unit's lease ends.
func (k *demandKeeper) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(demandEvery + rand.N(demandEvery)):
			k.look()
		}
	}
}

// look measures once, and tells what differs enough from what was told last.
func (k *demandKeeper) look() {
	now := k.measure()
	k.asked.Reset()
	for _, s := range now.Services {
		sum := int64(0)
		for _, a := range s.Asked {
			sum += a.Milli
		}
		k.asked.WithLabelValues(s.Service).Set(float64(sum) / 1000)
	}
	if sameDemand(k.told, now) {
		return
	}
	k.told = now
	k.tell(now)
	k.reports.Inc()
}

// sameDemand tells whether two reports of one node say the same, but for chance.
func sameDemand(old, now placement.DemandReport) bool {
	if old.Node != now.Node || old.ClassTable != now.ClassTable || len(old.Services) != len(now.Services) {
		return false
	}
	for i := range old.Services {
		a, b := &old.Services[i], &now.Services[i]
		if a.Service != b.Service {
			return false
		}
		if rise, fall := decide.Shifted(a.Asked, b.Asked, decide.ReportShift); rise || fall {
			return false
		}
	}
	return true
}
