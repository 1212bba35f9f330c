//go:build e2e

package bgp

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/bgp/bfd"
	"rhumb/placement"
)

// bfdHelper is what the helpers of the BFD tests are told.
type bfdHelper struct {
	From, To netip.Addr // of forged packets
	Port     uint16
}

// runBFDHelper is a process beside the speakers: one which burns CPU, one which
// notes when it did not get any, one which forges packets.
func runBFDHelper(ctx context.Context, c helperConfig) error {
	fmt.Println("ready")
	switch c.Role {
	case "spin":
		spin(ctx, 2*runtime.NumCPU())
	case "reference":
		reference(ctx)
	case "forge":
		go eachLine(func(f []string) {
			if err := forge(c.BFD, f); err != nil {
				fmt.Println("error", err)
				return
			}
			fmt.Println("done", strings.Join(f, " "))
		})
		<-ctx.Done()
	}
	return nil
}

// spin keeps n goroutines busy which never wait, and one which makes garbage.
func spin(ctx context.Context, n int) {
	var busy sync.WaitGroup
	for range n {
		busy.Go(func() {
			for ctx.Err() == nil {
			}
		})
	}
	var keep [][]byte
	for ctx.Err() == nil {
		if keep = append(keep, make([]byte, 64<<10)); len(keep) > 256 {
			keep = nil
		}
	}
	busy.Wait()
}

// gapLimit is what counts as a gap of the reference: a sleep of 5 ms which took
// so long, because the machine gave its thread no CPU.
const gapLimit = 60 * time.Millisecond

// reference sleeps on a thread of its own in a process which does nothing else,
// and tells when the machine did not let it wake. What it misses nobody could
// have sent.
func reference(ctx context.Context) {
	runtime.LockOSThread()
	last := time.Now()
	for ctx.Err() == nil {
		ts := syscall.NsecToTimespec(int64(5 * time.Millisecond))
		syscall.Nanosleep(&ts, nil)
		now := time.Now()
		if gap := now.Sub(last); gap > gapLimit {
			fmt.Println("gap", gap.Milliseconds(), now.UnixMilli())
		}
		last = now
	}
}

// bfdCommands are: load N and calm, between which the speaker's own process makes
// garbage and keeps N goroutines busy; metrics, which prints what it counts of BFD.
func bfdCommands(reg prometheus.Gatherer) func(f []string) bool {
	calm := func() {}
	return func(f []string) bool {
		switch f[0] {
		case "load":
			n, _ := strconv.Atoi(f[1])
			ctx, stop := context.WithCancel(context.Background())
			calm = stop
			go spin(ctx, n)
		case "calm":
			calm()
		case "metrics":
			printBFD(reg)
		default:
			return false
		}
		fmt.Println("done", strings.Join(f, " "))
		return true
	}
}

func printBFD(reg prometheus.Gatherer) {
	families, _ := reg.Gather()
	for _, f := range families {
		for _, m := range f.Metric {
			switch {
			case !strings.HasPrefix(f.GetName(), "rhumb_bfd"):
			case m.Histogram != nil:
				fmt.Println("metric", f.GetName(), m.Histogram)
			default:
				fmt.Println("metric", f.GetName(), m.Label, m.GetCounter().GetValue()+m.GetGauge().GetValue())
			}
		}
	}
}

// forge sends COUNT packets with a TTL, in state Down, to the session with a
// discriminator: TTL COUNT DISCRIMINATOR.
func forge(c bfdHelper, f []string) error {
	var n [3]int
	for i := range n {
		var err error
		if n[i], err = strconv.Atoi(f[i]); err != nil {
			return err
		}
	}
	d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(c.From, 50000)),
		Control: func(_, _ string, raw syscall.RawConn) error {
			return raw.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_TTL, n[0]) })
		}}
	conn, err := d.Dial("udp4", netip.AddrPortFrom(c.To, c.Port).String())
	if err != nil {
		return err
	}
	defer conn.Close()
	id := uint32(n[2])
	packet := []byte{0x20, 0x40, 3, 24, 0, 0, 0, 1, byte(id >> 24), byte(id >> 16), byte(id >> 8), byte(id),
		0, 0x0f, 0x42, 0x40, 0, 0x0f, 0x42, 0x40, 0, 0, 0, 0}
	for range n[1] {
		if _, err := conn.Write(packet); err != nil {
			return err
		}
	}
	return nil
}

// watched is a speaker of the BFD lab: the last octet of its addresses, its
// prefixes, its interval.
type watched struct {
	host     string
	n        int
	nets     []string
	interval time.Duration
	gtsm     bool // towards FRR, which then speaks BFD on the port of RFC 5883
	busy     int  // goroutines under load
	p        *process
}

