//go:build e2e

package forward

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// families runs a test for both VIPs, side by side: each has a lab of its own
// and waits most of the time.
func families(t *testing.T, test func(t *testing.T, vip string)) {
	for _, vip := range []string{vip4, vip6} {
		t.Run(vip, func(t *testing.T) {
			t.Parallel()
			test(t, vip)
		})
	}
}

// TestDrainForwarded leaves the route at B: eight downloads, and an upload
// over a connection that was idle, end as if nothing had been.
func TestDrainForwarded(t *testing.T) {
	families(t, func(t *testing.T, vip string) {
		l := newLabWith(t, smallSize)
		l.startAgents(t, true)
		idle, err := l.client.dial(netip.AddrPortFrom(netip.MustParseAddr(vip), 80))
		if err != nil {
			t.Fatal(err)
		}
		defer idle.Close()
		if mss := sendMSS(t, idle); mss > clampMSS {
			t.Errorf("the client sends segments of %d octets, want at most %d", mss, clampMSS)
		}
		var downloads []*gate
		for range 8 {
			downloads = append(downloads, l.startDownload(t, vip, l.size/4))
		}
		for _, d := range downloads {
			d.reached(t, l.size/10)
		}
		key := netip.AddrPortFrom(netip.MustParseAddr(vip), 80).String()
		l.await(t, func() bool { return l.a.agent.tell(t, "stats").Owned[key] == 9 }, "A owns 9 sessions before the drain")
		// The first stray may be there before any word that was sent at the
		// same moment, so the route moves when B knows.
		l.await(t, func() bool {
			if n := l.a.agent.tell(t, "announce").Foreign; n != 9 {
				t.Errorf("A announced %d sessions, want 9", n)
			}
			return l.b.agent.tell(t, "stats").Known == 9
		}, "B knows A's 9 sessions")
		l.routeTo(t, l.b)
		if got := get(t, idle, "/site"); got != "a" {
			t.Errorf("the idle session is served by %q, want a", got)
		}
		for _, d := range downloads {
			d.open(l.size)
		}
		for _, d := range downloads {
			if err := d.wait(); err != nil {
				t.Error(err)
			}
		}
		s := l.b.agent.tell(t, "stats")
		if s.Metrics["strays_total announced"] < 9 || s.Metrics["strays_total group"]+s.Metrics["strays_total pair"] > 0 {
			t.Errorf("after the announcement owners were still searched: %v", s.Metrics)
		}
		fresh, err := l.client.dial(netip.AddrPortFrom(netip.MustParseAddr(vip), 80))
		if err != nil {
			t.Fatal(err)
		}
		defer fresh.Close()
		if got := get(t, fresh, "/site"); got != "b" {
			t.Errorf("a new session is served by %q, want b", got)
		}
		if s.Foreign == 0 || len(s.Flows) == 0 {
			t.Errorf("B told of %d foreign flows and lists %d: %v", s.Foreign, len(s.Flows), s.Metrics)
		}
		idle.Close()
		l.await(t, func() bool { return l.a.agent.tell(t, "stats").Owned[key] == 0 }, "A may go")
	})
}

// sendMSS is the size of segments which the kernel sends on a connection.
func sendMSS(t *testing.T, conn net.Conn) int {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var info *unix.TCPInfo
	if e := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.SOL_TCP, unix.TCP_INFO) }); e != nil || err != nil {
		t.Fatal(e, err)
	}
	return int(info.Snd_mss)
}

// TestStopRemovesAll ends a forwarder in good order.
func TestStopRemovesAll(t *testing.T) {
	l := newLab(t)
	l.startAgents(t, true)
	var listed string
	list := func(want func() bool) func() bool {
		return func() bool {
			// nft gives up when the rules change while it reads them, as they
			// do with each renewal.
			tables, err1 := l.a.run("nft", "list", "tables")
			links, err2 := l.a.run("ip", "-o", "link")
			listed = fmt.Sprintf("nft: %s (%v)\nip: %s (%v)", tables, err1, links, err2)
			return err1 == nil && err2 == nil && want()
		}
	}
	if !l.poll(list(func() bool {
		return strings.Count(listed, tableName) == 2 && strings.Contains(listed, straysDevice) && strings.Contains(listed, giveBackDevice)
	})) {
		t.Fatalf("while it runs, tables and devices are missing:\n%s", listed)
	}
	if err := l.a.agent.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := l.a.agent.cmd.Wait(); err != nil {
		t.Errorf("the forwarder ends with %v", err)
	}
	if !l.poll(list(func() bool { return !strings.Contains(listed, "rhumb") })) {
		t.Errorf("left behind:\n%s", listed)
	}
}

