//go:build e2e

package vip

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"log/slog"

	"golang.org/x/sys/unix"
)

// The lab is a switch with three nodes, a client, and for each node a client that has
// the VIPs fixed at that node's hardware address, as one with a stale
// neighbour cache would: whichever node answers is heard.

const (
	echoPort    = 9000
	controlPort = 7946
	nodes       = 3
	// patience is how long an event is awaited that has to come.
	patience = 20 * time.Second
)

func vip4() netip.Addr { return netip.MustParseAddr("198.51.100.10") }
func vip6() netip.Addr { return netip.MustParseAddr("2001:db8:1::10") }

// TestMain is also the agent of a node, which the tests start as a process of its own
// in the node's namespace, since they stop and kill it.
func TestMain(m *testing.M) {
	if place := os.Getenv("RHUMB_VIP_MEMBER"); place != "" {
		if err := runMember(place); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func runMember(place string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	c := Config{Self: "n" + place, Device: "e0", Key: []byte("a key of the test"),
		Leases: []Lease{{Name: "web", Addrs: []netip.Addr{vip4(), vip6()}}},
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	for i := range nodes {
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(11 + i)}), controlPort)
		c.Members = append(c.Members, Member{Name: "n" + strconv.Itoa(i), Addrs: []netip.AddrPort{addr}})
	}
	a, err := New(c)
	if err != nil {
		return err
	}
	return a.Run(ctx)
}

// lab is the switch and what is plugged into it.
type lab struct {
	t      testing.TB
	prefix string
	nodes  [nodes]*node
	answers
}

// node is an edge of the site: a server that always runs, and an agent.
type node struct {
	name string
	mac  net.HardwareAddr
	cmd  *exec.Cmd
	out  *syncBuffer
}

// syncBuffer holds what an agent logs.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// newLab builds the segment with servers, starts the agents, and begins to ask.
func newLab(t testing.TB) *lab {
	t.Helper()
	l := newSegment(t)
	for i := range l.nodes {
		l.start(i)
	}
	l.ask(t)
	return l
}

// newSegment builds the segment with its servers.
func newSegment(t testing.TB) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces: run it as root")
	}
	l := &lab{t: t, prefix: fmt.Sprintf("vip%d-", os.Getpid())}
	l.answers.began = time.Now()
	l.namespace("s")
	l.in("s", "ip link add br0 type bridge mcast_snooping 0")
	l.in("s", "ip link set br0 up")
	for i := range l.nodes {
		name := "n" + strconv.Itoa(i)
		l.plug(name, 11+i)
		l.nodes[i] = &node{name: name, out: &syncBuffer{}, mac: l.mac(name)}
		l.serve(i)
	}
	l.plug("c", 50)
	for i, n := range l.nodes {
		direct := "d" + strconv.Itoa(i)
		l.plug(direct, 61+i)
		l.in(direct, fmt.Sprintf("ip neigh add %s lladdr %s dev e0 nud permanent", vip4(), n.mac))
		l.in(direct, fmt.Sprintf("ip neigh add %s lladdr %s dev e0 nud permanent", vip6(), n.mac))
	}
	return l
}

// namespace makes one that ends with the test.
func (l *lab) namespace(name string) {
	l.t.Helper()
	l.ip("netns", "add", l.prefix+name)
	l.t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", l.prefix+name).Run() })
	l.in(name, "ip link set lo up")
}

// plug joins a new host to the switch.
func (l *lab) plug(name string, last int) {
	l.t.Helper()
	l.namespace(name)
	l.in("s", fmt.Sprintf("ip link add p-%s type veth peer name e0 netns %s%s", name, l.prefix, name))
	l.in("s", fmt.Sprintf("ip link set p-%s master br0 up", name))
	l.in(name, "sysctl -qw net.ipv6.conf.e0.accept_dad=0")
	l.in(name, fmt.Sprintf("ip addr add 198.51.100.%d/24 dev e0", last))
	l.in(name, fmt.Sprintf("ip addr add 2001:db8:1::%d/64 dev e0 nodad", last))
	l.in(name, "ip link set e0 up")
}

func (l *lab) ip(args ...string) string {
	l.t.Helper()
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		l.t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// in runs a command line (split at blanks) inside a namespace.
func (l *lab) in(name, line string) string {
	l.t.Helper()
	return l.ip(append([]string{"netns", "exec", l.prefix + name}, strings.Fields(line)...)...)
}

func (l *lab) mac(name string) net.HardwareAddr {
	l.t.Helper()
	mac, err := net.ParseMAC(strings.TrimSpace(l.in(name, "cat /sys/class/net/e0/address")))
	if err != nil {
		l.t.Fatal(err)
	}
	return mac
}

// do runs f on a thread of a namespace. Sockets and processes made in f stay there.
func (l *lab) do(name string, f func() error) {
	l.t.Helper()
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine, so no other
		// goroutine wakes up in a foreign namespace.
		runtime.LockOSThread()
		ns, err := os.Open("/run/netns/" + l.prefix + name)
		if err == nil {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
			_ = ns.Close()
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		l.t.Fatalf("in %s: %v", name, err)
	}
}

// serve answers what is asked at the VIPs, with this node's number. It is no part of the
// agent's process: it goes on when that is stopped.
func (l *lab) serve(i int) {
	l.t.Helper()
	for _, vip := range []netip.Addr{vip4(), vip6()} {
		var conn net.PacketConn
		l.do("n"+strconv.Itoa(i), func() (err error) {
			conn, err = free().ListenPacket(context.Background(), "udp", netip.AddrPortFrom(vip, echoPort).String())
			return err
		})
		var done sync.WaitGroup
		done.Go(func() {
			buf := make([]byte, 100)
			for {
				n, from, err := conn.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = conn.WriteTo(append(buf[:n:n], byte(i)), from) // refused by the fence
			}
		})
		l.t.Cleanup(func() { _ = conn.Close(); done.Wait() })
	}
}

// free lets a socket be bound to an address that is not there, or not yet.
func free() *net.ListenConfig {
	return &net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if e := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
			_ = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1) // no socket of IPv6
		}); e != nil {
			return e
		}
		return err
	}}
}

// start runs a node's agent.
func (l *lab) start(i int) {
	l.t.Helper()
	n := l.nodes[i]
	cmd := exec.Command("/proc/self/exe", "-test.run=^$")
	cmd.Env = append(os.Environ(), "RHUMB_VIP_MEMBER="+strconv.Itoa(i))
	cmd.Stdout, cmd.Stderr = n.out, n.out
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	l.do(n.name, cmd.Start)
	n.cmd = cmd
	l.t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
}

// kill ends a node's agent without a word.
func (l *lab) kill(i int) {
	l.t.Helper()
	l.signal(i, syscall.SIGKILL)
	_ = l.nodes[i].cmd.Wait()
}

func (l *lab) signal(i int, s syscall.Signal) {
	l.t.Helper()
	if err := l.nodes[i].cmd.Process.Signal(s); err != nil {
		l.t.Fatalf("signal %s to n%d: %v", s, i, err)
	}
}

// logs are the last lines of all agents.
func (l *lab) logs() string {
	var out strings.Builder
	for _, n := range l.nodes {
		lines := strings.Split(strings.TrimSpace(n.out.String()), "\n")
		fmt.Fprintf(&out, "%s:\n  %s\n", n.name, strings.Join(lines[max(0, len(lines)-14):], "\n  "))
	}
	return out.String()
}
