package decide

import (
	"encoding/binary"
	"strings"

	"rhumb/placement"
	"rhumb/placement/lpm"
)

// built is the rows of a service with what is shared by all services which are
// decided alike.
type built struct {
	m      *market
	rows   []*placement.Row
	labels []uint32 // by class; the last one is for NoClass
	digest [32]byte
	blocks *lpm.Blocks
}

// rows makes the row of each class. Everything is cut from slabs: a hundred
// thousand rows are made at every change of health.
func (l *ledger) rows(sv *serving, st []status) *built {
	m, n := sv.m, l.w.rows()
	b := &built{m: m, rows: make([]*placement.Row, n), labels: make([]uint32, n)}
	slab := make([]placement.Row, n)
	total := 0
	for _, ranked := range m.ranked {
		total += len(ranked)
	}
	candidates := make([]placement.Candidate, 0, total)
	rm := rowMaker{l: l, m: m, st: st, levels: fallbacks(m, st), labels: make(map[string]uint32)}
	if m.policy.AllDown == placement.LastGood {
		rm.last = lastGood(m, servicePlan(l.plan, sv.service.Name).Last, st)
	}
	several := m.policy.Answers.Set()
	if several {
		rm.told, rm.sets = placement.ServiceMap{Service: sv.service, Policy: m.policy, Clusters: m.clusters, Rows: b.rows, Keys: placement.ClusterKeys(m.clusters)}, make(map[string]uint32)
	}
	for class := range n {
		row := &slab[class]
		from := len(candidates)
		candidates = append(candidates, m.ranked[class]...)
		row.Candidates = candidates[from:len(candidates):len(candidates)]
		rm.decide(row, class, sv.parts[class])
		if several {
			row.Extras = l.extras(sv, st, class)
		}
		b.rows[class], b.labels[class] = row, rm.label(row, class)
	}
	return b
}

// rowMaker judges the candidates of one class after another.
type rowMaker struct {
	l      *ledger
	m      *market
	st     []status
	levels [][]status
	last   []status // for policies that answer as before
	labels map[string]uint32
	// told and sets number the answers of several clusters that a whole class gets.
	told   placement.ServiceMap
	sets   map[string]uint32
	shares [][]placement.Share // one whole share, by candidate
	key    []byte
}

func (rm *rowMaker) decide(row *placement.Row, class int, parts []part) {
	if !rm.serves(parts) {
		parts, row.FailOpen = rm.fallback(class)
	}
	if len(parts) == 1 {
		row.Shares = rm.alone(row, parts[0].cluster)
	} else if len(parts) > 1 {
		row.Shares = rm.divided(row, parts)
	}
	rm.judge(row, rm.oneGroup(row, class))
}

// oneGroup tells whether the tier which serves is not divided by weight.
func (rm *rowMaker) oneGroup(row *placement.Row, class int) bool {
	if len(row.Shares) == 0 {
		return false
	}
	t := row.Candidates[row.Shares[0].Candidate].Tier
	return t != noTier && len(rm.m.layout(class).tiers[t]) == 1
}

// serves tells whether the division holds: somebody is in it, and open.
func (rm *rowMaker) serves(parts []part) bool {
	for _, p := range parts {
		if !rm.st[p.cluster].open() {
			return false
		}
	}
	return len(parts) > 0
}

// fallback finds somebody for a class none of whose clusters is open; the all-down
// rule holds from the second level on.
func (rm *rowMaker) fallback(class int) (parts []part, failOpen bool) {
	for i, st := range rm.levels {
		if parts := rm.l.w.parts(rm.m, class, st); parts != nil {
			return parts, i > 0
		}
	}
	switch rm.m.policy.AllDown {
	case placement.Closest:
		parts = rm.closest(class)
	case placement.LastGood:
		if parts = rm.l.w.parts(rm.m, class, rm.last); parts == nil {
			parts = rm.closest(class) // the plan knows of nobody either
		}
	}
	return parts, len(parts) > 0
}

// alone returns the share of a class that one cluster serves.
func (rm *rowMaker) alone(row *placement.Row, cluster uint16) []placement.Share {
	for k := range row.Candidates {
		if row.Candidates[k].Cluster != cluster {
			continue
		}
		for len(rm.shares) <= k {
			rm.shares = append(rm.shares, []placement.Share{{Candidate: uint16(len(rm.shares)), Upto: whole}})
		}
		return rm.shares[k]
	}
	return nil
}

