package health

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rhumb/placement"
)

func tcpCheck(send, expect string) placement.Check {
	return placement.Check{TCP: &placement.TCPCheck{Send: send, Expect: expect}}
}

// serveTCP does the same to each connection until the test ends, and closes it.
func serveTCP(t *testing.T, act func(*net.TCPConn)) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			act(c.(*net.TCPConn))
			c.Close()
		}
	}()
	return l.Addr().String()
}

// TestResetBehindHandshake: a peer that takes connections only to drop them fails.
func TestResetBehindHandshake(t *testing.T) {
	addr := serveTCP(t, func(c *net.TCPConn) { c.SetLinger(0) })
	r := ProbeTCP(within(t, 20*time.Second), target(addr, tcpCheck("", "")))
	if r.OK() || r.Kind != "reset" || r.Cause == "" {
		t.Errorf("%+v", r)
	}
}

// TestBacklogTrap: the kernel shakes hands for a process that never accepts. A
// handshake is all that a check without expect sees, so it passes; one that
// expects a word does not. When the backlog is full, both fail.
func TestBacklogTrap(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 1)); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(sa.(*unix.SockaddrInet4).Port)).String()
	if r := ProbeTCP(within(t, 20*time.Second), target(addr, tcpCheck("", ""))); !r.OK() {
		t.Errorf("a handshake with a dead process: %+v; does the kernel no longer shake hands for it?", r)
	}
	if r := ProbeTCP(within(t, 300*time.Millisecond), target(addr, tcpCheck("PING\r\n", "PONG"))); r.Kind != "timeout" || r.State != placement.Down {
		t.Errorf("a dead process answers: %+v", r)
	}
	var held []net.Conn
	defer func() {
		for _, c := range held {
			c.Close()
		}
	}()
	// The backlog takes one more than it is given, and the two above wait in it. That one
	// who came late for his own reasons was not let in says nothing; the next is not either.
	for late := 0; late < 2 && len(held) < 8; {
		c, err := net.DialTimeout("tcp", addr, 200*time.Millisecond)
		if err != nil {
			late++
			continue
		}
		held = append(held, c)
	}
	if r := ProbeTCP(within(t, 300*time.Millisecond), target(addr, tcpCheck("", ""))); r.Kind != "timeout" {
		t.Errorf("a full backlog: %+v", r)
	}
}

// TestProbeLeavesInOrder: the server sees an end and no reset, also when it said
// more than anybody wanted to read.
func TestProbeLeavesInOrder(t *testing.T) {
	for _, c := range []struct{ say, want string }{{"", ""}, {"220 hello\r\n", ""}, {"220 " + strings.Repeat("x", 20000), "220"}, {strings.Repeat("y", 9000), ""}} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		end := make(chan error, 1)
		go func() {
			conn, err := l.Accept()
			if err != nil {
				end <- err
				return
			}
			defer conn.Close()
			io.WriteString(conn, c.say)
			_, err = io.Copy(io.Discard, conn)
			end <- err
		}()
		r := ProbeTCP(within(t, 20*time.Second), target(l.Addr().String(), tcpCheck("", c.want)))
		if !r.OK() || r.Connect <= 0 || r.Took < r.Connect {
			t.Errorf("%+v", r)
		}
		if err := <-end; err != nil {
			t.Errorf("a server that said %d bytes saw %v, want an end", len(c.say), err)
		}
		l.Close()
	}
}

// TestTCPEnds: what a server does after the expected word.
func TestTCPEnds(t *testing.T) {
	for _, c := range []struct {
		name string
		act  func(*net.TCPConn)
		kind string
	}{
		{"end", func(c *net.TCPConn) { io.WriteString(c, "220 ok"); c.Close() }, "ok"},
		{"silence", func(c *net.TCPConn) {
			io.WriteString(c, "220 ok")
			io.Copy(io.Discard, c)
			time.Sleep(50 * time.Millisecond)
			c.Close()
		}, "ok"},
		{"reset", func(c *net.TCPConn) { io.WriteString(c, "220 ok"); io.Copy(io.Discard, c); c.SetLinger(0); c.Close() }, "reset"},
		{"reset before", func(c *net.TCPConn) { c.SetLinger(0); c.Close() }, "reset"},
		{"another word", func(c *net.TCPConn) {
			io.WriteString(c, strings.Repeat("554 no ", 1000))
			io.Copy(io.Discard, c)
			c.Close()
		}, "body"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			defer func() { l.Close(); <-done }()
			go func() {
				defer close(done)
				if conn, err := l.Accept(); err == nil {
					c.act(conn.(*net.TCPConn))
				}
			}()
			if r := ProbeTCP(within(t, 20*time.Second), target(l.Addr().String(), tcpCheck("", "220"))); r.Kind != c.kind || r.OK() != (c.kind == "ok") {
				t.Errorf("%+v, want %s", r, c.kind)
			}
		})
	}
}

// TestInvertedPort: a port which must be closed.
func TestInvertedPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tg := target(l.Addr().String(), placement.Check{TCP: &placement.TCPCheck{}, Invert: true, Timeout: placement.Duration(10 * time.Second)})
	s := newScheduler(t.Context(), nil, 1, proberOf(""))
	if r, _ := s.look(t.Context(), ProbeTCP, tg); r.State != placement.Down || r.Cause == "" {
		t.Errorf("an open port: %+v", r)
	}
	l.Close()
	if r, _ := s.look(t.Context(), ProbeTCP, tg); r.State != placement.Up {
		t.Errorf("a closed port: %+v", r)
	}
	if r := inverted(blind("own", "no sockets")); r.State != placement.Unknown {
		t.Errorf("what nobody saw: %+v", r)
	}
}
