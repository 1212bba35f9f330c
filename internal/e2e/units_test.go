//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestE2EUnits sends SIGKILL to one process of a site after the other, under a
// steady load of queries, and wants that each takes nothing with it but its work.
func TestE2EUnits(t *testing.T) {
	l := startLab(t, foreignPeers()...)
	l.owners()
	l.hurry()
	l.awaitSettled()
	before := testSameEverywhere(t, l)
	w := l.watchAll()
	for i := range rounds() {
		for _, site := range sites() {
			l.awaitSettled() // what comes back by ramp moves answers
			t.Run("bgp restarted at "+site, func(t *testing.T) { testRestartBGP(t, l, w, site) })
		}
		l.awaitSettled()
		t.Run("bgp restarted in order at nyc1", func(t *testing.T) { testPlannedRestart(t, l, w, "nyc1") })
		l.awaitSettled()
		t.Run("director", func(t *testing.T) { testKillDirector(t, l, w) })
		t.Run("dns", func(t *testing.T) { testKillDNS(t, l, w, "nyc1") })
		t.Run("edge", func(t *testing.T) { testKillEdge(t, l, w, "tyo1") })
		beside := []string{"nyc1", "ams1"}[i%2] // FRR, and BIRD in the long form
		t.Run("bgp at "+beside, func(t *testing.T) { testKillBGP(t, l, w, beside) })
	}
	l.within(healWithin, "all is as before", func() error { return l.asBefore(before) })
}

// testKillDirector: nothing moves, and another node takes the lease.
func testKillDirector(t *testing.T, l *lab, w *watchers) {
	s, err := l.state()
	if err != nil {
		t.Fatal(err)
	}
	site, peers := strings.TrimSuffix(s.Leader, "-a"), l.peersSince(t)
	killed := l.killUnit(site, "director")
	l.await(patience, "another node has the lease", func() error {
		now, err := l.state()
		if err == nil && (!now.Connected || now.Leader == "" || now.Leader == s.Leader) {
			err = fmt.Errorf("leader %q, was %q, connected %v", now.Leader, s.Leader, now.Connected)
		}
		return err
	})
	l.lookOn(killed)
	for _, at := range sites() {
		for _, step := range l.steps(t, at, killed) {
			t.Errorf("%s changed its announcement: %s", at, step.line)
		}
		checkServing(t, w, at, killed)
		checkUnmoved(t, w, at, killed)
	}
	checkPeersStay(t, l, peers, "")
	checkAnycast(t, l, w, killed, killed, 0)
	l.heal(site)
	l.await(patience, "the director's process is back", func() error { return l.reports(site, "rhumb-director", killed) })
}

// testKillDNS: BGP stays up; the route goes down its ladder because health misses
// the listener, and comes back with it.
func testKillDNS(t *testing.T, l *lab, w *watchers, site string) {
	router, peers := "t-"+l.regionOf(site), l.peersSince(t)
	killed := l.killUnit(site, "dns")
	for _, p := range anycast() {
		l.within(routesWithin, router+" routes "+p.String()+" elsewhere", func() error { return l.routeAwayFrom(router, p, site) })
	}
	l.within(clientsWithin, "clients of "+l.regionOf(site)+" are served", func() error { return l.served(l.regionOf(site), "www.cdn.demo.test:8080") })
	l.lookOn(killed)
	for _, at := range sites() {
		if at != site {
			checkServing(t, w, at, killed)
		}
	}
	checkLadder(t, l, site, killed, true)
	checkPeersStay(t, l, peers, "")
	checkAnycast(t, l, w, killed, killed, routesWithin)
	checkResolvers(t, l, w, "", killed)
	l.healUnit(t, site, "rhumb-dns", w)
}

