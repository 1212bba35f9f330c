//go:build e2e

package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"rhumb/internal/netlab"
)

// TestE2EObserveThenAct starts a fleet which only watches: no address is bound, no
// route announced, no name steered, and what would be done is counted. Told to
// act, it does all of it.
func TestE2EObserveThenAct(t *testing.T) {
	t.Parallel()
	l := startObserving(t)
	l.await(patience, "every unit follows a plan and every peer is up", l.unitsFollow)
	l.owners()
	for _, p := range anycast() {
		l.await(patience, "the anchors count what they would announce of "+p.String(), func() error {
			if n := l.wouldAnnounce(p); n < 2 {
				return fmt.Errorf("%d sites", n)
			}
			return nil
		})
	}
	for _, site := range sites() {
		m, err := l.askAt(site, question{Name: "www.cdn.demo.test", Client: blocks()[l.regionOf(site)]})
		if err != nil || len(m.Answer) == 0 || l.siteOf(addrsOf(m)) != "mixed" {
			t.Errorf("%s steers in mode observe: %v (%v)", site, m, err)
		}
		if n := l.metric(unitSocket(site, "rhumb-dns"), `rhumb_observe_would_total{action="answer",role="authdns"}`); n < 1 {
			t.Errorf("%s: rhumb_observe_would_total is %v", site, n)
		}
	}
	l.loud("admin.sock", "Observe", "")
	checkNothingChanged(t, l)
	l.await(patience, "the log of ams1 says what would have been done", func() error {
		logs, err := os.ReadFile(filepath.Join(l.dir, "logs", "ams1-bgp.log"))
		if err != nil || !strings.Contains(string(logs), "would step") {
			return fmt.Errorf("%d bytes, and no step that would be taken (%v)", len(logs), err)
		}
		return nil
	})

	l.applyText(strings.Replace(l.fleetText(), "mode: observe", "mode: act", 1), "--override", "max-answer-change", "--note", "from watching to acting")
	l.await(patience, "all is announced", l.announcedEverywhere)
	for i, site := range sites() {
		for _, p := range anycast() {
			l.await(patience, site+" has the route of "+p.String(), func() error { return l.routeTo("t-"+regions()[i], p, site) })
		}
		l.await(patience, site+" steers", func() error {
			m, err := l.askAt(site, question{Name: "www.cdn.demo.test", Client: blocks()[l.regionOf(site)]})
			if err != nil || l.siteOf(addrsOf(m)) != site {
				return fmt.Errorf("%v %v", m, err)
			}
			return nil
		})
	}
}

// wouldAnnounce counts the sites which would announce a prefix. Nothing else serves
// on its addresses in the lab, so health finds them dead, and what would be
// announced is the quiet step which the anchors keep.
func (l *lab) wouldAnnounce(p netip.Prefix) int {
	n := 0
	for _, site := range sites() {
		would := 0.0
		for _, action := range []string{"announce", "prepend", "gshut"} {
			series := fmt.Sprintf("rhumb_anycast_would_change_total{action=%q,prefix=%q,site=%q}", action, p, site)
			would += max(0, l.metric(unitSocket(site, "rhumb-bgp"), series))
		}
		if would > 0 {
			n++
		}
	}
	return n
}

// checkNothingChanged wants no route in any router and no address on any site's lo.
func checkNothingChanged(t *testing.T, l *lab) {
	t.Helper()
	for i, site := range sites() {
		for _, p := range anycast() {
			if routes, err := l.fib("t-"+regions()[i], p); err != nil || len(routes) > 0 {
				t.Errorf("t-%s has a route to %s: %v (%v)", regions()[i], p, routes, err)
			}
			if n := l.announcing(p); n != 0 {
				t.Errorf("%d sites announce %s", n, p)
			}
		}
		out, err := l.exec(site, "ip", "-o", "addr", "show", "dev", "lo")
		if err != nil || strings.Contains(out, "192.0.2.") || strings.Contains(out, "2001:db8:53:") {
			t.Errorf("%s has anycast addresses on lo: %v\n%s", site, err, out)
		}
	}
}

// fleetText is the fleet which was applied last, the one of the start before that.
func (l *lab) fleetText() string {
	l.t.Helper()
	if l.applied != "" {
		return l.applied
	}
	b, err := os.ReadFile(filepath.Join(l.dir, "fleet", "fleet.yaml"))
	if err != nil {
		l.t.Fatal(err)
	}
	return string(b)
}

// unitsFollow wants a Snapshot in every unit of every site, and every peer up.
func (l *lab) unitsFollow() error {
	s, err := l.state()
	if err != nil {
		return err
	}
	n := 0
	for _, u := range s.Nodes {
		if u.Site == netlab.OpsName {
			continue
		}
		if u.Snapshot == "" {
			return fmt.Errorf("%s of %s has no snapshot", u.Unit, u.Site)
		}
		if u.BGP != nil {
			for _, p := range u.BGP.Peers {
				if p.State != "established" {
					return fmt.Errorf("%s: %s is %s", u.Site, p.Address, p.State)
				}
				n++
			}
		}
	}
	if n != 2*len(sites()) {
		return fmt.Errorf("%d peers", n)
	}
	return nil
}

// startObserving starts a lab whose fleet observes. Its files are those which a
// first start lays down, with one word changed; it never says that it is ready,
// since it waits for routes that nobody announces.
func startObserving(t *testing.T) *lab {
	t.Helper()
	dir := stateDir(t)
	first := newLab(t, dir)
	first.start(exec.Command(binary(t), "lab", "--dir", dir))
	first.await(readyIn, "the files are there", func() error {
		_, err := os.Stat(filepath.Join(dir, "console", "node.yaml"))
		return err
	})
	first.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-first.end:
	case <-time.After(patience):
		t.Fatalf("the first lab does not end on SIGINT:\n%s", first.out.text())
	}
	file := filepath.Join(dir, "fleet", "fleet.yaml")
	text := strings.Replace(first.fleetText(), "mode: act", "mode: observe", 1)
	if !strings.Contains(text, "mode: observe") {
		t.Fatal("the lab's fleet has no mode: act")
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	l := newLab(t, dir)
	l.start(exec.Command(binary(t), "lab", "--dir", dir))
	l.await(readyIn, "the console answers", func() error {
		_, err := l.state()
		return err
	})
	return l
}
