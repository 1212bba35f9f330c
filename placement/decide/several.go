package decide

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"rhumb/placement"
	"rhumb/placement/lpm"
)

// extras are the candidates that may stand in the answers of a class beside the one
// that serves, in order of preference.
func (l *ledger) extras(sv *serving, st []status, class int) []placement.Extra {
	beside := l.beside[sv.m]
	if beside == nil {
		beside = st
	}
	var out []placement.Extra
	for k, c := range sv.m.ranked[class] {
		if c.Tier != noTier && beside[c.Cluster].open() && l.w.inv.CNAME(sv.m.clusters[c.Cluster]) == "" {
			out = append(out, placement.Extra{Candidate: uint16(k), Upto: uint16(beside[c.Cluster].limit)})
		}
	}
	return out
}

// crowd closes for answers of several clusters who has no room for what would come by
// them, until the rest has room for that of the closed ones too; those who serve first are placed by the
// solver, as if all of their clients came to them.
func (l *ledger) crowd(st statuses) {
	l.beside = make(statuses)
	for _, sv := range l.services {
		if sv.m.policy.Answers.Set() && l.beside[sv.m] == nil {
			l.beside[sv.m] = slices.Clone(st[sv.m])
		}
	}
	for len(l.beside) > 0 && l.closeFull() {
	}
}

// closeFull closes the clusters that are asked for more than they may carry; false
// when none of them is open for it.
func (l *ledger) closeFull() bool {
	load, closed := l.expected(), false
	for _, sv := range l.services {
		for i := range l.beside[sv.m] {
			if s := &l.beside[sv.m][i]; s.open() && load[sv.fleet[i]] > l.capacity[sv.fleet[i]] {
				s.out, closed = placement.OutFull, true
			}
		}
	}
	return closed
}

// expected is load, where the clients of an answer go to its clusters in equal parts.
func (l *ledger) expected() []int64 {
	if len(l.beside) == 0 {
		return l.load(nil)
	}
	out := l.load(func(sv *serving, _ int) bool { return l.beside[sv.m] != nil })
	for _, sv := range l.services {
		if l.beside[sv.m] == nil {
			continue
		}
		for class, d := range sv.demand {
			if d == 0 {
				continue
			}
			extras := l.extras(sv, l.beside[sv.m], class)
			for _, p := range sv.parts[class] {
				l.share(sv, class, extras, p.cluster, d*int64(p.perMille)/whole, out)
			}
		}
	}
	return out
}

// share divides what comes by the answers with one cluster in front.
func (l *ledger) share(sv *serving, class int, extras []placement.Extra, head uint16, load int64, out []int64) {
	ranked, a := sv.m.ranked[class], sv.m.policy.Answers
	if l.w.inv.CNAME(sv.m.clusters[head]) != "" {
		out[sv.fleet[head]] += load
		return
	}
	var rest []placement.Candidate
	for _, e := range extras {
		if c := ranked[e.Candidate]; c.Cluster != head {
			rest = append(rest, c)
		}
	}
	if class == l.w.known { // none is nearer than another
		a = placement.Answers{Nearest: 1, Random: a.Nearest + a.Random - 1}
	}
	near := min(max(0, a.Nearest-1), len(rest))
	drawn := min(a.Random, len(rest)-near)
	each := load / int64(1+near+drawn)
	out[sv.fleet[head]] += each
	for _, c := range rest[:near] {
		out[sv.fleet[c.Cluster]] += each
	}
	for rest = rest[near:]; drawn > 0; {
		n := 1
		for n < len(rest) && rest[n].Tier == rest[0].Tier {
			n++
		}
		take := min(drawn, n)
		for _, c := range rest[:n] {
			out[sv.fleet[c.Cluster]] += each * int64(take) / int64(n)
		}
		rest, drawn = rest[n:], drawn-take
	}
}

// several numbers an answer of several clusters: by what it is made of where a whole
// class gets the same, else as one that is divided by block.
func (rm *rowMaker) several(row *placement.Row, class int) uint32 {
	c := placement.Choice{Map: &rm.told, Row: row, Class: uint16(class), Head: int(row.Shares[0].Candidate)}
	rm.key = rm.key[:0]
	if c.Fixed() {
		for _, cluster := range c.Clusters(netip.Addr{}, nil) {
			rm.key = binary.BigEndian.AppendUint16(rm.key, cluster)
		}
		return numbered(rm.sets, rm.key, 1)
	}
	for _, s := range row.Shares {
		rm.key = binary.BigEndian.AppendUint16(rm.key, row.Candidates[s.Candidate].Cluster)
		rm.key = binary.BigEndian.AppendUint16(rm.key, s.Upto)
	}
	for _, e := range row.Extras {
		rm.key = binary.BigEndian.AppendUint16(rm.key, row.Candidates[e.Candidate].Cluster)
		rm.key = binary.BigEndian.AppendUint16(rm.key, e.Upto)
		rm.key = append(rm.key, row.Candidates[e.Candidate].Tier)
	}
	return numbered(rm.labels, rm.key, lpm.SplitBase)
}
