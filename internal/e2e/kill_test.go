//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"rhumb/internal/netlab"
	"rhumb/placement"
)

// lossAfter is when a query at the anycast address counts as lost: more than the
// longest way through the lab and back, on a busy machine.
const lossAfter = 600 * time.Millisecond

// Limits of a site's death, counted from just before the kill.
const (
	answersWithin = 3 * time.Second // no surviving name server names it any more
	routesWithin  = 5 * time.Second // hold time 3 s and 2 s: no route leads there
	clientsWithin = 25 * time.Second
	healWithin    = 300 * time.Second // all is as before, the default ramp included
)

// TestE2ESites plays what a site's death is to clients, resolvers and routers, with
// foreign ones at every place: first what is right, then each site in turn, the
// director's and the store's leader among them.
func TestE2ESites(t *testing.T) {
	l := startLab(t, foreignPeers()...)
	l.owners()
	l.awaitSettled()
	clients := l.watchRecovery(t)
	t.Run("host answers", func(t *testing.T) { testHostAnswers(t, l) })
	t.Run("scopes", func(t *testing.T) { testScope(t, l) })
	t.Run("resolvers", func(t *testing.T) { testResolvers(t, l) })
	t.Run("referrals", func(t *testing.T) { testReferrals(t, l) })
	before := testSameEverywhere(t, l)
	w := l.watchAll()
	clients.awaitWarm()
	hurried := rounds() == 1 // the long form sees as well how slowly a site comes back by default
	if hurried {
		l.hurry()
	}
	for range rounds() {
		for _, site := range sites() {
			t.Run("kill "+site, func(t *testing.T) { testKill(t, l, w, clients, site, before) })
			if !hurried {
				l.hurry()
				hurried = true
			}
			if rounds() == 1 && clients != nil { // the first death is drawn as clients see it, in the long form all
				clients.stop()
				clients = nil
			}
			if clients != nil {
				clients.awaitWarm() // for the next death
			}
		}
	}
}

// watchers are what looks at the lab all the time.
type watchers struct {
	servers   map[string]*poller // by site, and "host": its own name server, asked for every region
	anycast   map[string]*poller // by region: the top level at its anycast address
	resolvers map[string]*poller // by region: every region's resolver, asked by a client there
	routes    map[string]*routeWatch
}

func anycast() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix(netlab.AnycastV4), netip.MustParsePrefix(netlab.AnycastV6)}
}

// watchAll looks at names, anycast addresses and routes until the test ends.
func (l *lab) watchAll() *watchers {
	w := &watchers{servers: map[string]*poller{}, anycast: map[string]*poller{}, resolvers: map[string]*poller{}, routes: map[string]*routeWatch{}}
	var all []question
	for _, r := range regions() {
		all = append(all, question{Name: "www.cdn.demo.test", Client: blocks()[r], Within: 2 * time.Second})
	}
	w.servers["host"] = l.pollHost(50*time.Millisecond, []string{"host for eu", "host for us", "host for ap"}, all...)
	for i, site := range sites() {
		region := regions()[i]
		var qs []question
		var lanes []string
		for _, r := range regions() {
			qs = append(qs, question{Server: l.nameServer(site), Name: "www.cdn.demo.test", Client: blocks()[r], Within: answerWithin})
			lanes = append(lanes, "dns "+site+" for "+r)
		}
		w.servers[site] = l.poll("client-"+region+"-2", 50*time.Millisecond, lanes, qs...)
		// Unbound has been seen to drop all that it was asked for six seconds, where the second
		// of a zone's two sites had died 20 s after the first one was back.
		q := question{Server: l.resolver(region), Name: "www.cdn.demo.test", RD: true}.patient()
		w.resolvers[region] = l.poll("client-"+region+"-3", 200*time.Millisecond, []string{"client " + region}, q)
		top := question{Server: parseAddrPort("192.0.2.1:53"), Name: "demo.test", Type: "SOA", NSID: true, Within: lossAfter}
		w.anycast[region] = l.poll("client-"+region+"-4", 50*time.Millisecond, []string{"anycast " + region}, top)
		w.routes["t-"+region] = l.watchFIB("t-"+region, anycast()...)
	}
	return w
}

// resolver is the address of a region's resolver.
func (l *lab) resolver(region string) netip.AddrPort {
	return netip.AddrPortFrom(blocks()[region].Addr().Next().Next(), 53)
}

