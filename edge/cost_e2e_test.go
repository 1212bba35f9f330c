//go:build e2e

package edge

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// costMost is what protection with L0 may cost: of CPU and time, as a part of what the
// same server needs without.
const costMost = 1.10

// costMostOfNginx is how much more CPU than nginx a server of ours may need for the same
// without being asked why.
const costMostOfNginx = 1.5

// costCase is one size of a response or an upload, and how many of them a round has.
type costCase struct {
	size         int
	conns, times int // on so many connections, so many requests on each
	put          bool
}

func (c costCase) requests() int { return c.conns * c.times }

func (c costCase) String() string {
	what := costSize(c.size)
	if c.put {
		what = "upload of " + what
	}
	if c.times == 1 {
		return what + ", a connection each"
	}
	return what + ", kept connections"
}

// costSize names a size as the table does.
func costSize(n int) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%d MB", n>>20)
	case n >= 1<<10:
		return fmt.Sprintf("%d kB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}

// costCases are by size: a connection for each request, and connections that are kept.
// The short form has few requests and judges that each answer is right. For who looks
// for what costs: EDGE_CASE is another case, as "size connections times", and
// EDGE_PROFILE a directory for profiles of the first round, EDGE_ROUNDS a number of rounds.
func costCases() [][]costCase {
	if os.Getenv("EDGE_CASE") != "" {
		var c costCase
		fmt.Sscan(os.Getenv("EDGE_CASE"), &c.size, &c.conns, &c.times)
		return [][]costCase{{c}}
	}
	if !soak() {
		return [][]costCase{{{1 << 10, 20, 1, false}, {1 << 10, 4, 20, false}}, {{1 << 20, 2, 1, false}, {1 << 20, 2, 2, false}}}
	}
	return [][]costCase{
		{{1 << 10, 2000, 1, false}, {1 << 10, 8, 1000, false}},
		{{10 << 10, 2000, 1, false}, {10 << 10, 8, 1000, false}},
		{{100 << 10, 1500, 1, false}, {100 << 10, 8, 800, false}},
		{{1 << 20, 480, 1, false}, {1 << 20, 8, 100, false}},
		{{10 << 20, 64, 1, false}, {10 << 20, 4, 14, false}},
		{{100 << 20, 6, 1, false}, {100 << 20, 2, 3, false}},
	}
}

// Rounds of the long form. Those that are judged against each other need more of them
// than those that are shown, and those of small responses, which are over soon, most.
const (
	costRounds, costRoundsOfSmall, costShown = 13, 21, 5
	costSmall                                = 100 << 10
	// costSettle is how long a server is left after a round with what it put off, so that
	// it is counted.
	costSettle = 30 * time.Millisecond
)

// The servers, in their order.
const (
	costOff = iota
	costControl
	costL0
	costL1
	costL2
	costPeer // nginx
)

// TestCostOfProtection asks servers that differ in protection alone for the same, in
// turns, and compares the CPU seconds of their processes, with what the kernel does for
// them, and the time that all requests took. Two without protection show what the machine
// adds by itself; nginx stands beside them. The Backup is counted apart; but it runs on
// the same machine, so the time has its share of that. A size can be asked for alone:
// -run 'TestCostOfProtection/plain/1_kB$'.
func TestCostOfProtection(t *testing.T) {
	var table costTable
	for _, cover := range []struct{ name, export string }{{"plain", ""}, {"TLS", ExportGroup}} {
		t.Run(cover.name, func(t *testing.T) {
			servers := costServers(t, cover.export)
			for _, cases := range costCases() {
				t.Run(costSize(cases[0].size), func(t *testing.T) {
					for _, c := range cases {
						if cover.export != "" && c.times == 1 {
							c.conns = max(c.conns/4, min(c.conns, 4)) // a handshake costs four small responses
						}
						row := measure(t, c, servers)
						row.cover = cover.name
						row.judge(t)
						table = append(table, row)
					}
				})
			}
		})
	}
	t.Logf("\n%s", table)
}

// TestCostOfUploads asks servers that take uploads, with L2 and without protection, in turns for the same, as
// TestCostOfProtection; each object is looked at where it was published. There is no bar for L2.
func TestCostOfUploads(t *testing.T) {
	var table costTable
	for _, cover := range []struct{ name, export string }{{"plain", ""}, {"TLS", ExportGroup}} {
		t.Run(cover.name, func(t *testing.T) {
			root := costRoot(t)
			var servers []*costServer
			for _, x := range []struct{ name, revival, freshness string }{costOff: {"off", ReviveOff, FreshL0}, costControl: {"control", ReviveOff, FreshL0}, costL2: {"L2", ModeAct, FreshL2}} {
				if x.name == "" {
					servers = append(servers, nil)
					continue
				}
				servers = append(servers, costAgent(t, x.name, "", root, cover.export, x.revival, x.freshness, true))
			}
			for _, c := range costUploads() {
				row := measure(t, c, servers)
				row.cover = cover.name
				table = append(table, row)
				servers[costOff].stored(t, root, c)
				servers[costL2].stored(t, root, c)
			}
		})
	}
	t.Logf("\n%s", table)
}

// costUploads are by size. The short form judges that each object is whole.
func costUploads() []costCase {
	if !soak() {
		return []costCase{{1 << 10, 4, 2, true}, {1 << 20, 2, 2, true}}
	}
	return []costCase{{1 << 10, 8, 50, true}, {1 << 20, 8, 25, true}, {100 << 20, 2, 3, true}}
}

// stored wants all objects of a round where they were sent, octet for octet.
func (s *costServer) stored(t *testing.T, root string, c costCase) {
	t.Helper()
	want, err := os.ReadFile(filepath.Join(root, strconv.Itoa(c.size)))
	if err != nil {
		t.Fatal(err)
	}
	for i := range c.conns {
		if got := s.w.published("a", uploadName(c.size, i)); !bytes.Equal(got, want) {
			t.Errorf("%s: %s has %d octets, or others than were sent", s.name, uploadName(c.size, i), len(got))
		}
	}
}

// uploadName is that of the objects of one connection of a round.
func uploadName(size, conn int) string { return fmt.Sprintf("up-%d-%d", size, conn) }

// costRow is what one case cost each server, by round.
type costRow struct {
	costCase
	cover     string
	names     []string
	cpu, wall [][]float64
	backup    []float64 // CPU s of all rounds
}

// measure runs the rounds of one case, and one before that nobody counts.
func measure(t *testing.T, c costCase, servers []*costServer) *costRow {
	t.Helper()
	row := &costRow{costCase: c, names: make([]string, len(servers)), cpu: make([][]float64, len(servers)), wall: make([][]float64, len(servers)), backup: make([]float64, len(servers))}
	rounds := 1
	if soak() {
		if rounds = costRounds; c.size <= costSmall {
			rounds = costRoundsOfSmall
		}
		fmt.Sscan(os.Getenv("EDGE_ROUNDS"), &rounds)
	}
	for i, s := range servers {
		if s == nil {
			continue
		}
		row.names[i] = s.name
		warm := costCase{c.size, min(c.conns, fetchAtOnce), 1, c.put}
		s.ask(t, warm)
	}
	for r := range rounds {
		for i := range servers {
			i = (i + r) % len(servers) // none is always the first
			s := servers[i]
			if s == nil || i > costL0 && r >= costShown && os.Getenv("EDGE_WAS") == "" {
				continue
			}
			was, wasEnd, begun := s.cpu(), s.backup(), time.Now()
			s.profile(c, r)
			s.ask(t, c)
			row.wall[i] = append(row.wall[i], time.Since(begun).Seconds())
			s.profile(c, -1)
			time.Sleep(costSettle)
			row.cpu[i] = append(row.cpu[i], s.cpu()-was)
			row.backup[i] += s.backup() - wasEnd
		}
	}
	t.Log(row)
	return row
}

// ask has a round of requests made, each answer compared.
func (s *costServer) ask(t *testing.T, c costCase) {
	t.Helper()
	var out string
	line := fmt.Sprintf("%d %d %d", c.size, c.conns, c.times)
	if c.put {
		line += " put"
	}
	if s.load.ask(line, &out); out != "" {
		t.Fatalf("%s, %v: %s", s.name, c, out)
	}
}

// profile begins a profile of the first round, or ends it: round -1.
func (s *costServer) profile(c costCase, round int) {
	dir := os.Getenv("EDGE_PROFILE")
	if dir == "" || s.site == nil || round > 0 {
		return
	}
	file, word := "", ""
	if round == 0 {
		file = filepath.Join(dir, fmt.Sprintf("%s-%d-%d.prof", s.name, c.size, c.times))
	}
	s.site.ask("profile "+file, &word)
}

// judge holds L0 to its bar, and asks why we need much more than nginx. What two servers
// without protection differ by in these rounds is the machine's.
func (r *costRow) judge(t *testing.T) {
	t.Helper()
	if !soak() {
		return
	}
	for what, all := range map[string][][]float64{"CPU": r.cpu, "time": r.wall} {
		noise := ratio(all[costControl], all[costOff])
		noise = max(noise, 1/noise)
		if got := ratio(all[costL0], all[costOff]); got > costMost*noise {
			t.Errorf("%v, %s: L0 costs %.3f of the %s without, want at most %.2f; two without differ by %.3f", r.costCase, r.cover, got, what, costMost, noise)
		}
	}
	if got := r.ofNginx(costOff); got > costMostOfNginx {
		t.Logf("%v, %s: %.2f of nginx's CPU", r.costCase, r.cover, got)
	}
}

// ofNginx is the CPU of a server as a part of nginx's.
func (r *costRow) ofNginx(i int) float64 { return median(r.cpu[i]) / median(r.cpu[costPeer]) }

// perGB is CPU seconds for 2^30 octets of content.
func (r *costRow) perGB(i int) float64 {
	return median(r.cpu[i]) / (float64(r.size) * float64(r.requests()) / (1 << 30))
}

// request is CPU microseconds.
func (r *costRow) request(i int) float64 { return median(r.cpu[i]) / float64(r.requests()) * 1e6 }

// String is one line for each server.
func (r *costRow) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v: %d requests a round", r.costCase, r.requests())
	for i, name := range r.names {
		if name == "" {
			continue
		}
		fmt.Fprintf(&b, "\n  %-8s %.3f of the CPU, %.3f of the time; %8.1f us a request, %7.3f CPU s per GB, %.3f s a round; Backup %.1f us a request", name,
			ratio(r.cpu[i], r.cpu[costOff]), ratio(r.wall[i], r.wall[costOff]), r.request(i), r.perGB(i), median(r.wall[i]),
			r.backup[i]/float64(len(r.cpu[i])*r.requests())*1e6)
	}
	return b.String()
}

// costTable is all that was measured.
type costTable []*costRow

// String is the table of docs/explanation/cost.md.
func (t costTable) String() string {
	var b strings.Builder
	b.WriteString("| request | over | control | L0 CPU | L0 time | L1 CPU | L1 time | L2 CPU | L2 time | CPU of nginx's |\n|---|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range t {
		part := func(of [][]float64, i int) string {
			if r.names[i] == "" {
				return ""
			}
			return fmt.Sprintf("%.2f", ratio(of[i], of[costOff]))
		}
		cells := []string{r.costCase.String(), r.cover, part(r.cpu, costControl)}
		for i := costL0; i <= costL2; i++ {
			cells = append(cells, part(r.cpu, i), part(r.wall, i))
		}
		if len(r.cpu) > costPeer {
			cells = append(cells, fmt.Sprintf("%.2f (%.2f : %.2f s/GB)", r.ofNginx(costOff), r.perGB(costOff), r.perGB(costPeer)))
		}
		b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
	}
	return b.String()
}

// ratio is the median of what the rounds say that both have.
func ratio(a, b []float64) float64 {
	var all []float64
	for i := range min(len(a), len(b)) {
		all = append(all, a[i]/b[i])
	}
	return median(all)
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
