package reserve

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func sitesOf(weights ...int) (out []Site) {
	for i, w := range weights {
		out = append(out, Site{Name: fmt.Sprintf("s%02d", i), Weight: w})
	}
	return out
}

// names is the order of a session by name.
func names(c *Chooser, key string, sites []Site) (out []string) {
	for _, i := range c.Order(nil, []byte(key), sites) {
		out = append(out, sites[i].Name)
	}
	return out
}

func keyOf(i int) string { return fmt.Sprintf("198.51.100.%d:%d>192.0.2.10:443", i%250, 1024+i) }

// TestOrder: sites come first in proportion to their weights, the order does not follow from
// that of the list, and who shares a domain with the owner or has no weight is last or not
// there.
func TestOrder(t *testing.T) {
	var c Chooser
	sites := sitesOf(1, 2, 1, 0, 4)
	sites[4].Shares = true
	const n = 20000
	first := map[string]int{}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		order := names(&c, keyOf(i), sites)
		if len(order) != 4 || order[3] != "s04" {
			t.Fatalf("order %v, want four sites and s04 the last", order)
		}
		first[order[0]]++
		shuffled := slices.Clone(sites)
		rng.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if again := names(&c, keyOf(i), shuffled); !slices.Equal(again, order) {
			t.Fatalf("order %v of another list, want %v", again, order)
		}
	}
	for name, want := range map[string]float64{"s00": .25, "s01": .5, "s02": .25} {
		if got := float64(first[name]) / n; math.Abs(got-want) > .02 {
			t.Errorf("%s is first for %.3f, want %.2f", name, got, want)
		}
	}
}

// TestOrderStable: a site that goes moves those alone that it had.
func TestOrderStable(t *testing.T) {
	var c Chooser
	sites := sitesOf(3, 1, 2, 5, 1)
	for i := range 5000 {
		order := names(&c, keyOf(i), sites)
		for gone := range sites {
			less := slices.Delete(slices.Clone(sites), gone, gone+1)
			want := slices.DeleteFunc(slices.Clone(order), func(n string) bool { return n == sites[gone].Name })
			if got := names(&c, keyOf(i), less); !slices.Equal(got, want) {
				t.Fatalf("without %s %v, want %v", sites[gone].Name, got, want)
			}
		}
	}
}

// owner places its sessions, each by itself, without anybody who refuses.
type owner struct {
	Chooser
	spread Spread
	doors  Doors
	places []Place
	now    time.Time
}

func newOwner(sessions int, sites []Site) *owner {
	o := &owner{places: make([]Place, sessions), now: time.Unix(1000, 0)}
	o.follow(sites)
	return o
}

// follow takes other sites, and returns how many sessions have another Backup then.
func (o *owner) follow(sites []Site) (moved int) {
	o.spread.Follow(sites)
	for i := range o.places {
		o.places[i].Follow(names(&o.Chooser, keyOf(i), sites))
	}
	for i := range o.places {
		p := &o.places[i]
		was := p.Backup
		p.Move(&o.spread, p.Aim(&o.spread, &o.doors, o.now))
		if p.Backup != was && was != "" {
			moved++
		}
	}
	return moved
}

func (o *owner) counts() map[string]int {
	out := map[string]int{}
	for i := range o.places {
		out[o.places[i].Backup]++
	}
	return out
}

// TestMoves: when a site leaves, its sessions move and no other; when one comes, as many move
// as it should have, to it and nowhere else. The bar is 1.1 times the least possible.
func TestMoves(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 40 {
		n := 3 + rng.IntN(10)
		weights := make([]int, n)
		total := 0
		for i := range weights {
			weights[i] = 1 + rng.IntN(4)
			total += weights[i]
		}
		sites := sitesOf(weights...)
		const sessions = 2000
		o := newOwner(sessions, sites)
		gone := rng.IntN(n)
		had := o.counts()[sites[gone].Name]
		if moved := o.follow(slices.Delete(slices.Clone(sites), gone, gone+1)); moved != had {
			t.Fatalf("%v: %s leaves with %d sessions, %d move", weights, sites[gone].Name, had, moved)
		}
		fair := float64(sessions*weights[gone]) / float64(total)
		moved := o.follow(sites)
		if has := o.counts()[sites[gone].Name]; has != moved || float64(moved) > 1.1*fair || float64(moved) < .8*fair {
			t.Fatalf("%v: %s comes, %d move and it has %d, its share is %.1f", weights, sites[gone].Name, moved, has, fair)
		}
		if moved := o.follow(slices.Clone(sites)); moved != 0 {
			t.Fatalf("%v: %d move though nothing has changed", weights, moved)
		}
	}
}

