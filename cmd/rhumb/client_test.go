package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rhumb/internal/api"
	"rhumb/placement"
)

// fakeUnit is a unit on a socket: a state that a test sets, and ops that answer err.
type fakeUnit struct {
	state  atomic.Pointer[api.State]
	err    error
	drains []placement.Drain
	dry    []bool
	forces []placement.Force
	pins   []placement.Pin
	dials  []placement.Dial
	applys []api.ApplyRequest
	frozen []string
	// script is a list of states; each is shown twice, the last for ever.
	script []*api.State
	reads  atomic.Int64
}

func (u *fakeUnit) Drain(_ context.Context, d placement.Drain, dry bool) (api.Outcome, error) {
	u.drains, u.dry = append(u.drains, d), append(u.dry, dry)
	return api.Outcome{Object: d.Site, Text: "answers move away from " + d.Site, DryRun: dry, Undo: "rhumb undrain " + d.Site}, u.err
}
func (u *fakeUnit) Undrain(_ context.Context, d api.Undrain) (api.Outcome, error) {
	return api.Outcome{Object: d.Site, Text: d.Site + " comes back over " + d.Ramp.String()}, u.err
}
func (u *fakeUnit) Force(_ context.Context, f placement.Force, _ bool) (api.Outcome, error) {
	u.forces = append(u.forces, f)
	return api.Outcome{Object: f.Object.String(), Text: "forced"}, u.err
}
func (u *fakeUnit) Dial(_ context.Context, d placement.Dial, _ bool) (api.Outcome, error) {
	u.dials = append(u.dials, d)
	return api.Outcome{Object: d.Site, Text: "dialled"}, u.err
}
func (u *fakeUnit) Pin(_ context.Context, p placement.Pin) (api.Outcome, error) {
	u.pins = append(u.pins, p)
	return api.Outcome{Object: p.Site, Text: "pinned"}, u.err
}
func (u *fakeUnit) Freeze(_ context.Context, f placement.Freeze) (api.Outcome, error) {
	u.frozen = append(u.frozen, f.Reason)
	return api.Outcome{Text: "frozen"}, u.err
}
func (u *fakeUnit) Thaw(context.Context, string) (api.Outcome, error) {
	return api.Outcome{Text: "thawed"}, u.err
}
func (u *fakeUnit) Apply(_ context.Context, r api.ApplyRequest) (api.ApplyResult, error) {
	u.applys = append(u.applys, r)
	return api.ApplyResult{Revision: 901, DryRun: r.DryRun, Answers: .12, Changes: []api.Change{{Kind: "site", Object: "lon1", Verb: "added"}}}, u.err
}
func (u *fakeUnit) FreeSlot(_ context.Context, f api.FreeSlot) (api.Outcome, error) {
	return api.Outcome{Object: f.Prefix.String(), Text: "freed"}, u.err
}
func (u *fakeUnit) Retire(_ context.Context, r placement.Retirement, _ bool) (api.Outcome, error) {
	return api.Outcome{Object: r.Prefix.String(), Text: "retires: " + r.Reason}, u.err
}
func (u *fakeUnit) Restore(_ context.Context, r api.Restore) (api.Outcome, error) {
	return api.Outcome{Object: r.Prefix.String(), Text: "comes back: " + r.Reason}, u.err
}
func (u *fakeUnit) Simulate(_ context.Context, r api.SimulateRequest) (api.Forecast, error) {
	after := int64(39000)
	if len(r.Down) > 0 {
		after = 45000
	}
	return api.Forecast{Sites: []api.ForecastSite{{Site: "ams1", Before: 20000, After: after, Capacity: 40000}}, Moved: .4, Forced: .4, Anycast: "unknown"}, u.err
}
func (u *fakeUnit) Events(_ context.Context, since int64, limit int) ([]placement.Event, error) {
	if since >= 7 {
		return nil, u.err
	}
	return []placement.Event{{ID: 7, At: time.Date(2026, 11, 21, 11, 0, 0, 0, time.UTC), Kind: "health", Site: "nyc1", Text: "dns down\x1b[2J"}}, u.err
}

