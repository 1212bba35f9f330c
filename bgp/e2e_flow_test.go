//go:build e2e

package bgp

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rhumb/placement"
)

// flowPort is where sinks listen.
const flowPort = 5301

// runSink counts packets by their sender, whatever address they were sent to.
// Its buffer holds more than a stall of this machine can bring.
func runSink(ctx context.Context) error {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 256<<20)
		}); e != nil {
			return e
		}
		return err
	}}
	conn, err := lc.ListenPacket(ctx, "udp4", ":"+strconv.Itoa(flowPort))
	if err != nil {
		return err
	}
	var counts [256]atomic.Int64 // by the last octet of the sender
	go func() {
		buf := make([]byte, 64)
		for {
			_, from, err := conn.(*net.UDPConn).ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			counts[from.Addr().Unmap().As4()[3]].Add(1)
		}
	}()
	fmt.Println("ready")
	go eachLine(func(f []string) { // count N
		n, _ := strconv.Atoi(f[1])
		fmt.Println("counted", n, counts[byte(n)].Load())
		fmt.Println("done", strings.Join(f, " "))
	})
	<-ctx.Done()
	return conn.Close()
}

// flows is how many ports a source sends from: a router which hashes on them
// spreads as many flows.
const flows = 256

// runSource sends numbered packets to an address at a pace until it is told that it is
// enough.
func runSource(ctx context.Context) error {
	var conns []*net.UDPConn
	enough := make(chan struct{})
	fmt.Println("ready")
	go eachLine(func(f []string) { // send ADDR RATE, and enough
		if f[0] == "enough" {
			close(enough)
			fmt.Println("done enough")
			return
		}
		to := netip.AddrPortFrom(netip.MustParseAddr(f[1]), flowPort)
		rate, _ := strconv.Atoi(f[2])
		for range flows {
			c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to))
			if err != nil {
				fmt.Println("error", err)
				return
			}
			conns = append(conns, c)
		}
		fmt.Println("done", strings.Join(f, " "))
		go func() {
			sent, failed := send(conns, rate, enough)
			fmt.Println("sent", sent, "failed", failed)
		}()
	})
	<-ctx.Done()
	return nil
}

// send keeps the pace as a whole; a stall is not made up for by a burst that
// queues between the namespaces could not hold.
func send(conns []*net.UDPConn, rate int, enough <-chan struct{}) (sent, failed int) {
	const burst = 20
	pause := time.Second * burst / time.Duration(rate)
	next := time.Now()
	for i := 0; ; i++ {
		if i%burst == 0 {
			select {
			case <-enough:
				return i - failed, failed
			case <-time.After(time.Until(next)):
			}
			if next = next.Add(pause); time.Since(next) > 5*pause {
				next = time.Now()
			}
		}
		if _, err := conns[i%len(conns)].Write([]byte("0123456789abcdef")); err != nil {
			failed++
		}
	}
}

