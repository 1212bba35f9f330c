package decide

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"rhumb/placement"
)

// asking makes rates of pairs of class and thousandths of a query per second.
func asking(pairs ...int64) (out []placement.ClassRate) {
	for i := 0; i+1 < len(pairs); i += 2 {
		out = append(out, placement.ClassRate{Class: uint16(pairs[i]), Milli: pairs[i+1]})
	}
	return out
}

func TestShifted(t *testing.T) {
	cases := []struct {
		name       string
		old, now   []placement.ClassRate
		rise, fall bool
	}{
		{"nothing", nil, nil, false, false},
		{"the first", nil, asking(1, 5000), true, false},
		{"all gone", asking(1, 5000), nil, false, true},
		{"less than a tenth more", asking(1, 1_000_000), asking(1, 1_090_000), false, false},
		{"a seventh more", asking(1, 1_000_000), asking(1, 1_150_000), true, false},
		{"a seventh less", asking(1, 1_000_000), asking(1, 850_000), false, true},
		{"the same sum elsewhere", asking(1, 1_000_000), asking(2, 1_000_000), true, true},
		{"a small class anew", asking(1, 1_000_000), asking(1, 1_000_000, 2, 90_000), false, false},
		{"one query instead of two in a minute is chance", asking(1, 33), asking(1, 17), false, false},
		{"and so are thirty classes of that kind", thirty(33, 17), thirty(17, 33), false, false},
		{"a hundred times as much is not", asking(1, 33), asking(1, 3300), true, false},
	}
	for _, tc := range cases {
		if rise, fall := Shifted(tc.old, tc.now, planShift); rise != tc.rise || fall != tc.fall {
			t.Errorf("%s: rise %v, fall %v", tc.name, rise, fall)
		}
	}
}

// thirty classes ask at one rate and at another by turns.
func thirty(a, b int64) (out []placement.ClassRate) {
	for i := range 30 {
		out = append(out, placement.ClassRate{Class: uint16(i), Milli: []int64{a, b}[i%2]})
	}
	return out
}

func TestRoot(t *testing.T) {
	for _, n := range []int64{-5, 0, 1, 2, 3, 4, 8, 9, 99, 100, 1 << 40, 1<<62 - 1} {
		r := root(n)
		if n >= 0 && (r*r > n || n-r*r > 2*r) || n < 0 && r != 0 {
			t.Errorf("root of %d: %d", n, r)
		}
	}
}