// testKillEdge: BGP and DNS stay; clients of the site's own content reach another.
func testKillEdge(t *testing.T, l *lab, w *watchers, site string) {
	region, peers := l.regionOf(site), l.peersSince(t)
	killed := l.killUnit(site, "edge")
	l.await(patience, "clients of "+region+" reach another edge", func() error { return l.served(region, "vod.cdn.demo.test") })
	l.lookOn(killed)
	for _, at := range sites() {
		checkServing(t, w, at, killed)
	}
	checkLadder(t, l, site, killed, true)
	checkPeersStay(t, l, peers, "")
	checkAnycast(t, l, w, killed, killed, 0)
	l.healUnit(t, site, "rhumb-edge", w)
}

// hungWithin bounds how long a router with BFD at 300 ms x 3 routes to a site whose
// speaker hangs: 0.9 s, and what a busy machine adds; by the hold time it were 3 s and more.
// The short form asks the router why it left instead: FRR tells.
const hungWithin = 2500 * time.Millisecond

// testKillBGP lets the speaker hang first: its router leaves it by BFD, long before
// the hold time is over. Then it is killed. Its name server goes on answering whoever asks it.
func testKillBGP(t *testing.T, l *lab, w *watchers, site string) {
	router, peers := "t-"+l.regionOf(site), l.peersSince(t)
	killed := l.hang(t, site, "bgp,health")
	for _, p := range anycast() {
		l.within(routesWithin, router+" routes "+p.String()+" elsewhere", func() error { return l.routeAwayFrom(router, p, site) })
		if late := w.routes[router].lastVia(p, l.node(site).Addresses, killed); late > hungWithin && rounds() > 1 {
			t.Errorf("%s routed %s to %s for %.2f s after it hung, want at most %s", router, p, site, late.Seconds(), hungWithin)
		}
	}
	if site == "nyc1" {
		l.leftByBFD(t, router, site)
	}
	l.killUnit(site, "bgp")
	l.within(clientsWithin, "clients of "+l.regionOf(site)+" are served", func() error { return l.served(l.regionOf(site), "www.cdn.demo.test:8080") })
	l.lookOn(killed)
	for _, at := range sites() {
		checkServing(t, w, at, killed)
	}
	checkPeersStay(t, l, peers, site)
	checkAnycast(t, l, w, killed, killed, 0)
	checkResolvers(t, l, w, "", killed)
	l.healUnit(t, site, "rhumb-bgp", w)
}

// leftByBFD wants an FRR to have ended its sessions with a site since BFD said so, and not
// since its hold time was over.
func (l *lab) leftByBFD(t *testing.T, router, site string) {
	t.Helper()
	out, err := exec.Command("vtysh", "--vty_socket", filepath.Join(l.dir, "foreign", router+"-frr"), "-c", "show bgp neighbors json").Output()
	var all map[string]struct {
		Why  string `json:"lastResetDueTo"`
		Code string `json:"lastErrorCodeSubcode"` // of the NOTIFICATION
	}
	if err = errors.Join(err, json.Unmarshal(out, &all)); err != nil {
		t.Fatalf("%s does not tell of its neighbours: %v\n%s", router, err, out)
	}
	sessions := 0
	for _, a := range l.node(site).Addresses {
		n, ok := all[a.String()]
		if !ok { // one of its own, which has no session
			continue
		}
		sessions++
		if l.line.eventf("%s left %s: %s, %s", router, a, n.Why, n.Code); n.Code != bfdDown {
			t.Errorf("%s left %s by %q, code %s, want %s", router, a, n.Why, n.Code, bfdDown)
		}
	}
	if sessions != 2 {
		t.Errorf("%s had %d sessions with %s, want one a family", router, sessions, site)
	}
}

// bfdDown is Cease and its subcode BFD Down (RFC 9384), as FRR writes it.
const bfdDown = "060A"

// lookOn lets a fault last: what must not happen has no event to wait for.
func (l *lab) lookOn(since time.Time) {
	const lasting = 12 * time.Second
	time.Sleep(time.Until(since.Add(lasting)))
	l.line.eventf("the fault has lasted %.0f s", lasting.Seconds())
}