// await waits for something that other processes do.
func (l *lab) await(t *testing.T, until func() bool, what string) {
	t.Helper()
	if l.poll(until) {
		return
	}
	for _, s := range []*site{l.a, l.b} {
		if s.agent != nil && s.agent.cmd.ProcessState == nil {
			t.Logf("%s: %+v", s.letter, s.agent.tell(t, "stats"))
		}
	}
	t.Fatalf("waited %v in vain: %s", patience, what)
}

// poll looks again and again whether something is so.
func (l *lab) poll(until func() bool) bool {
	for deadline := time.Now().Add(patience); !until(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// TestNobodyIsReset sends strays that no site owns: the kernel answers, as it
// does without us.
func TestNobodyIsReset(t *testing.T) {
	families(t, func(t *testing.T, vip string) {
		l := newLab(t)
		l.startAgents(t, true)
		conn, err := l.client.dial(netip.AddrPortFrom(netip.MustParseAddr(vip), 80))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if got := get(t, conn, "/site"); got != "a" {
			t.Fatalf("served by %q, want a", got)
		}
		l.killSessions(t, l.a, vip)
		start := time.Now()
		_, _ = io.WriteString(conn, "GET /site HTTP/1.1\r\nHost: x\r\n\r\n")
		_ = conn.SetDeadline(time.Now().Add(patience))
		_, err = conn.Read(make([]byte, 100))
		if !isReset(err) {
			t.Fatalf("a session that no site has: %v after %v, want a reset", err, time.Since(start))
		}
		s := l.a.agent.tell(t, "stats")
		t.Logf("reset after %v; %v", time.Since(start), s.Metrics)
		if s.Metrics["strays_total nobody"] == 0 {
			t.Error("the reset didn't come by way of the forwarder")
		}
	})
}

func isReset(err error) bool {
	return err != nil && strings.Contains(err.Error(), syscall.ECONNRESET.Error())
}

// killSessions makes a site forget its sessions without a word to the client:
// what it sends is lost while its sockets are destroyed.
func (l *lab) killSessions(t *testing.T, s *site, vip string) {
	t.Helper()
	l.cut(t, s, true)
	src := vip
	if strings.Contains(vip, ":") {
		src = "[" + vip + "]"
	}
	out, err := s.run("ss", "-K", "-t", "src", src)
	if err != nil {
		t.Fatalf("destroy sockets: %v %s", err, out)
	}
	l.cut(t, s, false)
}

// cut drops everything the site sends to clients, or no more.
func (l *lab) cut(t *testing.T, s *site, on bool) {
	t.Helper()
	rules := "delete table inet cut"
	if on {
		rules = "table inet cut { chain out { type filter hook output priority 0; tcp flags rst drop; tcp flags fin drop; }; }"
	}
	if out, err := s.run("nft", rules); err != nil {
		t.Fatalf("nft: %v %s", err, out)
	}
}

// TestKilledAgentLeavesKernel kills the forwarder with SIGKILL: its rules end
// with their elements, and the kernel resets strays and serves new sessions.
func TestKilledAgentLeavesKernel(t *testing.T) {
	families(t, func(t *testing.T, vip string) {
		l := newLab(t)
		l.startAgents(t, true)
		at := netip.AddrPortFrom(netip.MustParseAddr(vip), 80)
		conn, err := l.client.dial(at)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		l.routeTo(t, l.b)
		if got := get(t, conn, "/site"); got != "a" {
			t.Fatalf("forwarded to %q, want a", got)
		}
		killed := time.Now()
		if err := l.b.agent.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = l.b.agent.cmd.Wait()
		fresh, err := l.client.dial(at)
		if err != nil {
			t.Fatal(err)
		}
		defer fresh.Close()
		if got := get(t, fresh, "/site"); got != "b" {
			t.Errorf("a new session beside a dead forwarder is served by %q, want b", got)
		}
		_, _ = io.WriteString(conn, "GET /site HTTP/1.1\r\nHost: x\r\n\r\n")
		// The elements end after 2 s; then it takes the client's next repetition.
		_ = conn.SetDeadline(time.Now().Add(patience))
		if _, err := conn.Read(make([]byte, 100)); !isReset(err) {
			t.Fatalf("a stray beside a dead forwarder: %v after %v, want a reset", err, time.Since(killed))
		}
		t.Logf("reset %v after the kill", time.Since(killed))
		l.b.agent = l.startAgent(t, l.b, l.a, true) // takes over what the dead one left
	})
}

// TestObserveNamesOwner counts and names, and lets the kernel reset.
func TestObserveNamesOwner(t *testing.T) {
	families(t, func(t *testing.T, vip string) {
		l := newLab(t)
		l.startAgents(t, false)
		conn, err := l.client.dial(netip.AddrPortFrom(netip.MustParseAddr(vip), 80))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if got := get(t, conn, "/site"); got != "a" {
			t.Fatalf("served by %q, want a", got)
		}
		l.routeTo(t, l.b)
		_, _ = io.WriteString(conn, "GET /site HTTP/1.1\r\nHost: x\r\n\r\n")
		_ = conn.SetDeadline(time.Now().Add(patience))
		if _, err := conn.Read(make([]byte, 100)); !isReset(err) {
			t.Fatalf("observed stray: %v, want a reset", err)
		}
		l.await(t, func() bool { return len(l.b.agent.tell(t, "stats").Flows) == 1 }, "B names the owner")
		s := l.b.agent.tell(t, "stats")
		if f := s.Flows[0]; f.Owner != "a" || !f.Observed {
			t.Errorf("flow %+v, want observed, of a", f)
		}
		if s.Metrics["strays_total observed"] == 0 || s.Metrics["forwarded_packets_total a"] != 0 {
			t.Errorf("metrics %v", s.Metrics)
		}
	})
}

// TestSYNCookies: with cookies for every SYN no handshake's last packet has a
// socket. It must not be kept from the kernel; and once the forwarder has seen
// that cookies are in use, nobody is asked about it.
func TestSYNCookies(t *testing.T) {
	families(t, func(t *testing.T, vip string) {
		l := newLab(t)
		l.a.sysctl(t, "ipv4/tcp_syncookies", "2")
		l.startAgents(t, true)
		nobody := func() float64 { return l.a.agent.tell(t, "stats").Metrics["strays_total nobody"] }
		l.connectMany(t, vip, 20)
		if nobody() == 0 {
			t.Error("before cookies were noticed nobody was asked: the test proves nothing")
		}
		// A machine that stands still for seconds lets the rules' elements end.
		if !l.poll(func() bool {
			before := nobody()
			l.connectMany(t, vip, 20)
			return nobody() == before
		}) {
			t.Errorf("others are still asked about handshakes: %v", l.a.agent.tell(t, "stats").Metrics)
		}
		if n := l.a.counter(t, "netstat", "TcpExt", "SyncookiesRecv"); n < 40 {
			t.Errorf("%d cookies came back: the test proves nothing", n)
		}
	})
}

// connectMany opens connections at A and makes a request on each.
func (l *lab) connectMany(t *testing.T, vip string, n int) {
	t.Helper()
	var all sync.WaitGroup
	for range n {
		conn, err := l.client.dial(netip.AddrPortFrom(netip.MustParseAddr(vip), 80))
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			defer conn.Close()
			if got := get(t, conn, "/site"); got != "a" {
				t.Errorf("served by %q, want a", got)
			}
		})
	}
	all.Wait()
}

