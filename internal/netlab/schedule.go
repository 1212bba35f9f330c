package netlab

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

const day = 24 * time.Hour

// TroubleKind names what a Schedule does to a lab.
type TroubleKind string

// The kinds of trouble.
const (
	LinkCut     TroubleKind = "link cut"     // both ends see it
	LinkSilent  TroubleKind = "link silent"  // every packet is lost, the carrier stays
	LinkOneWay  TroubleKind = "link one-way" // what Node sends is lost
	LinkLossy   TroubleKind = "link lossy"   // Share of the packets, each way
	PathDark    TroubleKind = "path dark"    // between the site Node and the resolver Towards
	UnitKilled  TroubleKind = "kill -9"      // one process, until it is started again
	UnitStopped TroubleKind = "SIGSTOP"      // one process, until it goes on
	PowerOff    TroubleKind = "power off"    // every process killed, the links down
	MemberLost  TroubleKind = "store member" // the process with the site's member of the store
)

// Trouble is one fault of a Schedule, in the time of the lab.
type Trouble struct {
	At, For time.Duration // since the start
	Kind    TroubleKind
	Node    string
	Towards string  // the other end of a link, or the resolver
	Unit    string  // the process
	Share   float64 // of the packets, of LinkLossy
}

// End is when it is over.
func (t Trouble) End() time.Duration { return t.At + t.For }

// Target names what is broken, without how.
func (t Trouble) Target() string {
	switch {
	case t.Unit != "":
		return t.Node + " " + t.Unit
	case t.Towards != "":
		return t.Node + " – " + t.Towards
	}
	return t.Node
}

func (t Trouble) String() string {
	s := string(t.Kind) + " " + t.Target()
	if t.Kind == LinkLossy {
		s += fmt.Sprintf(" %.0f %%", 100*t.Share)
	}
	return s
}

// outage tells a trouble which takes a path away from one that worsens it.
func (k TroubleKind) outage() bool {
	return k == LinkCut || k == LinkSilent || k == LinkOneWay || k == PathDark
}

// Schedule is what a soak breaks, in order of time. The same Draft gives the same.
type Schedule struct {
	Draft
	Troubles []Trouble
}

// Draft is what a Schedule is drawn from.
type Draft struct {
	Seed uint64
	// Lasting is how long it is played; it shows Compress times as much of real time.
	// Everything is shortened by Compress, what is broken and what is not, so shares of
	// time stay; a fault is therefore as many times shorter, against the clocks of what
	// is tested, as it comes more often.
	Lasting  time.Duration
	Compress float64
	Rates    FaultRates
	// Units are the processes of a site, Member the one that holds its part of the store.
	Units  []string
	Member string
	// Restart is what a service manager waits before it starts a killed process again. A
	// machine's own, it is not compressed.
	Restart time.Duration
}

// pathsOf lists the paths of a topology which break each for itself: links with a line,
// between routers and to sites, and every resolver's way to every site. Links of clients
// and of the operator are nobody's to repair.
func pathsOf(t Topology) (links, ways [][2]string) {
	role := map[string]Role{}
	for _, n := range t.Nodes {
		role[n.Name] = n.Role
	}
	for _, l := range t.Links {
		a, b := l.A.Node, l.B.Node
		switch {
		case role[a] == Router && role[b] == Router:
			links = append(links, [2]string{a, b})
		case role[a] == Router && role[b] == Site:
			links = append(links, [2]string{b, a}) // the site first: it is the one that falls silent
		}
	}
	for _, s := range t.Nodes {
		for _, r := range t.Nodes {
			if s.Role == Site && r.Role == Resolve {
				ways = append(ways, [2]string{s.Name, r.Name})
			}
		}
	}
	return links, ways
}

// Draw makes the Schedule of a Draft for a topology. Each path, and each process of a site,
// has random sources of its own, so that one more changes nothing for the others, and what
// is drawn is drawn in order of time: a shorter schedule is the beginning of a longer one.
func (d Draft) Draw(t Topology) Schedule {
	links, ways := pathsOf(t)
	source := uint64(0)
	next := func() *rand.Rand {
		source++
		return rand.New(rand.NewPCG(d.Seed, source))
	}
	var all []Trouble
	for _, l := range links {
		at := Trouble{Node: l[0], Towards: l[1]}
		all = append(all, d.outages(next(), 1-d.Rates.Available, at, linkShape)...)
		all = append(all, d.spells(next(), at)...)
	}
	for _, w := range ways {
		at := Trouble{Kind: PathDark, Node: w[0], Towards: w[1]}
		all = append(all, d.outages(next(), 1-d.Rates.Available, at, nil)...)
	}
	for _, n := range t.Nodes {
		if n.Role == Site {
			all = append(all, d.siteTroubles(next, n.Name)...)
		}
	}
	slices.SortStableFunc(all, func(a, b Trouble) int { return cmp.Compare(a.At, b.At) })
	return Schedule{d, all}
}

