package decide

import (
	"strings"

	"rhumb/placement"
)

// demandOf is what the classes ask of a service, in thousandths of a request per
// second: what the plan carries as measured, else what the operator expects by
// region, spread evenly over the classes of each. Nil when nothing is known.
func (w *world) demandOf(s *placement.Service, planned []placement.ClassDemand) []int64 {
	if len(planned) > 0 {
		out := make([]int64, w.rows())
		for _, d := range planned {
			out[min(int(d.Class), w.known)] += d.QPS * whole
		}
		return out
	}
	if len(s.Demand) == 0 {
		return nil
	}
	if w.demand[s.Name] == nil {
		w.demand[s.Name] = make([]int64, w.rows())
		w.floor(w.demand[s.Name], s.Demand)
	}
	return w.demand[s.Name]
}

// Bounds of what counts as measured: what a class asks, in thousandths, so that no
// sum overflows whoever wrote the report, and the classes that a plan lists by service.
const (
	maxRate    = 1_000_000_000_000
	maxClasses = 4096
)

// counted is the demand that a plan divides where it was measured: PerQuery requests
// for each query that was asked, and never less in a region than is expected there,
// since a cache hides how many ask it, and a name server that does not report hides
// all. What is missing to the expected is spread evenly over the region, as if
// nothing were measured; so a few queries of one class do not stand for a region.
func (w *world) counted(s *placement.Service, asked []placement.ClassRate) []placement.ClassDemand {
	if s.PerQuery <= 0 || len(asked) == 0 {
		return nil
	}
	load := make([]int64, w.rows())
	for _, a := range asked {
		load[min(int(a.Class), w.known)] += min(a.Milli, maxRate/s.PerQuery) * s.PerQuery
	}
	return w.gather(load, w.floor(load, s.Demand))
}

// floor raises every region's classes together to what is expected of it, and
// returns the region of each class; -1 is none that the table names. A class belongs
// to the finest place that the table names, else to "*".
func (w *world) floor(load []int64, byRegion map[string]int64) []int {
	regions := sortedKeys(byRegion)
	members := make([][]int, len(regions))
	regionOfClass := make([]int, len(load))
	for class := range load {
		r := regionOf(regions, w.places(class))
		if regionOfClass[class] = r; r >= 0 {
			members[r] = append(members[r], class)
		}
	}
	for r, classes := range members {
		missing := byRegion[regions[r]] * whole
		for _, class := range classes {
			missing -= load[class]
		}
		if missing <= 0 {
			continue
		}
		if len(classes) == 0 {
			load[w.known] += missing // asked for by somebody of whom nothing is known
			continue
		}
		n := int64(len(classes))
		for i, class := range classes {
			load[class] += missing*int64(i+1)/n - missing*int64(i)/n
		}
	}
	return regionOfClass
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

// neighbours are the classes of one region whose nearest site is the same.
type neighbours struct{ region, site int }

// gather writes demand in whole requests per second and bounds how many classes are
// listed: a class that asks for little adds to the next one of its neighbours, so
// that it is lost in no sum and counts near to where it is.
func (w *world) gather(load []int64, regions []int) []placement.ClassDemand {
	total := int64(0)
	for _, n := range load {
		total += n
	}
	least := max(whole, total/maxClasses)
	out, carry := make([]int64, len(load)), make(map[neighbours]int64)
	last := make(map[neighbours]int)
	var order []neighbours
	for class, n := range load {
		if n == 0 {
			continue
		}
		at := neighbours{regions[class], -1}
		if class < w.known {
			at.site = int(w.near[class])
		}
		if _, seen := last[at]; !seen {
			order = append(order, at)
		}
		last[at] = class
		if n += carry[at]; n >= least {
			out[class], n = n/whole, n%whole
		}
		carry[at] = n
	}
	for _, at := range order {
		out[last[at]] += (carry[at] + whole/2) / whole
	}
	var list []placement.ClassDemand
	for class, n := range out {
		if n > 0 {
			list = append(list, placement.ClassDemand{Class: w.class(class), QPS: n})
		}
	}
	return list
}

// class is the class of a row: the last one is of those of whom nothing is known.
func (w *world) class(row int) uint16 {
	if row == w.known {
		return placement.NoClass
	}
	return uint16(row)
}
