package solve

// rankPrice is what a rank counts for in a bound: more than any path on earth.
const rankPrice = 1 << 16

// flat is the price of an option as one number.
func (o *Option) flat() int64 { return int64(o.Rank)*rankPrice + int64(o.Cost) }

// Value is what an assignment costs, load times price with ranks counted.
func (p *Problem) Value(parts [][]Part) int64 {
	var sum int64
	for i := range parts {
		for _, part := range parts[i] {
			sum += part.Load * p.Classes[i].Options[part.Option].flat()
		}
	}
	return sum
}

// Bound returns a value below which no assignment of the whole demand within
// capacity can come: each class takes its cheapest option at a price per cluster
// that rises where too much would gather, and what the prices would earn at full
// clusters is taken off again (the Lagrangian dual). Any prices give a bound;
// more rounds give a better one.
func (p *Problem) Bound(rounds int) int64 {
	prices := make([]int64, len(p.Capacity))
	best := int64(-1 << 62)
	step := int64(0)
	for i := range p.Classes {
		for k := range p.Classes[i].Options {
			step = max(step, p.Classes[i].Options[k].flat())
		}
	}
	for round := range rounds {
		value, load := p.priced(prices)
		best = max(best, value)
		p.adjust(prices, load, step/int64(round+2))
	}
	return best
}

// priced is the value of the dual at some prices, and the load it would cause.
func (p *Problem) priced(prices []int64) (value int64, load []int64) {
	load = make([]int64, len(prices))
	for i := range p.Classes {
		c := &p.Classes[i]
		if len(c.Options) == 0 {
			continue
		}
		best, at := int64(1<<62), int32(0)
		for k := range c.Options {
			o := &c.Options[k]
			if price := o.flat() + prices[o.Cluster]; price < best && p.Capacity[o.Cluster] > 0 {
				best, at = price, o.Cluster
			}
		}
		if best == 1<<62 {
			continue
		}
		value += best * c.Demand
		load[at] += c.Demand
	}
	for c, price := range prices {
		if p.Capacity[c] < Unlimited {
			value -= price * p.Capacity[c]
		}
	}
	return value, load
}

// adjust moves prices towards balance, at most by step.
func (p *Problem) adjust(prices, load []int64, step int64) {
	for c := range prices {
		if p.Capacity[c] >= Unlimited {
			continue // never full: its price stays nothing
		}
		excess := load[c] - p.Capacity[c]
		scale := max(load[c], p.Capacity[c], 1)
		if excess > 0 {
			prices[c] += mulDivUp(step, excess, scale)
		} else {
			prices[c] = max(0, prices[c]-mulDivUp(step, -excess, scale))
		}
	}
}

// Gap is how far an assignment lies above the bound, as a part of it: 0 is
// certainly the best there is. An overloaded problem has no bound: 0 as well.
func (p *Problem) Gap(r *Result, rounds int) float64 {
	value, bound := p.Value(r.Parts), p.Bound(rounds)
	if bound <= 0 || r.Unserved > 0 || r.ScaleNum > r.ScaleDen {
		return 0
	}
	return max(0, float64(value)/float64(bound)-1)
}
