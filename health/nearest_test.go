package health

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rhumb/health/detect"
	"rhumb/placement"
)

// someSites are sites as fleets have them: in towns, several to a town, towns near others.
func someSites(n int, seed uint64) (out []placement.Site) {
	r := rand.New(rand.NewPCG(seed, 1))
	var town placement.Position
	for i := range n {
		if i%3 == 0 {
			town = placement.Position{r.Float64()*110 - 50, r.Float64()*300 - 150}
		}
		out = append(out, placement.Site{Name: fmt.Sprintf("s%03d", i), Number: uint16(i + 1), At: placement.Position{town[0] + r.Float64(), town[1] + r.Float64()}})
	}
	return out
}

// TestWatching: small fleets watch each other; in larger ones each site is watched by few
// and by enough, near and far, whoever asks and in whatever order.
func TestWatching(t *testing.T) {
	for _, n := range []int{1, 2, 6, 12} {
		for site, list := range Watching(someSites(n, 1)) {
			if len(list) != n-1 || slices.Contains(list, site) {
				t.Errorf("of %d sites, %s watches %v, want all the others", n, site, list)
			}
		}
	}
	for _, n := range []int{13, 40, 200} {
		sites := someSites(n, uint64(n))
		w := Watching(sites)
		shuffled := slices.Clone(sites)
		rand.New(rand.NewPCG(9, 9)).Shuffle(n, func(i, k int) { shuffled[i], shuffled[k] = shuffled[k], shuffled[i] })
		again := Watching(shuffled)
		most, sum, alone, edges := 0, 0, 0, 0
		for _, s := range sites {
			list := w[s.Name]
			most, sum = max(most, len(list)), sum+len(list)
			if len(list) < nearest+2 || !slices.IsSorted(list) || slices.Contains(list, s.Name) || !slices.Equal(list, again[s.Name]) {
				t.Errorf("of %d sites, %s watches %v; asked in another order: %v", n, s.Name, list, again[s.Name])
			}
			for _, other := range list {
				edges++
				if !slices.Contains(w[other], s.Name) {
					t.Errorf("%s watches %s, and is not watched by it", s.Name, other)
				}
				if !slices.ContainsFunc(list, func(via string) bool { return slices.Contains(w[other], via) }) {
					alone++
				}
			}
		}
		mean := float64(sum) / float64(n)
		t.Logf("%d sites: %.1f peers each, %d at most; %d of %d watched by nobody else that is watched", n, mean, most, alone, edges)
		if mean > 14 || most > 48 { // a lonely region is near to many
			t.Errorf("%d sites: %.1f peers each, %d at most; want some 12, and 48", n, mean, most)
		}
		if alone*20 > edges {
			t.Errorf("%d sites: %d of %d pairs have nobody who hears both, want one in twenty at most", n, alone, edges)
		}
	}
}

// TestWatchingIsSteady: one site more changes who watches whom for few.
func TestWatchingIsSteady(t *testing.T) {
	sites := someSites(100, 3)
	before, after, changed := Watching(sites[:99]), Watching(sites), 0
	for site, list := range before {
		if !slices.Equal(list, slices.DeleteFunc(slices.Clone(after[site]), func(s string) bool { return s == "s099" })) {
			changed++
		}
	}
	if changed > 25 {
		t.Errorf("one site more, and %d of 99 watch others than before; want a quarter at most", changed)
	}
}

// peersIn are the peers of site i in a fleet where not everybody watches everybody.
func peersIn(sites []placement.Site, i int) (out []Peer) {
	w := Watching(sites)
	numbers := make(map[string]uint16)
	for _, s := range sites {
		numbers[s.Name] = s.Number
	}
	for _, name := range w[sites[i-1].Name] {
		k := int(numbers[name])
		p := Peer{Site: siteName(k), NodeID: uint16(k), Addr: stationAddr(k), Keys: [][32]byte{{9}}, Watches: []uint16{}}
		for _, other := range w[name] {
			p.Watches = append(p.Watches, numbers[other])
		}
		out = append(out, p)
	}
	return out
}

// TestLargeFleet: where not everybody watches everybody, a dead site is voted down by all
// that watch it and by nobody else, and by a quorum of them as soon as with a full mesh of
// four: each hears by others that it is silent there, too. A peering costs no more.
func TestLargeFleet(t *testing.T) {
	const n, dead = 15, 7
	sites := someSites(n, n)
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		var mu sync.Mutex
		octets := make(map[netip.AddrPort]int)
		e.seen = func(from, to netip.AddrPort, data []byte) {
			if b, err := detect.Open(data, [32]byte{9}); err != nil || b.Kind == detect.KindVotes {
				return // votes are told when they are new, and at the start all are
			}
			mu.Lock()
			defer mu.Unlock()
			octets[from] += len(data) + 28 // headers of IP and UDP
		}
		stations := make([]*station, n+1)
		for i := 1; i <= n; i++ {
			stations[i] = start(t, e, i, 0, 1, func(c *Config) { c.Interval = 300 * time.Millisecond })
			stations[i].Set(peersIn(sites, i), nil)
		}
		time.Sleep(3 * time.Second)
		mu.Lock()
		clear(octets)
		mu.Unlock()
		const measured = 4
		time.Sleep(measured * time.Second)
		mu.Lock()
		for i := 1; i <= n; i++ {
			peers := len(peersIn(sites, i))
			if each := octets[stationAddr(i)] / measured / peers; each > 300 {
				t.Errorf("site %d sends %d octets a second to each of %d peers, want 300 at most", i, each, peers)
			}
		}
		mu.Unlock()
		e.lose(silent(dead))
		began, took := time.Now(), make(map[int]time.Duration)
		for time.Since(began) < 2500*time.Millisecond {
			time.Sleep(20 * time.Millisecond)
			for i := 1; i <= n; i++ {
				if _, ok := took[i]; !ok && i != dead && stations[i].downs(dead) > 0 {
					took[i] = time.Since(began)
				}
				if other := i%n + 1; i != dead && other != dead && stations[i].downs(other) > 0 {
					t.Fatalf("site %d calls %d down, which lives", i, other)
				}
			}
		}
		var times []time.Duration
		for _, p := range peersIn(sites, dead) {
			if took[int(p.NodeID)] == 0 {
				t.Errorf("site %d watches the dead one and does not call it down", p.NodeID)
			}
			times = append(times, took[int(p.NodeID)])
		}
		slices.Sort(times)
		t.Logf("of %d watchers more than half after %v, all after %v", len(times), times[len(times)/2], times[len(times)-1])
		if len(took) != len(times) || len(times) == n-1 || times[len(times)/2] > time.Second {
			t.Errorf("%d sites call it down, %d watch it; after %v; want as many, and more than half within 1 s", len(took), len(times), times)
		}
	})
}
