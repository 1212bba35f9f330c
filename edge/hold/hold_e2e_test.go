//go:build e2e

package hold

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// alone moves the test's thread into a network namespace of its own. The thread is
// not given back: it ends with the test.
func alone(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces: run it as root")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// acked is how much of what a connection sent its peer has not acknowledged.
func unacked(t *testing.T, c net.Conn) int {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); err != nil {
		t.Fatal(err)
	}
	return n
}

func await(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s", what)
		}
	}
}

// rcvNxt is the next sequence number that a connection expects.
func rcvNxt(t *testing.T, c *net.TCPConn) (seq uint32) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		s := int(fd)
		unix.SetsockoptInt(s, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1)
		unix.SetsockoptInt(s, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, 1)
		v, _ := unix.GetsockoptInt(s, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
		unix.SetsockoptInt(s, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, 0)
		unix.SetsockoptInt(s, unix.IPPROTO_TCP, unix.TCP_REPAIR, -1)
		seq = uint32(v)
	})
	return seq
}

// TestHold: what a connection receives is not acknowledged before that is allowed,
// from its first octet on, in both families.
func TestHold(t *testing.T) {
	for _, addr := range []string{"127.0.0.1", "::1"} {
		t.Run(addr, func(t *testing.T) {
			alone(t)
			at := netip.AddrPortFrom(netip.MustParseAddr(addr), 8080)
			var waited atomic.Int64
			h, err := Open(slog.New(slog.NewTextHandler(os.Stderr, nil)), func(time.Duration) { waited.Add(1) })
			if err != nil {
				t.Fatal(err)
			}
			if err := h.Watch([]netip.AddrPort{at}); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			go func() { ended <- h.Run(ctx) }()
			lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return Apply(c) }}
			lc.SetMultipathTCP(false)
			ln, err := lc.Listen(ctx, "tcp", at.String())
			if err != nil {
				t.Fatal(err)
			}
			c, err := net.Dial("tcp", at.String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := io.WriteString(c, "0123456789"); err != nil {
				t.Fatal(err)
			}
			s, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			io.ReadFull(s, make([]byte, 10))
			await(t, "segment that waits", func() bool { return h.Counts().Held > 0 })
			if n := unacked(t, c); n != 10 {
				t.Fatalf("%d octets are not acknowledged, want all 10: nobody has entered the connection", n)
			}
			flow := Flow{Local: at, Peer: c.LocalAddr().(*net.TCPAddr).AddrPort()}
			end := rcvNxt(t, s.(*net.TCPConn))
			h.Enter(flow, end-10)
			h.Allow(flow, end-4)
			if n := unacked(t, c); n != 10 {
				t.Errorf("%d octets are not acknowledged, want 10: the only acknowledgement is of all", n)
			}
			h.Allow(flow, end)
			await(t, "acknowledgement", func() bool { return unacked(t, c) == 0 })
			if _, err := io.WriteString(c, "more"); err != nil {
				t.Fatal(err)
			}
			io.ReadFull(s, make([]byte, 4))
			await(t, "segment that waits", func() bool { return h.Counts().Held > 1 || unacked(t, c) == 0 })
			if n := unacked(t, c); n != 4 {
				t.Errorf("%d octets are not acknowledged, want the 4 that nobody has allowed", n)
			}
			raw, err := s.(*net.TCPConn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			if err := Exempt(raw); err != nil {
				t.Fatal(err)
			}
			h.Leave(flow)
			await(t, "acknowledgement of a connection that is not held any more", func() bool { return unacked(t, c) == 0 })
			if waited.Load() < 2 {
				t.Errorf("%d segments were told of that waited and left, want those of two waits", waited.Load())
			}
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if out, err := exec.Command("nft", "list", "table", "inet", tableName).CombinedOutput(); err == nil {
				t.Errorf("the rules are there after the end:\n%s", out)
			}
		})
	}
}
