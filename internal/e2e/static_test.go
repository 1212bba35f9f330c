//go:build e2e

package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"rhumb/placement"
)

// Limits of what must go on while something else is away.
const (
	staleWithin    = 20 * time.Second // until it is said that the store is away
	fromDiskWithin = 2 * time.Second  // from the start of a process to its first answer
	storeAway      = time.Minute
	// answerWithin is the patience of a resolver: what comes later is lost.
	answerWithin = 2 * time.Second
)

// TestE2EStoreAway stops the store for a minute: routes and answers stay, a unit
// that starts meanwhile serves from disk, and everybody is told. Then it stops it
// again, and a site dies besides: its answers move all the same.
func TestE2EStoreAway(t *testing.T) {
	t.Parallel()
	l := startLab(t)
	l.owners()
	l.awaitSettled()
	before := testSameEverywhere(t, l)
	w := l.watchAll()
	w.awaitAnswers(t)

	began := l.killDirectors()
	for _, site := range sites() {
		l.loud(unitSocket(site, "rhumb-dns"), "StateStale", "")
	}
	l.loud("admin.sock", "StateStale", "")
	l.await(patience, "the metrics say it too", func() error {
		if n := l.metric(unitSocket("ams1", "rhumb-dns"), `rhumb_alarm{kind="StateStale",object=""}`); n != 1 {
			return fmt.Errorf("rhumb_alarm of StateStale is %v", n)
		}
		return nil
	})
	if took := time.Since(began); took > promised(staleWithin) {
		t.Errorf("everybody is told that the store is away %.1f s after its end, want at most %s", took.Seconds(), promised(staleWithin))
	}
	if n := l.metric(unitSocket("ams1", "rhumb-dns"), "rhumb_store_connected"); n != 0 {
		t.Errorf("rhumb_store_connected is %v without a store", n)
	}
	time.Sleep(time.Until(began.Add(storeAway / 2)))
	w.assertNoRouteChange(t, began)
	w.assertAnswered(t, began)

	l.restartFromDisk(t, "nyc1")
	time.Sleep(time.Until(began.Add(storeAway)))
	for _, p := range anycast() {
		l.assertRouted(t, p)
	}
	l.assertSteps(t, "through the outage")
	l.healDirectors()
	l.await(healWithin, "the store is back and all is as before", func() error {
		if s, err := l.status("admin.sock"); err != nil || !s.Store.Connected || s.has("StateStale", "") {
			return fmt.Errorf("%v %v", s, err)
		}
		return l.asBefore(before)
	})
	w.assertAnswered(t, began, "nyc1")

	l.killDirectors()
	l.loud(unitSocket("ams1", "rhumb-dns"), "StateStale", "")
	killed := l.kill("tyo1")
	l.within(clientsWithin, "clients of the dead site are served elsewhere", func() error { return l.servedElsewhere(l.regionOf("tyo1"), "tyo1") })
	checkAnswersMoved(t, l, w, "tyo1", killed)
	checkRoutesMoved(t, l, "tyo1", killed, w)
	for _, site := range []string{"ams1", "nyc1"} {
		if e, err := l.explainer(unitSocket(site, "rhumb-dns")).explain(question{Name: "www.cdn.demo.test", Type: "A", Client: blocks()[l.regionOf("tyo1")]}); err != nil || !strings.HasSuffix(e.Snapshot, "+p") {
			t.Errorf("%s serves %+v (%v), want a patch of its own", site, e, err)
		}
	}
}

// awaitSettled waits until every cluster takes its whole share and all sites say
// so: a slow machine may begin with some measured down, which come back by ramp.
func (l *lab) awaitSettled() {
	l.t.Helper()
	ask := []*explainer{}
	for _, site := range sites() {
		ask = append(ask, l.explainer(unitSocket(site, "rhumb-dns")))
	}
	l.await(patience, "settled", func() error {
		names := map[string]bool{}
		for _, e := range ask {
			for _, n := range steeredNames() {
				x, err := e.explain(question{Name: n.Name, Type: n.Types[0], Client: blocks()["eu"]})
				if err != nil {
					return err
				}
				names[x.Snapshot] = true
				for _, c := range x.Trace.Candidates {
					if c.Verdict.State != placement.Up || strings.Contains(c.Reason, "ramp") {
						return fmt.Errorf("%s is %s: %s", c.Cluster, c.Verdict.State, c.Reason)
					}
				}
			}
		}
		if len(names) != 1 {
			return fmt.Errorf("snapshots %v", names)
		}
		return nil
	})
}

// killDirectors ends the store: its members live in the directors' processes.
func (l *lab) killDirectors() time.Time {
	l.t.Helper()
	began := time.Now()
	for _, site := range sites() {
		l.killUnit(site, "director")
	}
	return began
}