func TestSumDemand(t *testing.T) {
	report := func(node, table, service string, asked []placement.ClassRate) placement.DemandReport {
		return placement.DemandReport{Node: node, ClassTable: table, Services: []placement.ServiceDemand{{Service: service, Asked: asked}}}
	}
	got := SumDemand([]placement.DemandReport{
		report("a", "t1", "www", asking(7, 10, 9, 20)),
		report("b", "t1", "www", asking(3, 1, 9, 5)),
		report("c", "t0", "www", asking(9, 1000)),
		report("d", "t1", "api", asking(1, -4, 2, 8)),
	}, "t1")
	want := []placement.ServiceDemand{{Service: "api", Asked: asking(2, 8)}, {Service: "www", Asked: asking(3, 1, 7, 10, 9, 25)}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
}

// TestCounted: classes 0 and 3 are of Europe, 1 and 4 of North America, 2 and 5 of
// Asia; what is asked counts PerQuery times, and no region for less than is expected.
func TestCounted(t *testing.T) {
	w := newWorld(fleet(6), classes(t), placement.Algorithm)
	demand := map[string]int64{"europe": 100, "asia": 50}
	cases := []struct {
		name  string
		per   int64
		by    map[string]int64
		asked []placement.ClassRate
		want  []int64 // ams, nyc, sin, fra, lax, syd, nobody knows where
	}{
		{"not asked for", 0, demand, asking(0, 5000), nil},
		{"nothing measured", 10, demand, nil, nil},
		{"measured alone", 10, nil, asking(0, 5000, 4, 250, placement.NoClass, 1000), []int64{50, 0, 0, 0, 3, 0, 10}},
		{"less than expected, evenly made up for", 10, demand, asking(0, 2000), []int64{60, 0, 25, 40, 0, 25, 0}},
		{"more than expected", 10, demand, asking(0, 30000, 3, 2000), []int64{300, 0, 25, 20, 0, 25, 0}},
		{"a class that is in no table", 10, nil, asking(99, 1000), []int64{0, 0, 0, 0, 0, 0, 10}},
		{"no overflow", 1_000_000, nil, asking(0, 1<<62), []int64{1_000_000_000, 0, 0, 0, 0, 0, 0}},
	}
	for _, tc := range cases {
		var got []int64
		for _, d := range w.counted(&placement.Service{Name: "www", Demand: tc.by, PerQuery: tc.per}, tc.asked) {
			if got == nil {
				got = make([]int64, w.rows())
			}
			got[min(int(d.Class), w.known)] = d.QPS
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}

// TestGather: of many small classes no demand is lost, few are listed, and each
// stands for its neighbours.
func TestGather(t *testing.T) {
	w := newWorld(fleet(3), &placement.ClassTable{Locations: make([]placement.Location, 60000)}, placement.Algorithm)
	load := make([]int64, w.rows())
	regions := make([]int, w.rows())
	total := int64(0)
	for class := range load {
		regions[class] = class % 2
		load[class] = int64(100 + class%7)
		if class%10000 == 5 {
			load[class] = 5_000_000
		}
		total += load[class]
	}
	list := w.gather(load, regions)
	sum := int64(0)
	for _, d := range list {
		sum += d.QPS
	}
	if len(list) > maxClasses+2 || sum < total/whole-3 || sum > total/whole+3 {
		t.Errorf("%d classes with %d of %d requests/s", len(list), sum, total/whole)
	}
	for class := 5; class < 60000; class += 10000 {
		i := slices.IndexFunc(list, func(d placement.ClassDemand) bool { return int(d.Class) == class })
		if i < 0 || list[i].QPS < 5000 || list[i].QPS > 5012 {
			t.Errorf("the large class %d is not where it was: %v", class, i)
		}
	}
}

// gauged is a service under a Gauge, looked at every ten seconds.
type gauged struct {
	g       Gauge
	inv     *placement.Inventory
	planned []placement.ServiceDemand
	now     time.Time
	changes int
}

func newGauged() *gauged {
	inv := fleet(3)
	inv.Services[1].PerQuery = 10
	return &gauged{inv: inv, now: epoch()}
}

// ask shows what is asked for some time, and returns what is planned with then.
func (s *gauged) ask(lasting time.Duration, asked []placement.ClassRate) []placement.ClassRate {
	for end := s.now.Add(lasting); s.now.Before(end); s.now = s.now.Add(10 * time.Second) {
		var all []placement.ServiceDemand
		if asked != nil {
			all = []placement.ServiceDemand{{Service: "www", Asked: asked}}
		}
		next := s.g.Read(s.inv, s.planned, all, s.now)
		if !reflect.DeepEqual(next, s.planned) && len(next)+len(s.planned) > 0 {
			s.changes++
		}
		s.planned = next
	}
	return askedOf(s.planned, "www")
}

func (s *gauged) want(t *testing.T, when string, want []placement.ClassRate, changes int) {
	t.Helper()
	if got := askedOf(s.planned, "www"); !reflect.DeepEqual(got, want) || s.changes != changes {
		t.Errorf("%s: planned with %v after %d changes, want %v after %d", when, got, s.changes, want, changes)
	}
}

func TestGauge(t *testing.T) {
	calm, loud := asking(0, 400_000, 1, 400_000), asking(0, 900_000, 1, 400_000)
	t.Run("more is planned for soon, less late", func(t *testing.T) {
		s := newGauged()
		s.ask(RiseAfter, calm)
		s.want(t, "before it has lasted", nil, 0)
		s.ask(10*time.Second, calm)
		s.want(t, "at first", calm, 1)
		s.ask(RiseAfter+10*time.Second, loud)
		s.want(t, "a crowd", loud, 2)
		s.ask(FallAfter, calm)
		s.want(t, "it has gone", loud, 2)
		s.ask(10*time.Second, calm)
		s.want(t, "for good", calm, 3)
	})
	t.Run("who asks by turns moves nothing", func(t *testing.T) {
		s := newGauged()
		other := asking(0, 400_000, 1, 900_000)
		s.ask(time.Minute, calm)
		for range 30 {
			s.ask(time.Minute, loud)
			s.ask(time.Minute, other)
		}
		s.want(t, "after an hour", asking(0, 900_000, 1, 900_000), 3)
	})
	t.Run("a peak is no plan", func(t *testing.T) {
		s := newGauged()
		s.ask(time.Minute, calm)
		for range 30 {
			s.ask(20*time.Second, loud)
			s.ask(20*time.Second, calm)
		}
		s.want(t, "after all of them", calm, 1)
	})
	t.Run("who does not report is not gone", func(t *testing.T) {
		s := newGauged()
		s.ask(time.Minute, loud)
		s.ask(24*time.Hour, nil)
		s.want(t, "a day without the store", loud, 1)
		s.ask(5*time.Minute, calm) // one node of two is back
		s.want(t, "half of it back", loud, 1)
		s.ask(time.Hour, loud)
		s.want(t, "all back", loud, 1)
	})
	t.Run("a service that does not count it", func(t *testing.T) {
		s := newGauged()
		s.inv.Services[1].PerQuery = 0
		s.ask(time.Hour, loud)
		s.want(t, "for an hour", nil, 0)
	})
}

// TestMeasuredPlan: the plan holds what it was made with, the next one goes on with
// it, and clients above capacity are spilled where there is room; nobody else moves.
func TestMeasuredPlan(t *testing.T) {
	inv, ct := fleet(3), classes(t)
	inv.Services[1].PerQuery, inv.Services[1].Demand = 10, map[string]int64{"europe": 300, "north-america": 300, "asia": 300}
	in := PlanInput{Inventory: inv, Classes: ct, Votes: allUp(inv), Now: epoch()}
	in.Prev, _ = Plan(in)
	if n := len(in.Prev.Services[1].Splits); n != 0 {
		t.Fatalf("expected demand splits %d classes", n)
	}
	in.Asked = []placement.ServiceDemand{{Service: "www", Asked: asking(0, 70_000, 3, 60_000)}}
	first, _ := Plan(in)
	www := servicePlan(first, "www")
	if !reflect.DeepEqual(www.Measured, in.Asked[0].Asked) || len(www.Splits) == 0 {
		t.Errorf("a crowd of 1300 requests/s at a site with room for 900: %+v", www)
	}
	for _, s := range www.Splits {
		if s.Class != 0 && s.Class != 3 {
			t.Errorf("class %d moves, though it is not of Europe: %+v", s.Class, s)
		}
	}
	for _, c := range Losses(mustUnfold(t, inv, ct, first, in.Votes, 1))[0].Clusters {
		if c.Capacity > 0 && c.Before > c.Capacity*9/10+1 {
			t.Errorf("%s carries %d of %d", c.Cluster, c.Before, c.Capacity)
		}
	}
	in.Prev, in.Asked = first, nil
	second, _ := Plan(in)
	if !Same(first, second) {
		t.Errorf("the next plan is another one: %+v", servicePlan(second, "www"))
	}
	report := []placement.DemandReport{{ClassTable: ct.Digest, Services: []placement.ServiceDemand{{Service: "api", Asked: asking(1, 5)}, {Service: "www", Asked: asking(1, 5)}}}}
	want := []placement.ServiceDemand{{Service: "www", Asked: asking(0, 70_000, 3, 60_000)}, {Service: "api", Asked: asking(1, 5)}}
	if got := Foreseen(first, report, ct.Digest); !reflect.DeepEqual(got, want) {
		t.Errorf("foreseen %+v, want %+v", got, want)
	}
	other := *ct
	other.Digest = "another"
	in.Classes = &other
	if third, _ := Plan(in); len(servicePlan(third, "www").Measured) > 0 {
		t.Error("classes of another table are taken for ours")
	}
}

func TestExpectedDemand(t *testing.T) {
	inv, ct := fleet(6), classes(t)
	w := newWorld(inv, ct, placement.Algorithm)
	cases := []struct {
		name string
		by   map[string]int64
		want []int64 // ams, nyc, sin, fra, lax, syd, nobody knows where
	}{
		{"by region of the nearest site", map[string]int64{"europe": 100}, []int64{50, 0, 0, 50, 0, 0, 0}},
		{"the finest place wins", map[string]int64{"europe": 100, "DE": 7}, []int64{100, 0, 0, 7, 0, 0, 0}},
		{"the rest", map[string]int64{"US": 10, "*": 50}, []int64{10, 5, 10, 10, 5, 10, 10}},
		{"a place without clients", map[string]int64{"africa": 9}, []int64{0, 0, 0, 0, 0, 0, 9}},
	}
	for _, tc := range cases {
		got := make([]int64, w.rows())
		w.floor(got, tc.by)
		for class := range got {
			if got[class] != tc.want[class]*whole {
				t.Errorf("%s: class %d has %d, want %d", tc.name, class, got[class], tc.want[class]*whole)
			}
		}
	}
}