// spans fills the time with faults, so that they take a share of it. One draws what is
// broken and for how many real seconds; their mean is given. What would last beyond the
// end is cut off there.
func (d Draft) spans(rnd *rand.Rand, share, mean float64, one func() (Trouble, float64)) (out []Trouble) {
	scale := func(real float64) time.Duration { return time.Duration(real / d.Compress * float64(time.Second)) }
	gap := mean * (1 - share) / share
	for at := scale(rnd.ExpFloat64() * gap); at < d.Lasting; {
		t, real := one()
		t.At, t.For = at, min(scale(real), d.Lasting-at)
		out = append(out, t)
		at += scale(real) + scale(rnd.ExpFloat64()*gap)
	}
	return out
}

// outages are times in which a path is not there, or a process; shape, if there is one,
// draws of what kind each is.
func (d Draft) outages(rnd *rand.Rand, share float64, what Trouble, shape func(*rand.Rand) TroubleKind) []Trouble {
	p := d.Rates.outages()
	return d.spans(rnd, share, p.mean(), func() (Trouble, float64) {
		t := what
		if shape != nil {
			t.Kind = shape(rnd)
		}
		return t, p.draw(rnd)
	})
}

// linkShape draws what an outage of a link is: nothing published says how many are seen by
// its ends. Two of five are, two are silent, one is so in one direction.
func linkShape(rnd *rand.Rand) TroubleKind {
	return []TroubleKind{LinkCut, LinkCut, LinkSilent, LinkSilent, LinkOneWay}[rnd.IntN(5)]
}

// unitShape draws whether a process dies or hangs, as often.
func unitShape(rnd *rand.Rand) TroubleKind {
	return []TroubleKind{UnitKilled, UnitStopped}[rnd.IntN(2)]
}

// spells are times in which a link loses packets.
func (d Draft) spells(rnd *rand.Rand, what Trouble) []Trouble {
	p, share := d.Rates.spells()
	return d.spans(rnd, share, p.mean(), func() (Trouble, float64) {
		t := what
		t.Kind, t.Share = LinkLossy, evenLog(rnd, d.Rates.SpellLoss[0], d.Rates.SpellLoss[1])
		return t, p.draw(rnd)
	})
}

// siteTroubles are those of a site's machine: the rare ones, and its processes', each of
// which has an even part of the site's. What would fall on a machine without power, or on
// a process that is gone, did not happen.
func (d Draft) siteTroubles(next func() *rand.Rand, site string) []Trouble {
	all := d.rare(next(), Trouble{Kind: PowerOff, Node: site})
	all = append(all, without(d.rare(next(), Trouble{Kind: MemberLost, Node: site, Unit: d.Member}), all)...)
	share := (1 - d.Rates.SiteAvailable) / float64(len(d.Units))
	for _, unit := range d.Units {
		mine := d.outages(next(), share, Trouble{Node: site, Unit: unit}, unitShape)
		for i := range mine {
			if t := &mine[i]; t.Kind == UnitKilled {
				t.For = max(t.For, d.Restart)
			}
		}
		all = append(all, without(apart(mine), all)...)
	}
	return all
}

// rare draws what happens so many times a day.
func (d Draft) rare(rnd *rand.Rand, what Trouble) []Trouble {
	low, high := d.Rates.RareFor[0].Seconds(), d.Rates.RareFor[1].Seconds()
	mean := (high - low) / math.Log(high/low) // of evenLog
	return d.spans(rnd, d.Rates.Rare*mean/day.Seconds(), mean, func() (Trouble, float64) { return what, evenLog(rnd, low, high) })
}

// apart leaves out what begins before the one before is over, and whose end is beyond.
func apart(all []Trouble) (out []Trouble) {
	for _, t := range all {
		if n := len(out); n == 0 || out[n-1].End() <= t.At {
			out = append(out, t)
		}
	}
	return out
}

// without leaves out what overlaps troubles of the same machine or process.
func without(some, others []Trouble) []Trouble {
	return slices.DeleteFunc(some, func(t Trouble) bool {
		return slices.ContainsFunc(others, func(o Trouble) bool {
			same := o.Unit == "" || t.Unit == "" || o.Unit == t.Unit
			return same && t.At < o.End() && o.At < t.End()
		})
	})
}

// String is the schedule as a table, with what it shows of each kind before.
func (s Schedule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d faults in %s, drawn from seed %d; %s of real time, compressed %g times\n",
		len(s.Troubles), s.Lasting, s.Seed, time.Duration(float64(s.Lasting)*s.Compress), s.Compress)
	counts, spans := map[TroubleKind]int{}, map[TroubleKind]time.Duration{}
	var kinds []TroubleKind
	for _, t := range s.Troubles {
		if counts[t.Kind]++; counts[t.Kind] == 1 {
			kinds = append(kinds, t.Kind)
		}
		spans[t.Kind] += t.For
	}
	slices.Sort(kinds)
	for _, k := range kinds {
		fmt.Fprintf(&b, "  %-13s %4d times, %8.1f s in all\n", k, counts[k], spans[k].Seconds())
	}
	for i, t := range s.Troubles {
		fmt.Fprintf(&b, "%4d %9.3f s %9.3f s  %s\n", i+1, t.At.Seconds(), t.For.Seconds(), t)
	}
	return b.String()
}