func testKill(t *testing.T, l *lab, w *watchers, clients *recovery, site string, before map[netip.Prefix]string) {
	s, err := l.state()
	if err != nil {
		t.Fatal(err)
	}
	l.line.eventf("the director is at %s", s.Leader)
	region := l.regionOf(site)
	killed := l.kill(site)
	l.within(clientsWithin, "clients of "+region+" are served elsewhere", func() error { return l.servedElsewhere(region, site) })
	checkAnswersMoved(t, l, w, site, killed)
	checkRoutesMoved(t, l, site, killed, w)
	checkAnycast(t, l, w, killed, killed, routesWithin)
	checkResolvers(t, l, w, site, killed)
	if clients != nil {
		clients.check(t, site, killed)
	}

	healed := l.heal(site)
	took := l.within(healWithin, site+" is back", func() error { return l.asBefore(before) })
	t.Logf("%s: all as before %.1f s after heal", site, took.Seconds())
	checkAnycast(t, l, w, killed, healed, 0)
	for _, a := range w.servers[site].since(healed) {
		if m, err := a.msg(); err == nil && len(addrsOf(m)) == 0 {
			t.Errorf("%s said %s %.2f s after it was healed: a name server that is not ready is silent", site, a.text(), a.At.Sub(healed).Seconds())
		}
	}
	for _, r := range regions() {
		for _, a := range w.resolvers[r].since(healed) {
			if m, err := a.msg(); err != nil || len(addrsOf(m)) == 0 {
				t.Errorf("during heal the resolver of %s said %s at %+.2f s", r, a.text(), a.At.Sub(healed).Seconds())
			}
		}
	}
}

// tryFor is how many seconds a client gives one try. It must not be much: who was told an
// address of a dead site learns nothing from waiting for it.
func tryFor() string { return fmt.Sprint(1 + promised(time.Second).Seconds()) }

// servedElsewhere asks as a client does.
func (l *lab) servedElsewhere(region, dead string) error {
	head, err := l.exec(client(region), "curl", "-sS", "-m", tryFor(), "-o", "/dev/null", "-D", "-", "http://www.cdn.demo.test:8080/healthz")
	switch {
	case err != nil:
		return err
	case !strings.Contains(head, "X-Served-By: ") || strings.Contains(head, "X-Served-By: "+dead):
		return fmt.Errorf("served by the wrong one: %s", head)
	}
	return nil
}

// checkAnswersMoved wants that no surviving server named the dead site later than
// it may, and that each went on answering all the time.
func checkAnswersMoved(t *testing.T, l *lab, w *watchers, site string, killed time.Time) {
	t.Helper()
	for _, other := range append(sites(), "host") {
		if other == site {
			continue
		}
		last, q := w.servers[other].lastNaming(site, killed)
		if late := last.Sub(killed); late > promised(answersWithin) {
			t.Errorf("%s named %s %.2f s after the kill (client %s), want at most %s", other, site, late.Seconds(), q.Client, promised(answersWithin))
		} else if !last.IsZero() {
			l.line.eventf("%s named %s for the last time %.2f s after the kill", other, site, late.Seconds())
		}
		for _, a := range w.servers[other].unserved(killed) {
			t.Errorf("%s said %s for %s %.2f s after the kill", other, a.text(), w.servers[other].qs[a.Q].Client, a.At.Sub(killed).Seconds())
		}
		if len(w.servers[other].since(killed)) == 0 {
			t.Errorf("nobody asked %s after the kill", other)
		}
	}
}

// checkRoutesMoved wants that within the limit no router's route to the anycast
// prefixes leads to the dead site, and that there is one.
func checkRoutesMoved(t *testing.T, l *lab, site string, killed time.Time, w *watchers) {
	t.Helper()
	for router, watch := range w.routes {
		for _, p := range anycast() {
			if late := watch.lastVia(p, l.node(site).Addresses, killed); late > promised(routesWithin) {
				t.Errorf("%s had a route for %s to %s until %.2f s after the kill, want at most %s", router, p, site, late.Seconds(), promised(routesWithin))
			}
			if err := l.routeAwayFrom(router, p, site); err != nil {
				t.Error(err)
			}
		}
	}
}

// routeAwayFrom wants a route to a prefix which does not lead to the site.
func (l *lab) routeAwayFrom(router string, p netip.Prefix, site string) error {
	routes, err := l.fib(router, p)
	if err != nil || len(routes) == 0 {
		return fmt.Errorf("%s has no route to %s: %v", router, p, err)
	}
	for _, r := range routes {
		for _, hop := range r.Via {
			if l.owner[hop] == site {
				return fmt.Errorf("%s still routes %s via %s", router, p, site)
			}
		}
	}
	return nil
}

// lastVia is how long after a time a route to p led to one of the addresses; it is
// still in force if no later change is known.
func (w *routeWatch) lastVia(p netip.Prefix, addrs []netip.Addr, from time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	last, via := time.Duration(0), false
	for _, c := range w.changes {
		if c.Prefix != p {
			continue
		}
		if via && c.At.After(from) {
			last = c.At.Sub(from)
		}
		via = !c.Gone && slices.ContainsFunc(c.Via, func(a netip.Addr) bool { return slices.Contains(addrs, a) })
	}
	if via {
		last = time.Since(from)
	}
	return last
}

