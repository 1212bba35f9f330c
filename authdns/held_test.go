package authdns

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// lent makes files of sockets, as somebody keeps them who reads from none.
func lent(t *testing.T, sockets []Socket) (files []*os.File) {
	t.Helper()
	for _, s := range sockets {
		raw, err := s.Conn.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) {
			if fd, err := syscall.Dup(int(fd)); err != nil {
				t.Error(err)
			} else {
				files = append(files, os.NewFile(uintptr(fd), s.Name))
			}
		})
	}
	return files
}

// copied makes further files of the same sockets.
func copied(t *testing.T, files []*os.File) (out []*os.File) {
	t.Helper()
	for _, f := range files {
		raw, err := f.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) {
			if fd, err := syscall.Dup(int(fd)); err == nil {
				out = append(out, os.NewFile(uintptr(fd), f.Name()))
			}
		})
	}
	if len(out) != len(files) {
		t.Fatalf("%d of %d sockets copied", len(out), len(files))
	}
	return out
}

// TestHeldSockets: what comes while nobody reads is answered by the next server, over
// UDP from each socket of the group and over TCP; sockets of other addresses are let
// go, and those of an address which has none are opened.
func TestHeldSockets(t *testing.T) {
	const workers = 3
	first, err := New(Config{Workers: workers, Listeners: []Listener{loopback(top, "127.0.0.1:0"), loopback(top, "127.0.0.1:0")}})
	if err != nil {
		t.Fatal(err)
	}
	addrs := first.Addrs()
	files := lent(t, first.Sockets())
	if len(files) != 2*(workers+1) {
		t.Fatalf("%d sockets, want %d", len(files), 2*(workers+1))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := first.Run(ctx); err != nil {
		t.Fatal(err)
	}

	const n = 64 // from as many ports, so that each socket gets some
	var waiting []net.Conn
	for i := range n + 1 {
		c, err := net.Dial(map[bool]string{true: "tcp", false: "udp"}[i == n], addrs[0].String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		q := ask(t, "www.demo.test. A")
		if i == n {
			q = framed(q)
		}
		if _, err := c.Write(q); err != nil {
			t.Fatal(err)
		}
		waiting = append(waiting, c)
	}
	held, err := Hold(files)
	if err != nil {
		t.Fatal(err)
	}
	// Fewer workers than sockets, and the second address is another one now.
	s, err := New(Config{Workers: 1, Held: held, Listeners: []Listener{{Level: top, Addr: addrs[0]}, loopback(top, "127.0.0.1:0")}})
	if err != nil {
		t.Fatal(err)
	}
	s.SetZones(sources())
	ctx, cancel = context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	for i, c := range waiting {
		c.SetDeadline(time.Now().Add(20 * time.Second))
		if i == n {
			if m := readTCP(t, c); len(m.Answer) != 1 {
				t.Errorf("over TCP: %s", show(m))
			}
			continue
		}
		buf := make([]byte, 1500)
		if _, err := c.Read(buf); err != nil || binary.BigEndian.Uint16(buf[6:]) != 1 {
			t.Errorf("query %d of %d that waited: %v, want an answer", i, n, err)
		}
	}
	want := []string{socketName("tcp", addrs[1]), socketName("udp", addrs[1])}
	if got := held.Left(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("left %v, want %v", got, want)
	}
	if got := len(s.Sockets()); got != workers+1+2 {
		t.Errorf("%d sockets are passed on, want %d", got, workers+1+2)
	}
	exchange(t, "udp", s.Addrs()[1], ask(t, "www.demo.test. A"))
	if again, err := Hold(lent(t, s.Sockets())); err != nil {
		t.Error(err)
	} else if again.Close(); len(again.Left()) != 4 {
		t.Errorf("of a second heir: %v", again.Left())
	}
}

// TestHoldWrong: what is no socket for DNS is told, and keeps nothing else from being held.
func TestHoldWrong(t *testing.T) {
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	unix, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close()
	good, err := net.ListenPacket("udp", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer good.Close()
	files := append([]*os.File{file}, lent(t, []Socket{{"unix", unix}, {"good", good.(*net.UDPConn)}})...)
	held, err := Hold(files)
	if err == nil || strings.Count(err.Error(), "held socket") != 2 {
		t.Errorf("error %v, want two sockets named", err)
	}
	if got := held.takePackets(addrPort(good.LocalAddr())); len(got) != 1 {
		t.Errorf("%d sockets held, want 1", len(got))
	} else {
		got[0].Close()
	}
	if held.Close(); len(held.Left()) != 0 || held.takeStream(netip.AddrPort{}) != nil {
		t.Errorf("left %v", held.Left())
	}
	if got, want := socketName("udp", netip.MustParseAddrPort("[2001:db8:53::1]:53")), "udp-2001_db8_53__1-53"; got != want {
		t.Errorf("name %s, want %s", got, want)
	}
	var none *Held
	if none.Close(); none.Left() != nil || none.takePackets(netip.AddrPort{}) != nil {
		t.Error("none holds something")
	}
}

// TestSucceeded: who is connected when another process takes over is served until it
// goes; who is connected when the server just ends is let go at once.
func TestSucceeded(t *testing.T) {
	for _, cause := range []error{ErrSucceeded, context.Canceled} {
		s, err := New(Config{Workers: 1, Listeners: []Listener{loopback(top, "127.0.0.1:0")}})
		if err != nil {
			t.Fatal(err)
		}
		s.SetZones(sources())
		ctx, end := context.WithCancelCause(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		c, err := net.Dial("tcp", s.Addrs()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		query := ask(t, "www.demo.test. A")
		roundTrip(t, c, "tcp", query) // so that it is accepted
		end(cause)
		if cause == ErrSucceeded {
			for range 3 {
				if m := roundTrip(t, c, "tcp", query); len(m.Answer) != 1 {
					t.Errorf("after another has taken over: %s", show(m))
				}
			}
			c.Close()
		} else if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || os.IsTimeout(err) {
			t.Errorf("after the end: %d octets, %v; want the connection closed", n, err)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("%v: Run: %v, want nil", cause, err)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%v: Run does not end within 20 s", cause)
		}
	}
}

// TestQueryOfDeathOverRestarts: a query ends the process, comes again and ends the
// next one, and is refused from then on. What comes in between waits in the sockets,
// which are held outside, and is answered.
func TestQueryOfDeathOverRestarts(t *testing.T) {
	if dir := os.Getenv("RHUMB_TEST_DEATHS"); dir != "" {
		mortalServer(t, dir)
		return
	}
	m := newMortal(t)
	rcode := func(c net.Conn) string {
		defer c.Close()
		buf := make([]byte, 1500)
		c.SetDeadline(time.Now().Add(2 * time.Minute))
		if _, err := c.Read(buf); err != nil {
			return err.Error()
		}
		return dns.RcodeToString[int(buf[3]&15)]
	}
	for range 2 {
		killer := m.dial(questionOfDeath)
		defer killer.Close()
		m.life()
		m.dies()
	}
	killer, other := m.dial(questionOfDeath), m.dial("www.demo.test. A")
	m.life()
	if words, err := os.ReadFile(filepath.Join(m.dir, lastWords)); err != nil || !bytes.Contains(words, []byte("panic: over a query")) {
		t.Errorf("the words of the last crash: %q, %v", words, err)
	}
	if got := rcode(killer); got != "REFUSED" {
		t.Errorf("the query of death gets %s from the third process, want REFUSED:\n%s", got, &m.out)
	}
	if got := rcode(other); got != "NOERROR" {
		t.Errorf("another query gets %s from the third process, want NOERROR:\n%s", got, &m.out)
	}
	// A restart on purpose lets nothing out of quarantine.
	m.end()
	killer = m.dial(questionOfDeath)
	m.life()
	if got := rcode(killer); got != "REFUSED" {
		t.Errorf("the query of death gets %s from the fourth process, want REFUSED:\n%s", got, &m.out)
	}
}

const questionOfDeath = "death.wild.demo.test. A"

// mortal is a name server in a process of its own, one life after another, whose sockets
// are held outside.
type mortal struct {
	t     *testing.T
	dir   string
	addr  netip.AddrPort
	files []*os.File
	cmd   *exec.Cmd
	out   bytes.Buffer // of the life at hand
}

// newMortal opens the sockets.
func newMortal(t *testing.T) *mortal {
	t.Helper()
	outside, err := New(Config{Workers: 1, Listeners: []Listener{loopback(top, "127.0.0.1:0")}})
	if err != nil {
		t.Fatal(err)
	}
	m := &mortal{t: t, dir: t.TempDir(), addr: outside.Addrs()[0], files: lent(t, outside.Sockets())}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := outside.Run(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.end)
	return m
}

// dial sends a question from a socket of its own.
func (m *mortal) dial(question string) net.Conn {
	m.t.Helper()
	c, err := net.Dial("udp", m.addr.String())
	if err == nil {
		_, err = c.Write(ask(m.t, question))
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return c
}

// life begins the next one.
func (m *mortal) life() {
	m.t.Helper()
	m.out.Reset()
	m.cmd = exec.CommandContext(m.t.Context(), os.Args[0], "-test.run", "^TestQueryOfDeathOverRestarts$")
	m.cmd.Env, m.cmd.ExtraFiles = append(os.Environ(), "RHUMB_TEST_DEATHS="+m.dir), copied(m.t, m.files)
	m.cmd.Stdout, m.cmd.Stderr = &m.out, &m.out
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	for _, f := range m.cmd.ExtraFiles {
		f.Close()
	}
}

// dies waits until it has ended over a query.
func (m *mortal) dies() {
	m.t.Helper()
	if err := m.cmd.Wait(); err == nil || err.Error() != "exit status 2" {
		m.t.Fatalf("the process ended with %v, want a panic:\n%s", err, &m.out)
	}
}

// end kills it, whether it lives or not.
func (m *mortal) end() {
	if m.cmd != nil {
		m.cmd.Process.Kill()
		m.cmd.Wait()
	}
}

// mortalServer reads from the sockets that it was given, and ends itself over a query
// whose name begins with "death": its clock, which is read before a query is answered on
// the slow path and afterwards, sees it at hand twice. One that is in quarantine does
// no harm, however often it is seen: the last of a batch is at hand until all are sent.
func mortalServer(t *testing.T, dir string) {
	var files []*os.File
	for fd := uintptr(3); fd < 5; fd++ {
		files = append(files, os.NewFile(fd, "held"))
	}
	held, err := Hold(files)
	if err != nil {
		t.Fatal(err)
	}
	var ready atomic.Bool
	var seen atomic.Int32
	killer := ask(t, questionOfDeath)
	var s *Server // set before ready
	s, err = New(Config{Workers: 1, Crashes: dir, Held: held, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Listeners: []Listener{{Level: top, Addr: addrPort(held.packets[0].LocalAddr())}}, Now: func() time.Time {
			if !ready.Load() || s.shield.quarantine.holds(killer, time.Now()) || !deathAtHand(dir) {
				seen.Store(0)
			} else if seen.Add(1) == 2 {
				go panic("over a query") // in no goroutine that anybody recovers
				select {}
			}
			return time.Now()
		}})
	if err != nil {
		t.Fatal(err)
	}
	if err := debug.SetCrashOutput(s.CrashOutput(), debug.CrashOptions{}); err != nil {
		t.Fatal(err)
	}
	s.SetZones(sources())
	ready.Store(true)
	s.Run(t.Context())
}

// deathAtHand tells whether the query of death is at hand, by the files.
func deathAtHand(dir string) bool {
	boxes, _ := filepath.Glob(filepath.Join(dir, boxPrefix+"*"))
	for _, name := range boxes {
		data, _ := os.ReadFile(name)
		for _, q := range atHand(data) {
			if strings.HasPrefix(glance(q).kind(q).String(), "death.") {
				return true
			}
		}
	}
	return false
}
