//go:build e2e

package tcprepair

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"
)

// soakMoves is how often the long form passes a connection on, in each family.
const soakMoves = 12_000

// period is the length of the stream that repeats for ever; it divides no block size.
const period = 1_000_003

// endless is a stream of any length.
type endless []byte

// span copies the octets from one offset up to another.
func (e endless) span(from, to int) []byte {
	out := make([]byte, 0, to-from)
	for at := from; at < to; {
		i := at % len(e)
		n := min(len(e)-i, to-at)
		out = append(out, e[i:i+n]...)
		at += n
	}
	return out
}

// follow reads to the end and compares on the way.
func (e endless) follow(c io.Reader) (n int, err error) {
	buf := make([]byte, 256<<10)
	for {
		k, err := c.Read(buf)
		if !bytes.Equal(buf[:k], e.span(n, n+k)) {
			return n, fmt.Errorf("wrong octets between %d and %d", n, n+k)
		}
		if n += k; err == io.EOF {
			return n, nil
		} else if err != nil {
			return n, err
		}
	}
}

// holdings are what a process has that many moves might leave behind.
type holdings struct{ descriptors, goroutines, threads, socketsA, socketsB int }

func (w *world) holdings() holdings {
	w.t.Helper()
	count := func(dir string) int {
		all, err := os.ReadDir(dir)
		if err != nil {
			w.t.Fatal(err)
		}
		return len(all)
	}
	sockets := func(n string) int {
		out, err := exec.Command("ip", "netns", "exec", w.prefix+n, "ss", "-Htna").Output()
		if err != nil {
			w.t.Fatalf("ss at %s: %v", n, err)
		}
		return strings.Count(string(out), "\n")
	}
	return holdings{count("/proc/self/fd"), runtime.NumGoroutine(), count("/proc/self/task"), sockets("a"), sockets("b")}
}

// more tells whether there is more than there was. The runtime keeps some threads.
func (h holdings) more(was holdings) bool {
	return h.descriptors > was.descriptors || h.goroutines > was.goroutines || h.threads > was.threads+16 ||
		h.socketsA > was.socketsA || h.socketsB > was.socketsB
}

// manyMoves passes one connection to and fro, thousands of times, and wants every octet
// and nothing left behind.
func manyMoves(t *testing.T, network, vip string) {
	w := newWorld(t)
	la := w.listen("a", network)
	w.listen("b", network)
	data := endless(stream(period))
	was := w.holdings()
	c, s := w.pair(la, vip)
	type read struct {
		n   int
		err error
	}
	all := make(chan read, 1)
	go func() { n, err := data.follow(c); all <- read{n, err} }()
	done, at := 0, "a"
	for i := range soakMoves {
		n := writeUntil(s, data.span(done, done+64<<10), 15*time.Millisecond)
		if n < 0 {
			t.Fatalf("move %d: write failed", i)
		}
		at = map[string]string{"a": "b", "b": "a"}[at]
		s, done = w.pass(s, data, done+n, vip, at)
	}
	s.CloseWrite()
	select {
	case r := <-all:
		if r.err != nil || r.n != done {
			t.Fatalf("the client read %d of %d octets: %v", r.n, done, r.err)
		}
	case <-time.After(time.Minute):
		t.Fatalf("the client waits for the end after %d moves and %d octets", soakMoves, done)
	}
	s.Close()
	c.Close()
	now := w.holdings()
	for end := time.Now().Add(2 * time.Minute); now.more(was); now = w.holdings() { // sockets in their last states
		if time.Now().After(end) {
			t.Fatalf("after %d moves there are %+v, before %+v", soakMoves, now, was)
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Logf("%d moves, %d octets; before %+v, after %+v", soakMoves, done, was, now)
}

// pass moves the connection to a site and returns it there, with how much of the stream
// it was given: what was never sent is written anew.
func (w *world) pass(s *net.TCPConn, data endless, done int, vip, to string) (*net.TCPConn, int) {
	w.t.Helper()
	d, err := Dump(s)
	if err != nil {
		w.t.Fatal(err)
	}
	st := d.State
	una := done - int(st.WriteSeq-st.SndUna)
	done -= st.Unsent()
	var re *Restored
	w.do(to, func() { re, err = Restore(st, bytes.NewReader(data.span(una, done)), 0) })
	if err != nil {
		w.t.Fatal(err)
	}
	i := map[string]int{"a": 1, "b": 2}[to]
	if vip == vip4 {
		w.in("r", fmt.Sprintf("ip route replace %s/32 via 198.51.100.%d", vip4, i*4+2))
	} else {
		w.in("r", fmt.Sprintf("ip -6 route replace %s/128 via 2001:db8:%d::2", vip6, i+1))
	}
	if err := d.Close(); err != nil {
		w.t.Fatal(err)
	}
	moved, err := re.Activate()
	if err != nil {
		w.t.Fatal(err)
	}
	return moved, done
}
