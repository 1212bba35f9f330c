//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"rhumb/placement"
)

// Exit codes that an operator's scripts rely on.
const (
	exitUsage       = 2
	exitUnreachable = 3
	exitNotFound    = 4
	exitRefused     = 5
	exitConfig      = 9
)

var placeAndReason = regexp.MustCompile(`(?m)^error: .*\.(yaml|yml|zone|csv):\d+:\d+: \S+`)

// TestE2ECheckNamesThePlace wants every kept mistake refused with its place.
func TestE2ECheckNamesThePlace(t *testing.T) {
	t.Parallel()
	bad, err := filepath.Glob(filepath.Join("..", "config", "testdata", "bad", "*"))
	if err != nil || len(bad) < 20 {
		t.Fatalf("%d kept mistakes: %v", len(bad), err)
	}
	for _, dir := range bad {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			r := runRhumb(t, "check", filepath.Join(dir, "fleet.yaml"))
			if r.code != exitConfig || !placeAndReason.MatchString(r.err) {
				t.Errorf("want exit %d and FILE:LINE:COLUMN: reason; %s", exitConfig, r)
			}
		})
	}
}

// TestE2EOperator gives a running fleet what it must refuse, and every order that
// it must follow.
func TestE2EOperator(t *testing.T) {
	t.Parallel()
	l := startLab(t)
	l.owners()
	l.awaitSettled()
	r := retire(t, l) // it takes some seconds, in which there is something else to do
	t.Run("exit codes", func(t *testing.T) { testExitCodes(t, l) })
	t.Run("wrong files", func(t *testing.T) { testWrongFiles(t, l) })
	t.Run("slots", func(t *testing.T) { testSlots(t, l) })
	t.Run("retire", r.silent)
	t.Run("dial", func(t *testing.T) { testDial(t, l) })
	t.Run("restore", r.back)
	t.Run("pin", func(t *testing.T) { testPin(t, l) })
	t.Run("freeze", func(t *testing.T) { testFreeze(t, l) })
	t.Run("force", func(t *testing.T) { testForce(t, l) })
	t.Run("second drain", func(t *testing.T) { testSecondDrain(t, l) })
}

func testExitCodes(t *testing.T, l *lab) {
	for _, tt := range []struct {
		code int
		args []string
	}{
		{exitUsage, []string{"drain", "ams1"}}, {exitUsage, []string{"status", "--no-such-flag"}},
		{exitUsage, []string{"no-such-command"}}, {exitUsage, []string{"dial", "ams1", "150", "--reason", "x"}},
		{exitUsage, []string{"explain", "www.cdn.demo.test"}}, {exitUsage, []string{"force", "ams1", "sideways", "--reason", "x"}},
		{exitNotFound, []string{"sites", "fra1"}}, {exitNotFound, []string{"drain", "fra1", "--reason", "x"}},
		{exitNotFound, []string{"explain", "www.nobody.example", "--client", "203.0.113.1"}},
		{exitNotFound, []string{"check", "/no/such/file.yaml"}}, {0, []string{"sites"}}, {0, []string{"peers"}}, {0, []string{"zones"}},
	} {
		if r := l.run(tt.args...); r.code != tt.code {
			t.Errorf("want exit %d: %s", tt.code, r)
		}
	}
	if r := runRhumb(t, "--server", filepath.Join(l.dir, "nobody.sock"), "status"); r.code != exitUnreachable {
		t.Errorf("want exit %d: %s", exitUnreachable, r)
	}
}

// servedNow is what the fleet's name servers say of two zones and a steered name.
func (l *lab) servedNow() (string, error) {
	var out []string
	for _, site := range sites() {
		for _, q := range []question{{Name: "cdn.demo.test", Type: "SOA"}, {Name: "about.cdn.demo.test", Type: "TXT"}, {Name: "www.cdn.demo.test", Client: blocks()["us"]}} {
			m, err := l.askAt(site, q)
			if err != nil {
				return "", err
			}
			out = append(out, fmt.Sprint(m.Rcode, m.Answer))
		}
	}
	return strings.Join(out, "\n"), nil
}

