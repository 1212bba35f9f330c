package fdstore

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if os.Getenv("FDSTORE_SERVE") != "" {
		if err := Serve(3, 200*time.Millisecond); err != nil {
			panic(err)
		}
		return
	}
	os.Exit(m.Run())
}

func testConfig(t *testing.T) Config {
	return Config{Socket: filepath.Join(t.TempDir(), "store.sock"), Command: func() *exec.Cmd {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env, cmd.Stderr = append(os.Environ(), "FDSTORE_SERVE=1"), os.Stderr
		return cmd
	}}
}

// run is an agent: what it returns ends it as a crash does, or in order.
func run(t *testing.T, c *Client) (crash, end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, func(err error) { t.Log(err) }) }()
	end = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	crash = func() {
		c.mu.Lock() // its word that it ends does not leave
		if c.conn != nil {
			_ = c.conn.Close()
		}
		c.conn = nil
		cancel()
		c.mu.Unlock()
	}
	return crash, end
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s", what)
		}
	}
}

// pair is a connection over the loopback.
func pair(t *testing.T) (server, client *net.TCPConn, f Flow) {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(); c.Close() })
	return s.(*net.TCPConn), c.(*net.TCPConn), Flow{s.LocalAddr().(*net.TCPAddr).AddrPort(), s.RemoteAddr().(*net.TCPAddr).AddrPort()}
}

// ended reports whether a client has heard the end of its connection.
func ended(c *net.TCPConn, within time.Duration) bool {
	_ = c.SetReadDeadline(time.Now().Add(within))
	_, err := c.Read(make([]byte, 1))
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)
}

// TestKept: what an agent had given away when it died the next one has, and writes on; what
// it had taken back is gone, and when it ends in order all is.
func TestKept(t *testing.T) {
	cfg := testConfig(t)
	first, left, err := Open(cfg)
	if err != nil || len(left) != 0 {
		t.Fatalf("%d left by nobody: %v", len(left), err)
	}
	crash, _ := run(t, first)
	const n = 3 * most
	clients := map[Flow]*net.TCPConn{}
	var gone Flow
	var servers []*net.TCPConn
	for range n {
		s, c, f := pair(t)
		clients[f], gone, servers = c, f, append(servers, s)
		first.Keep(f, s)
	}
	await(t, "sockets at the store", func() bool { return first.Len() == n })
	if !first.Drop(gone) || first.Drop(gone) {
		t.Error("a socket that is kept can be dropped once")
	}
	await(t, "word of it", func() bool { first.mu.Lock(); defer first.mu.Unlock(); return first.dropped == nil })
	crash()
	for _, s := range servers {
		s.Close()
	}
	if !ended(clients[gone], 20*time.Second) {
		t.Error("a socket that was taken back outlives its process")
	}
	delete(clients, gone)

	second, left, err := Open(cfg)
	if err != nil || len(left) != n-1 {
		t.Fatalf("%d sockets left, want %d: %v", len(left), n-1, err)
	}
	_, end := run(t, second)
	for f, fd := range left {
		if _, err := unix.Write(fd, []byte("on")); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 2)
		if _, err := io.ReadFull(clients[f], b); err != nil || !bytes.Equal(b, []byte("on")) {
			t.Fatalf("a client read %q: %v", b, err)
		}
		_ = unix.Close(fd)
	}
	end()
	for _, c := range clients {
		if !ended(c, 20*time.Second) {
			t.Fatal("a connection outlives an agent that ended in order")
		}
	}
}

// TestNobodyComes: the connections of a process that has no successor end.
func TestNobodyComes(t *testing.T) {
	c, _, err := Open(testConfig(t))
	if err != nil {
		t.Fatal(err)
	}
	crash, _ := run(t, c)
	s, client, f := pair(t)
	c.Keep(f, s)
	await(t, "socket at the store", func() bool { return c.Len() == 1 })
	crash()
	s.Close()
	if !ended(client, 20*time.Second) {
		t.Error("the client still waits")
	}
}

// TestStoreDies: an agent whose store died starts another, and gives it all.
func TestStoreDies(t *testing.T) {
	cfg := testConfig(t)
	started := make(chan *exec.Cmd, 8)
	command := cfg.Command
	cfg.Command = func() *exec.Cmd { cmd := command(); started <- cmd; return cmd }
	c, _, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, end := run(t, c)
	s, _, f := pair(t)
	c.Keep(f, s)
	await(t, "socket at the store", func() bool { return c.Len() == 1 })
	if err := (<-started).Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-started
	await(t, "socket at the next store", func() bool { return c.Len() == 1 })
	end()
	if c.Drop(Flow{}) {
		t.Error("a flow that nobody has was dropped")
	}
}

// TestShort: a socket that ends before it was given away never is.
func TestShort(t *testing.T) {
	c := &Client{cfg: Config{Socket: "x"}, woken: make(chan struct{}, 1), wish: map[Flow]syscall.RawConn{}, due: map[Flow]syscall.RawConn{}, kept: map[Flow]syscall.RawConn{}}
	s, _, f := pair(t)
	c.Keep(f, s)
	if c.Drop(f) || len(c.wish) != 0 {
		t.Error("it was kept")
	}
	(*Client)(nil).Keep(f, s)
	if (*Client)(nil).Drop(f) || (*Client)(nil).Len() != 0 {
		t.Error("nobody keeps something")
	}
}

func FuzzMessage(f *testing.F) {
	four, six := netip.MustParseAddrPort("192.0.2.1:443"), netip.MustParseAddrPort("[2001:db8::1]:50000")
	f.Add(appendMessage(nil, kindKeep, []Flow{{four, four}, {six, six}}))
	f.Add([]byte{kindEnd})
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, flows, err := parseMessage(b)
		if err != nil {
			return
		}
		again, same, err := parseMessage(appendMessage(nil, kind, flows))
		if err != nil || again != kind || len(same) != len(flows) {
			t.Fatalf("%x: %v", b, err)
		}
		for i := range flows {
			if flows[i] != same[i] {
				t.Errorf("%v is read as %v", flows[i], same[i])
			}
		}
	})
}