// unitState has two sites: one fine, one which drains.
func unitState() *api.State {
	now := time.Now()
	site := func(name, city string) placement.Site {
		return placement.Site{Name: name, City: city, Clusters: []placement.Cluster{{Name: "web", Capacity: 40000}}}
	}
	inv := &placement.Inventory{Revision: 900, Fleet: placement.Fleet{Mode: placement.Act, Sites: []placement.Site{site("ams1", "Amsterdam"), site("nyc1", "New York")},
		Zones: []placement.Zone{{Name: "demo.test.", Level: placement.TopLevel}}}}
	inv.Drains = []placement.Drain{{Site: "nyc1", Audit: placement.Audit{Who: "ops", Reason: "CHG-1", Since: now.Add(-6 * time.Minute)}}}
	up := func(id string) placement.Verdict {
		site, name, _ := strings.Cut(id, "/")
		return placement.Verdict{Object: placement.ClusterID{Site: site, Name: name}, State: placement.Up, Since: now.Add(-37 * time.Minute), Domains: 2}
	}
	plan := &placement.Plan{Revision: 1042, Made: now.Add(-time.Minute), By: "ams1-a", Drains: []placement.DrainState{{Site: "nyc1", Phase: placement.PhaseTTL, Since: now.Add(-6 * time.Minute)}}}
	inv.Policies = []placement.Policy{{Name: "nearest", Pick: 2, TTL: placement.Duration(20 * time.Second)}}
	inv.Services = []placement.Service{{Name: "www", Names: []string{"www.cdn.demo.test."}, Clusters: []string{"web"}, Policy: "nearest"}}
	inv.Sites[0].Clusters[0].Addresses = []netip.AddrPort{netip.MustParseAddrPort("198.51.100.160:8080"), netip.MustParseAddrPort("[2001:db8::1]:8080")}
	maps := []placement.ServiceMap{{Service: &inv.Services[0], Policy: &inv.Policies[0], Clusters: []placement.ClusterID{{Site: "ams1", Name: "web"}, {Site: "nyc1", Name: "web"}},
		Rows: []*placement.Row{{Candidates: []placement.Candidate{{Cluster: 1, Out: placement.OutDrained, Cost: 48}, {Cluster: 0, Cost: 1700}}, Shares: []placement.Share{{Candidate: 1, Upto: 1000}}}}}}
	return &api.State{Now: now, Connected: true, Heartbeat: now, Inventory: inv, Plan: plan,
		Snapshot: &placement.Snapshot{Name: placement.Name{Plan: 1042, Votes: 17}, Inventory: inv, Plan: plan, Maps: maps,
			Verdicts: []placement.Verdict{up("ams1/-"), up("ams1/web"), up("nyc1/-"), up("nyc1/web")}},
		Loads: []placement.Load{{Cluster: placement.ClusterID{Site: "ams1", Name: "web"}, QPS: 20000, Sessions: 812, Counted: true}}}
}

func (u *fakeUnit) now() api.State {
	if len(u.script) > 0 {
		n := int(u.reads.Add(1)) / 2
		return *u.script[min(n, len(u.script)-1)]
	}
	return *u.state.Load()
}

func startUnit(t *testing.T, script ...*api.State) *fakeUnit {
	t.Helper()
	u := &fakeUnit{script: script}
	u.state.Store(unitState())
	serveAPI(t, api.Config{State: u.now, Events: u,
		Ops:      api.Ops{Drainer: u, Setter: u, Freezer: u, Applier: u, Slots: u, Retirer: u, Simulator: u, Looker: u},
		Identity: api.Identity{Node: "ams1-a", Unit: "rhumb", Version: "v0"}})
	return u
}

// serveAPI serves the API on a socket, which the command line finds.
func serveAPI(t *testing.T, c api.Config) {
	t.Helper()
	s, err := api.New(c)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "u.sock")
	l, err := api.ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Setenv("RHUMB_SERVER", path)
}

// cli runs one command line as a shell would.
func cli(ctx context.Context, line ...string) (code int, out, errs string) {
	var o, e bytes.Buffer
	code = run(ctx, line, strings.NewReader(""), &o, &e)
	return code, o.String(), e.String()
}