// TestDrainLosesNothing drains, restarts and brings back one of two sites which
// share the load, under packets through a BIRD and an FRR: gshut, withdrawn,
// restart, announced. Each packet must arrive at either of the two.
func TestDrainLosesNothing(t *testing.T) {
	const rate = 10_000
	l := newLab(t)
	l.host("spa", 1)
	l.host("spb", 11)
	l.host("rb", 2)
	l.host("rf", 3)
	clients := map[string]int{"cb": 32, "cf": 33}
	for name, n := range clients {
		l.host(name, n)
		l.ip("-n", l.ns(name), "route", "add", net4, "via", addr4(n-30).String())
	}
	for _, r := range []string{"rb", "rf"} {
		l.sysctl(r, "ipv4/fib_multipath_hash_policy", "1")
		l.sysctl(r, "ipv4/conf/all/send_redirects", "0") // one link for all: the routers would send the clients past them
		l.sysctl(r, "ipv4/conf/e0/send_redirects", "0")
	}
	l.bird("rb", "router id 198.51.100.2;\n"+birdPeer("a", 2, 1, `password "secret";`)+birdPeer("b", 2, 11, `password "secret";`))
	l.frr("rf", twice(shippedFRR(t, "secret"), "neighbor 198.51.100.1 ", "neighbor 198.51.100.11 "))

	site := func(host string, n int, number uint16) *process {
		c := spConfig()
		c.Role, c.RouterID, c.Site, c.Slots, c.NextHop6 = "speaker", addr4(n), number, true, addr6(n)
		c.Prefixes = []placement.Prefix{{Prefix: anycast, Slots: 1, Prepend: 2, MED: 50, Witness: placement.WitnessOff}}
		c.VIPs = []netip.Addr{vip}
		return l.helper(host, c)
	}
	sinks := []*process{l.helper("spa", helperConfig{Role: "sink"}), l.helper("spb", helperConfig{Role: "sink"})}
	a, b := site("spa", 1, 1), site("spb", 11, 2)
	for _, p := range []*process{a, b} {
		p.expect(0, "ready")
		p.tell("announce")
	}
	both := func(r string) bool {
		return containsAll(l.routes(r, net4), []string{"via 198.51.100.1 ", "via 198.51.100.11 "})
	}
	until(t, "both next hops at both routers", func() bool { return both("rb") && both("rf") })

	sources := map[string]*process{}
	for name := range clients {
		sources[name] = l.helper(name, helperConfig{Role: "source"})
		sources[name].expect(0, "ready")
		sources[name].tell(fmt.Sprintf("send %s %d", vip, rate))
	}
	count := func(s *process, n int) (got int) {
		from := s.mark()
		s.tell("count " + strconv.Itoa(n))
		for _, line := range fibLines(s, from, "counted "+strconv.Itoa(n)+" ") {
			fmt.Sscanf(line, "counted %d %d", new(int), &got)
		}
		return got
	}
	until(t, "packets at both sites", func() bool {
		return count(sinks[0], 32) > 1000 && count(sinks[1], 32) > 1000 && count(sinks[0], 33) > 1000 && count(sinks[1], 33) > 1000
	})
	at := a.tell("withdrawn intent")
	a.expect(0, "event "+net4+" gshut withdrawn")
	until(t, "the address off lo", func() bool {
		return !strings.Contains(l.ip("-n", l.ns("spa"), "addr", "show", "lo"), vip.String())
	})
	a.signal(syscall.SIGTERM)
	<-a.done
	a = site("spa", 1, 1)
	a.expect(0, "ready")
	a.tell("announce")
	until(t, "both next hops again", func() bool { return both("rb") && both("rf") })
	back := time.Since(at)
	again := [2]int{count(sinks[0], 32), count(sinks[0], 33)}
	until(t, "packets at the site that is back", func() bool {
		return count(sinks[0], 32) > again[0]+1000 && count(sinks[0], 33) > again[1]+1000
	})
	for name, n := range clients {
		sources[name].tell("enough")
		sources[name].expect(0, "sent ")
		packets, total, failed := 0, 0, 0
		fmt.Sscanf(fibLines(sources[name], 0, "sent ")[0], "sent %d failed %d", &packets, &failed)
		// What is under way arrives at once; what was lost never comes.
		for end := time.Now().Add(10 * time.Second); total < packets && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			total = count(sinks[0], n) + count(sinks[1], n)
		}
		if failed > 0 {
			t.Errorf("%s could not send %d packets", name, failed)
		}
		t.Logf("through %s: %d of %d packets arrived, %d of them at the drained site", map[int]string{32: "BIRD", 33: "FRR"}[n], total, packets, count(sinks[0], n))
		if total != packets {
			t.Errorf("%d lost", packets-total)
		}
	}
	t.Logf("drained, restarted and back in %v", back)
}

// twice repeats each line which has a word, with another in its place.
func twice(text, word, other string) string {
	var out []string
	for line := range strings.Lines(text) {
		out = append(out, line)
		if strings.Contains(line, word) {
			out = append(out, strings.ReplaceAll(line, word, other))
		}
	}
	return strings.Join(out, "")
}

// sysctl sets a value of a host's network.
func (l *lab) sysctl(host, key, value string) {
	l.t.Helper()
	l.run("ip", "netns", "exec", l.ns(host), "sh", "-c", "echo "+value+" > /proc/sys/net/"+key)
}