// testWrongFiles applies one wrong fleet after another: each is refused with the
// place or the rule, and what is in force serves on.
func testWrongFiles(t *testing.T, l *lab) {
	before, err := l.servedNow()
	if err != nil {
		t.Fatal(err)
	}
	was, err := l.status("admin.sock")
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		file, old, new string
		code           int
		say            string
	}{
		"unknown key":      {"fleet.yaml", "\npolicies:", "\npolicys:", exitConfig, "fleet.yaml:"},
		"no such policy":   {"fleet.yaml", "policy: nearest, check: web, demand", "policy: nearst, check: web, demand", exitConfig, "nearst"},
		"empty selector":   {"fleet.yaml", "clusters: [web], policy", "clusters: [], policy", exitConfig, "empty-selector"},
		"too many slots":   {"fleet.yaml", "slots: 1, min_announcing: 2", "slots: 3, min_announcing: 2", exitConfig, "rule slots"},
		"zone syntax":      {"zones/cdn.demo.test.zone", "ns-ams1 IN A    198.51.100.132", "ns-ams1 IN A    198.51.100.999", exitConfig, "cdn.demo.test.zone:9:"},
		"zone without SOA": {"zones/cdn.demo.test.zone", "IN SOA", "IN NS ns-ams1 ;", exitConfig, "cdn.demo.test.zone:"},
		"zone lost half": {"zones/cdn.demo.test.zone", "about   IN TXT  \"a name that is static\"\nalias   IN CNAME www\n*.wild  IN A    192.0.2.10\n", "",
			exitRefused, "rule shrink"},
	} {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(filepath.Join(l.dir, "fleet"))); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, tt.file)
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), tt.old) {
			t.Fatalf("%s: %s has no %q (%v)", name, tt.file, tt.old, err)
		}
		if err := os.WriteFile(path, []byte(strings.Replace(string(text), tt.old, tt.new, 1)), 0o644); err != nil {
			t.Fatal(err)
		}
		r := l.run("apply", filepath.Join(dir, "fleet.yaml"), "--yes")
		if r.code != tt.code || !strings.Contains(r.err, tt.say) || tt.code == exitConfig && !placeAndReason.MatchString(r.err) {
			t.Errorf("%s: want exit %d and %q; %s", name, tt.code, tt.say, r)
		}
	}
	after, err := l.servedNow()
	if err != nil || after != before {
		t.Errorf("served before:\n%s\nafter (%v):\n%s", before, err, after)
	}
	if now, err := l.status("admin.sock"); err != nil || now.Snapshot.Inventory != was.Snapshot.Inventory {
		t.Errorf("the configuration was %d, is %+v (%v)", was.Snapshot.Inventory, now, err)
	}
}

func testSlots(t *testing.T, l *lab) {
	out := l.rhumb("slots")
	for _, want := range []string{"192.0.2.0/24", "2001:db8:53::/48", "free"} {
		if !strings.Contains(out, want) {
			t.Errorf("slots lacks %s:\n%s", want, out)
		}
	}
}

// candidate finds what is said of a cluster for a region's clients at a site.
func (l *lab) candidate(at, region, cluster string) (c tracedCandidate, snapshot string, err error) {
	e, err := l.explainer(unitSocket(at, "rhumb-dns")).explain(question{Name: "www.cdn.demo.test", Client: blocks()[region]})
	if err != nil {
		return c, "", err
	}
	for _, c := range e.Trace.Candidates {
		if c.Cluster.String() == cluster {
			return c, e.Snapshot, nil
		}
	}
	return c, e.Snapshot, fmt.Errorf("no candidate %s", cluster)
}

// testDial halves a site: half of its class goes elsewhere, and back.
func testDial(t *testing.T, l *lab) {
	l.rhumb("dial", "ams1", "50", "--reason", "heat")
	l.await(patience, "ams1 gets half", func() error {
		c, _, err := l.candidate("tyo1", "eu", "ams1/web")
		if err != nil || c.PerMille < 400 || c.PerMille > 600 {
			return fmt.Errorf("%+v %v", c, err)
		}
		return nil
	})
	l.rhumb("dial", "ams1", "100", "--reason", "cool")
	l.await(patience, "ams1 gets all", func() error {
		if c, _, err := l.candidate("tyo1", "eu", "ams1/web"); err != nil || c.PerMille != 1000 {
			return fmt.Errorf("%+v %v", c, err)
		}
		return nil
	})
}

