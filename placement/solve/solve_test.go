package solve

import (
	"math/rand/v2"
	"reflect"
	"testing"
)

// oracle decides by exhaustive flow whether everybody can be served: the
// greatest flow from classes to clusters, found one unit at a time.
func oracle(p *Problem) (served int64) {
	used := make([]int64, len(p.Capacity))
	on := make([][]int64, len(p.Classes))
	for i, c := range p.Classes {
		on[i] = make([]int64, len(c.Options))
	}
	var visit func(class int, seen map[int32]bool) bool
	visit = func(class int, seen map[int32]bool) bool {
		for o, option := range p.Classes[class].Options {
			if on[class][o] >= option.Limit || seen[option.Cluster] {
				continue
			}
			seen[option.Cluster] = true
			if used[option.Cluster] < p.Capacity[option.Cluster] {
				used[option.Cluster]++
				on[class][o]++
				return true
			}
			for other := range p.Classes {
				for oo, there := range p.Classes[other].Options {
					if there.Cluster != option.Cluster || on[other][oo] == 0 {
						continue
					}
					on[other][oo]--
					used[option.Cluster]--
					if visit(other, seen) {
						used[option.Cluster]++
						on[class][o]++
						return true
					}
					on[other][oo]++
					used[option.Cluster]++
				}
			}
		}
		return false
	}
	for i, c := range p.Classes {
		for range c.Demand {
			if visit(i, make(map[int32]bool)) {
				served++
			}
		}
	}
	return served
}

// cheapest tries every division of whole units, for very small problems.
func cheapest(p *Problem) (cost int64, ok bool) {
	room := append([]int64(nil), p.Capacity...)
	best, found := int64(0), false
	var try func(class, option int, left, sum int64)
	try = func(class, option int, left, sum int64) {
		if class == len(p.Classes) {
			if !found || sum < best {
				best, found = sum, true
			}
			return
		}
		c := &p.Classes[class]
		if left == 0 {
			next := int64(0)
			if class+1 < len(p.Classes) {
				next = p.Classes[class+1].Demand
			}
			try(class+1, 0, next, sum)
			return
		}
		if option == len(c.Options) {
			return
		}
		o := &c.Options[option]
		for take := min(left, room[o.Cluster], o.Limit); take >= 0; take-- {
			room[o.Cluster] -= take
			try(class, option+1, left-take, sum+take*int64(o.Cost))
			room[o.Cluster] += take
		}
	}
	try(0, 0, p.Classes[0].Demand, 0)
	return best, found
}

func random(r *rand.Rand, clusters, classes int, demand, capacity int64) *Problem {
	p := &Problem{}
	for range clusters {
		p.Capacity = append(p.Capacity, r.Int64N(capacity+1))
	}
	for range classes {
		c := Class{Demand: r.Int64N(demand + 1)}
		for cl := range clusters {
			if r.IntN(4) == 0 {
				continue
			}
			o := Option{Cluster: int32(cl), Rank: int32(r.IntN(2)), Cost: 1 + r.Int32N(50), Limit: Unlimited}
			if r.IntN(8) == 0 {
				o.Limit = r.Int64N(demand + 1)
			}
			c.Options = append(c.Options, o)
		}
		Sort(c.Options)
		p.Classes = append(p.Classes, c)
	}
	return p
}

