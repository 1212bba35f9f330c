package decide

import (
	"cmp"
	"slices"

	"rhumb/placement"
)

// Change is a what-if: what would be lost, drained, or dialled.
type Change struct {
	Lose  []string       // sites that die
	Drain []string       // sites that are drained
	Dial  map[string]int // per mille by site, or by SITE/CLUSTER
}

// Anycast says what a forecast knows of clients that routing brings.
const Anycast = "DNS-steered: computed; anycast: unknown"

// Forecast is what a change would do to the load.
type Forecast struct {
	Snapshot string        `json:"snapshot"`
	Clusters []ClusterLoad `json:"clusters"`
	// Moved is the part of the demand whose cluster changes, Forced the part
	// that was where it cannot stay; both in per mille.
	Moved  int `json:"moved"`
	Forced int `json:"forced"`
	// Utilisation is of the fullest cluster, Headroom of all capacity together, after the change.
	Utilisation float64 `json:"utilisation"`
	Headroom    float64 `json:"headroom"`
	// Round trips in ms, by demand.
	Before RTT `json:"rtt_before"`
	After  RTT `json:"rtt_after"`
	// Known says what was computed and what was not.
	Known string `json:"known"`
}

// ClusterLoad is one cluster's load in queries per second; capacity 0 is without limit.
type ClusterLoad struct {
	Cluster  placement.ClusterID `json:"cluster"`
	Capacity int64               `json:"capacity"`
	Before   int64               `json:"before"`
	After    int64               `json:"after"`
	Open     bool                `json:"open"` // after the change
}

// RTT is two percentiles of the estimated round trip in ms.
type RTT struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
}

// Simulate computes what a change would do to the state of a snapshot. A loss is
// followed as every node would follow it at once; a drain or a dial as the
// director would plan it.
func Simulate(s *placement.Snapshot, ch Change) Forecast {
	return simulate(newWorld(s.Inventory, s.Classes, s.Plan.Inputs.Algorithm), s, ch)
}

// Losses is the N-1 table: what the loss of each site would do, worst first.
func Losses(s *placement.Snapshot) []Forecast {
	w := newWorld(s.Inventory, s.Classes, s.Plan.Inputs.Algorithm)
	out := make([]Forecast, 0, len(s.Inventory.Sites))
	for i := range s.Inventory.Sites {
		out = append(out, simulate(w, s, Change{Lose: []string{s.Inventory.Sites[i].Name}}))
	}
	slices.SortStableFunc(out, func(a, b Forecast) int { return cmp.Compare(b.Utilisation, a.Utilisation) })
	return out
}

func simulate(w *world, s *placement.Snapshot, ch Change) Forecast {
	before, after := newLedger(w, s.Plan), newLedger(w, s.Plan)
	present := before.statuses(func(m *market) []status { return now(m, s.Plan, s.Verdicts) })
	before.replay(s.Plan)
	before.move(present)
	before.crowd(present)
	changed := after.statuses(func(m *market) []status { return ch.apply(s.Inventory, m, now(m, s.Plan, s.Verdicts)) })
	if len(ch.Drain) == 0 && len(ch.Dial) == 0 {
		after.replay(s.Plan)
		after.move(present)
	} else {
		after.open(after.statuses(allOpen))
	}
	after.move(changed)
	after.crowd(changed)
	f := Forecast{Snapshot: s.Name.String(), Known: Anycast, Before: before.rtt(), After: after.rtt()}
	f.Clusters = loads(before, after, changed)
	f.Moved, f.Forced = moved(before, after, changed)
	f.summarize()
	return f
}

// apply puts the change upon a status.
func (ch *Change) apply(inv *placement.Inventory, m *market, st []status) []status {
	for i, id := range m.clusters {
		switch limit, dialled := ch.dialled(inv, id); {
		case slices.Contains(ch.Lose, id.Site):
			st[i] = status{out: placement.OutDown}
		case slices.Contains(ch.Drain, id.Site):
			st[i] = status{out: placement.OutDrained}
		case dialled && limit <= 0:
			st[i] = status{out: placement.OutDialled}
		case dialled && (st[i].open() || st[i].out == placement.OutDialled):
			st[i] = status{limit: limit}
		}
	}
	return st
}

// loads lists every cluster of the ledgers, in order of id.
func loads(before, after *ledger, changed statuses) []ClusterLoad {
	was, is := before.expected(), after.expected()
	open := make([]bool, len(is))
	for _, sv := range after.services {
		for i, st := range changed[sv.m] {
			open[sv.fleet[i]] = open[sv.fleet[i]] || st.open()
		}
	}
	var out []ClusterLoad
	for id, i := range after.clusters {
		out = append(out, ClusterLoad{Cluster: id, Capacity: capacityOf(after.w.inv, id),
			Before: (was[i] + whole/2) / whole, After: (is[i] + whole/2) / whole, Open: open[i]})
	}
	slices.SortFunc(out, func(a, b ClusterLoad) int { return a.Cluster.Compare(b.Cluster) })
	return out
}

// moved compares two divisions of the same demand.
func moved(before, after *ledger, changed statuses) (moved, forced int) {
	var total, m, f int64
	for i, sv := range before.services {
		st := changed[sv.m]
		for class, d := range sv.demand {
			total += d
			for _, p := range sv.parts[class] {
				m += d * int64(max(0, p.perMille-partIn(after.services[i].parts[class], p.cluster))) / whole
				if !st[p.cluster].open() {
					f += d * int64(p.perMille) / whole
				}
			}
		}
	}
	if total == 0 {
		return 0, 0
	}
	return int(m * whole / total), int(f * whole / total)
}

func partIn(parts []part, cluster uint16) int {
	for _, p := range parts {
		if p.cluster == cluster {
			return p.perMille
		}
	}
	return 0
}

// rtt returns the percentiles over all demand. Clients of whom nothing is known
// are left out: their cost is not known either.
func (l *ledger) rtt() RTT {
	type at struct {
		cost placement.Cost
		load int64
	}
	var all []at
	var total int64
	for _, sv := range l.services {
		for class, d := range sv.demand {
			if d == 0 || class == l.w.known {
				continue
			}
			for _, p := range sv.parts[class] {
				load := d * int64(p.perMille)
				all, total = append(all, at{l.w.cost(class, sv.m.sites[p.cluster]), load}), total+load
			}
		}
	}
	slices.SortFunc(all, func(a, b at) int { return cmp.Compare(a.cost, b.cost) })
	percentile := func(p int64) float64 {
		var sum int64
		for _, a := range all {
			if sum += a.load; sum*100 >= total*p {
				return a.cost.Milliseconds()
			}
		}
		return 0
	}
	return RTT{P50: percentile(50), P95: percentile(95)}
}

// summarize fills in the figures over all clusters.
func (f *Forecast) summarize() {
	var load, capacity int64
	for _, c := range f.Clusters {
		if c.Capacity == 0 || !c.Open {
			continue
		}
		load, capacity = load+c.After, capacity+c.Capacity
		f.Utilisation = max(f.Utilisation, float64(c.After)/float64(c.Capacity))
	}
	f.Headroom = 1
	if capacity > 0 {
		f.Headroom = 1 - float64(load)/float64(capacity)
	}
}
