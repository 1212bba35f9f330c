package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"rhumb/internal/netlab"
	"rhumb/placement"
)

// How clients ask while a replay is watched. A lost answer is one that does not come
// within more than the longest way through the lab and back, on a busy machine. What a
// machine loses that is busier yet says nothing of the tale: each client asks its own
// site besides, at an address which no tale touches, and if that is not answered either,
// both do not count.
const (
	askEvery = 250 * time.Millisecond
	askLost  = 800 * time.Millisecond
)

// onlooker looks at a lab from outside of Rhumb: the routes in the kernels of the
// transit routers, what those routers hear from the sites, and what clients get.
// It keeps what is so now, and the worst since mark was called.
type onlooker struct {
	w        *world
	prefixes []netip.Prefix
	ask      asker
	owner    map[netip.Addr]string // address → node
	say      func(replayLine)

	mu      sync.Mutex
	fib     map[string]map[netip.Prefix]string         // router → prefix → where to; missing: no route
	heard   map[netip.Prefix]map[string]placement.Step // prefix → site → rung; missing: silent
	lost    map[string]int                             // region → answers lost in a row
	heardOf map[string]time.Time                       // region → its last answer
	up      int                                        // sessions of sites with their routers
	moved   time.Time                                  // last change of fib or heard
	marked  bool
	worst   worst
}

// worst is the least good that was seen since the mark.
type worst struct {
	sites  map[netip.Prefix]int // announcing at once
	routes int                  // prefixes without a route at some router, at once
	gap    time.Duration        // for which some region got no answer
	asked  int
	failed int
}

func newOnlooker(w *world, prefixes []netip.Prefix, ask asker, say func(replayLine)) *onlooker {
	x := &onlooker{w: w, prefixes: prefixes, ask: ask, say: say, owner: map[netip.Addr]string{},
		fib: map[string]map[netip.Prefix]string{}, heard: map[netip.Prefix]map[string]placement.Step{}, lost: map[string]int{}, heardOf: map[string]time.Time{}}
	for _, n := range w.topo.Nodes {
		for _, a := range w.topo.Addresses(n.Name) {
			x.owner[a] = n.Name
		}
	}
	for _, r := range nodesOf(w.topo, netlab.Router) {
		x.fib[r] = map[netip.Prefix]string{}
	}
	for _, p := range prefixes {
		x.heard[p] = map[string]placement.Step{}
	}
	return x
}

// run looks until the context ends.
func (x *onlooker) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, r := range nodesOf(x.w.topo, netlab.Router) {
		file := heardFile(x.w.dir.routerFile(r))
		read, err := tailOnce(file, 0, x.note) // what was before is not news
		if err != nil {
			return err
		}
		g.Go(func() error { return x.watchFIB(ctx, r) })
		g.Go(func() error { return tail(ctx, file, read, x.hear) })
	}
	x.draw(time.Now(), "")
	for _, n := range x.w.topo.Nodes {
		if n.Role == netlab.Site {
			g.Go(func() error { return x.poll(ctx, n.Region, n.Name) })
		}
	}
	g.Go(func() error { return x.sessions(ctx) })
	return g.Wait()
}

// watchFIB follows the kernel of one router.
func (x *onlooker) watchFIB(ctx context.Context, router string) error {
	host, err := x.w.net.Host(router)
	if err != nil {
		return err
	}
	fib, err := host.FIB(0)
	if err != nil {
		return err
	}
	defer fib.Close()
	changes, err := fib.Watch(ctx)
	if err != nil {
		return err
	}
	now, err := fib.Main()
	if err != nil {
		return err
	}
	for _, r := range now {
		x.routed(router, netlab.FIBChange{At: time.Now(), FIBRoute: r})
	}
	x.draw(time.Now(), router)
	for c := range changes {
		x.routed(router, c)
		x.draw(c.At, router)
	}
	return nil
}

