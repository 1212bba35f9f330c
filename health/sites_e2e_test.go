//go:build e2e

package health

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/placement"
)

// A fleet of twelve sites: a process each, with real sockets on loopback addresses.
const (
	fleetSites = 12
	siteVar    = "RHUMB_TEST_SITE"     // number of the site that this process is
	firstVar   = "RHUMB_TEST_PORT"     // port of site 1
	paceVar    = "RHUMB_TEST_INTERVAL" // of beats
)

func fleetName(i int) string { return fmt.Sprintf("s%02d", i) }

func fleetPeers(i, port int) (out []Peer) {
	for k := 1; k <= fleetSites; k++ {
		if k != i {
			out = append(out, Peer{Site: fleetName(k), NodeID: uint16(k), Keys: [][32]byte{{7}},
				HalfLife: time.Second, // what a departure costs is not what is tested
				Addr:     netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 53, byte(k)}), uint16(port))})
		}
	}
	return out
}

// TestSiteProcess is one site of the fleet, in a process of its own; it is nothing
// when it is run with the other tests. It tells each vote in a line, and what it
// has sent when its input ends.
func TestSiteProcess(t *testing.T) {
	i, _ := strconv.Atoi(os.Getenv(siteVar))
	if i == 0 {
		return
	}
	port, _ := strconv.Atoi(os.Getenv(firstVar))
	pace, err := time.ParseDuration(os.Getenv(paceVar))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 53, byte(i)), Port: port})
	if err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	a := New(Config{Node: fleetName(i) + "-a", Site: fleetName(i), Domain: fleetName(i), NodeID: uint16(i), Incarnation: uint32(time.Now().Unix()),
		Beat: conn, Interval: pace, Log: quiet(), Metric: reg,
		Sink: func(v placement.Vote) {
			fmt.Printf("vote %d %s %s %v\n", time.Now().UnixNano(), v.Object.Site, v.State, v.Hold)
		}})
	a.Set(fleetPeers(i, port), nil)
	ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGTERM)
	defer stop()
	go func() {
		for sc := bufio.NewScanner(os.Stdin); sc.Scan(); {
			fmt.Printf("sent %s\n", sentSoFar(reg))
		}
		stop() // the parent is gone
	}()
	if err := a.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

// sentSoFar is datagrams and octets sent.
func sentSoFar(reg *prometheus.Registry) string {
	var datagrams, octets float64
	all, _ := reg.Gather()
	for _, f := range all {
		for _, m := range f.GetMetric() {
			switch {
			case f.GetName() == "rhumb_beat_bytes_total":
				octets += m.GetCounter().GetValue()
			case f.GetName() == "rhumb_beats_total":
				for _, l := range m.GetLabel() {
					if l.GetName() == "direction" && l.GetValue() == "out" {
						datagrams += m.GetCounter().GetValue()
					}
				}
			}
		}
	}
	return fmt.Sprintf("%.0f %.0f", datagrams, octets)
}

// fleet runs the sites and follows what they say.
type fleet struct {
	t    *testing.T
	port int
	pace time.Duration

	mu    sync.Mutex
	sites [fleetSites + 1]*member
	bell  chan struct{}
}

// member is one process.
type member struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	state map[string]string    // last vote, by site
	at    map[string]time.Time // when it was cast
	sent  [2]float64           // datagrams and octets
	asked int                  // answers to how much was sent
	ended chan struct{}
}

func newFleet(t *testing.T, pace time.Duration) *fleet {
	free, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 53, 1)})
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{t: t, port: free.LocalAddr().(*net.UDPAddr).Port, pace: pace, bell: make(chan struct{}, 1)}
	free.Close()
	t.Cleanup(func() {
		for i := 1; i <= fleetSites; i++ {
			f.kill(i)
		}
	})
	for i := 1; i <= fleetSites; i++ {
		f.start(i)
	}
	return f
}

func (f *fleet) start(i int) {
	m := &member{cmd: exec.Command(os.Args[0], "-test.run=^TestSiteProcess$"), state: make(map[string]string), at: make(map[string]time.Time), ended: make(chan struct{})}
	m.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", siteVar, i), fmt.Sprintf("%s=%d", firstVar, f.port), fmt.Sprintf("%s=%s", paceVar, f.pace))
	m.cmd.Stderr = os.Stderr
	out, err := m.cmd.StdoutPipe()
	if err == nil {
		m.in, err = m.cmd.StdinPipe()
	}
	if err == nil {
		err = m.cmd.Start()
	}
	if err != nil {
		f.t.Fatal(err)
	}
	f.mu.Lock()
	f.sites[i] = m
	f.mu.Unlock()
	go func() {
		defer close(m.ended)
		for sc := bufio.NewScanner(out); sc.Scan(); {
			f.hear(m, strings.Fields(sc.Text()))
		}
		m.cmd.Wait()
	}()
}

func (f *fleet) hear(m *member, w []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case len(w) == 5 && w[0] == "vote" && w[4] == "false":
		if ns, err := strconv.ParseInt(w[1], 10, 64); err == nil && m.state[w[2]] != w[3] {
			m.state[w[2]], m.at[w[2]] = w[3], time.Unix(0, ns)
		}
	case len(w) == 3 && w[0] == "sent":
		m.asked++
		for k := range m.sent {
			m.sent[k], _ = strconv.ParseFloat(w[k+1], 64)
		}
	}
	select {
	case f.bell <- struct{}{}:
	default:
	}
}