// bfdLab is two speakers, one at 300 ms x 3 and one at 50 ms x 3, between BIRD
// and FRR, with a session for each family and BFD on each. The routers offer
// 50 ms to both: what a pair uses is negotiated.
type bfdLab struct {
	*lab
	bird     func(...string) string
	frr      func(string) string
	speakers []*watched
	fibs     map[string]*process
}

func birdBFD(speakers []*watched) string {
	out := "router id 198.51.100.2;\n" // the shipped file has protocol bfd
	for _, s := range speakers {
		for family, of := range map[string]func(int) netip.Addr{"4": addr4, "6": addr6} {
			out += fmt.Sprintf("protocol bgp %s%s from rhumb { local %s as 64501; neighbor %s as 64500; bfd { interval 50 ms; multiplier 3; }; }\n", s.host, family, of(2), of(s.n))
		}
	}
	return out
}

func frrBFD(speakers []*watched) string {
	head := "router bgp 64502\n bgp router-id 198.51.100.3\n no bgp default ipv4-unicast\n no bgp ebgp-requires-policy\n bgp graceful-restart-disable\n"
	var v4, v6 string
	for _, s := range speakers {
		for _, a := range []netip.Addr{addr4(s.n), addr6(s.n)} {
			head += fmt.Sprintf(" neighbor %[1]s remote-as 64500\n neighbor %[1]s timers 3 9\n neighbor %[1]s timers connect 1\n"+
				" neighbor %[1]s bfd 3 50 50\n", a)
			if s.gtsm {
				head += fmt.Sprintf(" neighbor %s ttl-security hops 1\n", a)
			}
		}
		v4 += fmt.Sprintf("  neighbor %s activate\n", addr4(s.n))
		v6 += fmt.Sprintf("  neighbor %s activate\n", addr6(s.n))
	}
	return head + " address-family ipv4 unicast\n" + v4 + " exit-address-family\n address-family ipv6 unicast\n" + v6 + " exit-address-family\n"
}

func newBFDLab(t *testing.T) *bfdLab {
	l := &bfdLab{lab: newLab(t), speakers: []*watched{
		{host: "slow", n: 1, nets: []string{"192.0.2.0/24", "2001:db8:53::/48"}, interval: 300 * time.Millisecond, gtsm: true, busy: 2 * runtime.NumCPU()},
		{host: "fast", n: 11, nets: []string{"192.0.2.128/25", "2001:db8:53:8000::/49"}, interval: 50 * time.Millisecond}}}
	for _, s := range l.speakers {
		l.host(s.host, s.n)
	}
	l.host("bird", 2)
	l.host("frr", 3)
	l.bird = l.lab.bird("bird", birdBFD(l.speakers))
	l.frr = l.lab.frr("frr", frrBFD(l.speakers))
	l.fibs = map[string]*process{"bird": l.fib("bird"), "frr": l.fib("frr")}
	for i, s := range l.speakers {
		var peers []Peer
		for _, r := range []struct {
			n   int
			asn uint32
		}{{2, 64501}, {3, 64502}} {
			for _, a := range []netip.Addr{addr4(r.n), addr6(r.n)} {
				p := Peer{Address: a, ASN: r.asn, GTSM: r.n == 2 || s.gtsm, OwnFamily: true, BFD: PeerBFD{Interval: s.interval, Multiplier: 3}}
				if r.n == 3 && s.gtsm {
					p.BFD.Port = bfd.MultiHop
				}
				peers = append(peers, p)
			}
		}
		c := helperConfig{Role: "speaker", ASN: 64500, RouterID: addr4(s.n), Site: uint16(i + 1), Peers: peers, Mode: placement.Act,
			VIPs: []netip.Addr{netip.MustParsePrefix(s.nets[0]).Addr().Next(), netip.MustParsePrefix(s.nets[1]).Addr().Next()}}
		for _, net := range s.nets {
			c.Prefixes = append(c.Prefixes, placement.Prefix{Prefix: netip.MustParsePrefix(net), Slots: 1})
		}
		s.p = l.helper(s.host, c)
		s.p.tell("announce")
	}
	l.up()
	return l
}

// up waits until every BFD session is Up at both ends and every route is in both FIBs.
func (l *bfdLab) up() {
	l.t.Helper()
	defer func() {
		if l.t.Failed() {
			l.t.Log(l.frr("show bfd peers"), l.frr("show run"), l.bird("show", "bfd", "sessions"))
			l.t.Log(l.run("ip", "netns", "exec", l.ns("frr"), "ss", "-aunp"))
			l.t.Log(l.bird("show", "route", "all"), l.bird("show", "protocols", "all"), l.run("ip", "-n", l.ns("bird"), "-6", "addr"))
		}
	}()
	until(l.t, "BFD at the routers", func() bool {
		return strings.Count(l.bird("show", "bfd", "sessions"), " Up ") == 4 && strings.Count(l.frr("show bfd peers"), "Status: up") == 4
	})
	until(l.t, "the routes in both FIBs", func() bool {
		for _, s := range l.speakers {
			for _, net := range s.nets {
				if !strings.Contains(l.routes("bird", net), "via") || !strings.Contains(l.routes("frr", net), "via") {
					return false
				}
			}
		}
		return true
	})
}

