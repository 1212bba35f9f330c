//go:build e2e

package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Limits of what is known inside a site, on a busy machine of two cores.
const (
	exitVotedWithin  = 700 * time.Millisecond // the kernel tells an exit; ten missed ticks would take a second
	stallVotedWithin = 3 * time.Second        // ten ticks of 100 ms missed
	// outWithin is how long after its verdict a dead server may still be named.
	outWithin = time.Second
)

// TestE2EVerdicts: what is known inside a site, and who may take whom out. A trouble
// of clients or of an observer removes nobody; a server that is dead meanwhile goes.
func TestE2EVerdicts(t *testing.T) {
	for first := 0; first < trials(); first += len(sites()) {
		t.Run(fmt.Sprintf("from trial %d", first), func(t *testing.T) {
			v := startVerdicts(t)
			if first == 0 {
				v.unitsDie(t)
			}
			for i := first; i < min(first+len(sites()), trials()); i++ {
				v.trial(t, i)
			}
		})
	}
}

// trials is how often the faults of clients and observers are played.
func trials() int {
	if os.Getenv("RHUMB_SOAK") != "" {
		return 100
	}
	return 1
}

// verdicts is a lab in which it is told who votes for what.
type verdicts struct {
	*lab
	before map[netip.Prefix]string
	w      *watchers
}

// startVerdicts starts one. It is good for a trial with each site: routes that fall
// again and again come back later each time, by the ladder's rule, and nothing here
// is about that.
func startVerdicts(t *testing.T) *verdicts {
	l := startLab(t)
	l.owners()
	l.hurry()
	l.awaitSettled()
	v := &verdicts{lab: l, before: testSameEverywhere(t, l), w: l.watchAll()}
	v.w.awaitAnswers(t)
	return v
}

// unitsDie stops and kills processes of sites.
func (v *verdicts) unitsDie(t *testing.T) {
	t.Run("dns", func(t *testing.T) { testUnitDies(t, v.lab, "nyc1", "dns", "authdns", "nyc1/dns") })
	t.Run("edge", func(t *testing.T) { testUnitDies(t, v.lab, "tyo1", "edge", "edge", "tyo1/vod") })
	v.within(healWithin, "all is as before", func() error { return v.asBefore(v.before) })
}

// trial plays the faults of clients and of an observer, once each.
func (v *verdicts) trial(t *testing.T, i int) {
	t.Run("clients cut", func(t *testing.T) { testClientsCut(t, v.lab, v.w) })
	site := sites()[i%len(sites())]
	t.Run("observer "+site+" cut", func(t *testing.T) { testObserverCut(t, v.lab, v.w, site, cutFor(i), v.before) })
}

// cutFor spreads the lengths of the cuts over 2 to 20 s.
func cutFor(i int) time.Duration { return time.Duration(5+7*i)%19*time.Second + 2*time.Second }

// testUnitDies stops a process of a site where it stands, lets it go on, and kills
// it: how long after the signal this site's own vote says so is printed.
func testUnitDies(t *testing.T, l *lab, site, unit, roles, object string) {
	pid := l.unitPID(t, site, roles)
	stopped := time.Now()
	l.signal(t, pid, syscall.SIGSTOP, site+" "+unit)
	vote := l.awaitVote(t, site, object, "down", stopped)
	took := vote.after(stopped)
	t.Logf("%s of %s: SIGSTOP to vote %.0f ms", unit, site, float64(took.Microseconds())/1000)
	if took > promised(stallVotedWithin) {
		t.Errorf("a process that stands still was voted down after %v, want at most %v", took, promised(stallVotedWithin))
	}
	on := time.Now()
	l.signal(t, pid, syscall.SIGCONT, site+" "+unit)
	l.awaitVote(t, site, object, "up", on)

	killed := time.Now()
	l.signal(t, pid, syscall.SIGKILL, site+" "+unit)
	vote = l.awaitVote(t, site, object, "down", killed)
	took = vote.after(killed)
	t.Logf("%s of %s: kill -9 to vote %.1f ms", unit, site, float64(took.Microseconds())/1000)
	// How it was known is told by the vote itself, on a busy machine too.
	if !strings.Contains(vote.cause, " has exited") || took > promised(exitVotedWithin) {
		t.Errorf("a process that was killed was voted down after %v since %q, want at most %v, and since it has exited", took, vote.cause, promised(exitVotedWithin))
	}
	back := time.Now()
	l.await(patience, unit+" of "+site+" is started again", func() error {
		l.startUnit(site, unit) // nothing happens before the lab has seen the end as well
		if now := l.findUnit(site, roles); now == 0 || now == pid {
			return fmt.Errorf("process %d", now)
		}
		return nil
	})
	l.awaitVote(t, site, object, "up", back)
}

// unitPID finds a site's process of some roles.
func (l *lab) unitPID(t *testing.T, site, roles string) int {
	t.Helper()
	pid := l.findUnit(site, roles)
	if pid == 0 {
		t.Fatalf("%s has no process for %s", site, roles)
	}
	return pid
}

// findUnit returns the process of some roles of a site, or 0.
func (l *lab) findUnit(site, roles string) int {
	node := filepath.Join(l.dir, "sites", site, "node.yaml")
	for pid, what := range l.inventory().procs {
		if strings.HasSuffix(what, node+" --roles "+roles) {
			return pid
		}
	}
	return 0
}

func (l *lab) signal(t *testing.T, pid int, sig syscall.Signal, what string) {
	t.Helper()
	l.line.eventf("%v to %s", sig, what)
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatal(err)
	}
}

// ballot is a vote as the health role of a site logs it.
type ballot struct {
	at           time.Time
	object, to   string
	hold         bool
	fault, cause string
}

