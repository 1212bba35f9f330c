//go:build e2e

package tcprepair

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fileOf duplicates a connection's descriptor, as SCM_RIGHTS does.
func fileOf(t *testing.T, c *net.TCPConn) *os.File {
	t.Helper()
	var fd int
	err := control(c, func(s sock) (err error) {
		fd, err = unix.FcntlInt(uintptr(s), unix.F_DUPFD_CLOEXEC, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "tcp")
}

// connect makes a connection to site a.
func (w *world) connect(network, vip string) (client, server *net.TCPConn) {
	w.t.Helper()
	l := w.listen("a", network)
	defer l.Close()
	return w.pair(l, vip)
}

// TestQueues moves a connection of which nobody knows the bytes: output unsent, input
// unread.
func TestQueues(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			client, server := w.connect(f.network, f.vip)
			w.listen("b", f.network) // without one, what comes between the routes and Activate is answered by a reset
			out, in := stream(8<<20), stream(32<<10)
			if _, err := client.Write(in); err != nil {
				t.Fatal(err)
			}
			n := writeUntil(server, out, 300*time.Millisecond) // the client does not read
			file := fileOf(t, server)
			var local, peer netip.AddrPort
			var err error
			w.do("a", func() { local, peer, err = Examine(file) })
			if err != nil || local.String() != server.LocalAddr().String() || peer.String() != server.RemoteAddr().String() {
				t.Fatalf("%s>%s, %v", peer, local, err)
			}
			d, err := DumpFile(file)
			if err != nil {
				t.Fatal(err)
			}
			queue, err := d.Output()
			if err != nil {
				t.Fatal(err)
			}
			st := d.State
			if st.Unsent() == 0 || len(queue) == 0 || !bytes.Equal(queue, out[n-len(queue):n]) || !bytes.Equal(st.Input, in) {
				t.Fatalf("%d in flight, %d unsent, %d of output, %d of input, wrote %d", st.InFlight(), st.Unsent(), len(queue), len(st.Input), n)
			}
			var r *Restored
			w.do("b", func() { r, err = RestoreQueues(st, Queues{Input: st.Input, Output: queue}, 0) })
			if err != nil {
				t.Fatal(err)
			}
			w.route("b")
			if err := d.Vanish(); err != nil {
				t.Fatal(err)
			}
			if _, err := server.Write([]byte("x")); err == nil {
				t.Error("the old owner can still write")
			}
			var b *net.TCPConn
			w.do("b", func() { b, err = r.Activate() })
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(in))
			b.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.ReadFull(b, got); err != nil || !bytes.Equal(got, in) {
				t.Fatalf("input that was unread: %v, equal %t", err, bytes.Equal(got, in))
			}
			read := readAll(client, 0)
			if _, err := b.Write(out[n:]); err != nil {
				t.Fatal(err)
			}
			b.Close()
			read.check(t, out)
		})
	}
}

// TestWake: a connection that a dead process left dumped goes on where it is.
func TestWake(t *testing.T) {
	w := newWorld(t)
	client, server := w.connect("tcp4", vip4)
	out := stream(4 << 20)
	n := writeUntil(server, out, 300*time.Millisecond)
	file := fileOf(t, server)
	if _, err := DumpFile(file); err != nil { // and nothing is remembered of it
		t.Fatal(err)
	}
	if err := Wake(file); err != nil {
		t.Fatal(err)
	}
	file.Close()
	read := readAll(client, 0)
	if _, err := server.Write(out[n:]); err != nil {
		t.Fatal(err)
	}
	server.Close()
	read.check(t, out)
}

// TestReset: the peer hears it though another descriptor of the socket is open.
func TestReset(t *testing.T) {
	w := newWorld(t)
	client, server := w.connect("tcp4", vip4)
	file := fileOf(t, server)
	defer file.Close()
	if err := Reset(file); err != nil {
		t.Fatal(err)
	}
	client.SetReadDeadline(time.Now().Add(patience))
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("%v, want a reset", err)
	}
}

// TestExamine: what cannot be moved is told by its reason.
func TestExamine(t *testing.T) {
	w := newWorld(t)
	_, open := w.connect("tcp4", vip4)
	client, half := w.connect("tcp4", vip4)
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := half.Read(make([]byte, 1)); err != io.EOF {
		t.Fatal(err)
	}
	plain, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	for want, f := range map[string]*os.File{
		"no TCP socket":             plain,
		"connection is in CLOSE_WA": fileOf(t, half),
		"another network namespace": fileOf(t, open), // of site a; this goroutine is at home
	} {
		if _, _, err := Examine(f); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		f.Close()
	}
	ulp := fileOf(t, open)
	defer ulp.Close()
	err = control(ulp, func(s sock) error { return unix.SetsockoptString(int(s), unix.IPPROTO_TCP, tcpULP, "tls") })
	switch {
	case errors.Is(err, unix.ENOENT):
		t.Log("this kernel has no TLS")
	case err != nil:
		t.Fatal(err)
	default:
		w.do("a", func() { _, _, err = Examine(ulp) })
		if err == nil || !strings.Contains(err.Error(), `does "tls"`) {
			t.Errorf("%v, want the kernel's TLS refused", err)
		}
	}
	for want, domain := range map[string][3]int{
		"no TCP socket": {unix.AF_INET, unix.SOCK_DGRAM, 0}, "multipath": {unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP},
		"CLOSE": {unix.AF_INET6, unix.SOCK_STREAM, 0},
	} {
		fd, err := unix.Socket(domain[0], domain[1], domain[2])
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), want)
		if _, _, err := Examine(f); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		f.Close()
	}
}