// hang stops a site's process of some roles where it stands, with SIGSTOP.
func (l *lab) hang(t *testing.T, site, roles string) time.Time {
	t.Helper()
	node := filepath.Join(l.dir, "sites", site, "node.yaml")
	for pid, what := range l.inventory().procs {
		if strings.Contains(what, node+" --roles "+roles) {
			at := time.Now()
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			l.line.event(at, "SIGSTOP "+site+" "+roles)
			return at
		}
	}
	t.Fatalf("%s has no process for %s", site, roles)
	return time.Time{}
}

// testRestartBGP: a speaker which died and is started again at once, as a service
// manager does it, has its sessions and routes back within seconds, whoever the
// router is, and moves no answer, if it is back before its silence was too long.
func testRestartBGP(t *testing.T, l *lab, w *watchers, site string) {
	killed := l.killUnit(site, "bgp")
	l.healUnit(t, site, "rhumb-bgp", w)
	if took := time.Since(killed); took > promised(routesBackWithin) {
		t.Errorf("after its restart the routes of %s were back after %.1f s, want at most %s", site, took.Seconds(), promised(routesBackWithin))
	}
	missed := l.missed(t, site, killed)
	for _, at := range sites() {
		checkServing(t, w, at, killed)
		if missed == "" {
			checkUnmoved(t, w, at, killed)
		}
	}
	if missed != "" && rounds() > 1 {
		t.Errorf("%s was voted down while it restarted: %s", site, missed)
	} else if missed != "" {
		l.line.eventf("the machine took too long to restart %s: %s", site, missed)
	}
	checkAnycast(t, l, w, killed, killed, routesWithin)
	l.awaitNewPeers(t, site, killed)
}

// missed is why another site voted one down from a time on, since it heard no beat of it
// for as long as it may be silent; empty when nobody did. What starts a process on a busy
// machine may take longer than that, and then the answers have to move.
func (l *lab) missed(t *testing.T, site string, from time.Time) string {
	t.Helper()
	for _, at := range sites() {
		for _, v := range l.votes(t, at, from) {
			if at != site && v.object == site+"/-" && v.to == "down" && strings.HasPrefix(v.cause, "no beat ") {
				return fmt.Sprintf("%s after %.2f s: %s", at, v.at.Sub(from).Seconds(), v.cause)
			}
		}
	}
	return ""
}

// awaitNewPeers waits until the sessions of a site are reported as those of a process
// that was started after a time: what comes next compares with them.
func (l *lab) awaitNewPeers(t *testing.T, site string, after time.Time) {
	t.Helper()
	l.await(patience, "the new sessions of "+site+" are reported", func() error {
		for key, since := range l.peersSince(t) {
			if strings.HasPrefix(key, site+" ") && since.Before(after.Truncate(time.Second)) { // whole seconds are reported
				return fmt.Errorf("%s: since %s", key, since.Format(time.StampMilli))
			}
		}
		return nil
	})
}

// testPlannedRestart: a speaker which is stopped and comes back seconds later has said
// goodbye: its end alone takes longer than any silence that is forgiven to one which says
// nothing. Its routes go and come, but nobody calls the site dead, and no answer moves.
func testPlannedRestart(t *testing.T, l *lab, w *watchers, site string) {
	const roles = "bgp,health"
	left := time.Now()
	old := l.unitPID(t, site, roles)
	l.signal(t, old, syscall.SIGTERM, site+" "+roles)
	l.await(patience, "it has left, and is started again", func() error {
		pid := l.findUnit(site, roles)
		if pid == 0 { // nothing happens before the lab has seen the end as well
			l.startUnit(site, "bgp")
			pid = l.findUnit(site, roles)
		}
		if pid == 0 || pid == old {
			return fmt.Errorf("process %d, was %d", pid, old)
		}
		return nil
	})
	l.awaitUnit(site, "rhumb-bgp", left)
	l.awaitNewPeers(t, site, left)
	for _, at := range sites() {
		checkSameAnswers(t, w, at, left)
		if at == site {
			continue
		}
		goodbye := false
		for _, v := range l.votes(t, at, left) {
			goodbye = goodbye || v.object == site+"/-" && v.to == "unknown"
			if v.object == site+"/-" && v.to == "down" {
				t.Errorf("%s voted %s down, %.2f s after it left: %s", at, site, v.at.Sub(left).Seconds(), v.cause)
			}
		}
		if !goodbye {
			t.Errorf("%s heard no goodbye of %s: %v", at, site, l.votes(t, at, left))
		}
	}
}