// sound checks what holds of every result.
func sound(t *testing.T, p *Problem, r *Result) {
	t.Helper()
	load, served := make([]int64, len(p.Capacity)), int64(0)
	var demand int64
	for i, parts := range r.Parts {
		var sum int64
		for k, part := range parts {
			o := p.Classes[i].Options[part.Option]
			if part.Load <= 0 || part.Load > o.Limit || (k > 0 && parts[k-1].Option >= part.Option) {
				t.Fatalf("class %d: part %+v of option %+v", i, part, o)
			}
			load[o.Cluster] += part.Load
			sum += part.Load
		}
		if sum > p.Classes[i].Demand {
			t.Fatalf("class %d carries %d of %d", i, sum, p.Classes[i].Demand)
		}
		served += sum
		demand += p.Classes[i].Demand
	}
	if !reflect.DeepEqual(load, r.Load) || served+r.Unserved != demand {
		t.Fatalf("load %v, says %v; served %d + unserved %d of %d", load, r.Load, served, r.Unserved, demand)
	}
	for c := range load {
		if limit := mulDivUp(p.Capacity[c], r.ScaleNum, r.ScaleDen); load[c] > limit {
			t.Fatalf("cluster %d carries %d, may %d (capacity %d, scale %d/%d)", c, load[c], limit, p.Capacity[c], r.ScaleNum, r.ScaleDen)
		}
	}
}

func TestServesAllWheneverFeasible(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	feasible, stretched := 0, 0
	for range 4000 {
		p := random(r, 2+r.IntN(4), 1+r.IntN(6), 6, 12)
		got := Solve(p, nil)
		sound(t, p, got)
		var demand int64
		for _, c := range p.Classes {
			demand += c.Demand
		}
		if oracle(p) == demand {
			feasible++
			if got.Unserved != 0 || got.ScaleNum != got.ScaleDen {
				t.Fatalf("feasible, but unserved %d at scale %d/%d: %+v", got.Unserved, got.ScaleNum, got.ScaleDen, p)
			}
		} else if got.ScaleNum > got.ScaleDen {
			stretched++
		}
	}
	if feasible < 500 || stretched < 500 {
		t.Fatalf("the cases prove little: %d feasible, %d stretched", feasible, stretched)
	}
}

// TestOverloadIsShared: the factor is the least one under which all are served.
func TestOverloadIsShared(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	checked := 0
	for range 1000 {
		p := random(r, 3, 4, 8, 6)
		got := Solve(p, nil)
		if got.Unserved > 0 || got.ScaleNum == got.ScaleDen {
			continue
		}
		less := &Problem{Classes: p.Classes}
		for _, c := range p.Capacity {
			less.Capacity = append(less.Capacity, c*(got.ScaleNum*1000-1)/(got.ScaleDen*1000))
		}
		var demand int64
		for _, c := range p.Classes {
			demand += c.Demand
		}
		if oracle(less) == demand {
			t.Fatalf("served with less than %d/%d too: %+v", got.ScaleNum, got.ScaleDen, p)
		}
		checked++
	}
	if checked < 200 {
		t.Fatalf("only %d cases were overloaded", checked)
	}
}

// unranked is a small random problem whose options differ in cost alone.
func unranked(r *rand.Rand) *Problem {
	p := random(r, 3, 3, 4, 8)
	for i := range p.Classes {
		for o := range p.Classes[i].Options {
			p.Classes[i].Options[o].Rank = 0
		}
		Sort(p.Classes[i].Options)
	}
	return p
}

func TestCostNearOptimum(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	var sum, best int64
	for range 1500 {
		p := unranked(r)
		want, ok := cheapest(p)
		if !ok {
			continue
		}
		got := Solve(p, nil)
		if got.Cost < want {
			t.Fatalf("cheaper than the optimum: %d < %d", got.Cost, want)
		}
		sum, best = sum+got.Cost, best+want
	}
	if ratio := float64(sum) / float64(best); ratio > 1.02 {
		t.Errorf("mean cost is %.4f of the optimum", ratio)
	} else {
		t.Logf("mean cost %.4f of the optimum", ratio)
	}
}

