package solve

import (
	"cmp"
	"slices"
)

// adopt takes over the parts of an earlier assignment as far as demand, limits
// and options still allow.
func (s *state) adopt(prev [][]Part) {
	for i := range min(len(prev), len(s.left)) {
		for _, part := range prev[i] {
			if int(part.Option) >= len(s.p.Classes[i].Options) || s.p.Capacity[s.p.Classes[i].Options[part.Option].Cluster] == 0 {
				continue
			}
			if take := min(part.Load, s.left[i], s.space(i, part.Option)); take > 0 {
				s.put(i, part.Option, take)
				s.left[i] -= take
			}
		}
	}
}

// shed takes the excess off clusters above their capacity, beginning with the
// classes that lose least.
func (s *state) shed() {
	excess := make([]bool, len(s.load))
	any := false
	for c := range s.load {
		excess[c] = s.load[c] > s.capacity[c]
		any = any || excess[c]
	}
	if !any {
		return
	}
	for _, m := range s.movable(excess) {
		c := s.p.Classes[m.class].Options[m.option].Cluster
		if take := min(s.load[c]-s.capacity[c], s.on(m.class, m.option)); take > 0 {
			s.put(m.class, m.option, -take)
			s.left[m.class] += take
		}
	}
}

type movable struct {
	class  int
	option int32
}

// movable lists the parts on the marked clusters, least regret first.
func (s *state) movable(marked []bool) []movable {
	var out []movable
	for i, parts := range s.parts {
		for _, part := range parts {
			if marked[s.p.Classes[i].Options[part.Option].Cluster] {
				out = append(out, movable{i, part.Option})
			}
		}
	}
	slices.SortFunc(out, func(a, b movable) int {
		return cmp.Or(cmp.Compare(s.regret(a.class, a.option), s.regret(b.class, b.option)), cmp.Compare(a.class, b.class), cmp.Compare(a.option, b.option))
	})
	return out
}
