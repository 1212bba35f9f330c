//go:build e2e

package authdns

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// linter is a program that looks a zone over and has opinions of it.
type linter struct {
	name    string
	words   func(dir, zone string) [][]string // its commands, the last of which reports
	finding *regexp.Regexp                    // of a line of the report: what is found, by its name
	allowed map[string]string                 // findings that are meant, and why
}

var linters = []linter{
	{
		name: "dnsviz",
		words: func(dir, zone string) [][]string {
			seen := filepath.Join(dir, zone+"json")
			return [][]string{
				{"dnsviz", "probe", "-4", "-A", "-x", ".+:a.root=" + rootAddr + ",b.root=" + rootAddr2, "-a", ".", "-o", seen, zone},
				{"dnsviz", "print", "-t", filepath.Join(dir, "root.key"), "-r", seen, zone},
			}
		},
		finding: regexp.MustCompile(`\b[EW]:([A-Z0-9_]+)`),
		allowed: map[string]string{
			"NS_NAME_PRIVATE_IP": "this internet is on no public address",
			"GLUE_PRIVATE_IP":    "nor is its glue",
		},
	},
	{
		name: "zonemaster-cli",
		words: func(dir, zone string) [][]string {
			return [][]string{{"zonemaster-cli", "--hints", filepath.Join(dir, "root.hints"), "--no-ipv6", "--level", "INFO", "--raw", "--no-progress", zone}}
		},
		finding: regexp.MustCompile(`^\s*[\d.]+\s+(?:NOTICE|WARNING|ERROR|CRITICAL)\s+(?:\S+:)?([A-Z0-9_]+)`),
		allowed: map[string]string{
			"NAMESERVER_IP_PRIVATE_NETWORK": "this internet is on no public address",
			"NAMESERVER_IP_WITHOUT_REVERSE": "nor has it a tree of reverse names",
			"CN01_IPV6_DISABLED":            "by our own --no-ipv6",
		},
	},
}

// beyond are the findings of a report that are not allowed, with their lines.
func (l *linter) beyond(report string) (out []string) {
	for line := range strings.Lines(report) {
		for _, m := range l.finding.FindAllStringSubmatch(line, -1) {
			if _, ok := l.allowed[m[1]]; !ok {
				out = append(out, m[1]+": "+strings.TrimSpace(line))
			}
		}
	}
	return out
}

// lint runs the linter against a zone and returns its report.
func (l *linter) lint(t *testing.T, dir, zone string) (report string) {
	t.Helper()
	for _, words := range l.words(dir, zone) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		out, err := exec.CommandContext(ctx, words[0], words[1:]...).CombinedOutput()
		cancel()
		if err != nil {
			t.Fatalf("%s: %v (Debian packages dnsviz zonemaster-cli)\n%s", strings.Join(words, " "), err, out)
		}
		report = string(out)
	}
	return report
}

// TestLintersWhenSoaking: DNSViz and Zonemaster find nothing in the zones of both
// levels, and drill can follow each answer up to the root, when RHUMB_SOAK is set. At any
// time: that what they might find would be seen.
func TestLintersWhenSoaking(t *testing.T) {
	for i, report := range []string{
		"  [.] A: 192.0.2.10\n    E:SIGNATURE_INVALID\n    W:NS_NAME_PRIVATE_IP\n",
		"   0.10 INFO     Z01_OK\n   0.11 ERROR    DS_MATCH_NOT_FOUND keytag=1\n",
	} {
		if got := linters[i].beyond(report); len(got) != 1 {
			t.Errorf("%s: findings %q, want one of the report\n%s", linters[i].name, got, report)
		}
	}
	if os.Getenv("RHUMB_SOAK") == "" || !withinNamespace(t) {
		return
	}
	settle(t)
	w, dir := buildTidy(t, 0), t.TempDir()
	// A resolver asks all from one address, by which it is referred and answered.
	for _, server := range []string{rootAddr, rootAddr2, tldAddr, tldAddr2, "192.0.2.1", "192.0.2.2", "198.51.100.9", "198.51.100.73", "198.51.100.137"} {
		run(t, "ip", "route", "replace", "local", server, "dev", "lo", "table", "local", "proto", "kernel", "scope", "host", "src", euResolver)
	}
	write(t, filepath.Join(dir, "root.key"), w.keys["."][0].Public.String()+"\n")
	write(t, filepath.Join(dir, "root.hints"), ". 3600000 NS a.root.\n. 3600000 NS b.root.\na.root. 3600000 A "+rootAddr+"\nb.root. 3600000 A "+rootAddr2+"\n")
	for i := range linters {
		for _, zone := range []string{"demo.test.", "cdn.demo.test."} {
			report := linters[i].lint(t, dir, zone)
			if got := linters[i].beyond(report); len(got) > 0 {
				t.Errorf("%s finds in %s, of which nothing is allowed:\n%s\nof all that it said:\n%s", linters[i].name, zone, strings.Join(got, "\n"), report)
			}
		}
	}
	w.chase(t, dir)
}

// chase lets drill follow signatures from an answer up to the root's key.
func (w *tidy) chase(t *testing.T, dir string) {
	t.Helper()
	r := validatingUnbound(t, dir)
	for _, name := range []string{"www.demo.test.", "a.b.wild.demo.test.", "www.cdn.demo.test.", "cdn.demo.test.", "x.any.cdn.demo.test."} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		out, err := exec.CommandContext(ctx, "drill", "-k", filepath.Join(dir, "root.key"), "-S", "-p", r.addr.String()[strings.LastIndex(r.addr.String(), ":")+1:], name, "@127.0.0.1").CombinedOutput()
		cancel()
		if !strings.Contains(string(out), "Chase successful") {
			t.Errorf("drill -S %s: %v (Debian package ldnsutils); want \"Chase successful\", it said:\n%s", name, err, out)
		}
	}
}
