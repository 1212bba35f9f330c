package decide

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"rhumb/placement"
)

// SumDemand adds up what all name servers are asked, by service in order of name.
// Reports by another class table are left out: their classes are others.
func SumDemand(reports []placement.DemandReport, classTable string) []placement.ServiceDemand {
	type key struct {
		service string
		class   uint16
	}
	sum := make(map[key]int64)
	for _, r := range reports {
		if r.ClassTable != classTable {
			continue
		}
		for _, s := range r.Services {
			for _, a := range s.Asked {
				sum[key{s.Service, a.Class}] += min(max(0, a.Milli), maxRate)
			}
		}
	}
	keys := make([]key, 0, len(sum))
	for k := range sum {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b key) int {
		return cmp.Or(strings.Compare(a.service, b.service), cmp.Compare(a.class, b.class))
	})
	var out []placement.ServiceDemand
	for _, k := range keys {
		if n := len(out); n == 0 || out[n-1].Service != k.service {
			out = append(out, placement.ServiceDemand{Service: k.service})
		}
		if sum[k] > 0 {
			s := &out[len(out)-1]
			s.Asked = append(s.Asked, placement.ClassRate{Class: k.class, Milli: sum[k]})
		}
	}
	return out
}

// When a change of what is asked is one.
const (
	// ReportShift and planShift are the parts of the demand that must have changed, in
	// per cent, to be told, and to be planned for: what is planned may be wrong by both
	// together, and the headroom of a policy has to bear it.
	ReportShift = 3
	planShift   = 10
	// demandMemory is over how long the reports' rates are reckoned, about: twice the
	// time constant of their average. What is asked in it tells how much chance
	// alone changes a rate.
	demandMemory = 120
)

// How long a change must last before a plan is made for it. More demand may be too
// much for a cluster; less harms nobody, and a name server that has restarted, died or
// lost its store looks like less demand, though its clients are with another one by
// now. So whoever asks by turns is planned for at his loudest, and the map stands still.
const (
	RiseAfter = 30 * time.Second
	FallAfter = 10 * time.Minute
)

// Shifted tells whether what is asked for a service differs by some per cent
// and more than chance would have it: whether more is asked in classes, and less.
func Shifted(old, now []placement.ClassRate, percent int64) (rise, fall bool) {
	var total, up, down int64
	for _, c := range pair(old, now) {
		total += c.old
		d := c.now - c.old
		sure := chance(c.old + c.now)
		up, down = up+max(0, d-sure), down+max(0, -d-sure)
	}
	return up > 0 && up*100 >= total*percent, down > 0 && down*100 >= total*percent
}

// chance is two standard deviations of the difference between two rates whose sum
// this is, if the queries come by chance: then their count has its own number as variance.
func chance(milli int64) int64 {
	return 2 * root(milli*whole/demandMemory)
}

// root is the whole square root (Heron); floats could differ between machines.
func root(n int64) int64 {
	if n < 2 {
		return max(0, n)
	}
	x := n
	for y := (x + 1) / 2; y < x; y = (x + n/x) / 2 {
		x = y
	}
	return x
}

// rates are those of one class, before and now.
type rates struct {
	class    uint16
	old, now int64
}

// pair joins two lists in order of class.
func pair(old, now []placement.ClassRate) []rates {
	out := make([]rates, 0, max(len(old), len(now)))
	for len(old) > 0 || len(now) > 0 {
		switch {
		case len(now) == 0 || len(old) > 0 && old[0].Class < now[0].Class:
			out, old = append(out, rates{old[0].Class, old[0].Milli, 0}), old[1:]
		case len(old) == 0 || now[0].Class < old[0].Class:
			out, now = append(out, rates{now[0].Class, 0, now[0].Milli}), now[1:]
		default:
			out, old, now = append(out, rates{old[0].Class, old[0].Milli, now[0].Milli}), old[1:], now[1:]
		}
	}
	return out
}