// TestBound: nobody has more than 1.25 times its share while others may have them.
func TestBound(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 200 {
		weights := []int{1 + rng.IntN(5), 1 + rng.IntN(5), 1 + rng.IntN(5), 1 + rng.IntN(5)}
		total := weights[0] + weights[1] + weights[2] + weights[3]
		sites, sessions := sitesOf(weights...), 1+rng.IntN(200)
		counts := newOwner(sessions, sites).counts()
		for i, s := range sites {
			most := int(math.Ceil(1.25 * float64(sessions) * float64(weights[i]) / float64(total)))
			if counts[s.Name] > most {
				t.Fatalf("%v: %s has %d of %d, at most %d", weights, s.Name, counts[s.Name], sessions, most)
			}
		}
		if counts[""] != 0 {
			t.Fatalf("%v: %d without a Backup", weights, counts[""])
		}
	}
	// The bound gives way where there is nobody else.
	o := newOwner(100, sitesOf(1))
	o.spread.Follow(sitesOf(1, 9))
	o.doors.Refused("s01", o.now)
	p := Place{Order: []string{"s01", "s00"}}
	if got := p.Aim(&o.spread, &o.doors, o.now); got != "s00" {
		t.Errorf("the last one with room is %q", got)
	}
	o.doors.Refused("s00", o.now)
	if got := p.Aim(&o.spread, &o.doors, o.now); got != "" {
		t.Errorf("%q has no room", got)
	}
}

// TestPlaceRefused: who is refused by a site that has come returns to another, and does not
// try again because of that alone.
func TestPlaceRefused(t *testing.T) {
	o := newOwner(3, sitesOf(1, 1))
	p := &o.places[0]
	was := p.Backup
	p.Follow([]string{"new", "s00", "s01"})
	o.spread.Follow(append(sitesOf(1, 1), Site{Name: "new", Weight: 10}))
	if got := p.Aim(&o.spread, &o.doors, o.now); got != "new" {
		t.Fatalf("it aims at %q", got)
	}
	p.Move(&o.spread, "new")
	if p.Refused(&o.spread, was) || !p.Refused(&o.spread, "new") || p.Backup != "" {
		t.Fatalf("refused, it has %q", p.Backup)
	}
	o.doors.Refused("new", o.now)
	p.Move(&o.spread, p.Aim(&o.spread, &o.doors, o.now))
	if o.now = o.now.Add(time.Hour); p.Backup == "new" || p.Aim(&o.spread, &o.doors, o.now) != p.Backup {
		t.Errorf("it has %q and aims at %q", p.Backup, p.Aim(&o.spread, &o.doors, o.now))
	}
}

// TestDoors: who has refused is left alone for a while, then asked by few, then by more.
func TestDoors(t *testing.T) {
	var d Doors
	now := time.Unix(1000, 0)
	enter := func() (n int) {
		for n < 1<<20 && d.Open("a", now) {
			d.enter("a", now)
			n++
		}
		return n
	}
	d.Refused("a", now)
	if n := enter(); n != 0 || !d.Open("b", now) {
		t.Fatalf("%d enter a closed door", n)
	}
	now = now.Add(closedFor)
	for want := tryFirst; want < tryMost; want *= 2 {
		if n := enter(); n != want {
			t.Fatalf("%d enter, want %d", n, want)
		}
		now = now.Add(tryEvery)
	}
	if n := enter(); n != 1<<20 {
		t.Errorf("%d enter an open door", n)
	}
}

// TestLedger: what is reserved is counted by what may be lost at once.
func TestLedger(t *testing.T) {
	l := NewLedger(10)
	l.Follow(10, map[string][]string{"a": {"power", "isp"}, "b": {"isp"}, "c": nil})
	l.Add("a", 3)
	l.Add("b", 2)
	l.Add("c", 4)
	l.Add("x", 1) // nobody has told of it yet
	for owner, want := range map[string]int{"a": 3, "b": 3, "c": 4, "x": 7, "y": 8} {
		if got := l.Room(owner, 2); got != want {
			t.Errorf("room for %s is %d, want %d", owner, got, want)
		}
	}
	if name, n := l.Worst(); name != "isp" || n != 5 {
		t.Errorf("the worst is %s with %d", name, n)
	}
	if ex := l.Excess(7); fmt.Sprint(ex) != "[{c [c] 1} {isp [a b] 2}]" {
		t.Errorf("excess %v", ex)
	}
	if ex := l.Excess(100); ex[0].Over != 4 {
		t.Errorf("more is given up than there is: %v", ex)
	}
	l.Follow(6, map[string][]string{"a": {"a"}, "b": {"c"}, "c": {"c"}, "x": {"x"}}) // counts stay
	if got := l.Room("b", 0); got != 0 || l.Limit() != 6 {
		t.Errorf("room %d of %d", got, l.Limit())
	}
	var told []string
	l.Reserved(func(loss string, n int) { told = append(told, fmt.Sprint(loss, n)) })
	if fmt.Sprint(told) != "[a3 c6 x1]" {
		t.Errorf("reserved %v", told)
	}
	if Limit(100) != 95 || Limit(1) != 0 || Limit(100_000) != 95_000 {
		t.Error("limits")
	}
}

