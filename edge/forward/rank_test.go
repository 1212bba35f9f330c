package forward

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"rhumb/placement"
)

func TestRank(t *testing.T) {
	good := func(site string) candidate { return candidate{site: site, offers: true} }
	with := func(c candidate, change func(*candidate)) candidate { change(&c); return c }
	tests := []struct {
		name string
		list []candidate
		want string
	}{
		{"nobody", nil, ""},
		{"of two alike the name decides, in whatever order they come", []candidate{good("c"), good("b")}, "b c"},
		{"the nearer one", []candidate{with(good("b"), func(c *candidate) { c.cost = 200 }), with(good("c"), func(c *candidate) { c.cost = 100 })}, "c b"},
		{"who failed with the path comes behind, however near (F7)", []candidate{
			with(good("b"), func(c *candidate) { c.cost, c.failures = 10, 1 }), with(good("c"), func(c *candidate) { c.cost = 1000 })}, "c b"},
		{"who failed more often comes further behind", []candidate{
			with(good("b"), func(c *candidate) { c.failures = 9 }), with(good("c"), func(c *candidate) { c.failures = 2 })}, "c b"},
		{"a broken leg is no way", []candidate{with(good("b"), func(c *candidate) { c.near = legBroken }), with(good("c"), func(c *candidate) { c.far = legBroken })}, ""},
		{"an earlier version offers nothing", []candidate{{site: "b"}, good("c")}, "c"},
		{"an unknown leg is a last resort", []candidate{
			with(good("b"), func(c *candidate) { c.far = legUnknown }), with(good("c"), func(c *candidate) { c.failures, c.cost = 9, 900 })}, "c b"},
		{"no more than four of these (Gummadi et al., section 5)", []candidate{
			with(good("b"), func(c *candidate) { c.far = legUnknown }), with(good("c"), func(c *candidate) { c.near = legUnknown }),
			with(good("d"), func(c *candidate) { c.far = legUnknown }), with(good("e"), func(c *candidate) { c.far = legUnknown }),
			with(good("f"), func(c *candidate) { c.far = legUnknown }), good("g")}, "g b c d e"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			before := slices.Clone(test.list)
			if got := strings.Join(rank(test.list), " "); got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
			if !slices.Equal(before, test.list) {
				t.Error("the list it was given has changed")
			}
			slices.Reverse(test.list)
			if got := strings.Join(rank(test.list), " "); got != test.want {
				t.Errorf("the other way round: %q, want %q", got, test.want)
			}
		})
	}
}

func TestPick(t *testing.T) {
	tests := []struct {
		name, order, using string
		rests              map[string]time.Duration
		want               string
	}{
		{"nobody", "", "", nil, ""},
		{"the best", "b c d", "", nil, "b"},
		{"who is in use stays, though a better one has come", "b c d", "d", nil, "d"},
		{"until it fails", "b c d", "d", map[string]time.Duration{"d": 1}, "b"},
		{"or is no way any more", "b c", "d", nil, "b"},
		{"a rest that is over is none", "b c", "c", map[string]time.Duration{"b": -1, "c": 0}, "c"},
		{"if all rest, who may soonest be used", "b c d", "b", map[string]time.Duration{"b": 3, "c": 1, "d": 2}, "c"},
		{"or who is alone", "b", "b", map[string]time.Duration{"b": 3}, "b"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := pick(strings.Fields(test.order), test.using, func(s string) time.Duration { return test.rests[s] })
			if got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

// TestPastFades: a failure counts once while it lasts, adds up with later ones, and is
// forgotten in the end.
func TestPastFades(t *testing.T) {
	w := newWay("b", placement.Position{})
	now := time.Unix(1e9, 0)
	w.past.count(now, "c")
	w.past.count(now, "c")
	if got := w.past.failures["c"].quarters(now); got != 4 {
		t.Errorf("one failure weighs %d quarters, want 4", got)
	}
	clear(w.past.counted)
	w.past.count(now.Add(halfLife), "c")
	for after, want := range map[time.Duration]int{halfLife: 6, 2 * halfLife: 3, 8 * halfLife: 0} {
		if got := w.past.failures["c"].quarters(now.Add(after)); got != want {
			t.Errorf("after %v: %d quarters, want %d", after, got, want)
		}
	}
}

// TestRankedFirstTry breaks one fibre after another of a made-up internet, in which each
// path between two sites takes three fibres of forty, and counts how often the first
// choice, and one of the first four, gets round. What vectors say is enough. Where they say
// nothing, what failed together in the past must help.
func TestRankedFirstTry(t *testing.T) {
	const sites, fibres, history, trials = 40, 40, 400, 2000
	random := rand.New(rand.NewPCG(7, 7))
	name := func(i int) string { return string([]byte{'a' + byte(i/26), 'a' + byte(i%26)}) }
	var uses [sites][sites][3]int
	for a := range sites {
		for b := range a {
			for i := range 3 {
				uses[a][b][i] = random.IntN(fibres)
			}
			uses[b][a] = uses[a][b]
		}
	}
	broken := func(a, b, fibre int) bool { return slices.Contains(uses[a][b][:], fibre) }
	past := make(map[[2]int]fading) // of the ways from site 0 to one, by another
	now := time.Unix(1e9, 0)
	try := func(mode string) (first, four, ways int) {
		for range trials {
			to, fibre := 1+random.IntN(sites-1), random.IntN(fibres)
			if !broken(0, to, fibre) {
				continue
			}
			var list []candidate
			works := make(map[string]bool)
			for c := 1; c < sites; c++ {
				if c == to {
					continue
				}
				up := !broken(0, c, fibre) && !broken(c, to, fibre)
				works[name(c)] = up
				k := candidate{site: name(c), offers: true, far: legUnknown, cost: placement.Cost(random.IntN(1000))}
				if mode == "vectors" {
					k.far = legUp
					if broken(c, to, fibre) {
						k.far = legBroken
					}
					if broken(0, c, fibre) {
						k.near = legBroken
					}
				}
				if mode == "past" {
					k.failures = past[[2]int{to, c}].quarters(now)
				}
				list = append(list, k)
			}
			order := rank(list)
			ways++
			if works[order[0]] {
				first++
			}
			if slices.ContainsFunc(order[:4], func(s string) bool { return works[s] }) {
				four++
			}
		}
		return first, four, ways
	}
	for range history { // each fibre breaks ten times, and what breaks with a path is noted
		fibre := random.IntN(fibres)
		for to := 1; to < sites; to++ {
			for c := 1; c < sites && broken(0, to, fibre); c++ {
				if broken(0, c, fibre) || broken(c, to, fibre) {
					past[[2]int{to, c}] = fading{past[[2]int{to, c}].left(now) + 1, now}
				}
			}
		}
	}
	part := func(n, of int) float64 { return float64(n) / float64(of) }
	got := make(map[string]float64)
	for _, mode := range []string{"vectors", "past", "nothing"} {
		first, four, ways := try(mode)
		got[mode] = part(first, ways)
		t.Logf("by %s: first try %.3f, four tries %.3f of %d", mode, part(first, ways), part(four, ways), ways)
		if mode != "nothing" && (part(first, ways) < 0.85 || part(four, ways) < 0.99) {
			t.Errorf("by %s: first try %.3f, four tries %.3f; want 0.85 and 0.99", mode, part(first, ways), part(four, ways))
		}
	}
	if got["past"] <= got["nothing"] {
		t.Errorf("what failed in the past helps nothing: %.3f, and %.3f without", got["past"], got["nothing"])
	}
}