func TestExitCodes(t *testing.T) {
	refusal := &placement.Refusal{Rule: placement.RuleMaxDrains, Object: "ams1", Have: "1 drained", Limit: "1", Hint: "nyc1 is drained already"}
	fixed := &placement.Refusal{Rule: placement.RuleLastNode, Object: "ams1", Have: "1", Limit: "1"}
	tests := map[string]struct {
		err  error
		line []string
		code int
		want string // in what was said on either side
	}{
		"fine":               {nil, []string{"sites"}, exitOK, "ams1"},
		"no such command":    {nil, []string{"dance"}, exitUsage, "unknown command"},
		"no such flag":       {nil, []string{"sites", "--dance"}, exitUsage, "unknown flag"},
		"too many arguments": {nil, []string{"sites", "a", "b"}, exitUsage, "usage: rhumb sites"},
		"no such output":     {nil, []string{"sites", "-o", "xml"}, exitUsage, "none of table, wide"},
		"an empty site":      {nil, []string{"drain", "", "--reason", "x"}, exitUsage, "empty name matches nothing"},
		"dial of no cluster": {nil, []string{"dial", "ams1/", "0", "--reason", "x"}, exitUsage, "empty name matches nothing"},
		"force no cluster":   {nil, []string{"force", "ams1/", "down", "--reason", "x"}, exitUsage, "empty name matches nothing"},
		"look at no cluster": {nil, []string{"checks", "ams1/", "--now"}, exitUsage, "empty name matches nothing"},
		"no reason":          {nil, []string{"drain", "ams1"}, exitUsage, "needs --reason"},
		"no such site":       {nil, []string{"sites", "sin1"}, exitNotFound, "site sin1: not found"},
		"drain nowhere":      {nil, []string{"drain", "sin1", "--reason", "x"}, exitNotFound, "sin1"},
		"refused": {refusal, []string{"drain", "ams1", "--reason", "the fibre"}, exitRefused,
			"error: drain of ams1 refused: rule max-drains, object ams1, have 1 drained, limit 1\n  nyc1 is drained already\n  see: rhumb simulate --drain ams1\n  to do it all the same: rhumb drain ams1 --reason 'the fibre' --override max-drains      (exit 5)\n"},
		"refused for good":  {fixed, []string{"drain", "ams1", "--reason", "x"}, exitRefused, "it cannot be overridden"},
		"unknown override":  {nil, []string{"drain", "ams1", "--reason", "x", "--override", "luck"}, exitUsage, "luck"},
		"store away":        {api.ErrUnavailable, []string{"thaw"}, exitFailed, "the store does not answer"},
		"healthy":           {nil, []string{"status", "--exit-status"}, exitOK, "1042.17"},
		"over capacity":     {nil, []string{"simulate", "--down", "nyc1"}, exitRefused, "OVER"},
		"within capacity":   {nil, []string{"simulate", "--drain", "nyc1"}, exitOK, "DNS-steered: computed; anycast: unknown"},
		"nobody to explain": {nil, []string{"explain", "www.demo.test"}, exitUsage, "--client"},
		"static name":       {nil, []string{"explain", "www.demo.test", "--client", "203.0.113.9"}, exitOK, "static: zone demo.test."},
		"file not there":    {nil, []string{"check", "nowhere.yaml"}, exitNotFound, "nowhere.yaml"},
		"nobody to ask":     {nil, []string{"apply", "../../etc/fleet.yaml"}, exitUsage, "--yes"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			startUnit(t).err = tt.err
			code, out, errs := cli(t.Context(), tt.line...)
			if code != tt.code || !strings.Contains(out+errs, tt.want) {
				t.Errorf("exit %d, want %d with %q\n%s%s", code, tt.code, tt.want, out, errs)
			}
			if code == exitOK && errs != "" || code == exitUsage && out != "" {
				t.Errorf("out %q, err %q: results belong on stdout, the rest on stderr", out, errs)
			}
		})
	}
}

func TestUnhealthyEndsWith6(t *testing.T) {
	u := startUnit(t)
	st := unitState()
	st.Snapshot.Verdicts[0].Capped = true
	u.state.Store(st)
	if code, _, errs := cli(t.Context(), "status", "--exit-status"); code != exitUnhealthy || errs != "" {
		t.Errorf("exit %d, %q", code, errs)
	}
}

