//go:build e2e

package forward

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestHostFirewall has both sites drop what conntrack calls invalid, as many
// hosts do, before and behind routing.
func TestHostFirewall(t *testing.T) {
	families(t, func(t *testing.T, vip string) {
		l := newLab(t)
		fw := "table inet fw { chain pre { type filter hook prerouting priority -150; ct state invalid drop; }; chain in { type filter hook input priority 0; ct state invalid drop; }; chain out { type filter hook output priority 0; ct state invalid drop; }; }"
		for _, s := range []*site{l.a, l.b} {
			if out, err := s.run("nft", fw); err != nil {
				t.Fatalf("nft: %v %s", err, out)
			}
		}
		l.startAgents(t, true)
		conn, err := l.client.dial(netip.AddrPortFrom(netip.MustParseAddr(vip), 80))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for _, s := range []*site{l.a, l.b, l.a, l.b} {
			l.routeTo(t, s)
			if got := get(t, conn, "/site"); got != "a" {
				t.Fatalf("with the route at %s served by %q, want a", s.letter, got)
			}
		}
	})
}

// TestThousandSessions drains a thousand idle sessions that nobody announced:
// each owner is asked for, and no session is lost.
func TestThousandSessions(t *testing.T) {
	l := newLab(t)
	l.startAgents(t, true)
	conns := make([]net.Conn, 1000)
	for i := range conns {
		conn, err := l.client.dial(vips()[i%2])
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns[i] = conn
	}
	l.routeTo(t, l.b)
	var all sync.WaitGroup
	for _, conn := range conns {
		all.Go(func() {
			for range 2 {
				if got := get(t, conn, "/site"); got != "a" {
					t.Errorf("%v served by %q, want a", conn.LocalAddr(), got)
				}
			}
		})
	}
	all.Wait()
	s := l.b.agent.tell(t, "stats")
	if len(s.Flows) != len(conns) {
		t.Errorf("%d flows are forwarded, want %d", len(s.Flows), len(conns))
	}
	t.Log(s.Metrics)
}

// TestRulesetFlushed has an administrator reload the host's firewall, which
// flushes everybody's rules: ours come back.
func TestRulesetFlushed(t *testing.T) {
	l := newLab(t)
	l.startAgents(t, true)
	if out, err := l.b.run("nft", "flush ruleset"); err != nil {
		t.Fatalf("nft: %v %s", err, out)
	}
	l.await(t, func() bool {
		out, _ := l.b.run("nft", "list tables")
		return strings.Count(out, tableName) == 2
	}, "the rules are back")
	for _, vip := range vips() {
		l.routeTo(t, l.a)
		conn, err := l.client.dial(vip)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		l.routeTo(t, l.b)
		if got := get(t, conn, "/site"); got != "a" {
			t.Errorf("%s: served by %q, want a", vip, got)
		}
	}
}

// TestFrozenAgent stops a forwarder without killing it: the kernel takes over
// as with a dead one, and when it goes on it forwards again.
func TestFrozenAgent(t *testing.T) {
	families(t, func(t *testing.T, vip string) {
		l := newLab(t)
		l.startAgents(t, true)
		at := netip.AddrPortFrom(netip.MustParseAddr(vip), 80)
		var conns []net.Conn
		for range 2 {
			conn, err := l.client.dial(at)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conns = append(conns, conn)
		}
		l.routeTo(t, l.b)
		if err := l.b.agent.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		stat := fmt.Sprintf("/proc/%d/stat", l.b.agent.cmd.Process.Pid)
		l.await(t, func() bool {
			b, err := os.ReadFile(stat)
			return err == nil && strings.Contains(string(b), ") T ")
		}, "the forwarder stands still")
		_, _ = io.WriteString(conns[0], "GET /site HTTP/1.1\r\nHost: x\r\n\r\n")
		_ = conns[0].SetDeadline(time.Now().Add(patience))
		if _, err := conns[0].Read(make([]byte, 100)); !isReset(err) {
			t.Errorf("a stray beside a frozen forwarder: %v, want a reset", err)
		}
		if err := l.b.agent.cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		l.await(t, func() bool {
			out, _ := l.b.run("nft", "list set "+map[bool]string{true: "ip", false: "ip6"}[vip == vip4]+" "+tableName+" act")
			return strings.Contains(out, "elements")
		}, "the VIPs are renewed")
		if got := get(t, conns[1], "/site"); got != "a" {
			t.Errorf("after the freeze served by %q, want a", got)
		}
	})
}