// TestBoundHolds: nothing is cheaper than the bound, and the gap it certifies is small.
func TestBoundHolds(t *testing.T) {
	r := rand.New(rand.NewPCG(15, 16))
	var best, bounds int64
	for range 1500 {
		p := unranked(r)
		want, ok := cheapest(p)
		if !ok {
			continue
		}
		got := Solve(p, nil)
		bound := p.Bound(200)
		if bound > want {
			t.Fatalf("bound %d above the optimum %d: %+v", bound, want, p)
		}
		if gap := p.Gap(got, 200); want > 0 && bound > 0 && float64(p.Value(got.Parts)) > (1+gap)*float64(bound)+1e-6 {
			t.Fatalf("gap %v does not cover value %d over bound %d", gap, p.Value(got.Parts), bound)
		}
		best, bounds = best+want, bounds+max(0, bound)
	}
	if float64(bounds) < 0.95*float64(best) {
		t.Errorf("the bounds reach %.3f of the optimum only", float64(bounds)/float64(best))
	}
}

func TestRankBeatsCost(t *testing.T) {
	p := &Problem{Capacity: []int64{5, 100}, Classes: []Class{{Demand: 8, Options: []Option{{Cluster: 0, Rank: 0, Cost: 900, Limit: Unlimited}, {Cluster: 1, Rank: 1, Cost: 1, Limit: Unlimited}}}}}
	got := Solve(p, nil)
	want := [][]Part{{{0, 5}, {1, 3}}}
	if !reflect.DeepEqual(got.Parts, want) {
		t.Errorf("parts %v, want %v", got.Parts, want)
	}
}

func TestWarmMovesTheExcessOnly(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 1000 {
		p := random(r, 4, 8, 10, 80)
		for i := range p.Capacity {
			p.Capacity[i] += 40 // room to move into
		}
		before := Solve(p, nil)
		dead := int32(r.IntN(4))
		after := &Problem{Capacity: append([]int64(nil), p.Capacity...), Classes: p.Classes}
		after.Capacity[dead] = 0
		got := Solve(after, before.Parts)
		sound(t, after, got)
		if got.ScaleNum > got.ScaleDen {
			continue
		}
		var forced, moved int64
		for i := range p.Classes {
			for o := range p.Classes[i].Options {
				was, is := partOn(before, i, o), partOn(got, i, o)
				if p.Classes[i].Options[o].Cluster == dead {
					forced += was
				}
				moved += max(0, was-is)
			}
		}
		if moved > 2*forced {
			t.Fatalf("moved %d, forced %d", moved, forced)
		}
	}
}

func partOn(r *Result, class, option int) int64 {
	for _, part := range r.Parts[class] {
		if int(part.Option) == option {
			return part.Load
		}
	}
	return 0
}

func TestSameInputSameResult(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for range 200 {
		p := random(r, 5, 20, 30, 60)
		a, b := Solve(p, nil), Solve(p, nil)
		if !reflect.DeepEqual(a, b) {
			t.Fatalf("two results of one problem: %+v and %+v", a, b)
		}
		warm := Solve(p, a.Parts)
		if a.Unserved == 0 && a.ScaleNum == a.ScaleDen && !reflect.DeepEqual(warm.Parts, a.Parts) {
			t.Fatalf("a warm start moves what may stay: %v, was %v", warm.Parts, a.Parts)
		}
	}
}

func BenchmarkSolve300x20000(b *testing.B) {
	r := rand.New(rand.NewPCG(11, 12))
	p := &Problem{}
	for range 300 {
		p.Capacity = append(p.Capacity, 50_000+r.Int64N(50_000))
	}
	for range 20_000 {
		c := Class{Demand: r.Int64N(2000)}
		for _, cl := range r.Perm(300)[:32] {
			c.Options = append(c.Options, Option{Cluster: int32(cl), Cost: r.Int32N(3000), Limit: Unlimited})
		}
		Sort(c.Options)
		p.Classes = append(p.Classes, c)
	}
	base := Solve(p, nil)
	b.Run("cold", func(b *testing.B) {
		for b.Loop() {
			Solve(p, nil)
		}
	})
	p.Capacity[7] = 0
	b.Run("warm", func(b *testing.B) {
		for b.Loop() {
			Solve(p, base.Parts)
		}
	})
}