// divided lists the shares in order of candidate.
func (rm *rowMaker) divided(row *placement.Row, parts []part) []placement.Share {
	var out []placement.Share
	upto := 0
	for k := range row.Candidates {
		for _, p := range parts {
			if p.cluster == row.Candidates[k].Cluster {
				upto += p.perMille
				out = append(out, placement.Share{Candidate: uint16(k), Upto: uint16(upto)})
			}
		}
	}
	return out
}

// judge says of each candidate why it gets no clients. Where nearness alone
// orders a tier, who is passed over before the last chosen one has no room.
func (rm *rowMaker) judge(row *placement.Row, ordered bool) {
	head := -1
	if n := len(row.Shares); ordered {
		head = int(row.Shares[n-1].Candidate)
	} else if n > 0 {
		head = int(row.Shares[0].Candidate)
	}
	next := 0
	for k := range row.Candidates {
		c := &row.Candidates[k]
		switch {
		case next < len(row.Shares) && int(row.Shares[next].Candidate) == k:
			next++
			c.Out = placement.In
		case c.Tier == noTier:
			c.Out = placement.OutExcluded
		case !rm.st[c.Cluster].open():
			c.Out = rm.st[c.Cluster].out
			if c.Out == placement.In {
				c.Out = placement.OutDialled
			}
		case head < 0 || k > head:
			c.Out = beyond(c, row, head)
		case rm.st[c.Cluster].limit < whole:
			c.Out = placement.OutDialled
		case rm.m.policy.SkipFirst > 0:
			c.Out = placement.OutSkipped
		default:
			c.Out = placement.OutFull
		}
	}
}

// beyond is the reason of an open candidate after the first chosen one.
func beyond(c *placement.Candidate, row *placement.Row, head int) placement.Out {
	if head >= 0 && c.Tier > row.Candidates[head].Tier {
		return placement.OutTier
	}
	return placement.OutFarther
}

// label numbers answers: equal labels, equal answers. A split class gets one
// that is cut finer.
func (rm *rowMaker) label(row *placement.Row, class int) uint32 {
	if len(row.Shares) == 0 {
		return 0
	}
	if len(row.Extras) > 0 {
		return rm.several(row, class)
	}
	if len(row.Shares) == 1 {
		return 1 + uint32(row.Candidates[row.Shares[0].Candidate].Cluster)
	}
	rm.key = rm.key[:0]
	for _, s := range row.Shares {
		rm.key = binary.BigEndian.AppendUint16(rm.key, row.Candidates[s.Candidate].Cluster)
		rm.key = binary.BigEndian.AppendUint16(rm.key, s.Upto)
	}
	return numbered(rm.labels, rm.key, lpm.SplitBase)
}

// numbered returns the number of a key, counting from base in order of first use.
func numbered(seen map[string]uint32, key []byte, base uint32) uint32 {
	n, ok := seen[string(key)]
	if !ok {
		n = base + uint32(len(seen))
		seen[string(key)] = n
	}
	return n
}

// referralLabels numbers the sets of name servers that the classes are referred to.
func referralLabels(s *placement.Snapshot, m *placement.ServiceMap) []uint32 {
	labels := make([]uint32, len(m.Rows))
	byOrder, bySet := make(map[string]uint32), make(map[string]uint32)
	var key []byte
	for class, row := range m.Rows {
		key = key[:0]
		for _, c := range row.Candidates { // all that the choice of name servers looks at
			key = binary.BigEndian.AppendUint16(key, c.Cluster)
			if c.Out.Usable() {
				key = append(key, 1)
			} else {
				key = append(key, 0)
			}
		}
		label, ok := byOrder[string(key)]
		if !ok {
			var set strings.Builder
			for _, id := range s.NameServers(&placement.Choice{Map: m, Row: row}, m.Policy.Pick) {
				set.WriteString(id.String() + "\x00")
			}
			label = numbered(bySet, []byte(set.String()), 0)
			byOrder[string(key)] = label
		}
		labels[class] = label
	}
	return labels
}
