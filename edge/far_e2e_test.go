//go:build e2e

package edge

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSiteLossFar: clients 40 ms away, without and with loss, whose site dies. The long
// form judges when they had bytes again, of as many as 1,000 and of fewer: on one machine
// the path and the clients compute too, and what grows with their number is the processor's.
func TestSiteLossFar(t *testing.T) {
	if !soak() {
		for _, f := range families(0) {
			t.Run(f.name, func(t *testing.T) { lossFar(t, f.vip, 40, 0) })
		}
		return
	}
	for _, n := range []int{100, 250, 500} {
		t.Run(fmt.Sprintf("%d sessions", n), func(t *testing.T) { lossFar(t, vip4, n, 0) })
	}
	for _, loss := range []int{0, 10} {
		for _, f := range families(0) {
			t.Run(fmt.Sprintf("%s, %d in a thousand lost", f.name, loss), func(t *testing.T) {
				lossFar(t, f.vip, 1000, loss)
			})
		}
	}
}

// Of TestSiteLossFar.
const (
	farDelay  = 20 * time.Millisecond // each way
	farDetect = 100 * time.Millisecond
	farMore   = 60 * time.Millisecond // beyond detection and two round trips
	// farEach is what each further session may add beyond farFew: two processors do the work
	// of the Backup, of the path and of the clients.
	farEach = 150 * time.Microsecond
	farFew  = 250
	// A client pauses between its reads, but not from the crash to the verdict; its buffer is no
	// larger than what it reads at once.
	farPace   = 150 * time.Millisecond
	farBuffer = 4 << 10
	// farSpan is how long after a crash the silences are those of the crash.
	farSpan = time.Second
	// crashMost bounds what the death of a process costs its clients, beyond their own
	// pauses.
	crashMost = 150 * time.Millisecond
	farTold   = 12 // of the slowest clients, whose silence is told step by step
)

func lossFar(t *testing.T, vip string, n, loss int) {
	w := newWorld(t)
	x := w.object("film.mp4", 160<<10)
	x.N, x.VIP, x.Pace, x.Buffer, x.Reads = n, vip, farPace, farBuffer, true
	x.Keen = farDetect
	a, b := w.sites(func(x *agentArgs) { x.Backups = true })
	path := w.through(pathArgs{Delay: farDelay, Loss: loss, Large: loss == 0})
	var gaps [2][]time.Duration
	var again []time.Duration
	var detect time.Duration
	var was, r report
	for i, crash := range []bool{false, true} {
		load := w.start("c", "load", x)
		var word string
		load.next(&word)
		w.backed(a, x.N)
		b.ask("state", &was)
		begun := time.Now()
		if crash {
			w.lose("a", a)
			load.tell("now")
			time.Sleep(farDetect - time.Since(begun))
			b.ask("down a", &word)
			detect = time.Since(begun)
		}
		if soak() {
			spent := busy(map[string]*process{"load": load, "path": path, "a": a, "b": b})
			time.Sleep(time.Until(begun.Add(farSpan)))
			t.Logf("computed: %s", spent())
		}
		clients := w.clients(load, x.N)
		for _, c := range clients {
			gaps[i] = append(gaps[i], c.silence(begun).Gap)
		}
		if crash {
			var all []revived
			b.ask("revived", &all)
			slowest(t, begun, clients, all)
			again = heardAgain(begun, clients, all)
		}
	}
	t.Logf("%d sessions, kill to bytes again: p50 %v p90 %v p99 %v max %v", n, quantile(again, .5), quantile(again, .9), quantile(again, .99), quantile(again, 1))
	b.ask("state", &r)
	for i, name := range []string{"baseline", "crash"} {
		t.Logf("%s: silence p50 %v p99 %v max %v", name, quantile(gaps[i], .5), quantile(gaps[i], .99), quantile(gaps[i], 1))
	}
	t.Logf("detection %v; revivals %v, answers %v; %.2f s of CPU at b", detect, r.Revivals, r.Answers, r.CPU-was.CPU)
	most := detect + 4*farDelay + farMore + time.Duration(max(n-farFew, 0))*farEach
	if p99 := quantile(again, .99); soak() && loss == 0 && p99 > most {
		t.Errorf("p99 had bytes again after %v, want at most %v", p99, most)
	}
	// What is lost of the probes and of the first octets is sent again.
	if stall := quantile(gaps[1], .99) - quantile(gaps[0], .99); soak() && stall > most {
		t.Errorf("p99 waited %v more than without a crash, want at most %v", stall, most)
	}
	if len(again) < n {
		t.Errorf("%d of %d clients had bytes again", len(again), n)
	}
	if r.Revivals[reviveOK] < float64(n) {
		t.Errorf("revived %v of %d sessions", r.Revivals, n)
	}
	w.noResets()
}

