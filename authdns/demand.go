package authdns

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"rhumb/placement"
)

// Demand is smoothed by an exponentially weighted mean: a rate counts for its part of
// the last minute, and what is older fades.
const (
	demandMemory = time.Minute
	// maxDemand is how many classes, of all services together, are reported; those that
	// ask least are left out.
	maxDemand = 4096
	// leastDemand is the rate below which a class is forgotten, in queries per second:
	// about one in half an hour.
	leastDemand = 0.0005
)

// demand smooths what clients ask, as tallies counts it.
type demand struct {
	at     time.Time
	table  string // digest of the class table whose classes these are
	sums   map[demandKey]float64
	weight float64 // of what was seen so far, 0..1: the mean of a young process is not too low
}

// Demand returns what the clients of each class ask of each steered service of this
// server, as a rate that is smoothed over about a minute. It is meant
// for one caller, every some seconds: it counts what was asked since the call before.
//
// A query is counted when it is answered, in observe mode too: it is what is
// asked, whoever answers. Its class is that of the client subnet where the resolver
// told one and the fleet uses it, otherwise the resolver's own.
func (s *Server) Demand() placement.DemandReport {
	table := ""
	if st := s.current.Load(); st != nil && st.snap != nil && st.snap.Classes != nil {
		table = st.snap.Classes.Digest
	}
	return s.tallies.demand(s.self.Node, table, s.now())
}

// add takes in what was counted since the last time. Counts of another class table
// are none: its classes are others, and some of the counts are of either.
func (d *demand) add(counts map[demandKey]int64, table string, now time.Time) {
	took := now.Sub(d.at).Seconds()
	d.at = now
	if d.sums == nil || table != d.table {
		first := d.sums == nil
		d.table, d.sums, d.weight = table, make(map[demandKey]float64), 0
		if !first {
			return
		}
	}
	if took <= 0 {
		return
	}
	fade := math.Exp(-took / demandMemory.Seconds())
	d.weight = d.weight*fade + 1 - fade
	for k := range d.sums {
		d.sums[k] *= fade
	}
	for k, n := range counts {
		d.sums[k] += float64(n) / took * (1 - fade)
	}
	maps.DeleteFunc(d.sums, func(_ demandKey, sum float64) bool { return sum < leastDemand*d.weight })
}

// report lists the strongest classes, by service.
func (d *demand) report(node string) placement.DemandReport {
	keys := slices.SortedFunc(maps.Keys(d.sums), func(a, b demandKey) int {
		return cmp.Or(cmp.Compare(d.sums[b], d.sums[a]), compareKeys(a, b))
	})
	keys = keys[:min(len(keys), maxDemand)]
	slices.SortFunc(keys, compareKeys)
	out := placement.DemandReport{Node: node, ClassTable: d.table}
	for _, k := range keys {
		if n := len(out.Services); n == 0 || out.Services[n-1].Service != k.service {
			out.Services = append(out.Services, placement.ServiceDemand{Service: k.service})
		}
		s := &out.Services[len(out.Services)-1]
		s.Asked = append(s.Asked, placement.ClassRate{Class: k.class, Milli: int64(math.Ceil(1000 * d.sums[k] / d.weight))})
	}
	return out
}

func compareKeys(a, b demandKey) int {
	return cmp.Or(strings.Compare(a.service, b.service), cmp.Compare(a.class, b.class))
}
