//go:build e2e

package tcprepair

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// world is a client, a router, and two servers with one address (and one
// IPv6 address) on both their loopbacks.
type world struct {
	t      testing.TB
	prefix string
}

const (
	vip4 = "192.0.2.10"
	vip6 = "2001:db8:100::10"
	port = 8080
)

// newWorld builds the namespaces and has the router send the VIP to a.
func newWorld(t testing.TB) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces: run it as root")
	}
	w := &world{t: t, prefix: fmt.Sprintf("tr%d-", os.Getpid())}
	for _, n := range []string{"c", "r", "a", "b"} {
		w.ip("netns", "add", w.prefix+n)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", w.prefix+n).Run() })
		w.in(n, "ip link set lo up")
	}
	for i, n := range []string{"c", "a", "b"} {
		w.in("r", fmt.Sprintf("ip link add %s0 type veth peer name e0 netns %s%s", n, w.prefix, n))
		w.in("r", fmt.Sprintf("sysctl -qw net.ipv6.conf.%s0.accept_dad=0", n))
		w.in(n, "sysctl -qw net.ipv6.conf.e0.accept_dad=0")
		w.in("r", fmt.Sprintf("ip addr add 198.51.100.%d/30 dev %s0", i*4+1, n))
		w.in("r", fmt.Sprintf("ip addr add 2001:db8:%d::1/64 dev %s0 nodad", i+1, n))
		w.in("r", "ip link set "+n+"0 up")
		w.in(n, fmt.Sprintf("ip addr add 198.51.100.%d/30 dev e0", i*4+2))
		w.in(n, fmt.Sprintf("ip addr add 2001:db8:%d::2/64 dev e0 nodad", i+1))
		w.in(n, "ip link set e0 up")
		w.in(n, fmt.Sprintf("ip route add default via 198.51.100.%d", i*4+1))
		w.in(n, fmt.Sprintf("ip -6 route add default via 2001:db8:%d::1", i+1))
	}
	w.in("r", "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
	for _, n := range []string{"a", "b"} {
		w.in(n, "ip addr add "+vip4+"/32 dev lo")
		w.in(n, "ip addr add "+vip6+"/128 dev lo nodad")
	}
	for _, n := range []string{"a", "b"} {
		w.hold(n)
	}
	w.route("a")
	return w
}

// hold drops a server's packets of connections that it does not have. Its
// kernel would answer them with a reset while a connection is nowhere.
func (w *world) hold(n string) {
	w.t.Helper()
	c := exec.Command("ip", "netns", "exec", w.prefix+n, "nft", "-f", "-")
	c.Stdin = strings.NewReader(`table inet t {
		chain in { type filter hook prerouting priority -310; tcp dport 8080 goto known; }
		chain known { tcp flags & (syn|ack|rst|fin) == syn accept; socket wildcard 0 accept; socket wildcard 1 drop; }
	}`)
	if out, err := c.CombinedOutput(); err != nil {
		w.t.Fatalf("nft: %v: %s", err, out)
	}
}

// route points the VIP at a or b, for every packet from now on.
func (w *world) route(to string) {
	i := map[string]int{"a": 1, "b": 2}[to]
	w.in("r", fmt.Sprintf("ip route replace %s/32 via 198.51.100.%d", vip4, i*4+2))
	w.in("r", fmt.Sprintf("ip -6 route replace %s/128 via 2001:db8:%d::2", vip6, i+1))
}

func (w *world) ip(args ...string) {
	w.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		w.t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// in runs a command line (split at blanks) inside namespace n.
func (w *world) in(n, line string) {
	w.t.Helper()
	w.ip(append([]string{"netns", "exec", w.prefix + n}, strings.Fields(line)...)...)
}

// do runs f on a thread of namespace n. Sockets made in f stay there.
func (w *world) do(n string, f func()) {
	w.t.Helper()
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine, so no other
		// goroutine wakes up in a foreign namespace.
		runtime.LockOSThread()
		ns, err := os.Open("/run/netns/" + w.prefix + n)
		if err == nil {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
			ns.Close()
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		w.t.Fatalf("enter namespace %s: %v", n, err)
	}
}

// listen opens the wildcard listener of a server.
func (w *world) listen(n, network string) net.Listener {
	w.t.Helper()
	var l net.Listener
	var err error
	w.do(n, func() {
		lc := net.ListenConfig{KeepAlive: -1}
		lc.SetMultipathTCP(false)
		l, err = lc.Listen(context.Background(), network, fmt.Sprintf(":%d", port))
	})
	if err != nil {
		w.t.Fatalf("listen at %s: %v", n, err)
	}
	w.t.Cleanup(func() { l.Close() })
	return l
}

// pair connects the client to the server that the route points at.
func (w *world) pair(l net.Listener, vip string) (client, server *net.TCPConn) {
	w.t.Helper()
	var err error
	w.do("c", func() {
		var c net.Conn
		if c, err = net.Dial("tcp", netip.AddrPortFrom(netip.MustParseAddr(vip), port).String()); err == nil {
			client = c.(*net.TCPConn)
		}
	})
	if err != nil {
		w.t.Fatalf("dial: %v", err)
	}
	s, err := l.Accept()
	if err != nil {
		w.t.Fatalf("accept: %v", err)
	}
	w.t.Cleanup(func() { client.Close(); s.Close() })
	return client, s.(*net.TCPConn)
}
