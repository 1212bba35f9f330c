package decide

import (
	"cmp"
	"slices"
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

// demandShift is the part of the demand that must have moved, in per cent,
// before it is worth a plan: measurements are never twice the same.
const demandShift = 10

// Shifted tells whether measured demand differs enough from what a plan was
// made with to plan anew.
func Shifted(old, now []placement.Demand) bool {
	a, b := byClass(old), byClass(now)
	var total, moved int64
	for len(a) > 0 || len(b) > 0 {
		switch c := compareDemand(a, b); {
		case c < 0:
			moved, total, a = moved+a[0].QPS, total+a[0].QPS, a[1:]
		case c > 0:
			moved, b = moved+b[0].QPS, b[1:]
		default:
			moved, total = moved+max(a[0].QPS-b[0].QPS, b[0].QPS-a[0].QPS), total+a[0].QPS
			a, b = a[1:], b[1:]
		}
	}
	return moved*100 > total*demandShift
}

func byClass(all []placement.Demand) []placement.Demand {
	out := slices.Clone(all)
	slices.SortFunc(out, func(a, b placement.Demand) int {
		return cmp.Or(strings.Compare(a.Service, b.Service), cmp.Compare(a.Class, b.Class), cmp.Compare(a.QPS, b.QPS))
	})
	return out
}

// compareDemand says which list has the next class; negative means the first.
func compareDemand(a, b []placement.Demand) int {
	switch {
	case len(a) == 0:
		return 1
	case len(b) == 0:
		return -1
	}
	return cmp.Or(strings.Compare(a[0].Service, b[0].Service), cmp.Compare(a[0].Class, b[0].Class))
}