// testPin holds a site at its plan while the others follow a newer one.
func testPin(t *testing.T, l *lab) {
	_, name, err := l.candidate("tyo1", "eu", "ams1/web")
	if err != nil {
		t.Fatal(err)
	}
	plan, _, _ := strings.Cut(name, ".")
	l.rhumb("pin", "tyo1", plan, "--reason", "wait and see")
	l.loud("admin.sock", "Pinned", "tyo1")
	l.rhumb("dial", "ams1", "50", "--reason", "heat")
	l.await(patience, "nyc1 follows and tyo1 does not", func() error {
		a, _, err := l.candidate("nyc1", "eu", "ams1/web")
		b, name, err2 := l.candidate("tyo1", "eu", "ams1/web")
		if err != nil || err2 != nil || a.PerMille > 600 || b.PerMille != 1000 || !strings.HasPrefix(name, plan+".") {
			return fmt.Errorf("nyc1 %d, tyo1 %d by %s", a.PerMille, b.PerMille, name)
		}
		return nil
	})
	l.rhumb("pin", "tyo1", "--release")
	l.await(patience, "tyo1 follows again", func() error {
		if c, name, err := l.candidate("tyo1", "eu", "ams1/web"); err != nil || c.PerMille > 600 {
			return fmt.Errorf("%d by %s (%v)", c.PerMille, name, err)
		}
		return nil
	})
	l.rhumb("dial", "ams1", "100", "--reason", "cool")
}

// testFreeze lets servers die while nothing may be decided, and thaws.
func testFreeze(t *testing.T, l *lab) {
	l.rhumb("freeze", "--reason", "audit")
	l.loud("admin.sock", "Frozen", "")
	l.await(patience, "the freeze is everywhere", func() error {
		for _, site := range sites() {
			if s, err := l.status(unitSocket(site, "rhumb-dns")); err != nil || !s.has("Frozen", "") {
				return fmt.Errorf("%s: %v", site, err)
			}
		}
		return nil
	})
	l.killUnit("nyc1", "origin")
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if c, name, err := l.candidate("ams1", "us", "nyc1/web"); err != nil || c.Out != "in" {
			t.Fatalf("frozen, and nyc1/web is %s by %s: %s (%v)", c.Out, name, c.Reason, err)
		}
	}
	l.rhumb("thaw")
	l.await(patience, "thawed, nyc1 is left", func() error {
		if c, _, err := l.candidate("ams1", "us", "nyc1/web"); err != nil || c.Out != "down" {
			return fmt.Errorf("%+v %v", c, err)
		}
		return nil
	})
	l.startUnit("nyc1", "origin")
}

// testForce sets the operator's word beside what is measured.
func testForce(t *testing.T, l *lab) {
	l.rhumb("force", "tyo1/web", "down", "--reason", "smoke", "--override", "min-sites,min-headroom,max-answer-change")
	l.await(patience, "tyo1/web is out by force", func() error {
		c, _, err := l.candidate("ams1", "ap", "tyo1/web")
		if err != nil || c.Out != "forced" || c.Verdict.State != placement.Up {
			return fmt.Errorf("%+v %v", c, err)
		}
		return nil
	})
	m, err := l.askAt("ams1", question{Name: "www.cdn.demo.test", Client: blocks()["ap"]})
	if err != nil || m.Rcode != dns.RcodeSuccess || l.siteOf(addrsOf(m)) == "tyo1" {
		t.Errorf("the wire says %v (%v)", m, err)
	}
	l.loud("admin.sock", "Forced", "tyo1/web")
	l.rhumb("force", "tyo1/web", "auto")
	l.await(patience, "nothing is forced", func() error {
		if s, err := l.status("admin.sock"); err != nil || s.has("Forced", "") {
			return fmt.Errorf("%v %v", s, err)
		}
		return nil
	})
}

// testSecondDrain wants the limits of intents to refuse, by name.
func testSecondDrain(t *testing.T, l *lab) {
	l.rhumb("drain", "ams1", "--reason", "first", "--for", "30m", "--override", "min-headroom")
	if r := l.run("drain", "tyo1", "--reason", "second", "--for", "30m", "--override", "min-headroom"); r.code != exitRefused || !strings.Contains(r.err, "max-drains") {
		t.Errorf("want exit %d and max-drains: %s", exitRefused, r)
	}
	if r := l.run("drain", "tyo1", "--reason", "second", "--for", "30m", "--override", "max-drains,min-headroom"); r.code != exitRefused || !strings.Contains(r.err, "min-sites") {
		t.Errorf("want exit %d and min-sites: %s", exitRefused, r)
	}
	l.rhumb("undrain", "ams1")
}