// FuzzLedger keeps a ledger beside a plain list of records and compares each answer.
func FuzzLedger(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 250, 3, 77}, uint8(9))
	f.Add([]byte{255, 0, 255, 1, 128, 64, 33, 12}, uint8(3))
	losses := [...]map[string][]string{
		{"a": {"p", "q"}, "b": {"q"}, "c": {"p"}, "d": {"r"}},
		{"a": {"a"}, "b": nil, "c": {"p", "r", "q"}},
		{},
	}
	f.Fuzz(func(t *testing.T, steps []byte, limit uint8) {
		l, by := NewLedger(int(limit)), losses[2]
		kept := map[string]int{}
		sum := func(loss string) (n int) {
			for o, k := range kept {
				if slices.Contains(by[o], loss) || len(by[o]) == 0 && o == loss {
					n += k
				}
			}
			return n
		}
		for _, b := range steps {
			owner, own := string(rune('a'+b&3)), int(b>>5)
			switch b >> 2 & 3 {
			case 0:
				by = losses[int(b>>4)%len(losses)]
				l.Follow(int(limit), by)
			case 1:
				if kept[owner] > 0 {
					kept[owner]--
					l.Add(owner, -1)
				}
			default:
				most := 0
				for _, loss := range append(slices.Clone(by[owner]), owner) {
					if loss != owner || len(by[owner]) == 0 || slices.Contains(by[owner], owner) {
						most = max(most, sum(loss))
					}
				}
				if got, want := l.Room(owner, own), int(limit)-own-most; got != want {
					t.Fatalf("room for %s is %d, want %d of %v by %v", owner, got, want, kept, by)
				}
				if l.Room(owner, own) > 0 {
					kept[owner]++
					l.Add(owner, 1)
				}
			}
			for _, ex := range l.Excess(own) {
				if over := min(own+sum(ex.Loss)-int(limit), sum(ex.Loss)); over != ex.Over {
					t.Fatalf("%s is over by %d, want %d", ex.Loss, ex.Over, over)
				}
			}
		}
	})
}

// BenchmarkChoice is what one session costs its owner and its Backup.
func BenchmarkChoice(b *testing.B) {
	sites := sitesOf(1, 1, 1, 1, 1, 1, 1, 1)
	var c Chooser
	key, order := []byte(keyOf(7)), make([]int, 0, len(sites))
	b.Run("order", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			order = c.Order(order[:0], key, sites)
		}
	})
	var s Spread
	var d Doors
	s.Follow(sites)
	all, now := names(&c, keyOf(7), sites), time.Unix(1000, 0)
	b.Run("pick", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			name := s.Pick(all, &d, now)
			s.Take(name)
			s.Leave(name)
		}
	})
	l := NewLedger(95_000)
	l.Follow(95_000, map[string][]string{"s00": {"p", "q"}, "s01": {"q"}})
	b.Run("ledger", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if l.Room("s00", 70_000) > 0 {
				l.Add("s00", 1)
				l.Add("s00", -1)
			}
		}
	})
}

// TestNoAllocations: a choice, an account and a refused one allocate nothing.
func TestNoAllocations(t *testing.T) {
	sites := sitesOf(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
	var c Chooser
	var s Spread
	var d Doors
	s.Follow(sites)
	key, order := []byte(keyOf(7)), make([]int, 0, len(sites))
	all, now := names(&c, keyOf(7), sites), time.Unix(1000, 0)
	d.Refused(all[0], now)
	l := NewLedger(100)
	l.Follow(100, map[string][]string{"s00": {"p", "q"}, "s01": {"q"}})
	for what, do := range map[string]func(){
		"order":  func() { order = c.Order(order[:0], key, sites) },
		"pick":   func() { n := s.Pick(all, &d, now); s.Take(n); s.Leave(n) },
		"ledger": func() { l.Add("s00", 1); l.Room("s01", 70); l.Add("s00", -1) },
	} {
		if n := testing.AllocsPerRun(100, do); n != 0 {
			t.Errorf("%s allocates %v times", what, n)
		}
	}
}