// checkSameAnswers wants whatever a site's name server answered from a time on to be what
// it answered before. A query that a busy machine lost says nothing.
func checkSameAnswers(t *testing.T, w *watchers, site string, from time.Time) {
	t.Helper()
	p := w.servers[site]
	before, same := map[int]string{}, 0
	for _, a := range p.since(time.Time{}) {
		m, err := a.msg()
		switch {
		case err != nil || len(addrsOf(m)) == 0:
		case a.At.Before(from):
			before[a.Q] = a.text()
		case before[a.Q] != "" && a.text() != before[a.Q]:
			t.Errorf("%s answered %s with %s, %.2f s after it left; before with %s", site, p.qs[a.Q].Client, a.text(), a.At.Sub(from).Seconds(), before[a.Q])
		default:
			same++
		}
	}
	if same == 0 {
		t.Errorf("%s answered nobody", site)
	}
}

// routesBackWithin covers the start of a process, the connection to the store, the
// sessions and the warm-up of the routes.
const routesBackWithin = 15 * time.Second

// healUnit starts the process again and waits until the routes are as before.
func (l *lab) healUnit(t *testing.T, site, unit string, w *watchers) {
	t.Helper()
	healed := l.heal(site)
	l.awaitUnit(site, unit, healed)
	checkAnycast(t, l, w, healed, healed, 0)
}

// awaitUnit waits until a process which was started after a time reports, and the routes
// are as before.
func (l *lab) awaitUnit(site, unit string, healed time.Time) {
	l.t.Helper()
	l.await(patience, unit+" of "+site+" reports", func() error { return l.reports(site, unit, healed) })
	router := "t-" + l.regionOf(site)
	l.within(healWithin, "routes lead to "+site+" again", func() error {
		err := l.announcedEverywhere()
		for _, p := range anycast() {
			err = errors.Join(err, l.routeTo(router, p, site))
		}
		return err
	})
}

// served fetches a small file as a client of the region does.
func (l *lab) served(region, host string) error {
	out, err := l.exec(client(region), "curl", "-sS", "-m", tryFor(), "-f", "http://"+host+"/healthz")
	if err == nil && out != "ok\n" {
		err = fmt.Errorf("%s says %q", host, out)
	}
	return err
}

// reports wants a process which was started after a time to have told the fleet.
func (l *lab) reports(site, unit string, after time.Time) error {
	s, err := l.state()
	if err != nil {
		return err
	}
	for _, n := range s.Nodes {
		if n.Site == site && n.Unit == unit && n.Started.After(after) && n.Snapshot != "" {
			return nil
		}
	}
	return fmt.Errorf("no report of %s at %s", unit, site)
}

// peersSince are the times since which each BGP session is up, by site and peer.
func (l *lab) peersSince(t *testing.T) map[string]time.Time {
	t.Helper()
	var out map[string]time.Time
	l.await(patience, "all BGP sessions are up", func() error {
		s, err := l.state()
		if err != nil {
			return err
		}
		out = map[string]time.Time{}
		for _, n := range s.Nodes {
			if n.BGP == nil {
				continue
			}
			for _, p := range n.BGP.Peers {
				if p.State != "established" {
					return fmt.Errorf("%s: %s is %s", n.Site, p.Address, p.State)
				}
				out[n.Site+" "+p.Address.String()] = p.Since
			}
		}
		if want := 2 * len(sites()); len(out) != want {
			return fmt.Errorf("%d of %d sessions are reported", len(out), want)
		}
		return nil
	})
	return out
}

