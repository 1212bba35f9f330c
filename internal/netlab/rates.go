package netlab

import (
	"math"
	"math/rand/v2"
	"time"
)

// FaultRates say how often things break and for how long, in real time. What is
// published is of wide-area paths between servers of the years 1999 to 2005; that
// is pessimistic for a backbone of today and about right for the edge of it.
type FaultRates struct {
	// Available is the share of the time for which a path carries packets: 99.6 % for
	// servers, of 3,153 destinations seen from 67 places for a week (Gummadi et al.,
	// Improving the Reliability of Internet Paths with One-hop Source Routing, 2004).
	Available float64
	// Silences is how many outages of 2 to 30 s a path has in a day: 934 on twelve
	// paths in 1,366.7 hours (Raman and Katz, An Architecture for Highly Available
	// Wide-Area Service Composition, 2003).
	Silences float64
	// Longest bounds an outage: lengths have no mean without it, and what lasts longer
	// than an hour is what people see to.
	Longest time.Duration
	// LostInOutages is the part of all lost packets that is lost in outages: 23 %
	// (Jiang and Schulzrinne, Assessment of VoIP Service Availability in the Current
	// Internet, 2003). The rest is lost in spells.
	LostInOutages float64
	// Spell bounds a spell of loss: of what is lost near changes of BGP, nine tenths are lost
	// in bursts of 30 s and more (Kushman et al., Can You Hear Me Now?! It Must Be BGP, 2007). How many packets such a spell loses is not published: between SpellLoss
	// of them, in the even of their logarithm.
	Spell     [2]time.Duration
	SpellLoss [2]float64
	// SiteAvailable is the share of the time in which the processes of a site all run:
	// 99.5 %, as of a cluster before its faults were modelled (Nagaraja et al., Using
	// Fault Model Enforcement to Improve Availability, 2002).
	SiteAvailable float64
	// Rare is how many times a day a site loses its power, and loses its member of the store
	// for as long. No figure of that is published: one is what makes a day show each.
	Rare float64
	// RareFor bounds how long those last.
	RareFor [2]time.Duration
}

// PublishedRates are the figures that stand at the fields of FaultRates.
func PublishedRates() FaultRates {
	return FaultRates{Available: 0.996, Silences: 16.4, Longest: time.Hour, LostInOutages: 0.23,
		Spell: [2]time.Duration{30 * time.Second, 30 * time.Minute}, SpellLoss: [2]float64{0.05, 0.25},
		SiteAvailable: 0.995, Rare: 1, RareFor: [2]time.Duration{5 * time.Minute, time.Hour}}
}

// Bounds of the outages which Silences counts; none is shorter than the first.
const (
	silenceFrom = 2 * time.Second
	silenceTo   = 30 * time.Second
)

// spellShape is the exponent of the lengths of spells: most are short.
const spellShape = 1.1

// outages are the lengths for which both published figures hold: so many silences a
// day, and so much time in all. Each exponent of the tail gives another number of
// silences for the same time, the steeper the more, so halving finds the one.
func (r FaultRates) outages() pareto {
	p := pareto{from: silenceFrom.Seconds(), to: r.Longest.Seconds()}
	low, high := 0.1, 4.0
	for range 60 {
		p.shape = (low + high) / 2
		perDay := (1 - r.Available) * day.Seconds() / p.mean()
		if perDay*p.below(silenceTo.Seconds()) < r.Silences {
			low = p.shape
		} else {
			high = p.shape
		}
	}
	return p
}

// spells are the lengths of spells of loss, and the share of the time that they take:
// with it, outages have their part of all lost packets.
func (r FaultRates) spells() (p pareto, share float64) {
	p = pareto{spellShape, r.Spell[0].Seconds(), r.Spell[1].Seconds()}
	lost := (1 - r.Available) * (1 - r.LostInOutages) / r.LostInOutages
	low, high := r.SpellLoss[0], r.SpellLoss[1]
	return p, lost / ((high - low) / math.Log(high/low))
}

// evenLog draws between two bounds, each power of them as likely as the other.
func evenLog(rnd *rand.Rand, low, high float64) float64 {
	return low * math.Pow(high/low, rnd.Float64())
}

// pareto is a length with a heavy tail, in seconds, cut at both ends: how many are
// longer than x falls as x to the power of minus shape.
type pareto struct{ shape, from, to float64 }

// cut is what the upper bound leaves of the whole.
func (p pareto) cut() float64 { return 1 - math.Pow(p.from/p.to, p.shape) }

// below is the share of lengths up to x.
func (p pareto) below(x float64) float64 { return (1 - math.Pow(p.from/x, p.shape)) / p.cut() }

func (p pareto) mean() float64 {
	if math.Abs(p.shape-1) < 1e-9 {
		return p.from * math.Log(p.to/p.from) / p.cut()
	}
	tail := math.Pow(p.from, p.shape) * math.Pow(p.to, 1-p.shape)
	return p.shape / (p.shape - 1) * (p.from - tail) / p.cut()
}

func (p pareto) draw(rnd *rand.Rand) float64 {
	return p.from * math.Pow(1-rnd.Float64()*p.cut(), -1/p.shape)
}
