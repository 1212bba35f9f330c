//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"rhumb/internal/netlab"
	"rhumb/placement"
)

// retirement is a prefix on its way off the world and back.
type retirement struct {
	l        *lab
	p, other netip.Prefix
	without  string // a fleet file without the prefix
	began    time.Time
}

// retire begins: a prefix in service cannot be deleted, so it is retired.
func retire(t *testing.T, l *lab) *retirement {
	r := &retirement{l: l, p: netip.MustParsePrefix(netlab.AnycastV6), other: netip.MustParsePrefix(netlab.AnycastV4)}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(l.dir, "fleet"))); err != nil {
		t.Fatal(err)
	}
	text := leaveOut(t, l.fleetText(), "  "+r.p.String()+": ")
	text = regexp.MustCompile(`, "\[2001:db8:53:[^"]*"`).ReplaceAllString(text, "") // what is served on it
	r.without = filepath.Join(dir, "fleet.yaml")
	if err := os.WriteFile(r.without, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	out := l.run("apply", r.without, "--yes")
	if command := "rhumb prefixes retire " + r.p.String(); out.code != exitRefused || !strings.Contains(out.err, "rule retire") || !strings.Contains(out.err, command) {
		t.Errorf("a prefix in service is deleted: want exit %d and %q; %s", exitRefused, command, out)
	}
	r.began = time.Now()
	l.rhumb("prefixes", "retire", r.p.String(), "--reason", "moved elsewhere")
	return r
}

// silent wants the sites to go one after another, and the other prefix on the same
// servers to stay.
func (r *retirement) silent(t *testing.T) {
	r.l.await(patience, r.p.String()+" is silent everywhere", func() error { return r.l.silent(r.p, r.other) })
	r.l.await(patience, "one site went after another", func() error { return r.l.oneAfterAnother(r.p, r.began) })
	if out := r.l.run("apply", r.without, "--yes", "--dry-run"); strings.Contains(out.err+out.out, "rule retire") {
		t.Errorf("silent, and may not be deleted: %s", out)
	}
	if s, err := r.l.status("admin.sock"); err != nil || s.has("PrefixNowhereAnnounced", "") {
		t.Errorf("somebody is called for a retired prefix: %+v %v", s, err)
	}
	r.l.rhumb("prefixes", "restore", r.p.String(), "--reason", "back again")
}

// back wants it announced everywhere, as it was.
func (r *retirement) back(*testing.T) {
	r.l.await(patience, "both prefixes are announced everywhere", r.l.announcedEverywhere)
}

// leaveOut drops the one line which begins so.
func leaveOut(t *testing.T, text, begins string) string {
	t.Helper()
	var out []string
	n := 0
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, begins) {
			n++
			continue
		}
		out = append(out, line)
	}
	if n != 1 {
		t.Fatalf("%d lines begin with %q", n, begins)
	}
	return strings.Join(out, "")
}

// silent wants a prefix in no site's router, by the sites' word and by the kernels, and
// the other one announced as it was.
func (l *lab) silent(p, other netip.Prefix) error {
	s, err := l.state()
	if err != nil {
		return err
	}
	loud := 0
	var errs []error
	for _, a := range s.Announced {
		switch {
		case a.Prefix == p && a.Step < placement.Withdrawn:
			errs = append(errs, fmt.Errorf("%s announces %s at %s", a.Node, a.Prefix, a.Step))
		case a.Prefix == other && a.Step == placement.Announce:
			loud++
		}
	}
	if loud != len(sites()) {
		errs = append(errs, fmt.Errorf("%s is announced plainly at %d sites", other, loud))
	}
	for _, n := range l.nodes() {
		if n.Role != netlab.Router {
			continue
		}
		if routes, err := l.fib(n.Name, p); err != nil || len(routes) > 0 {
			errs = append(errs, fmt.Errorf("%s routes %s by %v (%v)", n.Name, p, routes, err))
		}
	}
	return errors.Join(errs...)
}

// oneAfterAnother wants the sites' own log to say that each of them began to lower a
// prefix after the one before was silent.
func (l *lab) oneAfterAnother(p netip.Prefix, since time.Time) error {
	var log struct{ Items []placement.Event }
	if err := l.api("/api/v1/events?kind=bgp&limit=1000", &log); err != nil {
		return err
	}
	own := slices.DeleteFunc(log.Items, func(e placement.Event) bool {
		return e.At.Before(since) || !strings.HasPrefix(e.Text, p.String()+": ") || !strings.Contains(e.Text, "retired by")
	})
	slices.SortStableFunc(own, func(a, b placement.Event) int { return a.At.Compare(b.At) })
	var order, lines []string
	for _, e := range own {
		lines = append(lines, e.At.Format("15:04:05.000 ")+e.Site+" "+e.Text)
		if len(order) == 0 || order[len(order)-1] != e.Site {
			order = append(order, e.Site)
		}
	}
	if len(order) != len(sites()) {
		return fmt.Errorf("want the steps of %d sites, each site's by themselves:\n%s", len(sites()), strings.Join(lines, "\n"))
	}
	return nil
}