func TestUnreachableNamesWhatWasTried(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("RHUMB_SERVER", "")
	if err := os.Mkdir(".lab", 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", ".lab/admin.sock")
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close() // the file stays, nobody listens
	if err := os.Mkdir("below", 0o755); err != nil {
		t.Fatal(err)
	}
	t.Chdir(filepath.Join(dir, "below"))
	code, _, errs := cli(t.Context(), "sites")
	if code != exitUnreachable || !strings.Contains(errs, filepath.Join(dir, ".lab", "admin.sock")+": connection refused") {
		t.Errorf("exit %d: %s", code, errs)
	}
	if code, _, errs = cli(t.Context(), "sites", "--server", "/nowhere/x.sock"); code != exitUnreachable || !strings.Contains(errs, "/nowhere/x.sock does not answer") {
		t.Errorf("exit %d: %s", code, errs)
	}
}

func TestSocketsInOrder(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"rhumb-edge", "rhumb-bgp", "rhumb-director", "other"} {
		if err := os.WriteFile(filepath.Join(dir, name+".sock"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, s := range sockets(dir, "") {
		got = append(got, filepath.Base(s))
	}
	if want := "rhumb-director.sock rhumb-bgp.sock rhumb-edge.sock other.sock"; strings.Join(got, " ") != want {
		t.Errorf("%v, want %s", got, want)
	}
}

// golden compares an output with the kept one; RHUMB_UPDATE=1 rewrites it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if os.Getenv("RHUMB_UPDATE") != "" {
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(file, []byte(got), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != got {
		t.Errorf("%s differs; RHUMB_UPDATE=1 go test rewrites it. Got:\n%s", file, got)
	}
}

// timeless replaces instants and the times of measurements.
func timeless(s string) string {
	s = regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)`).ReplaceAllString(s, "TIME")
	s = regexp.MustCompile(`"age_seconds": [\d.e-]+`).ReplaceAllString(s, `"age_seconds": 0`)
	return regexp.MustCompile(`in [\d.]+ µs`).ReplaceAllString(s, "in 0.0 µs")
}

func TestOutputsAgainstKeptOnes(t *testing.T) {
	startUnit(t)
	for name, line := range map[string][]string{
		"sites.txt": {"sites"}, "sites-wide.txt": {"sites", "-o", "wide"}, "sites.json": {"sites", "-o", "json"},
		"sites.ndjson": {"sites", "-o", "ndjson"}, "sites-name.txt": {"sites", "-o", "name"}, "site.txt": {"sites", "nyc1"},
		"status.txt": {"status"}, "status.json": {"status", "-o", "json"}, "zones.txt": {"zones"}, "events.txt": {"events"},
		"explain.txt":   {"explain", "www.cdn.demo.test", "--client", "203.0.113.9", "--resolver", "203.0.113.253"},
		"drain-dry.txt": {"drain", "ams1", "--reason", "x", "--dry-run"}, "rules.txt": {"help", "rules"}, "exit-codes.txt": {"help", "exit-codes"},
		"environment.txt": {"help", "environment"}, "output.txt": {"help", "output"},
	} {
		code, out, errs := cli(t.Context(), line...)
		if code != exitOK || errs != "" {
			t.Errorf("%v: exit %d, %s", line, code, errs)
		}
		golden(t, name, timeless(out))
	}
}

// TestFollowedEventsComeOnceEach: those of before, and the one that comes; the
// one which both the list and the stream hold is printed once.
func TestFollowedEventsComeOnceEach(t *testing.T) {
	startUnit(t)
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan int, 1)
	go func() {
		defer w.Close()
		done <- run(ctx, []string{"events", "-f", "-o", "ndjson"}, strings.NewReader(""), w, io.Discard)
	}()
	in := bufio.NewScanner(r)
	if !in.Scan() || !strings.Contains(in.Text(), `"id":7`) {
		t.Fatalf("first: %q", in.Text())
	}
	time.AfterFunc(1500*time.Millisecond, cancel) // the stream sends its first state well within
	for in.Scan() {
		t.Errorf("once more: %s", in.Text())
	}
	if code := <-done; code != exitOK {
		t.Errorf("exit %d", code)
	}
}

func TestNoEscapeOfOthersReachesTheTerminal(t *testing.T) {
	startUnit(t)
	if _, out, _ := cli(t.Context(), "events"); strings.ContainsRune(out, '\x1b') {
		t.Errorf("%q", out)
	}
}

func TestChangesArrive(t *testing.T) {
	u := startUnit(t)
	for _, line := range [][]string{
		{"drain", "ams1", "--reason", "x", "--until", "23:59", "--return", "auto", "--override", "max-drains,min-sites", "--dry-run"},
		{"undrain", "nyc1", "--ramp", "5m"},
		{"force", "ams1/web", "down", "--reason", "fire"}, {"force", "ams1", "auto"},
		{"dial", "ams1", "25%", "--reason", "heat"}, {"dial", "ams1/web", "12.5", "--reason", "heat"},
		{"pin", "ams1", "1041", "--reason", "bug"}, {"pin", "ams1", "--release"},
		{"freeze", "--reason", "exam"}, {"thaw"},
		{"prefixes", "retire", "192.0.2.0/24", "--reason", "sold"}, {"prefixes", "restore", "192.0.2.0/24", "--reason", "not sold"}, {"prefixes"},
	} {
		if code, _, errs := cli(t.Context(), line...); code != exitOK {
			t.Fatalf("%v: exit %d %s", line, code, errs)
		}
	}
	d := u.drains[0]
	if !u.dry[0] || d.Return != "auto" || len(d.Override) != 2 || d.Until.UTC().Format("15:04") != "23:59" || d.Who == "" {
		t.Errorf("drain %+v", d)
	}
	if u.forces[0].State != placement.ForceDown || u.forces[0].Object.Name != "web" || u.forces[1].State != placement.NoForce || !u.forces[1].Object.IsSite() {
		t.Errorf("forces %+v", u.forces)
	}
	if u.dials[0].PerMille != 250 || u.dials[1].Site != "ams1/web" || u.dials[1].PerMille != 125 || u.pins[0].Revision != 1041 || u.pins[1].Revision != 0 || u.frozen[0] != "exam" {
		t.Errorf("dials %+v pins %+v frozen %v", u.dials, u.pins, u.frozen)
	}
}

func TestApplyLooksThenActsOnWhatItSaw(t *testing.T) {
	u := startUnit(t)
	code, out, errs := cli(t.Context(), "apply", "../../etc/fleet.yaml", "--yes", "--note", "first")
	if code != exitOK || !strings.Contains(out, "applied as revision 901") {
		t.Fatalf("exit %d %s %s", code, out, errs)
	}
	if len(u.applys) != 2 || !u.applys[0].DryRun || u.applys[1].DryRun {
		t.Fatalf("%d applies", len(u.applys))
	}
	if a := u.applys[1]; a.Expect != 900 || a.Note != "first" || len(a.Blobs) != 2 || len(a.Fleet.Sites) != 3 {
		t.Errorf("expect %d, note %q, %d zones, %d sites", a.Expect, a.Note, len(a.Blobs), len(a.Fleet.Sites))
	}
	if code, out, _ = cli(t.Context(), "check", "../../etc/fleet.yaml", "--against", "live"); code != exitOK || !strings.Contains(out, "12 % of the answers change") {
		t.Errorf("exit %d %s", code, out)
	}
}

func TestApplyToAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state.json")
	code, out, errs := cli(t.Context(), "apply", "../../etc/fleet.yaml", "--store", file)
	if code != exitOK || !strings.Contains(out, "applied as revision") || !strings.Contains(out, "3 sites, 5 services, 2 prefixes, 2 zones, mode observe") {
		t.Fatalf("exit %d %s %s", code, out, errs)
	}
	if !exists(file) {
		t.Error("no file")
	}
	if code, _, errs = cli(t.Context(), "apply", "../../etc/fleet.yaml", "--store", "/nowhere/state.json"); code != exitNotFound {
		t.Errorf("exit %d %s", code, errs)
	}
}

func TestCheckTellsFleetAndNodeApart(t *testing.T) {
	for file, want := range map[string]string{"../../etc/fleet.yaml": "3 sites", "../../etc/node.yaml": "node ams1-a of site ams1"} {
		if code, out, errs := cli(t.Context(), "check", file); code != exitOK || !strings.Contains(out, want) {
			t.Errorf("%s: exit %d %s %s", file, code, out, errs)
		}
	}
	bad := filepath.Join(t.TempDir(), "fleet.yaml")
	if err := os.WriteFile(bad, []byte("version: 1\nsitse: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := cli(t.Context(), "check", bad); code != exitConfig || !strings.Contains(errs, "^") {
		t.Errorf("exit %d %s", code, errs)
	}
}

func TestDrainWaitFollowsThePhases(t *testing.T) {
	var script []*api.State
	for _, p := range []placement.Phase{placement.PhaseTTL, placement.PhaseSessions, placement.PhaseDrained} {
		st := unitState()
		st.Plan.Drains[0].Phase = p
		script = append(script, st)
	}
	startUnit(t, script...)
	code, _, got := cli(t.Context(), "drain", "nyc1", "--reason", "x", "--wait")
	if code != exitOK {
		t.Errorf("exit %d", code)
	}
	for _, want := range []string{"plan      done", "withdraw  done", "drained   done", "nyc1 is drained after"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

func TestDrainWaitEndsInTime(t *testing.T) {
	startUnit(t)
	code, _, errs := cli(t.Context(), "drain", "nyc1", "--reason", "x", "--wait", "--wait-timeout", "50ms")
	if code != exitTimeout || !strings.Contains(errs, "rhumb undrain nyc1") {
		t.Errorf("exit %d %s", code, errs)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	code, _, errs = cli(ctx, "drain", "nyc1", "--reason", "x", "--wait")
	if code != exitInterrupted || !strings.Contains(errs, "To reverse it: rhumb undrain nyc1") {
		t.Errorf("exit %d %s", code, errs)
	}
}