func (l *lab) healDirectors() {
	l.t.Helper()
	for _, site := range sites() {
		l.startUnit(site, "director")
	}
}

// startUnit starts one process of a site again.
func (l *lab) startUnit(site, unit string) time.Time {
	return l.fault("heal", site, map[string]string{"unit": unit})
}

// restartFromDisk kills a site's name server and starts it while there is no store.
func (l *lab) restartFromDisk(t *testing.T, site string) {
	t.Helper()
	var want string
	if e, err := l.explainer(unitSocket(site, "rhumb-dns")).explain(question{Name: "www.cdn.demo.test", Client: blocks()["eu"]}); err != nil {
		t.Fatal(err)
	} else {
		want = strings.TrimSuffix(e.Snapshot, "+p")
	}
	// A look of its own, which does not wait long for a question that nobody heard.
	p := l.poll("client-"+l.regionOf(site)+"-5", 20*time.Millisecond, nil,
		question{Server: l.nameServer(site), Name: "www.cdn.demo.test", Client: blocks()["eu"], Within: promised(100 * time.Millisecond)})
	defer p.stop()
	l.killUnit(site, "dns")
	started := l.startUnit(site, "dns")
	var first answer
	l.await(patience, "the name server of "+site+" answers from disk", func() error {
		for _, a := range p.since(started) {
			if m, err := a.msg(); err == nil && len(addrsOf(m)) > 0 {
				first = a
				return nil
			}
		}
		return fmt.Errorf("no answer")
	})
	if took := first.At.Sub(started); took > promised(fromDiskWithin) {
		t.Errorf("the first answer of %s came %.2f s after its start, want at most %s", site, took.Seconds(), promised(fromDiskWithin))
	} else {
		l.line.eventf("first answer of %s %.2f s after its start", site, took.Seconds())
	}
	var e *explanation
	l.await(patience, "its API is open", func() (err error) { // which may be later than its answers
		e, err = l.explainer(unitSocket(site, "rhumb-dns")).explain(question{Name: "www.cdn.demo.test", Client: blocks()["eu"]})
		return err
	})
	if strings.TrimSuffix(e.Snapshot, "+p") != want {
		t.Errorf("%s serves %v from disk, had %s", site, e, want)
	}
	l.loud(unitSocket(site, "rhumb-dns"), "StateStale", "")
}

// awaitAnswers waits until every poller has its first answers.
func (w *watchers) awaitAnswers(t *testing.T) {
	t.Helper()
	for _, site := range sites() {
		p := w.servers[site]
		p.lab.await(patience, "questions to "+site, func() error {
			if len(p.since(time.Time{})) < 10 {
				return fmt.Errorf("not yet")
			}
			return nil
		})
	}
}

// assertAnswered wants every question from a time on to have been answered with
// addresses, but for those to the servers of the named sites.
func (w *watchers) assertAnswered(t *testing.T, from time.Time, but ...string) {
	t.Helper()
	asked := 0
	for _, site := range sites() {
		if slices.Contains(but, site) {
			continue
		}
		asked += len(w.servers[site].since(from))
		for _, a := range w.servers[site].unserved(from) {
			t.Errorf("%s said %s after %.2f s", site, a.text(), a.At.Sub(from).Seconds())
		}
	}
	for _, region := range regions() {
		for _, a := range w.resolvers[region].since(from) {
			asked++
			if m, err := a.msg(); err != nil || len(addrsOf(m)) == 0 {
				t.Errorf("the resolver of %s said %s after %.2f s", region, a.text(), a.At.Sub(from).Seconds())
			}
		}
	}
	if asked < 200 {
		t.Errorf("only %d questions were asked", asked)
	}
	w.servers[sites()[0]].lab.line.eventf("%d questions answered", asked)
}

// assertNoRouteChange wants the routers' tables untouched from a time on.
func (w *watchers) assertNoRouteChange(t *testing.T, from time.Time) {
	t.Helper()
	for router, watch := range w.routes {
		watch.mu.Lock()
		for _, c := range watch.changes {
			if slices.Contains(anycast(), c.Prefix) && c.At.After(from) {
				t.Errorf("%s: %s became %s %.2f s later", router, c.Prefix, c.state(), c.At.Sub(from).Seconds())
			}
		}
		watch.mu.Unlock()
	}
}

// assertRouted wants every transit router to have a route to a prefix.
func (l *lab) assertRouted(t *testing.T, p netip.Prefix) {
	t.Helper()
	for _, region := range regions() {
		if routes, err := l.fib("t-"+region, p); err != nil || len(routes) == 0 {
			t.Errorf("t-%s has no route to %s: %v", region, p, err)
		}
	}
}

