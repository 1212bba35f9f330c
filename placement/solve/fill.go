package solve

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
)

// fill places what is left at the best option with room. As long as everybody
// finds room at the first one, the order does not matter and nobody is asked
// for it.
func (s *state) fill() {
	if s.firstFits() {
		for i := range s.left {
			if s.left[i] > 0 && len(s.p.Classes[i].Options) > 0 {
				s.put(i, 0, s.left[i])
				s.left[i] = 0
			}
		}
		return
	}
	for _, i := range s.byRegret() {
		s.place(i)
	}
}

// firstFits tells whether all that is left goes to first options.
func (s *state) firstFits() bool {
	load := slices.Clone(s.load)
	for i, left := range s.left {
		if left == 0 || len(s.p.Classes[i].Options) == 0 {
			continue
		}
		first := s.p.Classes[i].Options[0]
		load[first.Cluster] += left
		if load[first.Cluster] > s.capacity[first.Cluster] || s.space(i, 0) < left {
			return false
		}
	}
	return true
}

// place puts a class where there is room, best option first.
func (s *state) place(class int) {
	for o := range s.p.Classes[class].Options {
		option := int32(o)
		take := min(s.left[class], s.room(s.p.Classes[class].Options[o].Cluster), s.space(class, option))
		if take > 0 {
			s.put(class, option, take)
			s.left[class] -= take
		}
		if s.left[class] == 0 {
			return
		}
	}
}

// byRegret lists the classes with something left, those with most to lose first.
func (s *state) byRegret() []int {
	var order []int
	for i, left := range s.left {
		if left > 0 {
			order = append(order, i)
		}
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(s.regret(b, 0), s.regret(a, 0)), cmp.Compare(a, b))
	})
	return order
}

// regret is what it costs a class to go one option further than the given one.
func (s *state) regret(class int, option int32) int64 {
	options := s.p.Classes[class].Options
	if int(option)+1 >= len(options) {
		return math.MaxInt64
	}
	return options[option+1].price() - options[option].price()
}

// mulDivUp returns ceil(a*b/c) without overflow on the way.
func mulDivUp(a, b, c int64) int64 {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	q, r := bits.Div64(hi, lo, uint64(c))
	if r > 0 {
		q++
	}
	return int64(q)
}