// TestHalfOpenIsOwned moves the route between the SYN and the last packet of
// the handshake: the exact inet_diag request finds half-open connections too.
func TestHalfOpenIsOwned(t *testing.T) {
	families(t, func(t *testing.T, vip string) {
		l := newLab(t)
		l.startAgents(t, true)
		// The first SYN-ACK is lost on the way; the second finds the
		// route at B.
		nft := "table inet once { chain out { type filter hook output priority 0; tcp flags & (syn|ack) == (syn|ack) drop; }; }"
		if out, err := l.a.run("nft", nft); err != nil {
			t.Fatalf("nft: %v %s", err, out)
		}
		done := make(chan error, 1)
		go func() {
			conn, err := l.client.dial(netip.AddrPortFrom(netip.MustParseAddr(vip), 80))
			if err == nil {
				defer conn.Close()
				if got := get(t, conn, "/site"); got != "a" {
					t.Errorf("served by %q, want a", got)
				}
			}
			done <- err
		}()
		l.await(t, func() bool {
			out, _ := l.a.run("ss", "-tnH", "state", "syn-recv")
			return strings.Contains(out, vip)
		}, "A has a half-open connection")
		// The client's own SYN, which it repeats, is not to reach B at all.
		if out, err := l.b.run("nft", "table inet nosyn { chain in { type filter hook prerouting priority -400; tcp flags & (syn|ack) == syn drop; }; }"); err != nil {
			t.Fatalf("nft: %v %s", err, out)
		}
		l.routeTo(t, l.b)
		if out, err := l.a.run("nft", "delete table inet once"); err != nil {
			t.Fatalf("nft: %v %s", err, out)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if s := l.b.agent.tell(t, "stats"); s.Metrics["forwarded_packets_total a"] == 0 {
			t.Error("nothing was forwarded: the test proves nothing")
		}
	})
}
