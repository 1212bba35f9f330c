package netlab

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// soakDraft is the one of the soak: two hours which show a day.
func soakDraft(seed uint64) Draft {
	return Draft{Seed: seed, Lasting: 2 * time.Hour, Compress: 12, Rates: PublishedRates(),
		Units: []string{"director", "dns", "bgp", "edge"}, Member: "director", Restart: time.Second}
}

// TestOutageLengths: the lengths are those for which both published figures hold.
func TestOutageLengths(t *testing.T) {
	r := PublishedRates()
	p := r.outages()
	perDay := (1 - r.Available) * day.Seconds() / p.mean()
	if got := perDay * p.below(30); math.Abs(got-r.Silences) > 0.01 {
		t.Errorf("%.3f silences of 2 to 30 s a day, want %.1f (exponent %.3f)", got, r.Silences, p.shape)
	}
	rnd := rand.New(rand.NewPCG(1, 1))
	sum, short, n := 0.0, 0, 200_000
	for range n {
		x := p.draw(rnd)
		if x < p.from || x > p.to {
			t.Fatalf("an outage of %v s, want %v to %v", x, p.from, p.to)
		}
		if sum += x; x <= 30 {
			short++
		}
	}
	if got := sum / float64(n); math.Abs(got/p.mean()-1) > 0.05 {
		t.Errorf("outages last %.1f s in the mean, want %.1f", got, p.mean())
	}
	if got := float64(short) / float64(n); math.Abs(got-p.below(30)) > 0.01 {
		t.Errorf("%.3f of the outages last up to 30 s, want %.3f", got, p.below(30))
	}
}

// tally is what many schedules show of one path.
type tally struct {
	dark, spells time.Duration
	silences     int
	lost         float64 // seconds of packets in spells
}

// TestPathsAreAvailable: over many draws each path is there for the published share of
// the time, with the published number of silences, and outages have their part of all
// lost packets.
func TestPathsAreAvailable(t *testing.T) {
	const draws = 200
	paths, topo := map[string]*tally{}, Lab(LabOptions{})
	for seed := range uint64(draws) {
		s := soakDraft(seed).Draw(topo)
		for _, f := range s.Troubles {
			p := paths[f.Target()]
			if p == nil {
				p = &tally{}
				paths[f.Target()] = p
			}
			switch real := time.Duration(float64(f.For) * s.Compress); {
			case f.Kind == LinkLossy:
				p.spells += f.For
				p.lost += f.Share * f.For.Seconds()
			case f.Kind.outage():
				p.dark += f.For
				if real >= silenceFrom && real <= silenceTo {
					p.silences++
				}
			}
		}
	}
	links, ways := pathsOf(topo)
	if len(links) != 6 || len(ways) != 9 {
		t.Fatalf("%d links and %d ways of resolvers, want 6 and 9", len(links), len(ways))
	}
	inLinks, all := [2]float64{}, time.Duration(0)
	for _, pair := range slices.Concat(links, ways) {
		name := pair[0] + " – " + pair[1]
		p := paths[name]
		available := 1 - p.dark.Seconds()/(draws*2*time.Hour).Seconds()
		if math.Abs(available-0.996) > 0.0012 { // of few long outages: three deviations
			t.Errorf("%s is there for %.3f %% of the time, want 99.6 %%", name, 100*available)
		}
		all += p.dark
		if got := float64(p.silences) / draws; math.Abs(got-16.4) > 0.8 {
			t.Errorf("%s has %.2f silences of 2 to 30 s a day, want 16.4", name, got)
		}
		if slices.Contains(links, pair) {
			inLinks[0] += p.dark.Seconds()
			inLinks[1] += p.lost
		}
	}
	if available := 1 - all.Seconds()/(15*draws*2*time.Hour).Seconds(); math.Abs(available-0.996) > 0.0003 {
		t.Errorf("paths are there for %.4f %% of the time, want 99.6 %%", 100*available)
	}
	if got := inLinks[0] / (inLinks[0] + inLinks[1]); math.Abs(got-0.23) > 0.02 {
		t.Errorf("outages have %.1f %% of all lost packets, want 23 %%", 100*got)
	}
}

// TestScheduleByItsSeed: the same seed gives the same table; another seed, another.
func TestScheduleByItsSeed(t *testing.T) {
	topo := Lab(LabOptions{})
	a, b, c := soakDraft(7).Draw(topo), soakDraft(7).Draw(topo), soakDraft(8).Draw(topo)
	if !reflect.DeepEqual(a, b) || a.String() != b.String() {
		t.Error("two schedules of one seed differ")
	}
	if a.String() == c.String() || len(a.Troubles) < 200 {
		t.Errorf("%d faults of one seed, %d of another, want some hundreds and not the same", len(a.Troubles), len(c.Troubles))
	}
	hour := soakDraft(7)
	hour.Lasting = time.Hour
	short := hour.Draw(topo).Troubles
	for i, f := range short {
		if f.End() < hour.Lasting && f != a.Troubles[i] {
			t.Fatalf("fault %d of an hour is %s at %s, of two hours %s at %s", i, f, f.At, a.Troubles[i], a.Troubles[i].At)
		}
	}
	if lines := strings.Count(a.String(), "\n"); lines < len(a.Troubles) {
		t.Errorf("the table has %d lines for %d faults", lines, len(a.Troubles))
	}
}

// TestScheduleIsPlayable: whatever the seed, faults come in order and end in time, no two
// are at the same place at once, every kind is drawn, and the lengths have a heavy tail.
func TestScheduleIsPlayable(t *testing.T) {
	topo := Lab(LabOptions{})
	kinds := map[TroubleKind]int{}
	for seed := range uint64(100) {
		s := soakDraft(seed).Draw(topo)
		last := map[string]Trouble{}
		for i, f := range s.Troubles {
			kinds[f.Kind]++
			if f.At < 0 || f.For <= 0 || f.At > s.Lasting || f.Kind != UnitKilled && f.End() > s.Lasting {
				t.Fatalf("seed %d: %s from %s for %s in a schedule of %s", seed, f, f.At, f.For, s.Lasting)
			}
			if i > 0 && s.Troubles[i-1].At > f.At {
				t.Fatalf("seed %d: fault %d is not in order of time", seed, i)
			}
			at := place(f)
			if before, ok := last[at]; ok && before.End() > f.At {
				t.Fatalf("seed %d: %s at %s begins in %s, which ends at %s", seed, f, f.At, before, before.End())
			}
			if before, ok := last[f.Node+" power"]; ok && f.Unit != "" && before.End() > f.At {
				t.Fatalf("seed %d: %s at %s, without power until %s", seed, f, f.At, before.End())
			}
			last[at] = f
		}
	}
	for _, k := range []TroubleKind{LinkCut, LinkSilent, LinkOneWay, LinkLossy, PathDark, UnitKilled, UnitStopped, PowerOff, MemberLost} {
		if kinds[k] < 100 {
			t.Errorf("%s was drawn %d times in 100 schedules", k, kinds[k])
		}
	}
}

// place is where a fault is alone: outages of a path, its spells, a process, the power.
func place(f Trouble) string {
	switch {
	case f.Kind == PowerOff:
		return f.Node + " power"
	case f.Kind == LinkLossy:
		return fmt.Sprint(f.Target(), " spell")
	}
	return f.Target()
}