// TestBFD has a speaker at 300 ms x 3 and one at 50 ms x 3 watched by BIRD and
// FRR, in IPv4 and IPv6.
func TestBFD(t *testing.T) {
	l := newBFDLab(t)
	for _, s := range l.speakers {
		for _, n := range []int{2, 3} {
			for _, a := range []netip.Addr{addr4(n), addr6(n)} {
				s.p.expect(0, "bgp: bfd", "peer="+a.String(), "to=up")
			}
		}
	}
	t.Logf("BIRD:\n%s", l.bird("show", "bfd", "sessions"))
	l.negotiated()
	t.Run("wrong TTL", func(t *testing.T) { l.wrongTTL(t) })
	t.Run("load", func(t *testing.T) { l.soak(t) })
	for range rounds(1, 10) {
		for _, s := range l.speakers {
			l.gone(t, "host death", s, func() { l.ip("-n", l.ns("sw"), "link", "set", "p"+s.host, "down") },
				func() { l.ip("-n", l.ns("sw"), "link", "set", "p"+s.host, "up") })
			l.gone(t, "hung process", s, func() { s.p.signal(syscall.SIGSTOP) }, func() { s.p.signal(syscall.SIGCONT) })
		}
	}
	l.leave(t)
}

// negotiated checks what FRR says the two ends agreed on.
func (l *bfdLab) negotiated() {
	l.t.Helper()
	out := l.frr("show bfd peers")
	for _, s := range l.speakers {
		_, part, _ := strings.Cut(out, "peer "+addr4(s.n).String())
		want := fmt.Sprintf("Remote timers:\n\t\t\tDetect-multiplier: 3\n\t\t\tReceive interval: %[1]dms\n\t\t\tTransmission interval: %[1]dms", s.interval.Milliseconds())
		if !strings.Contains(part, want) {
			l.t.Errorf("FRR heard other timers of %s than %q:\n%s", s.host, want, part)
		}
	}
}

// bound is how long routes may live after a death: what the protocol needs at
// the most, what the router takes for itself, and half of it for a machine which
// is shared. One that may be busy besides is only held to what shows that it was BFD:
// by the hold time of 9 s it were 6 s and more.
func bound(router string, interval time.Duration) time.Duration {
	if !soaking() {
		return 5 * time.Second
	}
	limit := 3 * interval
	if router == "frr" {
		limit += 110 * time.Millisecond // it batches its own work
	}
	return limit + limit/2
}

// gone takes the speaker away, measures how long its routes live in the routers'
// kernels, and waits until all is back.
func (l *bfdLab) gone(t *testing.T, what string, s *watched, kill, heal func()) {
	t.Helper()
	marks := map[string]int{}
	for router, fib := range l.fibs {
		marks[router] = fib.mark()
	}
	at := time.Now()
	kill()
	for _, router := range []string{"bird", "frr"} {
		for _, net := range s.nets {
			took := l.fibs[router].expect(marks[router], "Deleted", net).Sub(at)
			t.Logf("%s at %v x 3: %s is gone from %s's FIB after %v", what, s.interval, net, router, took.Round(100*time.Microsecond))
			if took > bound(router, s.interval) {
				t.Errorf("%s at %v x 3: %v until %s is gone from %s's FIB, want %v at most", what, s.interval, took, net, router, bound(router, s.interval))
			}
		}
	}
	heal()
	l.up()
}

// wrongTTL forges FRR's word that it is Down: from a hop away it does nothing;
// from the link it ends the session, which shows that the packet was right.
func (l *bfdLab) wrongTTL(t *testing.T) {
	slow := l.speakers[0]
	_, part, _ := strings.Cut(l.frr("show bfd peers"), "peer "+addr4(slow.n).String()+" ")
	id := regexp.MustCompile(`Remote ID: (\d+)`).FindStringSubmatch(part)
	if id == nil {
		t.Fatalf("FRR does not say our discriminator:\n%s", part)
	}
	forger := l.helper("frr", helperConfig{Role: "forge", BFD: bfdHelper{From: addr4(3), To: addr4(slow.n), Port: bfd.MultiHop}})
	from := slow.p.mark()
	forger.tell("254 100 " + id[1])
	until(t, "100 packets counted", func() bool {
		asked := slow.p.mark()
		slow.p.tell("metrics")
		slow.p.expect(asked, "done metrics")
		return len(fibLines(slow.p, asked, `"ttl"] 100`)) > 0
	})
	if lines := fibLines(slow.p, from, "bgp: bfd"); len(lines) > 0 {
		t.Errorf("packets with TTL 254 did something: %v", lines)
	}
	forger.tell("255 1 " + id[1])
	slow.p.expect(from, "bgp: bfd", "peer="+addr4(3).String(), "from=up to=down", "diag=neighbor")
	slow.p.expect(from, "sent notification", "BFD down: neighbor")
	l.up()
}

