//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"rhumb/internal/api"
	"rhumb/internal/netlab"
	"rhumb/placement"
)

// What the clients do, and what they may notice of a drain.
const (
	drainPiece = 4 << 10
	drainPace  = 100 * time.Millisecond
	// A drain takes about 40 s: 20 s of them for the caches of resolvers. On a busy
	// machine it takes longer, and the clients wait for it with their end.
	drainLong  = 62 * time.Second
	drainShort = 8 * time.Second
	// stallLimit is what a drain may add to the p99 of clients elsewhere at the same
	// time. Strict clients, with hardly a buffer, see the way to the new site too: a
	// round trip of 80 ms more, and for a session on the move one and a half.
	// The limits are those of the long form, see promised.
	stallLimit       = 150 * time.Millisecond
	stallLimitStrict = stallLimit + 200*time.Millisecond
)

// TestE2EDrain takes a site out while clients download from it, from a stock nginx
// and from our own server, and back in: nobody may see an error, a reset or a wrong
// byte, and what can be moved is gone before the route is.
func TestE2EDrain(t *testing.T) {
	l := newLab(t, stateDir(t))
	long, short := l.object("long.bin", drainLong), l.object("short.bin", drainShort)
	l.start(exec.Command(binary(t), "lab", "--dir", l.dir, "--router", "t-eu=bird", "--router", "t-us=frr", "--origin", "nginx"))
	l.awaitReady()
	l.owners()
	l.hurry()
	// Without this line all clients of eu go to nyc1, not half of them to tyo1, which
	// is three times as far: what they notice has one measure then.
	l.fault("cut", "t-eu", map[string]string{"towards": "t-ap"})
	l.await(patience, "eu has one second choice", l.oneOther)
	before := l.answerSet("nyc1")
	for range min(rounds(), 3) {
		testDrain(t, l, long, short, before)
	}
	testReturnAuto(t, l)
}

// object is a file that every site serves.
type object struct {
	path string
	size int64
	hash string
}