// checkAnycast wants the top level to have answered at its anycast address all the
// time from a moment on, except within a limit of it, whoever had the prefix. One
// datagram may get lost on a busy machine; that the next one is lost too is an outage,
// unless the machine kept bystanders waiting at that time.
func checkAnycast(t *testing.T, l *lab, w *watchers, killed, from time.Time, limit time.Duration) {
	t.Helper()
	limit = promised(limit)
	stalls := w.stalls(from.Add(-lossAfter))
	for _, region := range regions() {
		bad, lost, last, all := 0, 0, time.Duration(0), w.anycast[region].since(from)
		for _, a := range all {
			m, err := a.msg()
			if err == nil && m.Rcode == dns.RcodeSuccess && len(m.Answer) == 1 {
				lost = 0
				continue
			}
			bad++
			if err != nil && a.during(stalls) {
				continue
			}
			if lost++; lost > 1 {
				last = max(last, a.At.Sub(from))
			}
			if err == nil {
				t.Errorf("the top level said %s to %s %.2f s after the kill", a.text(), region, a.At.Sub(killed).Seconds())
			}
		}
		if last > limit+lossAfter {
			t.Errorf("no answer at the anycast address for %s, twice running, %.2f s after the fault or its end; want none after %s", region, last.Seconds(), limit)
		}
		l.line.eventf("anycast for %s: %d of %d queries without an answer, two running last after %.2f s", region, bad, len(all), last.Seconds())
	}
}

// checkResolvers wants that every region's resolver, which has the old set of name
// servers in its cache, went on answering, and forgot the dead site with its TTL.
func checkResolvers(t *testing.T, l *lab, w *watchers, site string, killed time.Time) {
	t.Helper()
	for _, region := range regions() {
		p := w.resolvers[region]
		slowest, lost := time.Duration(0), 0
		for _, a := range p.since(killed) {
			slowest = max(slowest, a.Took)
			lost += a.Lost
			if m, err := a.msg(); err != nil || len(addrsOf(m)) == 0 {
				t.Errorf("the resolver of %s said %s %.2f s after the kill of %s", region, a.text(), a.At.Sub(killed).Seconds(), site)
			}
		}
		last, _ := p.lastNaming(site, killed)
		if late := last.Sub(killed); late > 20*time.Second+promised(answersWithin) {
			t.Errorf("the resolver of %s named %s %.2f s after the kill", region, site, late.Seconds())
		}
		l.line.eventf("resolver of %s: slowest answer %.0f ms, %d asked again", region, float64(slowest.Milliseconds()), lost)
	}
}

// asBefore wants the sessions, the announcements, the routes and all answers as
// they were before anything was broken.
func (l *lab) asBefore(answers map[netip.Prefix]string) error {
	if err := l.announcedEverywhere(); err != nil {
		return err
	}
	for i, site := range sites() {
		for _, p := range anycast() {
			if err := l.routeTo("t-"+regions()[i], p, site); err != nil {
				return err
			}
		}
	}
	for _, site := range sites() {
		if err := equalSets(l.answerSet(site), answers); err != nil {
			return fmt.Errorf("%s: %w", site, err)
		}
	}
	return nil
}

// announcedEverywhere wants both prefixes announced as in calm at each site, and
// every BGP session up.
func (l *lab) announcedEverywhere() error {
	s, err := l.state()
	if err != nil {
		return err
	}
	loud := 0
	for _, a := range s.Announced {
		if a.Step != placement.Announce {
			return fmt.Errorf("%s announces %s at step %v", a.Node, a.Prefix, a.Step)
		}
		loud++
	}
	if loud != len(sites())*len(anycast()) {
		return fmt.Errorf("%d announcements", loud)
	}
	var errs []error
	for _, n := range s.Nodes {
		if n.BGP == nil {
			continue
		}
		for _, p := range n.BGP.Peers {
			if p.State != "established" {
				errs = append(errs, fmt.Errorf("%s: %s is %s", n.Site, p.Address, p.State))
			}
		}
	}
	return errors.Join(errs...)
}

// routeTo wants a router's only route to a prefix to lead to a site.
func (l *lab) routeTo(router string, p netip.Prefix, site string) error {
	routes, err := l.fib(router, p)
	if err != nil || len(routes) != 1 || len(routes[0].Via) != 1 || l.owner[routes[0].Via[0]] != site {
		return fmt.Errorf("%s routes %s by %v (%v), want %s", router, p, routes, err, site)
	}
	return nil
}