// TestAgentCrashOfMany: the process dies under 1,000 sessions and another is started; what
// the clients of a host near by see of it.
func TestAgentCrashOfMany(t *testing.T) {
	if !long(t) {
		return
	}
	for i, f := range append(e2eFamilies, e2eFamilies...) {
		bare := i >= len(e2eFamilies)
		t.Run(fmt.Sprintf("%s, without a store: %t", f.name, bare), func(t *testing.T) {
			w := newWorld(t)
			x := w.object("film.mp4", 160<<10)
			x.N, x.VIP, x.Pace, x.Buffer, x.Reads = 1000, f.vip, 250*time.Millisecond, 8<<10, true
			a, b := w.sites(func(x *agentArgs) { x.Backups, x.Bare = true, bare })
			load := w.start("c", "load", x)
			var word string
			load.next(&word)
			w.backed(a, x.N)
			w.await("the Backup's knowledge of all that was asked", func() bool {
				var owner, backup report
				a.ask("state", &owner)
				b.ask("state", &backup)
				return maps.Equal(owner.Turns, backup.Told)
			})
			if !bare {
				w.stored(a, x.N)
			}
			killed := time.Now()
			a.kill()
			next := w.agent("a", "b", func(x *agentArgs) { x.Backups, x.Bare = true, bare })
			clients := w.clients(load, x.N)
			var r report
			var all []revived
			next.ask("revived", &all)
			slowest(t, killed, clients, all)
			var stalls []time.Duration
			for _, c := range clients {
				stalls = append(stalls, c.silence(killed).Gap-x.Pace)
			}
			next.ask("state", &r)
			t.Logf("stall p50 %v p99 %v max %v beyond the clients' own pauses; revivals %v, answers %v, %.2f s of CPU", quantile(stalls, .5), quantile(stalls, .99), quantile(stalls, 1), r.Revivals, r.Answers, r.CPU)
			if p99 := quantile(stalls, .99); p99 > crashMost {
				t.Errorf("p99 of the stalls is %v, want at most %v", p99, crashMost)
			}
			if r.wentOn() < float64(x.N) {
				t.Errorf("revived %v of %d sessions", r.Revivals, x.N)
			}
			w.noResets()
		})
	}
}

// read is one of a client that brought something.
type read struct {
	End time.Time
	Gap time.Duration // since the one before
}

// silence is the longest of a client near a moment.
func (r result) silence(from time.Time) (most read) {
	for _, x := range r.Reads {
		if x.End.After(from) && x.End.Add(-x.Gap).Before(from.Add(farSpan)) && x.Gap > most.Gap {
			most = x
		}
	}
	return most
}

// heardAgain is how long after the crash each client had bytes of the session that was
// revived.
func heardAgain(crash time.Time, clients []result, all []revived) (out []time.Duration) {
	at := map[netip.AddrPort]time.Time{}
	for _, r := range all {
		at[r.Client] = r.Restored
	}
	for _, c := range clients {
		for _, x := range c.Reads {
			if from, ok := at[c.Client]; ok && x.End.After(from.Add(farDelay)) {
				out = append(out, x.End.Sub(crash))
				break
			}
		}
	}
	return out
}

// revived is what became of a session at the site that revived it.
type revived struct {
	Client                       netip.AddrPort
	Begun, Asked, Told, Restored time.Time
	Probes                       int
	Again                        int           // segments that were sent again there, so far
	MSS                          int           // of the segments there, so far
	RTT                          time.Duration // that its kernel was told
}

// trails notes what becomes of revived sessions. It costs next to nothing while they come.
type trails struct {
	mu  sync.Mutex
	all []trailOf
}

type trailOf struct {
	conn *net.TCPConn
	revived
}

