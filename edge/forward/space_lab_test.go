//go:build e2e

package forward

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// space is a network namespace with a thread that lives in it.
type space struct {
	name string
	work chan func()
	fd   int
}

// newSpace makes a namespace. It goes when its thread and processes have gone.
func newSpace(t *testing.T, name string) *space {
	t.Helper()
	s := &space{name: name, work: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			s.fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		ready <- err
		for f := range s.work {
			f()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatalf("make network namespace %s (root, or a user namespace, is needed): %v", name, err)
	}
	t.Cleanup(func() { close(s.work); _ = unix.Close(s.fd) })
	s.must(t, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	s.sysctl(t, "ipv6/conf/default/accept_dad", "0") // addresses work at once
	return s
}

// do runs f inside the namespace.
func (s *space) do(f func() error) error {
	done := make(chan error)
	s.work <- func() { done <- f() }
	return <-done
}

func (s *space) must(t *testing.T, f func() error) {
	t.Helper()
	if err := s.do(f); err != nil {
		t.Fatalf("in namespace %s: %v", s.name, err)
	}
}

// start runs a program inside the namespace and ends it with the test.
func (s *space) start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	s.must(t, cmd.Start)
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
}

// run runs a program inside the namespace to its end.
func (s *space) run(name string, args ...string) (string, error) {
	ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
	defer stop()
	cmd := exec.CommandContext(ctx, name, args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := s.do(cmd.Start); err != nil {
		return "", err
	}
	err := cmd.Wait()
	return out.String(), err
}

func (s *space) dial(to netip.AddrPort) (net.Conn, error) {
	var conn net.Conn
	err := s.do(func() (err error) {
		conn, err = net.DialTimeout("tcp", to.String(), patience)
		return err
	})
	return conn, err
}

// route points a destination at a gateway.
func (s *space) route(dst, via string) error {
	return s.do(func() error {
		_, net4, err := net.ParseCIDR(dst)
		if err != nil {
			return err
		}
		return netlink.RouteReplace(&netlink.Route{Dst: net4, Gw: net.ParseIP(via)})
	})
}

func (s *space) sysctl(t *testing.T, path, value string) {
	t.Helper()
	s.must(t, func() error { return os.WriteFile("/proc/sys/net/"+path, []byte(value), 0) })
}

// counter reads a value of /proc/net/snmp, snmp6 or netstat inside the namespace.
func (s *space) counter(t *testing.T, file, group, name string) int {
	t.Helper()
	var text []byte
	s.must(t, func() (err error) {
		text, err = os.ReadFile("/proc/thread-self/net/" + file)
		return err
	})
	var names []string
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if group == "" && len(fields) == 2 && fields[0] == name { // snmp6 has a line for each
			v, _ := strconv.Atoi(fields[1])
			return v
		}
		if len(fields) == 0 || fields[0] != group+":" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i, n := range names {
			if n == name {
				v, _ := strconv.Atoi(fields[i])
				return v
			}
		}
	}
	t.Fatalf("no counter %s %s in %s", group, name, file)
	return 0
}

// join makes a link between two namespaces, with an address pair per family.
func join(t *testing.T, a, b *space, aAddrs, bAddrs []string) {
	t.Helper()
	aName, bName := "to-"+b.name, "to-"+a.name
	a.must(t, func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: aName, MTU: 1500},
			PeerName: bName, PeerMTU: 1500, PeerNamespace: netlink.NsFd(b.fd)})
	})
	address := func(s *space, name string, addrs []string) {
		s.must(t, func() error {
			link, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			for _, text := range addrs {
				if err := addAddress(link, text); err != nil {
					return err
				}
			}
			return netlink.LinkSetUp(link)
		})
	}
	address(a, aName, aAddrs)
	address(b, bName, bAddrs)
}

func addAddress(link netlink.Link, text string) error {
	addr, err := netlink.ParseAddr(text)
	if err != nil {
		return err
	}
	addr.Flags = unix.IFA_F_NODAD
	return netlink.AddrAdd(link, addr)
}