// TestTwoUpstreams drops packets behind one of two routers while both sessions
// stay: the site is withdrawn there and nowhere else, once three looks were lost.
func TestTwoUpstreams(t *testing.T) {
	const far = "203.0.113.9"
	l := newLab(t)
	l.host("sp", 1, 11)
	l.host("far", 5)
	l.ip("-n", l.ns("far"), "addr", "add", far+"/32", "dev", "lo")
	for i, r := range []string{"ra", "rb"} {
		l.host(r, 2+i)
		l.sysctl(r, "ipv4/conf/all/send_redirects", "0")
		l.sysctl(r, "ipv4/conf/e0/send_redirects", "0")
		l.ip("-n", l.ns(r), "route", "add", far, "via", addr4(5).String())
		table := strconv.Itoa(101 + i)
		l.ip("-n", l.ns("sp"), "route", "add", "default", "via", addr4(2+i).String(), "table", table)
		l.ip("-n", l.ns("sp"), "rule", "add", "from", addr4(1+10*i).String(), "lookup", table)
	}
	router := func(host string, n, sp int) *process {
		return l.helper(host, helperConfig{Role: "engine", ASN: 64500 + uint32(n), RouterID: addr4(n),
			Peers: []Peer{{Address: addr4(sp), ASN: 64500, Passive: true}}})
	}
	ra, rb := router("ra", 2, 1), router("rb", 3, 11)
	c := spConfig()
	c.Role, c.Slots, c.VIPs = "speaker", true, []netip.Addr{vip}
	c.Prefixes = []placement.Prefix{{Prefix: anycast, Slots: 1, Prepend: 2, MED: 50}}
	target := []netip.AddrPort{netip.MustParseAddrPort(far + ":443")} // refused, which is an answer
	look := 700 * time.Millisecond                                    // more than thrice the default: three looks in a row must not be lost to a busy machine
	c.Peers = []Peer{
		{Address: addr4(2), Local: addr4(1), ASN: 64502, Probe: &Probe{Targets: target, Every: look, Act: placement.Withdrawn}},
		{Address: addr4(3), Local: addr4(11), ASN: 64503, Probe: &Probe{Targets: target, Every: look, Act: placement.Prepend}},
	}
	sp := l.helper("sp", c)
	sp.expect(0, "ready")
	sp.tell("announce")
	plain := net4 + " false [[64500 1 1]] false path=1 med=0"
	ra.expect(0, "learned 198.51.100.1 "+plain)
	rb.expect(0, "learned 198.51.100.11 "+plain)

	// What a router knows may be told it again.
	unmoved := func(r *process, from int, known string) {
		t.Helper()
		for _, line := range fibLines(r, from, "learned") {
			if !strings.Contains(line, known) {
				t.Errorf("%s was told %s", r.name, line)
			}
		}
	}
	drop := func(r string) time.Time {
		at := time.Now()
		l.ip("-n", l.ns(r), "route", "replace", "blackhole", far)
		return at
	}
	heal := func(r string) { l.ip("-n", l.ns(r), "route", "replace", far, "via", addr4(5).String()) }
	limit := promised(3*look + 1500*time.Millisecond) // three looks, and the noise of two shared cores
	bystander := rb.mark()
	from, at := ra.mark(), drop("ra")
	took := ra.expect(from, "learned 198.51.100.1 "+net4+" true").Sub(at)
	t.Logf("packets dropped behind a router to withdrawn there: %v", took)
	if took > limit {
		t.Errorf("took %v, want %v at most", took, limit)
	}
	from = ra.mark()
	heal("ra")
	ra.expect(from, "learned 198.51.100.1 "+plain)
	unmoved(rb, bystander, "198.51.100.11 "+plain)
	from, at = rb.mark(), drop("rb")
	took = rb.expect(from, "learned 198.51.100.11 "+net4+" false [[64500 1 1]] false path=4 med=0").Sub(at)
	t.Logf("packets dropped behind the other to prepended there: %v", took)
	bystander = ra.mark()
	drop("ra") // now both: the last one stays
	sp.expect(0, "rule=last-node", "198.51.100.2")
	unmoved(ra, bystander, "198.51.100.1 "+plain)
	for _, r := range []*process{ra, rb} {
		if down := fibLines(r, 0, "peer 198.51.100.1"); len(down) == 0 || !strings.Contains(down[len(down)-1], "established") {
			t.Errorf("a session went: %v", down)
		}
	}
}