// kill ends a site as a power cut does, and returns when it was.
func (f *fleet) kill(i int) time.Time {
	f.mu.Lock()
	m := f.sites[i]
	f.mu.Unlock()
	at := time.Now()
	if m != nil {
		m.cmd.Process.Kill()
		<-m.ended
	}
	return at
}

// patience is how long an event is awaited: it costs nothing when it comes.
const patience = time.Minute

// await waits until something is true; the caller's function runs under the lock.
func (f *fleet) await(what string, ok func() bool) {
	f.t.Helper()
	for deadline := time.After(patience); ; {
		f.mu.Lock()
		done := ok()
		f.mu.Unlock()
		if done {
			return
		}
		select {
		case <-f.bell:
		case <-deadline:
			f.t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// all tells whether every other site says of a site that it is so.
func (f *fleet) all(i int, state string) bool {
	for k := 1; k <= fleetSites; k++ {
		if k != i && f.sites[k].state[fleetName(i)] != state {
			return false
		}
	}
	return true
}

// fault kills a site, gathers when each other one voted it down, and brings it back.
func (f *fleet) fault(i int) (times []time.Duration) {
	killed := f.kill(i)
	f.await(fleetName(i)+" down everywhere", func() bool { return f.all(i, "down") })
	for k := 1; k <= fleetSites; k++ {
		if k != i {
			times = append(times, f.sites[k].at[fleetName(i)].Sub(killed))
		}
	}
	f.start(i)
	f.await(fleetName(i)+" up again", func() bool { return f.all(i, "up") })
	return times
}

// budget is what a peering costs in one direction, headers of IP and UDP included.
func (f *fleet) budget(over time.Duration) float64 {
	ask := func() (total [2]float64) {
		f.mu.Lock()
		want := make([]int, fleetSites+1)
		for i, m := range f.sites[1:] {
			want[i+1] = m.asked + 1
			fmt.Fprintln(m.in)
		}
		f.mu.Unlock()
		f.await("counts", func() bool {
			for i, m := range f.sites[1:] {
				if m.asked < want[i+1] {
					return false
				}
			}
			return true
		})
		for _, m := range f.sites[1:] {
			total[0], total[1] = total[0]+m.sent[0], total[1]+m.sent[1]
		}
		return total
	}
	began, before := time.Now(), ask()
	select {
	case <-time.After(over): // a rate takes time
	case <-f.t.Context().Done():
	}
	after := ask()
	const headers = 28
	return (after[1] - before[1] + headers*(after[0]-before[0])) / time.Since(began).Seconds() / fleetSites / (fleetSites - 1)
}

// TestTwelveSites: sites die as by a power cut. Each of the eleven others says so
// in time, at about the same moment, and a peering costs what it may.
func TestTwelveSites(t *testing.T) {
	// The short form runs beside others, on few cores for twelve processes: bars are lower
	// there by a factor.
	faults, quietTime, slack := 4, 4*time.Second, 4.0
	soak := os.Getenv("RHUMB_SOAK") != ""
	if soak {
		faults, quietTime, slack = 300, 5*time.Minute, 1
	}
	for _, c := range []struct{ pace, p99 time.Duration }{{300 * time.Millisecond, 850 * time.Millisecond}, {100 * time.Millisecond, 450 * time.Millisecond}} {
		t.Run(c.pace.String(), func(t *testing.T) {
			f := newFleet(t, c.pace)
			f.await("all up", func() bool {
				for i := 1; i <= fleetSites; i++ {
					if !f.all(i, "up") {
						return false
					}
				}
				return true
			})
			if c.pace >= 300*time.Millisecond {
				cost, most := 0.0, 300.0
				if !soak { // on a busy machine beats are late, and others are asked: ten times as much is no storm
					most *= 10
				}
				for range 3 {
					awaitQuiet(t.Context(), 7*time.Second) // votes are told three times
					if cost = f.budget(quietTime); cost <= most {
						break
					}
				}
				t.Logf("a peering costs %.0f B/s in a direction", cost)
				if cost > most {
					t.Errorf("want at most %v", most)
				}
			}
			var all, spreads []time.Duration
			for k := range faults {
				times := f.fault(k%fleetSites + 1)
				all = append(all, times...)
				spreads = append(spreads, slices.Max(times)-slices.Min(times))
			}
			slices.Sort(all)
			slices.Sort(spreads)
			p99 := all[len(all)*99/100]
			t.Logf("%d faults, %d observers each: p50 %v p99 %v; spread p50 %v max %v", faults, fleetSites-1,
				all[len(all)/2], p99, spreads[len(spreads)/2], spreads[len(spreads)-1])
			if !soak { // of four faults the worst is no percentile, but what the machine did meanwhile
				p99 = all[len(all)/2]
			}
			if limit := time.Duration(slack) * c.p99; p99 > limit {
				t.Errorf("p99 of the verdicts, in the short form half of them after %v, want at most %v", p99, limit)
			}
			if s, limit := spreads[len(spreads)/2], time.Duration(slack)*200*time.Millisecond; s > limit {
				t.Errorf("spread of a verdict over the observers %v, want at most %v", s, limit)
			}
		})
	}
}

func awaitQuiet(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