// follow is called for each.
func (f *trails) follow(s *session, rd *round) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = append(f.all, trailOf{s.conn, revived{Client: s.key.Client, Begun: rd.begun, Asked: rd.asked, Told: rd.told,
		Restored: rd.restored, Probes: rd.probes, RTT: rd.state.RTT}})
}

// tell tells of all, and what their kernel did so far.
func (f *trails) tell() (out []revived) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range f.all {
		if raw, err := x.conn.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { // it may have ended
				if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
					x.Again, x.MSS = int(info.Total_retrans), int(info.Snd_mss)
				}
			})
		}
		out = append(out, x.revived)
	}
	return out
}

// slowest tells of the clients that waited longest where their time went, in
// milliseconds since the crash.
func slowest(t *testing.T, crash time.Time, clients []result, all []revived) {
	t.Helper()
	at := map[netip.AddrPort]revived{}
	for _, r := range all {
		at[r.Client] = r
	}
	ms := func(x time.Time) string {
		if x.IsZero() {
			return "-"
		}
		return fmt.Sprintf("%.1f", x.Sub(crash).Seconds()*1000)
	}
	clients = slices.Clone(clients)
	slices.SortFunc(clients, func(a, b result) int { return cmp.Compare(b.silence(crash).Gap, a.silence(crash).Gap) })
	for _, c := range clients[:min(farTold, len(clients))] {
		s, r := c.silence(crash), at[c.Client]
		t.Logf("%s: silent for %.0f ms from %s to %s; verdict %s, asked %s (%d probes), told %s, restored %s (RTT %v), %d sent again here, %d there",
			c.Client, s.Gap.Seconds()*1000, ms(s.End.Add(-s.Gap)), ms(s.End), ms(r.Begun), ms(r.Asked), r.Probes, ms(r.Told), ms(r.Restored), r.RTT, r.Again, c.Again)
	}
	for _, step := range []struct {
		name     string
		from, to func(revived) time.Time
	}{
		{"crash to verdict", func(revived) time.Time { return crash }, func(r revived) time.Time { return r.Begun }},
		{"verdict to probe", func(r revived) time.Time { return r.Begun }, func(r revived) time.Time { return r.Asked }},
		{"probe to answer", func(r revived) time.Time { return r.Asked }, func(r revived) time.Time { return r.Told }},
		{"answer to restore", func(r revived) time.Time { return r.Told }, func(r revived) time.Time { return r.Restored }},
		{"crash to restore", func(revived) time.Time { return crash }, func(r revived) time.Time { return r.Restored }},
	} {
		var list []time.Duration
		for _, r := range all { // not every session takes every step
			if from, to := step.from(r), step.to(r); !from.IsZero() && !to.IsZero() {
				list = append(list, to.Sub(from))
			}
		}
		if len(list) == 0 {
			t.Logf("%-32s none", step.name)
			continue
		}
		t.Logf("%-32s p50 %v p99 %v max %v of %d", step.name, quantile(list, .5), quantile(list, .99), quantile(list, 1), len(list))
	}
}

// busy tells what processes, and the whole machine, have computed since.
func busy(all map[string]*process) func() string {
	was := map[string]time.Duration{}
	for name, p := range all {
		was[name] = p.computed()
	}
	idle, stolen := machineTimes()
	begun := time.Now()
	return func() (out string) {
		for _, name := range slices.Sorted(maps.Keys(all)) {
			out += fmt.Sprintf("%s %v, ", name, all[name].computed()-was[name])
		}
		took := time.Since(begun)
		nowIdle, nowStolen := machineTimes()
		return out + fmt.Sprintf("idle %v, stolen %v of %d x %v", nowIdle-idle, nowStolen-stolen, runtime.NumCPU(), took)
	}
}

const jiffy = 10 * time.Millisecond

// computed is the time that a process has run, 0 of one that has ended.
func (p *process) computed() time.Duration {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * jiffy
}

// machineTimes are those of all CPUs: without work, and taken by the machine's host.
func machineTimes() (idle, stolen time.Duration) {
	b, _ := os.ReadFile("/proc/stat")
	f := strings.Fields(string(b))
	if len(f) < 9 {
		return 0, 0
	}
	i, _ := strconv.Atoi(f[4])
	st, _ := strconv.Atoi(f[8])
	return time.Duration(i) * jiffy, time.Duration(st) * jiffy
}
