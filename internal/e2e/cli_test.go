//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// ran is what a command said and how it ended.
type ran struct {
	args     []string
	code     int
	out, err string
}

func (r ran) String() string {
	return fmt.Sprintf("rhumb %s: exit %d\n%s%s", strings.Join(r.args, " "), r.code, lastLines(r.out, 12), r.err)
}

// lastLines is the end of a long output: what a command says of its failure comes last.
func lastLines(text string, n int) string {
	lines := slices.Collect(strings.Lines(text))
	if len(lines) <= n {
		return text
	}
	return fmt.Sprintf("(%d lines left out)\n%s", len(lines)-n, strings.Join(lines[len(lines)-n:], ""))
}

// run starts the binary as an operator does, against the lab's console.
func (l *lab) run(args ...string) ran {
	l.t.Helper()
	return l.rhumbAt("admin.sock", args...)
}

// rhumbAt runs it against a socket of the lab's directory.
func (l *lab) rhumbAt(socket string, args ...string) ran {
	l.t.Helper()
	r := runRhumb(l.t, append([]string{"--server", filepath.Join(l.dir, socket)}, args...)...)
	r.args = args
	l.line.eventf("rhumb %s: exit %d", strings.Join(args, " "), r.code)
	return r
}

// unitSocket is the API of one unit of a site.
func unitSocket(site, unit string) string { return filepath.Join("sites", site, "run", unit+".sock") }

// runRhumb runs the binary and returns what it said; only a start that fails, or
// a command that hangs, ends the test. A request has more time than a person would
// give it: what is slow is the machine.
func runRhumb(t testing.TB, args ...string) ran {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, binary(t), append([]string{"--timeout", "30s"}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || ctx.Err() != nil) {
		t.Fatalf("rhumb %s: %v\n%s%s", strings.Join(args, " "), err, out.String(), errs.String())
	}
	return ran{args: args, code: cmd.ProcessState.ExitCode(), out: out.String(), err: errs.String()}
}

// status is what the tests read of `rhumb status -o json`.
type status struct {
	Healthy  bool `json:"healthy"`
	Snapshot struct {
		Name      string `json:"name"`
		Inventory int64  `json:"inventory"`
		Plan      int64  `json:"plan"`
	} `json:"snapshot"`
	Store struct {
		Connected bool `json:"connected"`
	} `json:"store"`
	Mode    string   `json:"mode"`
	Notices []notice `json:"notices"`
}

type notice struct {
	Level, Kind, Object, Text, Unit string
}

// has tells whether something of a kind is loud; an empty object means any.
func (s *status) has(kind, object string) bool {
	for _, n := range s.Notices {
		if n.Kind == kind && (object == "" || n.Object == object) {
			return true
		}
	}
	return false
}

func (s *status) kinds() string {
	if s == nil {
		return "no status"
	}
	var out []string
	for _, n := range s.Notices {
		out = append(out, strings.TrimSpace(n.Kind+" "+n.Object))
	}
	return strings.Join(out, ", ")
}

// status reads what a socket's unit shows.
func (l *lab) status(socket string) (*status, error) {
	r := runRhumb(l.t, "--server", filepath.Join(l.dir, socket), "status", "-o", "json")
	if r.code != 0 {
		return nil, fmt.Errorf("%s", r)
	}
	s := &status{}
	return s, json.Unmarshal([]byte(r.out), s)
}

// loud awaits a notice in the status of a unit, as text and as document.
func (l *lab) loud(socket, kind, object string) {
	l.t.Helper()
	l.await(patience, "loud: "+strings.TrimSpace(kind+" "+object), func() error {
		s, err := l.status(socket)
		if err != nil {
			return err
		}
		if !s.has(kind, object) {
			return fmt.Errorf("only %s", s.kinds())
		}
		return nil
	})
	if r := l.rhumbAt(socket, "status"); r.code != 0 || !strings.Contains(r.out, kind+":") {
		l.t.Errorf("status does not show %s:\n%s", kind, r)
	}
}

// metric reads one series of a unit; the series is written as in its page of
// metrics. A series that is not there is -1.
func (l *lab) metric(socket, series string) float64 {
	l.t.Helper()
	v, err := l.readMetric(socket, series)
	if err != nil {
		l.t.Fatal(err)
	}
	return v
}

func (l *lab) readMetric(socket, series string) (float64, error) {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(l.dir, socket))
	}
	c := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	resp, err := c.Get("http://unit/metrics")
	if err != nil {
		return 0, fmt.Errorf("metrics of %s: %w", socket, err)
	}
	defer resp.Body.Close()
	for in := bufio.NewScanner(resp.Body); in.Scan(); {
		if rest, ok := strings.CutPrefix(in.Text(), series+" "); ok {
			return strconv.ParseFloat(rest, 64)
		}
	}
	return -1, nil
}