// object writes a file which a client of ours reads for some time.
func (l *lab) object(name string, last time.Duration) object {
	l.t.Helper()
	data := make([]byte, int64(last/drainPace)*drainPiece+1234)
	rand.NewChaCha8(sha256.Sum256([]byte(name))).Read(data)
	file := filepath.Join(l.dir, "srv", "vod", name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		l.t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o644); err != nil {
		l.t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	return object{"/" + name, int64(len(data)), hex.EncodeToString(sum[:])}
}

// drainGroups are clients by where they go: 100 downloads from nginx and 100 from our
// server over IPv4, and a few of both over IPv6.
func drainGroups() map[string]int {
	return map[string]int{"192.0.2.10:8080": 100, "192.0.2.11:80": 100, "[2001:db8:53::10]:8080": 10, "[2001:db8:53::11]:80": 10}
}

// calmGroups are the clients of a site that stays.
func calmGroups() map[string]int { return map[string]int{"192.0.2.10:8080": 40, "192.0.2.11:80": 40} }

// downloadsOf makes each group's downloads, every other one strict, in an order
// that is always the same.
func downloadsOf(groups map[string]int, o object) []download {
	var all []download
	for _, server := range slices.Sorted(maps.Keys(groups)) {
		for i := range groups[server] {
			all = append(all, download{Server: netip.MustParseAddrPort(server), Path: o.path, Size: o.size, Hash: o.hash,
				Piece: drainPiece, Pace: drainPace, Strict: i%2 == 0})
		}
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// clientsOf are a region's client nodes.
func clientsOf(region string) []string {
	var out []string
	for i := range 8 {
		out = append(out, netlab.ClientName(region, i+1))
	}
	return out
}

// testDrain drains ams1 under the clients of eu. Those of us, at nyc1, tell what the
// machine itself adds to the gaps meanwhile.
func testDrain(t *testing.T, l *lab, long, short object, before map[netip.Prefix]string) {
	answers := l.watchAnswers()
	w := l.watchDrain("ams1")
	calm := l.download(clientsOf(netlab.America), downloadsOf(calmGroups(), long))
	clients := l.download(clientsOf(netlab.Europe), downloadsOf(drainGroups(), long))
	curls := l.curls(long)
	asked := time.Now()
	l.line.event(asked, "rhumb drain ams1 --for 10m --wait")
	out, err := l.tryRhumb("drain", "ams1", "--reason", "TestE2EDrain", "--for", "10m", "--wait", "--wait-timeout", "150s")
	if err != nil {
		t.Errorf("rhumb drain --wait: %v\n%s", err, out)
	}
	l.line.eventf("the command ended: %s", lastLine(out))
	checkCommand(t, out)
	if n := len(clients.stalls(false, "content", "nginx")); n > 0 {
		t.Errorf("%d downloads were over before the site was drained", n)
	}
	l.await(patience, "the last phase is seen", func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.phases["drained"].IsZero() {
			return errors.New("not yet")
		}
		return nil
	})
	checkOrder(t, l, w)
	checkAnswersLeft(t, l, answers, w, asked)
	checkForwardedLeft(t, l, out)

	clients.release(t)
	calm.release(t)
	clients.wait(l)
	calm.wait(l)
	curls(t)
	checkClients(t, l, "ams1", clients, drainGroups())
	checkClients(t, l, "nyc1", calm, calmGroups())
	checkStalls(t, l, calm, clients)
	l.await(patience, "ams1 has no session left", func() error {
		if s := l.siteRow("ams1"); s.Sessions != 0 {
			sockets, _ := l.exec("ams1", "ss", "-tnH", "( sport = :80 or sport = :8080 ) and not dst 198.51.100.0/24")
			return fmt.Errorf("%d sessions\n%s", s.Sessions, sockets)
		}
		return nil
	})
	checkAway(t, l)
	checkExpiry(t, l)
	checkSwitchedOff(t, l, short)
	w.stop()
	if state := l.birdPath("ams1"); state != "none" {
		t.Errorf("the drained site was started again and announces: %s", state)
	}

	l.rhumb("undrain", "ams1")
	took := l.within(healWithin, "ams1 is back as before", func() error { return l.asBefore(before) })
	t.Logf("undrain: all as before after %.1f s", took.Seconds())
}

// rhumb runs a command of the operator's, which must succeed.
func (l *lab) rhumb(args ...string) string {
	l.t.Helper()
	out, err := l.tryRhumb(args...)
	if err != nil {
		l.t.Fatalf("rhumb %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (l *lab) tryRhumb(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary(l.t), append([]string{"--timeout", "30s", "--server", filepath.Join(l.dir, "admin.sock")}, args...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// drainPhases in the order in which an operator must see them.
func drainPhases() []string {
	return []string{"plan", "dns", "ttl", "gshut", "sessions", "withdraw", "drained"}
}

// checkCommand wants the command to have told of every phase, in order.
func checkCommand(t *testing.T, out string) {
	t.Helper()
	var seen []string
	for _, line := range strings.Split(out, "\n") {
		if f := strings.Fields(line); len(f) > 0 && slices.Contains(drainPhases(), f[0]) && !slices.Contains(seen, f[0]) {
			seen = append(seen, f[0])
		}
	}
	if !slices.Equal(seen, drainPhases()) {
		t.Errorf("rhumb drain --wait told of %v, want %v\n%s", seen, drainPhases(), out)
	}
}

// siteRow is what the API says of a site.
type siteRow struct {
	Status   string `json:"status"`
	Phase    string `json:"phase"`
	Sessions int    `json:"sessions"`
	Edge     struct {
		Own      int `json:"own"`
		Foreign  int `json:"foreign"`
		MovedIn  int `json:"moved_in"`
		MovedOut int `json:"moved_out"`
		Failed   int `json:"failed"`
	} `json:"edge"`
}

func (l *lab) siteRow(site string) (row siteRow) {
	l.t.Helper()
	if err := l.api("/api/v1/sites/"+site, &row); err != nil {
		l.t.Fatal(err)
	}
	return row
}

// phaseLeast is less than any phase lasts, but that of the plan.
const phaseLeast = 300 * time.Millisecond

// drainWatch is what was seen of a drain from outside.
type drainWatch struct {
	stop func()

	mu     sync.Mutex
	phases map[string]time.Time // first seen
	looked time.Time            // last
	blind  time.Duration        // longest time between two looks
	none   time.Time            // no session of our own server left, since then
	path   map[string]time.Time // states of the route from the site at its router: plain, gshut, none
}

// watchDrain follows the API's word on a site, and what the router beside it, a
// BIRD, has heard from it.
func (l *lab) watchDrain(site string) *drainWatch {
	w := &drainWatch{phases: map[string]time.Time{}, path: map[string]time.Time{}}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	every := func(f func(at time.Time)) {
		wg.Go(func() {
			tick := time.NewTicker(100 * time.Millisecond)
			defer tick.Stop()
			for {
				f(time.Now())
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
			}
		})
	}
	every(func(at time.Time) {
		var row siteRow
		if l.api("/api/v1/sites/"+site, &row) == nil {
			w.row(l, at, row)
		}
	})
	every(func(at time.Time) { w.heard(l, at, l.birdPath(site)) })
	w.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	l.t.Cleanup(w.stop)
	return w
}

func (w *drainWatch) row(l *lab, at time.Time, row siteRow) {
	w.mu.Lock()
	defer w.mu.Unlock()
	phase := row.Phase
	if !w.looked.IsZero() {
		w.blind = max(w.blind, at.Sub(w.looked))
	}
	w.looked = at
	if _, seen := w.phases[phase]; !seen {
		w.phases[phase] = at
	}
	if row.Edge.Own > 0 {
		w.none = time.Time{}
	} else if w.none.IsZero() {
		w.none = at
	}
	l.line.set("drain", at, phase)
	l.line.set("own left", at, fmt.Sprint(row.Edge.Own))
	l.line.set("forwarded left", at, fmt.Sprint(row.Edge.Foreign))
}

func (w *drainWatch) heard(l *lab, at time.Time, state string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, seen := w.path[state]; !seen {
		w.path[state] = at
	}
	l.line.set("t-eu has from ams1", at, state)
}

// birdPath is the site's route as its BIRD has it: plain, gshut or none.
func (l *lab) birdPath(site string) string {
	out, err := l.birdRoutes()
	if err != nil {
		return "unknown"
	}
	state, here := "none", false
	for line := range strings.SplitSeq(out, "\n") {
		if _, via, ok := strings.Cut(line, "\tvia "); ok {
			here = l.hopOf(site, via)
			if here {
				state = "plain"
			}
		}
		if here && strings.Contains(line, "BGP.community") && strings.Contains(line, "(65535,0)") {
			state = "gshut"
		}
	}
	return state
}

// oneOther wants two ways to the anycast prefix at t-eu: ams1's and nyc1's.
func (l *lab) oneOther() error {
	out, err := l.birdRoutes()
	if n := strings.Count(out, "\tvia "); err != nil || n != 2 {
		return fmt.Errorf("%d ways, %v", n, err)
	}
	return nil
}

func (l *lab) birdRoutes() (string, error) {
	out, err := exec.Command("birdc", "-s", filepath.Join(l.dir, "foreign", "t-eu-bird", "bird.ctl"),
		"show", "route", netlab.AnycastV4, "all").CombinedOutput()
	return string(out), err
}

// hopOf tells whether a next hop as BIRD prints it is the site's.
func (l *lab) hopOf(site, text string) bool {
	hop, _, _ := strings.Cut(text, " ")
	return l.owner[parseAddr(hop)] == site
}

// checkOrder wants the phases in order, our own sessions gone before the withdraw
// was heard at the router, and the route lowered before it was taken away.
func checkOrder(t *testing.T, l *lab, w *drainWatch) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	last := time.Time{}
	for _, p := range drainPhases() {
		at, ok := w.phases[p]
		// The plan may pass between two looks, and on a busy machine any phase: that it
		// was there is told by the command then.
		if !ok && p != "plan" && w.blind < phaseLeast {
			t.Errorf("phase %s was not seen, and there were never more than %v between two looks", p, w.blind)
		}
		if ok && at.Before(last) {
			t.Errorf("phase %s was seen before the one that precedes it", p)
		}
		last = later(at, last)
	}
	gshut, none := w.path["gshut"], w.path["none"]
	switch {
	case gshut.IsZero() || none.IsZero() || none.Before(gshut):
		t.Errorf("the router heard gshut at %v and the withdraw at %v", gshut, none)
	case w.none.IsZero() || !w.none.Before(none):
		t.Errorf("sessions of our own server were left when the route was withdrawn (none since %v, withdrawn %v)", w.none, none)
	default:
		t.Logf("content: all moved %.1f s after gshut was heard, %.1f s before the withdraw", w.none.Sub(gshut).Seconds(), none.Sub(w.none).Seconds())
	}
}

// watchAnswers polls every site's name server for the clients of eu.
func (l *lab) watchAnswers() *poller {
	var qs []question
	var lanes []string
	for _, site := range sites() {
		qs = append(qs, question{Server: l.nameServer(site), Name: "www.cdn.demo.test", Client: blocks()[netlab.Europe]})
		lanes = append(lanes, "eu asks "+site)
	}
	return l.poll("res-eu", 100*time.Millisecond, lanes, qs...)
}

// checkAnswersLeft wants the answers to leave the site with phase dns and to name
// others all along.
func checkAnswersLeft(t *testing.T, l *lab, p *poller, w *drainWatch, asked time.Time) {
	t.Helper()
	w.mu.Lock()
	dns, ttl := w.phases["dns"], w.phases["ttl"]
	w.mu.Unlock()
	last, _ := p.lastNaming("ams1", asked)
	for _, a := range p.since(ttl) { // put after the phase was seen: there is no way round it
		if m, err := a.msg(); err == nil && a.asked().After(ttl) && l.namesSite(m, "ams1") {
			t.Errorf("%s named ams1 %.2f s after phase ttl was seen", p.qs[a.Q].Server, a.asked().Sub(ttl).Seconds())
		}
	}
	checkAnswered(t, l, p, asked, "")
	t.Logf("answers named ams1 for the last time %+.2f s after phase dns was seen", last.Sub(dns).Seconds())
	p.stop()
}

// namesSite tells whether an answer has an address of a site.
func (l *lab) namesSite(m *dns.Msg, site string) bool {
	return slices.ContainsFunc(addrsOf(m), func(a netip.Addr) bool { return l.owner[a] == site })
}

// checkAnswered wants an address from every server but one site's at each poll since
// a time. A single one may be lost, as a resolver asks again; two in a row may not.
func checkAnswered(t *testing.T, l *lab, p *poller, since time.Time, but string) {
	t.Helper()
	silent := map[int]int{}
	for _, a := range p.since(since) {
		m, err := a.msg()
		server := p.qs[a.Q].Server
		switch {
		case l.owner[server.Addr()] == but:
		case err != nil:
			if silent[a.Q]++; silent[a.Q] == 2 {
				t.Errorf("%s was silent twice in a row: %s", server, a.text())
			}
		case len(addrsOf(m)) == 0:
			t.Errorf("%s said %s", server, a.text())
		default:
			silent[a.Q] = 0
		}
	}
}

// checkForwardedLeft wants the operator to be told how many sessions go on.
func checkForwardedLeft(t *testing.T, l *lab, command string) {
	t.Helper()
	row, list := l.siteRow("ams1"), ""
	if row.Edge.Own != 0 || row.Edge.Foreign < 110 {
		t.Errorf("when drained, ams1 has %d own and %d forwarded sessions; want none, and 110 or more", row.Edge.Own, row.Edge.Foreign)
	}
	l.await(patience, "the sites tell of what was moved", func() error { // each when it reports
		row = l.siteRow("ams1")
		in := l.siteRow("nyc1").Edge.MovedIn + l.siteRow("tyo1").Edge.MovedIn
		if row.Edge.MovedOut < 110 || in < 110 {
			return fmt.Errorf("ams1 moved %d out, and the others %d in; want 110 or more", row.Edge.MovedOut, in)
		}
		return nil
	})
	if !strings.Contains(command, "sessions still go on") {
		t.Errorf("the command does not tell of the sessions that go on:\n%s", command)
	}
	l.await(patience, "rhumb sessions --site ams1 tells of them", func() error { // a curl may end between the two
		row, list = l.siteRow("ams1"), l.rhumb("sessions", "--site", "ams1")
		if !strings.Contains(list, fmt.Sprint(row.Edge.Foreign)) {
			return fmt.Errorf("not of %d sessions:\n%s", row.Edge.Foreign, list)
		}
		return nil
	})
	t.Logf("drained: %d forwarded go on, %d were moved, %d moves failed\n%s", row.Edge.Foreign, row.Edge.MovedOut, row.Edge.Failed, list)
}

// checkClients wants every client whole and served by its site at first.
func checkClients(t *testing.T, l *lab, site string, f *fleetOfClients, groups map[string]int) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for server, want := range groups {
		kind, bad := kindOf(netip.MustParseAddrPort(server)), 0
		for _, d := range f.results[kind] {
			if d.Err != "" {
				if bad++; bad <= 5 {
					t.Errorf("%s: %s client %s: %s (after %.1f s)", site, kind, d.Client, d.Err, d.Took.Seconds())
				}
			}
			if strings.HasPrefix(kind, "nginx") && d.ServedBy != site {
				t.Errorf("%s: client %s was served by %q", site, d.Client, d.ServedBy)
			}
		}
		if n := len(f.results[kind]); n != want {
			t.Errorf("%s: %d results of %d %s clients", site, n, want, kind)
		}
		l.line.eventf("%s: %s: %d clients, %d errors", site, kind, len(f.results[kind]), bad)
	}
}

// checkStalls compares the longest gaps with those of the clients in calm.
func checkStalls(t *testing.T, l *lab, calm, drain *fleetOfClients) {
	t.Helper()
	row := func(what string, d []time.Duration) {
		text := fmt.Sprintf("longest gap, %-24s p50 %4d p99 %4d max %4d ms, %d clients", what,
			quantile(d, .5).Milliseconds(), quantile(d, .99).Milliseconds(), quantile(d, 1).Milliseconds(), len(d))
		l.line.eventf("%s", text)
		t.Log(text)
	}
	for strict, limit := range map[bool]time.Duration{false: stallLimit, true: stallLimitStrict} {
		word := map[bool]string{false: "", true: " strict"}[strict]
		c, d := calm.stalls(strict, "nginx", "content"), drain.stalls(strict, "nginx", "content", "nginx6", "content6")
		row("nyc1 calm"+word, c)
		row("ams1 drained"+word, d)
		for _, kind := range []string{"nginx", "content", "nginx6", "content6"} {
			row("  "+kind+word, drain.stalls(strict, kind))
		}
		limit = promised(limit) + (quantile(c, .99)-quantile(c, .5))/2 // what a busy machine scatters by itself
		if over := quantile(d, .99) - quantile(c, .99); over > limit {
			t.Errorf("%s clients: p99 of the longest gaps is %d ms above that in calm, want at most %s", word, over.Milliseconds(), limit)
		}
	}
	drain.mu.Lock()
	defer drain.mu.Unlock()
	for kind, all := range drain.results {
		for _, d := range all {
			if d.Gap > 250*time.Millisecond {
				l.line.event(d.GapAt, fmt.Sprintf("end of a gap of %d ms: %s %s", d.Gap.Milliseconds(), kind, d.Client))
			}
		}
	}
}

// curls start real clients, with a stock receive buffer; the result checks them.
func (l *lab) curls(o object) func(t *testing.T) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var bad []string
	rate := fmt.Sprint(o.size / int64(drainLong/time.Second))
	for i, server := range []string{"192.0.2.10:8080", "192.0.2.11", "192.0.2.10:8080", "192.0.2.11", "[2001:db8:53::10]:8080", "[2001:db8:53::11]"} {
		wg.Go(func() {
			var out bytes.Buffer
			code, err := l.execTo(l.t.Context(), &out, clientsOf(netlab.Europe)[i], "/bin/bash", "-o", "pipefail", "-c",
				"curl -gsS --limit-rate "+rate+" http://"+server+o.path+" | sha256sum")
			if err != nil || code != 0 || !strings.HasPrefix(out.String(), o.hash) {
				mu.Lock()
				defer mu.Unlock()
				bad = append(bad, fmt.Sprintf("curl %s: exit %d, %v: %s", server, code, err, out.String()))
			}
		})
	}
	return func(t *testing.T) {
		t.Helper()
		wg.Wait()
		for _, text := range bad {
			t.Error(text)
		}
	}
}

// checkAway wants nobody to look at the anycast addresses of the drained site, which are
// not there any more when its last session has ended: another site would answer for it.
// What was known of them stands.
func checkAway(t *testing.T, l *lab) {
	t.Helper()
	l.await(patience, "ams1 does not look at other sites", func() error {
		looks, err := listOf[api.Check](l, "checks", "ams1")
		if err != nil {
			return err
		}
		away := 0
		for _, c := range looks {
			if !slices.ContainsFunc(anycast(), func(p netip.Prefix) bool { return p.Contains(c.Address.Addr()) }) {
				continue
			}
			if away++; c.State != placement.Up || c.Result != placement.LookAway || !c.Blind {
				return fmt.Errorf("%s of %s: %v, the last look said %s (%s)", c.Address, c.Cluster, c.State, c.Result, c.Cause)
			}
		}
		if away == 0 {
			return fmt.Errorf("no anycast address is watched among %d", len(looks))
		}
		return nil
	})
}

// checkExpiry wants a drain whose time runs out to page, and to go on.
func checkExpiry(t *testing.T, l *lab) {
	t.Helper()
	l.rhumb("drain", "ams1", "--reason", "TestE2EDrain: expiry", "--for", "1s")
	l.await(patience, "DrainExpired is told", func() error {
		out, err := l.tryRhumb("status")
		if !strings.Contains(out, "DrainExpired") && !strings.Contains(out, "ran out") {
			return fmt.Errorf("status (%v): %s", err, out)
		}
		return nil
	})
	time.Sleep(time.Second) // a decision or two later
	if row := l.siteRow("ams1"); row.Phase != "drained" {
		t.Errorf("after its time the drain is at phase %q", row.Phase)
	}
}

// checkSwitchedOff takes the drained site away altogether, and back.
func checkSwitchedOff(t *testing.T, l *lab, o object) {
	t.Helper()
	p := l.watchAnswers()
	groups := map[string]int{"192.0.2.10:8080": 8, "192.0.2.11:80": 8}
	f := l.download(clientsOf(netlab.Europe), downloadsOf(groups, o))
	killed := l.kill("ams1")
	f.release(t)
	f.wait(l)
	checkClients(t, l, "nyc1", f, groups)
	checkAnswered(t, l, p, killed, "ams1")
	p.stop()
	l.heal("ams1")
}

// testReturnAuto wants a drain that may to end by itself. Who watches it has begun before
// it does: it lasts five seconds, however long the command takes to say so.
func testReturnAuto(t *testing.T, l *lab) {
	w := l.watchDrain("tyo1")
	defer w.stop()
	l.rhumb("drain", "tyo1", "--reason", "TestE2EDrain: return", "--for", "5s", "--return", "auto")
	l.await(patience, "tyo1 drains", func() error { return w.saw("plan", "dns", "ttl") })
	l.await(patience, "tyo1 returns by itself", func() error { return w.saw("returning") })
}

// saw wants one of some phases to have been seen.
func (w *drainWatch) saw(want ...string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range want {
		if !w.phases[p].IsZero() {
			return nil
		}
	}
	return fmt.Errorf("only %q", slices.Sorted(maps.Keys(w.phases)))
}