// assertSteps wants every site's own word that it announces every prefix.
func (l *lab) assertSteps(t *testing.T, what string) {
	t.Helper()
	for _, p := range anycast() {
		if n := l.announcing(p); n < 2 {
			t.Errorf("%s: %s is announced by %d sites", what, p, n)
		}
	}
}

// announcing counts the sites whose speaker says that it announces a prefix,
// however quietly.
func (l *lab) announcing(p netip.Prefix) int {
	n := 0
	for _, site := range sites() {
		if l.metric(unitSocket(site, "rhumb-bgp"), fmt.Sprintf("rhumb_anycast_prefix_announced{prefix=%q,site=%q}", p, site)) == 1 {
			n++
		}
	}
	return n
}

// TestE2EProbersAllFail makes every probe of the fleet fail at once: first because
// the checks ask for what nobody has, then because the servers are gone. Every
// prefix stays announced, every name answered, and everybody is told.
func TestE2EProbersAllFail(t *testing.T) {
	t.Parallel()
	l := startLab(t)
	l.owners()
	l.awaitSettled()
	w := l.watchAll()
	w.awaitAnswers(t)
	good, err := os.ReadFile(filepath.Join(l.dir, "fleet", "fleet.yaml"))
	if err != nil {
		t.Fatal(err)
	}

	broken := time.Now()
	text := strings.ReplaceAll(string(good), "{path: /healthz}", "{path: /no-such-page}")
	text = strings.ReplaceAll(text, "{name: cdn.demo.test, type: SOA}", "{name: nobody.test, type: SOA}")
	text = strings.ReplaceAll(text, "{name: demo.test, type: SOA}", "{name: nobody.test, type: SOA}")
	l.applyText(text)
	l.assertFailOpen(t, w, broken)

	l.applyText(string(good))
	l.await(healWithin, "the probes are right again", func() error {
		if s, err := l.status("admin.sock"); err != nil || s.has("FailOpenActive", "") || s.has("RemovalCapped", "") {
			return fmt.Errorf("%v %v", s.kinds(), err)
		}
		return nil
	})
	broken = time.Now()
	for _, site := range sites() {
		l.killUnit(site, "origin")
		l.killUnit(site, "edge")
	}
	l.assertFailOpen(t, w, broken)
}

// assertFailOpen wants the fleet to distrust its probers loudly and to change nothing.
func (l *lab) assertFailOpen(t *testing.T, w *watchers, from time.Time) {
	t.Helper()
	l.loud("admin.sock", "FailOpenActive", "www")
	l.await(patience, "all votes are down", func() error {
		for _, site := range sites() {
			e, err := l.explainer("admin.sock").explain(question{Name: "www.cdn.demo.test", Client: blocks()[l.regionOf(site)]})
			if err != nil {
				return err
			}
			for _, c := range e.Trace.Candidates {
				if c.Verdict.State != placement.Down {
					return fmt.Errorf("%s is %s", c.Cluster, c.Verdict.State)
				}
			}
		}
		return nil
	})
	time.Sleep(10 * time.Second) // long enough for dwells, slots and plans to follow
	for _, site := range sites() {
		if n := l.metric(unitSocket(site, "rhumb-dns"), `rhumb_alarm{kind="FailOpenActive",object="www"}`); n != 1 {
			t.Errorf("%s: rhumb_alarm of FailOpenActive is %v", site, n)
		}
	}
	for _, p := range anycast() {
		l.assertRouted(t, p)
		if n := l.announcing(p); n < 2 {
			t.Errorf("%s is announced by %d sites, want at least the 2 anchors", p, n)
		}
	}
	for _, n := range steeredNames() {
		for _, typ := range n.Types {
			for i, region := range regions() {
				m, err := l.askAt(sites()[i], question{Name: n.Name, Type: typ, Client: blocks()[region]})
				if err != nil || len(m.Answer) == 0 {
					t.Errorf("%s %s at %s: %v %v", n.Name, typ, sites()[i], m, err)
				}
			}
		}
	}
	w.assertAnswered(t, from)
	if s, err := l.status("admin.sock"); err != nil || s.Healthy {
		t.Errorf("status calls it healthy (%v)", err)
	}
}

// askAt asks a site's low-level name server from its region's resolver.
func (l *lab) askAt(site string, q question) (*dns.Msg, error) {
	q.Server = l.nameServer(site)
	return l.askIn("res-"+l.regionOf(site), q)[0].msg()
}

// applyText applies a fleet with the operator's command, every limit set aside.
func (l *lab) applyText(text string, more ...string) ran {
	l.t.Helper()
	file := filepath.Join(l.dir, "fleet", "changed.yaml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		l.t.Fatal(err)
	}
	r := l.run(append([]string{"apply", file, "--yes"}, more...)...)
	if r.code != 0 {
		l.t.Fatalf("%s", r)
	}
	l.applied = text
	return r
}
