//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
)

// TestE2EVersionsMixed gives one site another class table, as an upgrade that is
// half done does: first it cannot follow the plans of the others, then its director
// leads and the others cannot follow its plans. Every name is answered by every
// site all the time, no route changes for it, and everybody is told.
func TestE2EVersionsMixed(t *testing.T) {
	t.Parallel()
	l := startLab(t)
	l.owners()
	l.awaitSettled()
	l.giveOtherTable("tyo1")
	w := l.watchAll()
	w.awaitAnswers(t)

	// Started with another table, the site cannot make the newest state any more.
	for _, unit := range []string{"dns", "bgp", "edge"} {
		l.killUnit("tyo1", unit)
		l.startUnit("tyo1", unit)
	}
	l.await(patience, "the odd site announces", func() error {
		var errs []error
		for _, p := range anycast() {
			errs = append(errs, l.routeTo("t-ap", p, "tyo1"))
		}
		return errors.Join(append(errs, l.announcedEverywhere())...)
	})
	skewed := time.Now()
	l.loud(unitSocket("tyo1", "rhumb-dns"), "SnapshotStale", "tyo1-a")
	l.loud("admin.sock", "SnapshotStale", "tyo1-a")
	l.await(patience, "the metrics say it too", func() error {
		n, err := l.readMetric(unitSocket("tyo1", "rhumb-dns"), "rhumb_snapshot_stale")
		if err != nil || n != 1 {
			return fmt.Errorf("rhumb_snapshot_stale of tyo1 is %v (%v)", n, err)
		}
		return nil
	})
	l.rhumb("dial", "ams1/web", "80", "--reason", "a new plan")
	l.await(patience, "the others follow", func() error { return l.follows("nyc1", 700, 900) })
	if err := l.follows("tyo1", 1000, 1000); err != nil {
		t.Errorf("the odd site does not keep what it had: %v", err)
	}
	l.holdsThrough(t, w, skewed)

	// Its director leads: now the others keep what they have, and health goes on.
	l.killUnit("tyo1", "director")
	l.startUnit("tyo1", "director")
	l.makeLead("tyo1")
	skewed = time.Now()
	l.rhumb("dial", "ams1", "60", "--reason", "a plan that nobody else can follow")
	for _, site := range []string{"ams1", "nyc1"} {
		l.loud(unitSocket(site, "rhumb-dns"), "SnapshotStale", site+"-a")
		if err := l.follows(site, 700, 900); err != nil {
			t.Errorf("%s does not keep its plan: %v", site, err)
		}
	}
	l.holdsThrough(t, w, skewed)
	l.killUnit("nyc1", "origin")
	l.await(patience, "ams1 sees that servers died meanwhile", func() error {
		if c, name, err := l.candidate("ams1", "us", "nyc1/web"); err != nil || c.Out != "down" {
			return fmt.Errorf("%s by %s: %s (%v)", c.Out, name, c.Reason, err)
		}
		return nil
	})
}

// follows wants a site's share for ams1 to lie between two parts in a thousand.
func (l *lab) follows(site string, from, to int) error {
	c, name, err := l.candidate(site, "eu", "ams1/web")
	if err == nil && (c.PerMille < from || c.PerMille > to) {
		err = fmt.Errorf("%s gives ams1 %d of 1000 by %s", site, c.PerMille, name)
	}
	return err
}

// holdsThrough waits as long as guards and slots may take and wants that nothing
// happened to routes and answers.
func (l *lab) holdsThrough(t *testing.T, w *watchers, from time.Time) {
	t.Helper()
	time.Sleep(10 * time.Second)
	w.assertNoRouteChange(t, from)
	w.assertAnswered(t, from)
	for _, site := range sites() {
		for i, region := range regions() {
			m, err := l.askAt(site, question{Name: "www.cdn.demo.test", Client: blocks()[region]})
			if err != nil || len(addrsOf(m)) == 0 {
				t.Errorf("%s for %s: %v (%v)", site, region, m, err)
			} else if region != "eu" && l.siteOf(addrsOf(m)) != sites()[i] {
				t.Errorf("%s sends %s to %s", site, region, l.siteOf(addrsOf(m)))
			}
		}
	}
	// That the routes stayed was seen in the kernels; what the store tells of it may be old
	// for a moment after its leader died.
	l.await(patience, "the store tells the same", l.announcedEverywhere)
}

// makeLead restarts leaders until a site's director leads.
func (l *lab) makeLead(site string) {
	l.t.Helper()
	l.await(5*time.Minute, site+" leads", func() error {
		leader := l.leader()
		switch leader {
		case "":
			return errors.New("nobody leads")
		case site:
			return nil
		}
		l.killUnit(leader, "director")
		l.await(patience, "another leads", func() error {
			if now := l.leader(); now == "" {
				return errors.New("nobody yet")
			}
			return nil
		})
		l.startUnit(leader, "director")
		l.await(patience, "the director of "+leader+" is back", func() error {
			_, err := l.readMetric(unitSocket(leader, "rhumb-director"), "rhumb_director_leads")
			return err
		})
		return fmt.Errorf("%s led", leader)
	})
}

// leader is the site whose director says that it leads; empty for none.
func (l *lab) leader() string {
	for _, site := range sites() {
		if n, err := l.readMetric(unitSocket(site, "rhumb-director"), "rhumb_director_leads"); err == nil && n == 1 {
			return site
		}
	}
	return ""
}

// giveOtherTable names a small database in a site's node file: every process that
// starts there from now on has another class table than the rest of the fleet.
func (l *lab) giveOtherTable(site string) {
	l.t.Helper()
	w, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "country", IPVersion: 6, BuildEpoch: 1_700_000_000, IncludeReservedNetworks: true})
	if err != nil {
		l.t.Fatal(err)
	}
	for net4, country := range map[string]string{"2.0.0.0/8": "NL", "8.0.0.0/8": "US", "133.0.0.0/8": "JP"} {
		_, n, err := net.ParseCIDR(net4)
		if err == nil {
			err = w.Insert(n, mmdbtype.Map{"country_code": mmdbtype.String(country)})
		}
		if err != nil {
			l.t.Fatal(err)
		}
	}
	file := filepath.Join(l.dir, "other.mmdb")
	f, err := os.Create(file)
	if err == nil {
		_, err = w.WriteTo(f)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		l.t.Fatal(err)
	}
	addLine(l.t, filepath.Join(l.dir, "sites", site, "node.yaml"), "geo: {databases: ["+file+"]}")
}