// routed notes one change of a router's FIB.
func (x *onlooker) routed(router string, c netlab.FIBChange) {
	if !slices.Contains(x.prefixes, c.Prefix) {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.moved = c.At
	delete(x.fib[router], c.Prefix)
	if !c.Gone {
		var to []string
		for _, h := range c.Hops {
			to = append(to, x.owner[h.Addr])
		}
		slices.Sort(to)
		x.fib[router][c.Prefix] = strings.Join(slices.Compact(to), "+")
	}
	x.judge()
}

// hear notes a line of a router's record and tells what follows from it.
func (x *onlooker) hear(l heardLine) {
	x.note(l)
	x.draw(l.At, "")
}

// note takes a line of a router's record. What routers tell each other is not a
// site's word.
func (x *onlooker) note(l heardLine) {
	site := x.owner[l.Peer]
	if !slices.Contains(labSites(x.w.topo), site) {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, p := range x.prefixes {
		if l.Prefix.IsValid() && l.Prefix != p || !l.Prefix.IsValid() && p.Addr().Is4() != l.Peer.Is4() {
			continue
		}
		x.moved = l.At
		if l.Step == placement.Withdrawn {
			delete(x.heard[p], site)
		} else {
			x.heard[p][site] = l.Step
		}
	}
	x.judge()
}

// judge keeps the worst; callers hold the lock.
func (x *onlooker) judge() {
	if !x.marked {
		return
	}
	for _, p := range x.prefixes {
		x.worst.sites[p] = min(x.worst.sites[p], len(x.heard[p]))
	}
	missing := 0
	for _, p := range x.prefixes {
		for _, r := range sortedKeys(x.fib) {
			if x.fib[r][p] == "" {
				missing++
				break
			}
		}
	}
	x.worst.routes = max(x.worst.routes, missing)
}

// mark begins to keep the worst.
func (x *onlooker) mark() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.marked, x.worst = true, worst{sites: map[netip.Prefix]int{}}
	for _, p := range x.prefixes {
		x.worst.sites[p] = len(x.heard[p])
	}
	x.judge()
}

// draw tells the state of a router's FIB, or of what is announced.
func (x *onlooker) draw(at time.Time, router string) {
	x.mu.Lock()
	var lines []replayLine
	switch {
	case router != "" && len(x.prefixes) > 2:
		lines = append(lines, x.few(at, router))
	case router != "":
		for _, p := range x.prefixes {
			lines = append(lines, replayLine{At: at, Lane: "fib " + router + " " + p.String(), Text: or(x.fib[router][p], noRoute)})
		}
	case len(x.prefixes) > 2:
		lines = append(lines, x.counted(at))
	default:
		for _, p := range x.prefixes {
			lines = append(lines, replayLine{At: at, Lane: p.String() + " announced at", Text: x.announcers(p)})
		}
	}
	x.mu.Unlock()
	for _, l := range lines {
		x.say(l)
	}
}

// What lanes say where there is nothing.
const (
	noRoute  = "no route"
	nowhere  = "nowhere"
	noAnswer = "no answer"
	noWord   = "" // a question that says nothing
)

// announcers names the sites that a prefix is heard from; a star stands for a
// route that asks to be avoided.
func (x *onlooker) announcers(p netip.Prefix) string {
	var out []string
	for _, s := range sortedKeys(x.heard[p]) {
		if x.heard[p][s] == placement.GShut {
			s += "*"
		}
		out = append(out, s)
	}
	return or(strings.Join(out, " "), nowhere)
}

// few is a router's FIB where there are many prefixes.
func (x *onlooker) few(at time.Time, router string) replayLine {
	text := fmt.Sprintf("%d of %d routed", len(x.fib[router]), len(x.prefixes))
	if len(x.fib[router]) == 0 {
		text = noRoute
	}
	return replayLine{At: at, Lane: "fib " + router, Text: text}
}

// counted says at how many sites each of many prefixes is announced.
func (x *onlooker) counted(at time.Time) replayLine {
	least, most := len(labSites(x.w.topo)), 0
	for _, p := range x.prefixes {
		least, most = min(least, len(x.heard[p])), max(most, len(x.heard[p]))
	}
	text := fmt.Sprintf("%d sites each", least)
	switch {
	case most == 0:
		text = nowhere
	case least != most:
		text = fmt.Sprintf("%d to %d sites", least, most)
	}
	return replayLine{At: at, Lane: fmt.Sprintf("%d prefixes announced at", len(x.prefixes)), Text: text}
}

// poll asks as a client of a region does; a late answer delays the next.
func (x *onlooker) poll(ctx context.Context, region, near string) error {
	host, err := x.w.net.Host(netlab.ClientName(region, 2))
	if err != nil {
		return err
	}
	server := netip.AddrPortFrom(ownAddresses(x.w.topo, near)[0], 53)
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for round := 0; ; round++ {
		at := time.Now()
		asking, cancel := context.WithTimeout(ctx, askLost)
		control := make(chan error, 1)
		go func() { control <- askNear(asking, host, server) }()
		site, err := x.ask(asking, host, round)
		if err != nil {
			site = noAnswer
			if <-control != nil {
				site = noWord
			}
		}
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		x.answered(at, time.Now(), region, site)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// answered notes one answer, asked for at one time and had, or given up, at another.
func (x *onlooker) answered(at, end time.Time, region, site string) {
	x.mu.Lock()
	if site == noWord {
		x.heardOf[region] = end
		x.mu.Unlock()
		return
	}
	if x.marked {
		x.worst.asked++
	}
	if site == noAnswer {
		x.lost[region]++
		if x.marked {
			x.worst.failed++
			x.worst.gap = max(x.worst.gap, end.Sub(x.heardOf[region]))
		}
	} else {
		x.lost[region], x.heardOf[region] = 0, end
	}
	x.mu.Unlock()
	x.say(replayLine{At: at, Lane: "clients " + region, Text: site})
}

// sessions counts, in the routers' kernels, the connections with sites on BGP's port.
func (x *onlooker) sessions(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		n := 0
		for _, r := range nodesOf(x.w.topo, netlab.Router) {
			host, err := x.w.net.Host(r)
			if err != nil {
				return err
			}
			peers, err := host.Established(179)
			if err != nil {
				return err
			}
			for _, a := range peers {
				if slices.Contains(labSites(x.w.topo), x.owner[a]) {
					n++
				}
			}
		}
		x.mu.Lock()
		x.up = n
		x.mu.Unlock()
		x.say(replayLine{At: time.Now(), Lane: "BGP sessions of sites", Text: fmt.Sprintf("%d up", n)})
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// calm wants every prefix routed everywhere and announced plainly by all sites, and
// clients answered.
func (x *onlooker) calm() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, p := range x.prefixes {
		for _, s := range labSites(x.w.topo) {
			if step, ok := x.heard[p][s]; !ok || step != placement.Announce {
				return fmt.Errorf("%s is announced at %s only", p, x.announcers(p))
			}
		}
		for _, r := range sortedKeys(x.fib) {
			if x.fib[r][p] == "" {
				return fmt.Errorf("%s has no route to %s", r, p)
			}
		}
	}
	for _, region := range sortedKeys(x.lost) {
		if x.lost[region] > 0 {
			return fmt.Errorf("clients of %s get no answer", region)
		}
	}
	return nil
}

// gone wants the prefixes off the world: heard from no site, in no router's FIB, and
// no region answered.
func (x *onlooker) gone() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, p := range x.prefixes {
		if len(x.heard[p]) > 0 {
			return fmt.Errorf("%s is still announced at %s", p, x.announcers(p))
		}
		for _, r := range sortedKeys(x.fib) {
			if x.leads(r, p, nil) {
				return fmt.Errorf("%s still routes %s to %s", r, p, x.fib[r][p])
			}
		}
	}
	for _, n := range x.w.topo.Nodes {
		if n.Role == netlab.Site && x.lost[n.Region] < 2 {
			return fmt.Errorf("clients of %s are still answered", n.Region)
		}
	}
	return nil
}

// leads tells whether a router's route ends at a site, over however many routers.
// One that ends at a router without a route is none: the library of our routers
// forgets now and then to take back from each other what they had passed on. Callers
// hold the lock.
func (x *onlooker) leads(router string, p netip.Prefix, over []string) bool {
	for _, to := range strings.Split(x.fib[router][p], "+") {
		switch {
		case to == "" || slices.Contains(over, to):
		case slices.Contains(labSites(x.w.topo), to), x.leads(to, p, append(over, router)):
			return true
		}
	}
	return false
}

// quiet is how long nothing has changed in routes.
func (x *onlooker) quiet() time.Duration {
	x.mu.Lock()
	defer x.mu.Unlock()
	return time.Since(x.moved)
}