// votes reads what a site's health role voted from a time on.
func (l *lab) votes(t *testing.T, site string, from time.Time) []ballot {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(l.dir, "logs", site+"-bgp.log"))
	if err != nil {
		t.Fatal(err)
	}
	var out []ballot
	for line := range strings.Lines(string(b)) {
		f := map[string]string{}
		for _, m := range logField.FindAllStringSubmatch(line, -1) {
			f[m[1]] = strings.Trim(m[2], `"`)
		}
		at, err := time.Parse(time.RFC3339Nano, f["time"])
		if f["msg"] == "vote" && err == nil && !at.Before(from.Truncate(time.Millisecond)) {
			out = append(out, ballot{at: at, object: f["object"], to: f["to"], hold: f["hold"] == "true", fault: f["fault"], cause: f["cause"]})
		}
	}
	return out
}

// after is how long after a time a vote was cast.
func (b ballot) after(at time.Time) time.Duration { return max(0, b.at.Sub(at)) }

// awaitVote waits until a site's own vote on an object from a time on is of a state.
func (l *lab) awaitVote(t *testing.T, site, object, state string, from time.Time) ballot {
	t.Helper()
	var vote ballot
	l.await(patience, site+" votes "+object+" "+state, func() error {
		all := l.votes(t, site, from)
		i := slices.IndexFunc(all, func(b ballot) bool { return b.object == object && b.to == state })
		if i < 0 {
			return fmt.Errorf("votes %+v", all)
		}
		vote = all[i]
		return nil
	})
	return vote
}

// testClientsCut drops each site's packets from and to the clients nearest to it:
// the sites are well, and nobody may find otherwise.
func testClientsCut(t *testing.T, l *lab, w *watchers) {
	began := time.Now()
	for _, site := range sites() {
		l.fault("blackhole", site, map[string]string{"prefixes": blocks()[l.regionOf(site)].String()})
	}
	time.Sleep(4 * time.Second) // what must not happen has no event to wait for
	l.heal("")
	for _, site := range sites() {
		for _, b := range l.votes(t, site, began) {
			t.Errorf("%s voted for the trouble of clients: %+v", site, b)
		}
		for _, s := range l.steps(t, site, began) {
			t.Errorf("%s moved its routes for the trouble of clients: %s", site, s.line)
		}
	}
	checkUnmoved(t, w, "host", began)
}

// testObserverCut takes a site's links down for a while. The others lose it, which
// is right; it loses all of them, and takes nobody out. A server of another site is
// killed meanwhile: that one goes, and in time.
func testObserverCut(t *testing.T, l *lab, w *watchers, site string, lasting time.Duration, before map[netip.Prefix]string) {
	others := slices.DeleteFunc(sites(), func(s string) bool { return s == site })
	victim, witness := others[0], others[1]
	vod := question{Server: l.nameServer(witness), Name: "vod.cdn.demo.test", Client: blocks()[l.regionOf(victim)], Within: answerWithin}
	p := l.poll("client-"+l.regionOf(witness)+"-6", 50*time.Millisecond, []string{"vod of " + victim + " at " + witness}, vod)
	defer p.stop()
	cut := l.fault("cut", site, nil)
	time.Sleep(lasting / 2)
	killed := l.killUnit(victim, "edge")
	voted := killed.Add(l.awaitVote(t, victim, victim+"/vod", "down", killed).after(killed))
	l.await(patience, "the dead server of "+victim+" is named no more", func() error {
		last, _ := p.lastNaming(victim, voted)
		if all := p.since(voted.Add(outWithin / 2)); len(all) < 5 || !last.Before(all[len(all)-5].At) {
			return fmt.Errorf("%d answers, it was named until %v after the verdict", len(all), last.Sub(voted))
		}
		return nil
	})
	time.Sleep(max(time.Until(cut.Add(lasting)), time.Until(voted.Add(outWithin+500*time.Millisecond))))
	checkHeld(t, l, site, cut)
	for _, at := range others {
		for _, b := range l.votes(t, at, cut) {
			if b.to == "down" && b.object != site+"/-" && b.object != victim+"/vod" {
				t.Errorf("%s voted a healthy one down: %+v", at, b)
			}
		}
	}
	for _, s := range l.steps(t, witness, cut) {
		t.Errorf("%s moved its routes for the trouble of %s: %s", witness, site, s.line)
	}
	if last, _ := p.lastNaming(victim, voted); last.Sub(voted) > promised(outWithin) {
		t.Errorf("%s named the dead server of %s until %v after the verdict", witness, victim, last.Sub(voted))
	} else {
		t.Logf("cut of %v: the dead server was voted down %.1f ms after the kill, and named for %.0f ms after that",
			lasting, float64(voted.Sub(killed).Microseconds())/1000, max(0, float64(last.Sub(voted).Microseconds())/1000))
	}
	checkWithdrawals(t, l, cut)
	l.startUnit(victim, "edge")
	l.heal(site)
	l.within(healWithin, "all is as before", func() error { return l.asBefore(before) })
	l.awaitSettled()
	checkServing(t, w, witness, cut.Add(answerWithin)) // what was asked before may still be lost to the trouble of clients
}

// checkHeld wants an observer without its edge to have taken nobody out: what it
// votes of others it holds.
func checkHeld(t *testing.T, l *lab, site string, from time.Time) {
	t.Helper()
	for _, b := range l.votes(t, site, from) {
		if b.to == "down" && !strings.HasPrefix(b.object, site+"/") && !b.hold {
			t.Errorf("%s, which hears nobody, voted others down: %+v", site, b)
		}
	}
}

// checkWithdrawals wants no route withdrawn without its gate.
func checkWithdrawals(t *testing.T, l *lab, from time.Time) {
	t.Helper()
	for _, site := range sites() {
		checkLadder(t, l, site, from, false)
	}
}
