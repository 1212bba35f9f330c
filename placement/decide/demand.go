package decide

import (
	"strings"

	"rhumb/placement"
)

// demandOf is what the classes ask of a service, in thousandths of a query per
// second: what the plan carries as measured, else what the operator expects by
// region, spread evenly over the classes of each. Nil when nothing is known.
func (w *world) demandOf(s *placement.Service, measured []placement.ClassDemand) []int64 {
	if len(measured) > 0 {
		out := make([]int64, w.rows())
		for _, d := range measured {
			out[min(int(d.Class), w.known)] += d.QPS * whole
		}
		return out
	}
	if len(s.Demand) == 0 {
		return nil
	}
	if w.demand[s.Name] == nil {
		w.demand[s.Name] = w.expected(s.Demand)
	}
	return w.demand[s.Name]
}

// expected spreads demand by region: each class belongs to the finest place that
// the table names, else to "*".
func (w *world) expected(byRegion map[string]int64) []int64 {
	regions := sortedKeys(byRegion)
	members := make([][]int, len(regions))
	for class := range w.rows() {
		if r := regionOf(regions, w.places(class)); r >= 0 {
			members[r] = append(members[r], class)
		}
	}
	out := make([]int64, w.rows())
	for r, classes := range members {
		total := byRegion[regions[r]] * whole
		if len(classes) == 0 {
			out[w.known] += total // asked for by somebody of whom nothing is known
			continue
		}
		for i, class := range classes {
			n := int64(len(classes))
			out[class] += total*int64(i+1)/n - total*int64(i)/n
		}
	}
	return out
}

func regionOf(regions []string, at places) int {
	for _, place := range append(at[:], "*") {
		for i, r := range regions {
			if place != "" && strings.EqualFold(r, place) {
				return i
			}
		}
	}
	return -1
}