// Gauge follows what is asked, and tells what to plan with. It remembers since when
// a change lasts, and nothing else: what is planned with stands in the plan. The zero
// value is ready; it is not safe for concurrent use.
type Gauge struct {
	since map[string]*lasting
}

// lasting is since when a service is asked more, and less, than is planned for; zero:
// it is not. peak is the most that every class has asked since it is less.
type lasting struct {
	rise, fall time.Time
	peak       []placement.ClassRate
}

// Read returns what the next plan is to be made with, for the services which count
// what is measured. planned is what the last one was made with; a service of which
// nobody reports anything stays with that.
func (g *Gauge) Read(inv *placement.Inventory, planned, asked []placement.ServiceDemand, now time.Time) []placement.ServiceDemand {
	since := make(map[string]*lasting)
	out := []placement.ServiceDemand{}
	for i := range inv.Services {
		s := &inv.Services[i]
		if s.PerQuery <= 0 {
			continue
		}
		l := g.since[s.Name]
		if l == nil {
			l = &lasting{}
		}
		since[s.Name] = l
		if rates := l.read(askedOf(planned, s.Name), askedOf(asked, s.Name), now); len(rates) > 0 {
			out = append(out, placement.ServiceDemand{Service: s.Name, Asked: rates})
		}
	}
	g.since = since
	return out
}

func (l *lasting) read(planned, asked []placement.ClassRate, now time.Time) []placement.ClassRate {
	if len(asked) == 0 {
		*l = lasting{}
		return planned
	}
	rise, fall := Shifted(planned, asked, planShift)
	risen, fallen := lasts(&l.rise, rise, now) >= RiseAfter, lasts(&l.fall, fall, now) >= FallAfter
	if !fall {
		l.peak = nil
	} else {
		l.peak = loudest(l.peak, asked)
	}
	switch {
	case fallen && (risen || !rise):
		peak := l.peak
		*l = lasting{fall: now, peak: asked}
		if rise, fall := Shifted(planned, peak, planShift); rise || fall {
			return peak
		}
	case risen:
		l.rise = time.Time{}
		return loudest(planned, asked)
	}
	return planned
}

// lasts returns how long something is so; negative while it is not.
func lasts(since *time.Time, is bool, now time.Time) time.Duration {
	if !is {
		*since = time.Time{}
		return -1
	}
	if since.IsZero() {
		*since = now
	}
	return now.Sub(*since)
}

// loudest is the greater rate of each class.
func loudest(a, b []placement.ClassRate) []placement.ClassRate {
	var out []placement.ClassRate
	for _, c := range pair(a, b) {
		out = append(out, placement.ClassRate{Class: c.class, Milli: max(c.old, c.now)})
	}
	return out
}

// askedOf picks one service.
func askedOf(all []placement.ServiceDemand, service string) []placement.ClassRate {
	for i := range all {
		if all[i].Service == service {
			return all[i].Asked
		}
	}
	return nil
}

// Measured is what a plan was made with, by service, in the classes of a table; none
// where it was made by another table.
func Measured(plan *placement.Plan, classTable string) []placement.ServiceDemand {
	if plan == nil || plan.Inputs.ClassTable != classTable {
		return nil
	}
	var out []placement.ServiceDemand
	for i := range plan.Services {
		if s := &plan.Services[i]; len(s.Measured) > 0 {
			out = append(out, placement.ServiceDemand{Service: s.Service, Asked: s.Measured})
		}
	}
	return out
}

// Foreseen is what the next plans would be made with if all stays as it is: what the
// plan in force was made with, and what is asked of services of which it has nothing.
func Foreseen(plan *placement.Plan, reports []placement.DemandReport, classTable string) []placement.ServiceDemand {
	out := Measured(plan, classTable)
	for _, s := range SumDemand(reports, classTable) {
		if askedOf(out, s.Service) == nil {
			out = append(out, s)
		}
	}
	return out
}