// soak counts the sessions which went down under load: busy goroutines and
// garbage inside each speaker, and twice as many busy threads as CPUs beside
// them. The session at 50 ms x 3 is judged by ten minutes of the long form. The
// reference counts how often the machine gave a thread nothing, which no program
// can help; a down within a second of such a gap counts apart.
func (l *bfdLab) soak(t *testing.T) {
	lasts := 10 * time.Second
	if os.Getenv("RHUMB_SOAK") != "" {
		lasts = 2 * time.Hour
	}
	ref := l.helper("bird", helperConfig{Role: "reference"})
	burner := l.helper("frr", helperConfig{Role: "spin"})
	marks, began := map[*watched]int{}, time.Now()
	for _, s := range l.speakers {
		marks[s] = s.p.mark()
		s.p.tell("load " + strconv.Itoa(s.busy))
	}
	time.Sleep(lasts)
	burner.cmd.Process.Kill()
	<-burner.done
	for _, s := range l.speakers {
		s.p.tell("calm")
		s.p.tell("metrics")
		judged := lasts
		switch soak := os.Getenv("RHUMB_SOAK") != ""; {
		case s.interval >= 300*time.Millisecond:
		case soak:
			judged = 10 * time.Minute
		default:
			judged = 0 // shown only: other tests may share the machine, and 150 ms are soon lost
		}
		l.judgeDowns(t, s, marks[s], began.Add(judged), ref)
	}
	l.up()
}

// judgeDowns fails where a session of a speaker went down, before a time, by no
// fault of the machine.
func (l *bfdLab) judgeDowns(t *testing.T, s *watched, from int, until time.Time, ref *process) {
	gaps := fibLines(ref, 0, "gap ")
	for _, m := range fibLines(s.p, from, "metric rhumb_bfd_lateness") {
		t.Logf("%s: %s", s.host, m)
	}
	t.Logf("%v x 3 under load: the reference lost the CPU %d times for more than %v: %v", s.interval, len(gaps), gapLimit, gaps)
	for _, d := range downs(s.p, from) {
		switch {
		case near(ref, d.at):
			t.Logf("down beside a gap of the machine, counted apart: %s", d.text)
		case d.at.After(until):
			t.Logf("down after the time for which it is judged: %s", d.text)
		default:
			t.Errorf("false down at %v x 3: %s", s.interval, d.text)
		}
	}
}

// downs are the failures that a speaker told since a mark.
func downs(p *process, from int) (out []line) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.lines[from:] {
		if containsAll(l.text, []string{"bgp: bfd", "from=up"}) {
			out = append(out, l)
		}
	}
	return out
}

// near tells whether the reference lost the CPU in the second before, or had lost it then
// and told later.
func near(ref *process, at time.Time) bool {
	ref.mu.Lock()
	defer ref.mu.Unlock()
	return slices.ContainsFunc(ref.lines, func(l line) bool {
		var ms int64
		if n, _ := fmt.Sscanf(l.text, "gap %d", &ms); n != 1 {
			return false
		}
		began := l.at.Add(-time.Duration(ms) * time.Millisecond)
		return began.Add(-100*time.Millisecond).Before(at) && at.Sub(l.at) < time.Second
	})
}

// leave ends a speaker on purpose: the routers must hear AdminDown before the
// Cease, after the withdrawal.
func (l *bfdLab) leave(t *testing.T) {
	slow := l.speakers[0]
	from := slow.p.mark()
	slow.p.signal(syscall.SIGTERM)
	select {
	case <-slow.p.done:
	case <-time.After(patience):
		t.Fatal("the speaker did not end")
	}
	if lines := downs(slow.p, from); len(lines) != 4 || !strings.Contains(lines[0].text, "to=admin-down") {
		t.Errorf("on the way out: %v", lines)
	}
	log, err := os.ReadFile(l.dir + "/bird.log")
	if err != nil {
		t.Fatal(err)
	}
	if text := string(log); strings.Count(text, "admin") == 0 {
		t.Logf("BIRD's log:\n%s", text)
	}
}
