package solve

import (
	"cmp"
	"math"
	"slices"
)

// Unlimited is the capacity of a cluster without a limit, and the limit of an
// option without one. Small enough that sums of many never overflow.
const Unlimited = math.MaxInt64 / (1 << 20)

// Problem is what to place where. Loads, demands and capacities share one unit
// of the caller's choice.
type Problem struct {
	Capacity []int64 // by cluster; 0 takes nothing
	Classes  []Class
}

// Class is demand that may go to any of its options.
type Class struct {
	Demand  int64
	Options []Option // best first: Sort
}

// Option is one cluster as a class sees it.
type Option struct {
	Cluster int32
	Rank    int32 // tier; beats any cost
	Cost    int32
	// Limit is the most that this class may put there.
	Limit int64
}

// price orders options: rank first, then cost.
func (o *Option) price() int64 { return int64(o.Rank)<<32 + int64(o.Cost) }

// Sort brings options into order of preference, ties by cluster.
func Sort(options []Option) {
	slices.SortFunc(options, func(a, b Option) int {
		return cmp.Or(cmp.Compare(a.price(), b.price()), cmp.Compare(a.Cluster, b.Cluster))
	})
}

// Part is what one option of a class carries.
type Part struct {
	Option int32 // index into Class.Options
	Load   int64
}

// Result is an assignment: the parts of each class in order of option.
type Result struct {
	Parts [][]Part
	Load  []int64 // by cluster
	// Unserved is the demand of classes none of whose options has any capacity.
	Unserved int64
	// ScaleNum/ScaleDen is by how much every capacity was stretched: 1 unless overloaded.
	ScaleNum, ScaleDen int64
	// Cost is the sum of load x price within the options' costs (ranks aside).
	Cost int64
}

// Solve places the demand. With prev, the parts of an earlier assignment of the
// same classes and options, it keeps whatever still fits and moves the excess
// only. The result depends on nothing but its arguments.
func Solve(p *Problem, prev [][]Part) *Result {
	s := newState(p)
	if prev != nil {
		s.adopt(prev)
		s.shed()
	}
	s.fill()
	s.augment()
	return s.result()
}

// state is an assignment in the making.
type state struct {
	p        *Problem
	capacity []int64 // scaled
	num, den int64
	load     []int64
	parts    [][]Part
	left     []int64 // demand of each class not placed yet
	unserved int64
}

func newState(p *Problem) *state {
	s := &state{p: p, num: 1, den: 1, capacity: slices.Clone(p.Capacity),
		load: make([]int64, len(p.Capacity)), parts: make([][]Part, len(p.Classes)), left: make([]int64, len(p.Classes))}
	var demand, total int64
	for i := range p.Classes {
		s.left[i] = p.Classes[i].Demand
		if p.servable(i) {
			demand += s.left[i]
		}
	}
	for _, c := range p.Capacity {
		total = min(total+c, Unlimited)
	}
	if demand > total && total > 0 {
		s.stretch(demand, total)
	}
	return s
}

// servable tells whether a class has an option with any capacity.
func (p *Problem) servable(class int) bool {
	return slices.ContainsFunc(p.Classes[class].Options, func(o Option) bool { return p.Capacity[o.Cluster] > 0 })
}

// stretch scales every capacity to at least num/den of what it is.
func (s *state) stretch(num, den int64) {
	s.num, s.den = num, den
	for i, c := range s.p.Capacity {
		if c < Unlimited {
			s.capacity[i] = mulDivUp(c, num, den)
		}
	}
}

func (s *state) room(cluster int32) int64 { return max(0, s.capacity[cluster]-s.load[cluster]) }

// on returns what a class carries on an option.
func (s *state) on(class int, option int32) int64 {
	for _, part := range s.parts[class] {
		if part.Option == option {
			return part.Load
		}
	}
	return 0
}

// space is how much more of a class an option may take by its limit.
func (s *state) space(class int, option int32) int64 {
	limit := s.p.Classes[class].Options[option].Limit
	if limit >= Unlimited {
		return Unlimited
	}
	return max(0, limit-s.on(class, option))
}

// put moves the load of a class on an option by delta; parts stay in order of option.
func (s *state) put(class int, option int32, delta int64) {
	s.load[s.p.Classes[class].Options[option].Cluster] += delta
	i, found := slices.BinarySearchFunc(s.parts[class], option, func(p Part, o int32) int { return cmp.Compare(p.Option, o) })
	switch {
	case !found:
		s.parts[class] = slices.Insert(s.parts[class], i, Part{option, delta})
	case s.parts[class][i].Load+delta == 0:
		s.parts[class] = slices.Delete(s.parts[class], i, i+1)
	default:
		s.parts[class][i].Load += delta
	}
}

func (s *state) result() *Result {
	r := &Result{Parts: s.parts, Load: s.load, Unserved: s.unserved, ScaleNum: s.num, ScaleDen: s.den}
	for class, parts := range s.parts {
		for _, part := range parts {
			r.Cost += part.Load * int64(s.p.Classes[class].Options[part.Option].Cost)
		}
	}
	return r
}