// checkPeersStay wants every session of before to be the same one still, those of
// one site aside.
func checkPeersStay(t *testing.T, l *lab, before map[string]time.Time, except string) {
	t.Helper()
	s, err := l.state()
	if err != nil {
		t.Error(err)
		return
	}
	seen := 0
	for _, n := range s.Nodes {
		if n.BGP == nil || n.Site == except {
			continue
		}
		for _, p := range n.BGP.Peers {
			seen++
			if key := n.Site + " " + p.Address.String(); p.State != "established" || !p.Since.Equal(before[key]) {
				t.Errorf("session %s: %s since %s, was up since %s", key, p.State, p.Since.Format(time.StampMilli), before[key].Format(time.StampMilli))
			}
		}
	}
	if except == "" && seen != len(before) {
		t.Errorf("%d sessions of %d", seen, len(before))
	}
}

// checkServing wants a site's name server to have answered every query.
func checkServing(t *testing.T, w *watchers, site string, from time.Time) {
	t.Helper()
	for _, a := range w.servers[site].unserved(from) {
		t.Errorf("the name server of %s said %s %.2f s after the kill", site, a.text(), a.At.Sub(from).Seconds())
	}
	if len(w.servers[site].since(from)) == 0 {
		t.Errorf("nobody asked the name server of %s", site)
	}
}

// checkUnmoved wants a site's answers to be those from before a time. A question that
// was lost says nothing of it.
func checkUnmoved(t *testing.T, w *watchers, site string, from time.Time) {
	t.Helper()
	p := w.servers[site]
	last := map[int]string{}
	for _, a := range p.since(time.Time{}) {
		if a.Err != "" {
			continue
		}
		if before := last[a.Q]; a.At.After(from) && before != "" && a.text() != before {
			t.Errorf("%s answered %s with %s, before with %s", site, p.qs[a.Q].Client, a.text(), before)
		}
		last[a.Q] = a.text()
	}
}

// step is a transition of a route as its speaker logs it.
type step struct {
	at       time.Time
	from, to string
	slot     string
	witness  string
	line     string
}

var logField = regexp.MustCompile(`(\w+)=("[^"]*"|\S+)`)

// steps reads the transitions of a site's speaker from a time on.
func (l *lab) steps(t *testing.T, site string, from time.Time) []step {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(l.dir, "logs", site+"-bgp.log"))
	if err != nil {
		t.Fatal(err)
	}
	var out []step
	for line := range strings.Lines(string(b)) {
		f := map[string]string{}
		for _, m := range logField.FindAllStringSubmatch(line, -1) {
			f[m[1]] = strings.Trim(m[2], `"`)
		}
		at, err := time.Parse(time.RFC3339Nano, f["time"])
		if f["msg"] == "bgp: step" && err == nil && !at.Before(from) {
			out = append(out, step{at: at, from: f["from"], to: f["to"], slot: f["slot"], witness: f["witness"], line: strings.TrimSpace(line)})
		}
	}
	return out
}

// checkLadder wants a site's routes to have gone down rung by rung: to gshut at
// once or by prepend, to withdrawn from there alone, and only with a Slot or a
// witness.
func checkLadder(t *testing.T, l *lab, site string, from time.Time, wantSome bool) {
	t.Helper()
	all := l.steps(t, site, from)
	if wantSome && len(all) == 0 {
		t.Errorf("%s did not lower its routes", site)
	}
	for _, s := range all {
		l.line.event(s.at, site+" "+s.from+" → "+s.to+" (slot "+s.slot+", witness "+s.witness+")")
		if s.to != "withdrawn" {
			continue
		}
		if s.from != "gshut" || ((s.slot == "" || s.slot == "0") && s.witness != "true") {
			t.Errorf("%s left out a rung or its gate: %s", site, s.line)
		}
	}
}
