//go:build e2e

package netlab

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestBuildLabReachesEverything(t *testing.T) {
	begin := time.Now()
	n := build(t, Lab(LabOptions{Delay: func(a, b string) time.Duration { return time.Millisecond }}))
	took := time.Since(begin)
	t.Logf("built in %s", took)
	if soak() && took > time.Second { // of a machine that does nothing else
		t.Errorf("building the lab took %s, want at most 1 s", took)
	}
	sites := []string{"ams1", "nyc1", "tyo1", "res-ap", "ops"}
	for _, name := range sites {
		echo(t, n, name)
	}
	for _, from := range []string{"client-eu-1", "client-us-8", "client-ap-3", "ops", "res-eu"} {
		for _, to := range sites {
			for _, a := range n.Topology.Addresses(to) {
				if from != to {
					if got := roundTrip(t, mustHost(t, n, from), a); got != to {
						t.Errorf("%s reached %q at %s of %s", from, got, a, to)
					}
				}
			}
		}
	}
}

const echoPort = 5353

// patience bounds every wait for something that must happen, however busy the machine is.
const patience = 20 * time.Second

// soak asks for the long form of a test, where figures are judged that only a machine
// with nothing else to do can show.
func soak() bool { return os.Getenv("RHUMB_SOAK") == "1" }

// echo answers each datagram with the host's name, on a socket per address, so
// that answers leave from the address that was asked.
func echo(t *testing.T, n *Net, name string) {
	t.Helper()
	for _, a := range n.Topology.Addresses(name) {
		echoAt(t, mustHost(t, n, name), a)
	}
}

func echoAt(t *testing.T, h *Host, a netip.Addr) {
	t.Helper()
	p, err := h.ListenPacket(t.Context(), "udp", netip.AddrPortFrom(a, echoPort).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	go func() {
		b := make([]byte, 2048)
		for {
			_, from, err := p.ReadFrom(b)
			if err != nil {
				return
			}
			p.WriteTo([]byte(h.Name), from)
		}
	}()
}

// roundTrip asks the echo at an address once who it is; the empty answer is none.
func roundTrip(t *testing.T, from *Host, to netip.Addr) string {
	t.Helper()
	return tripWithin(t, patience, from, to)
}

func tripWithin(t *testing.T, limit time.Duration, from *Host, to netip.Addr) string {
	t.Helper()
	c, err := from.Dial(t.Context(), "udp", netip.AddrPortFrom(to, echoPort).String())
	if err != nil {
		t.Logf("%s to %s: %v", from.Name, to, err)
		return ""
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(limit))
	b := make([]byte, 64)
	if _, err := c.Write([]byte("who")); err != nil {
		t.Logf("%s to %s: %v", from.Name, to, err)
		return ""
	}
	size, err := c.Read(b)
	if err != nil {
		t.Logf("%s to %s: %v", from.Name, to, err)
	}
	return string(b[:size])
}

func TestRunInHost(t *testing.T) {
	topo := pairTopology(Impairment{})
	topo.Nodes[0].Resolvers = []netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8::1")}
	before, _ := os.ReadFile("/etc/resolv.conf")
	n := build(t, topo)
	left := mustHost(t, n, "left")

	if got := output(t, left, "cat", "/etc/resolv.conf"); !strings.HasPrefix(got, "nameserver 198.51.100.1\nnameserver 2001:db8::1\n") {
		t.Errorf("resolv.conf in left:\n%s", got)
	}
	if after, _ := os.ReadFile("/etc/resolv.conf"); string(after) != string(before) {
		t.Errorf("resolv.conf outside became\n%s", after)
	}
	if got := output(t, left, "sh", "-c", "ls /sys/class/net; ls /proc/sys/net/ipv4/conf"); !strings.Contains(got, "right") {
		t.Errorf("interfaces seen in left:\n%s", got)
	}
	var out strings.Builder
	cmd := exec.Command("sh", "-c", "cat; echo told >&2; exit 7")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader("through "), &out, &out
	err := left.Run(cmd)
	if cmd.ProcessState.ExitCode() != 7 || out.String() != "through told\n" {
		t.Errorf("exit %v, output %q", err, out.String())
	}
}

// Without a resolv.conf on the machine a node still has its own, and everything
// else of /etc.
func TestCoverEtc(t *testing.T) {
	dir := t.TempDir()
	etc, stage := filepath.Join(dir, "etc"), filepath.Join(dir, "stage")
	for _, d := range []string{etc, stage, etc + "/sub"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{etc + "/hosts", etc + "/sub/deep"} {
		if err := os.WriteFile(f, []byte("of the machine"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/nowhere/resolv.conf", etc+"/resolv.conf"); err != nil {
		t.Fatal(err)
	}
	k, err := newKeeper(func() error {
		if err := unix.Mount("netlab", stage, "tmpfs", 0, ""); err != nil {
			return err
		}
		if err := os.WriteFile(stage+"/resolv.conf", []byte("of the node"), 0o644); err != nil {
			return err
		}
		if err := coverEtc(etc, stage); err != nil {
			return err
		}
		if err := unix.Unmount(stage, unix.MNT_DETACH); err != nil {
			return err
		}
		for file, want := range map[string]string{"resolv.conf": "of the node", "hosts": "of the machine", "sub/deep": "of the machine"} {
			if got, err := os.ReadFile(etc + "/" + file); err != nil || string(got) != want {
				t.Errorf("%s: %q, %v", file, got, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	k.close()
	if _, err := os.Stat(etc + "/resolv.conf"); err == nil {
		t.Error("the machine itself got a resolv.conf")
	}
}

func TestSignalReachesAllProcessesOfAHost(t *testing.T) {
	n := build(t, pairTopology(Impairment{}))
	left, right := mustHost(t, n, "left"), mustHost(t, n, "right")
	family := exec.Command("sh", "-c", "sleep 100 & sleep 100 & echo up; wait")
	other := exec.Command("sleep", "100")
	pipe, err := family.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	for h, cmd := range map[*Host]*exec.Cmd{left: family, right: other} {
		if err := h.Start(cmd); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.ReadFull(pipe, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	if pids, err := left.Processes(); err != nil || len(pids) != 3 {
		t.Fatalf("processes of left: %v, %v; want 3", pids, err)
	}
	if err := left.Signal(9); err != nil {
		t.Fatal(err)
	}
	if err := family.Wait(); err == nil {
		t.Error("shell in left ended by itself")
	}
	if pids, _ := right.Processes(); !slices.Equal(pids, []int{other.Process.Pid}) {
		t.Errorf("processes of right: %v, want %d", pids, other.Process.Pid)
	}
	right.Signal(9)
	other.Wait()
}

func TestLineDelay(t *testing.T) {
	const delay = 10 * time.Millisecond
	n := build(t, pairTopology(Impairment{Delay: delay}))
	left := mustHost(t, n, "left")
	echo(t, n, "right")
	c, err := left.Dial(t.Context(), "udp", fmt.Sprintf("[2001:db8::1]:%d", echoPort))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// The best of three rows: whatever else the machine does may spoil one.
	best := time.Hour
	for range 3 {
		errs := delayErrors(t, c, 2*delay)
		t.Logf("round trip beyond 20 ms: min %s, median %s, p99 %s", errs[0], errs[len(errs)/2], errs[len(errs)*99/100])
		if errs[0] < 0 {
			t.Errorf("a round trip took %s less than twice the delay", -errs[0])
		}
		// On a busy machine half of the round trips may be late by what others do with it;
		// one of two hundred finds it free.
		at := 0
		if soak() {
			at = len(errs) / 2
		}
		if best = min(best, errs[at]); best <= time.Millisecond {
			return
		}
	}
	t.Errorf("error %s (the median in the long form, else the least), want at most 1 ms", best)
}

// delayErrors returns by how much round trips took longer than they should, in order;
// without the first, which includes neighbour discovery through the line.
func delayErrors(t *testing.T, c net.Conn, want time.Duration) []time.Duration {
	t.Helper()
	var errs []time.Duration
	b := make([]byte, 64)
	for range 200 {
		c.SetDeadline(time.Now().Add(patience))
		begin := time.Now()
		if _, err := c.Write([]byte("who")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(b); err != nil {
			t.Fatal(err)
		}
		errs = append(errs, time.Since(begin)-want)
	}
	errs = errs[1:]
	slices.Sort(errs)
	return errs
}

// A stream through a line arrives whole, with segments uncut and checksums left
// to the end as the kernel does on veth, and again with loss and reordering.
func TestLineCarriesTCP(t *testing.T) {
	for name, tc := range map[string]struct {
		imp  Impairment
		size int64
		addr string
	}{
		"plain":             {Impairment{}, 256 << 20, "198.51.100.1"},
		"delayed":           {Impairment{Delay: 5 * time.Millisecond}, 128 << 20, "2001:db8::1"},
		"lossy, reordering": {Impairment{Delay: time.Millisecond, Loss: 0.005, Reorder: 0.01}, 4 << 20, "198.51.100.1"},
		"100 Mbit/s":        {Impairment{Delay: time.Millisecond, Rate: 100e6}, 4 << 20, "198.51.100.1"},
	} {
		t.Run(name, func(t *testing.T) {
			n := build(t, pairTopology(tc.imp))
			sum, took := stream(t, mustHost(t, n, "left"), mustHost(t, n, "right"), tc.addr, tc.size)
			want := sha256.New()
			io.CopyN(want, patterned{}, tc.size)
			if sum != [32]byte(want.Sum(nil)) {
				t.Error("the stream arrived changed")
			}
			rate := float64(tc.size) * 8 / took.Seconds()
			t.Logf("%.0f Mbit/s", rate/1e6)
			if tc.imp.Rate > 0 && rate > 1.05*float64(tc.imp.Rate) {
				t.Errorf("%.0f bit/s pass a line of %d", rate, tc.imp.Rate)
			}
			// What a line carries is the machine's as much as the line's: the short form only
			// wants more than a segment for each tick of a timer.
			least := 20e6
			if soak() {
				least = 200e6
			}
			if tc.imp.Loss == 0 && tc.imp.Rate == 0 && rate < least {
				t.Errorf("%.0f Mbit/s, want at least %.0f", rate/1e6, least/1e6)
			}
		})
	}
}

// patterned is an endless stream which differs in each 64 KiB.
type patterned struct{}

func (patterned) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(i ^ i>>8)
	}
	return len(b), nil
}

// stream sends size bytes from one host to the other and returns their digest
// as received.
func stream(t *testing.T, from, to *Host, addr string, size int64) ([32]byte, time.Duration) {
	t.Helper()
	l, err := to.Listen(t.Context(), "tcp", net.JoinHostPort(addr, "8080"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	begin := time.Now()
	go func() {
		c, err := from.Dial(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		if _, err := io.CopyN(c, patterned{}, size); err != nil {
			t.Error(err)
		}
	}()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	h := sha256.New()
	if _, err := io.Copy(h, c); err != nil {
		t.Fatal(err)
	}
	return [32]byte(h.Sum(nil)), time.Since(begin)
}
