//go:build e2e

package tcprepair

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// families is each test's axis: the same in IPv4 and IPv6.
var families = []struct{ name, network, vip string }{
	{"IPv4", "tcp4", vip4}, {"IPv6", "tcp6", vip6},
}

// byteAt is the stream every test sends: offset in, byte out, with a period
// that divides no block size.
func stream(n int) []byte {
	b := make([]byte, n)
	x := uint32(2463534242)
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return b
}

// writeUntil writes b until the deadline stops it; it returns the count.
func writeUntil(c *net.TCPConn, b []byte, d time.Duration) int {
	c.SetWriteDeadline(time.Now().Add(d))
	n, err := c.Write(b)
	c.SetWriteDeadline(time.Time{})
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return -1
	}
	return n
}

// patience bounds every wait for something that must happen, however busy the machine is.
const patience = time.Minute

// reader digests what the client receives and measures its longest gap.
type reader struct {
	sum  [32]byte
	n    int64
	gap  time.Duration
	err  error
	done chan struct{}
}

func readAll(c io.Reader, pace time.Duration) *reader {
	r := &reader{done: make(chan struct{})}
	go func() {
		defer close(r.done)
		h, buf, last := sha256.New(), make([]byte, 256<<10), time.Now()
		for {
			n, err := c.Read(buf)
			h.Write(buf[:n])
			r.n += int64(n)
			r.gap, last = max(r.gap, time.Since(last)), time.Now()
			if err != nil {
				if err != io.EOF {
					r.err = err
				}
				break
			}
			time.Sleep(pace)
		}
		r.sum = [32]byte(h.Sum(nil))
	}()
	return r
}

// check waits for the end and compares with what should have arrived.
func (r *reader) check(t *testing.T, want []byte) {
	t.Helper()
	select {
	case <-r.done:
	case <-time.After(patience):
		t.Fatalf("the client waits after %d of %d bytes", r.n, len(want))
	}
	if r.err != nil || r.n != int64(len(want)) || r.sum != sha256.Sum256(want) {
		t.Fatalf("client got %d of %d bytes, sum equal %t, error %v", r.n, len(want), r.sum == sha256.Sum256(want), r.err)
	}
}

// move dumps s at a, switches the route and restores at b; base is the
// sequence number of data[0].
func (w *world) move(s *net.TCPConn, data []byte, written int) (*net.TCPConn, State) {
	w.t.Helper()
	d, err := Dump(s)
	if err != nil {
		w.t.Fatal(err)
	}
	st := d.State
	base := st.WriteSeq - uint32(written)
	una, nxt := int(st.SndUna-base), int(st.SndNxt-base)
	if una < 0 || una > nxt || nxt > written {
		w.t.Fatalf("positions una %d nxt %d written %d", una, nxt, written)
	}
	start := time.Now()
	var r *Restored
	w.do("b", func() { r, err = Restore(st, bytes.NewReader(data[una:nxt]), time.Since(start)) })
	if err != nil {
		w.t.Fatal(err)
	}
	w.route("b")
	if err := d.Close(); err != nil {
		w.t.Fatal(err)
	}
	c, err := r.Activate()
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return c, st
}

// TestMove moves one connection in each state of its queues and compares the
// whole stream by SHA-256.
func TestMove(t *testing.T) {
	const size = 24 << 20
	data := stream(size)
	cases := []struct {
		name  string
		first int           // bytes offered before the dump
		wait  time.Duration // time the writer gets
		pace  time.Duration // the client's pause between reads
	}{
		{"idle before the first byte", 0, 0, 0},
		{"all acknowledged", 100 << 10, 200 * time.Millisecond, 0},
		{"in full flight", size, 60 * time.Millisecond, 0},
		{"client slow, window closed, unsent data", size, 300 * time.Millisecond, 3 * time.Millisecond},
	}
	for _, f := range families {
		for _, tc := range cases {
			t.Run(f.name+"/"+tc.name, func(t *testing.T) {
				w := newWorld(t)
				la := w.listen("a", f.network)
				w.listen("b", f.network) // the wildcard listener must not be in the way
				c, s := w.pair(la, f.vip)
				r := readAll(c, tc.pace)
				n := 0
				if tc.first > 0 {
					n = writeUntil(s, data[:tc.first], tc.wait)
				}
				moved, st := w.move(s, data, n)
				t.Logf("written %d, in flight %d, unsent %d, MSS %d, RTT %v", n, st.InFlight(), st.Unsent(), st.Options.MSS, st.RTT)
				rest := data[n-st.Unsent():]
				moved.SetWriteDeadline(time.Now().Add(patience))
				if _, err := moved.Write(rest); err != nil {
					t.Fatal(err)
				}
				moved.CloseWrite()
				r.check(t, data)
				t.Logf("longest gap at the client %v", r.gap)
			})
		}
	}
}

// TestMoveUpstream moves a connection with unread input: it travels in the
// State, and what the client sends later follows it without a seam.
func TestMoveUpstream(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			la := w.listen("a", f.network)
			c, s := w.pair(la, f.vip)
			first, second := stream(9000), stream(5000)
			if _, err := c.Write(first); err != nil {
				t.Fatal(err)
			}
			awaitInput(t, s, len(first))
			moved, st := w.move(s, nil, 0)
			if !bytes.Equal(st.Input, first) {
				t.Fatalf("state carries %d bytes of input, want %d", len(st.Input), len(first))
			}
			go func() { c.Write(second); c.CloseWrite() }()
			moved.SetReadDeadline(time.Now().Add(patience))
			got, err := io.ReadAll(moved)
			if err != nil || !bytes.Equal(got, second) {
				t.Fatalf("read %d bytes after the move, want %d: %v", len(got), len(second), err)
			}
		})
	}
}

func awaitInput(t *testing.T, c *net.TCPConn, n int) {
	t.Helper()
	for end := time.Now().Add(patience); ; {
		var have uint32
		var err error
		if e := control(c, func(s sock) error { have, err = s.ioctl(unix.SIOCINQ, "SIOCINQ"); return err }); e != nil {
			t.Fatal(e)
		}
		if int(have) >= n {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d of %d bytes arrived", have, n)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestManyMoves passes one connection to and fro while it flows. The moves
// follow each other closer than a Linux peer answers window probes (twice a
// second), so retransmission timers may have to help: the stall is no measure
// here, the bytes are.
func TestManyMoves(t *testing.T) {
	const size = 64 << 20
	data := stream(size)
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			la := w.listen("a", f.network)
			w.listen("b", f.network)
			c, s := w.pair(la, f.vip)
			r := readAll(c, 0)
			done, at := 0, "a"
			for range 8 {
				n := writeUntil(s, data[done:], 15*time.Millisecond)
				if n < 0 {
					t.Fatal("write failed")
				}
				done += n
				d, err := Dump(s)
				if err != nil {
					t.Fatal(err)
				}
				st := d.State
				at = map[string]string{"a": "b", "b": "a"}[at]
				una := done - int(st.WriteSeq-st.SndUna)
				done -= st.Unsent()
				var re *Restored
				w.do(at, func() { re, err = Restore(st, bytes.NewReader(data[una:done]), 0) })
				if err != nil {
					t.Fatal(err)
				}
				w.route(at)
				d.Close()
				if s, err = re.Activate(); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := s.Write(data[done:]); err != nil {
				t.Fatal(err)
			}
			s.Close()
			r.check(t, data)
			t.Logf("8 moves, longest gap at the client %v", r.gap)
		})
	}
}

// TestAbort dumps in full flight, leaves the socket dumped for longer than a
// retransmission timeout, and goes on where it was.
func TestAbort(t *testing.T) {
	data := stream(32 << 20)
	for _, f := range families {
		for _, hold := range []time.Duration{0, 50 * time.Millisecond, 700 * time.Millisecond} {
			t.Run(fmt.Sprintf("%s/dumped for %v", f.name, hold), func(t *testing.T) {
				w := newWorld(t)
				c, s := w.pair(w.listen("a", f.network), f.vip)
				r := readAll(c, time.Millisecond)
				n := writeUntil(s, data, 100*time.Millisecond)
				d, err := Dump(s)
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(hold) // the time itself is what is tested
				if err := d.Abort(); err != nil {
					t.Fatal(err)
				}
				if _, err := s.Write(data[n:]); err != nil {
					t.Fatal(err)
				}
				s.Close()
				r.check(t, data)
			})
		}
	}
}

// TestRefuse: what cannot be moved says so and stays healthy.
func TestRefuse(t *testing.T) {
	w := newWorld(t)
	c, s := w.pair(w.listen("a", "tcp4"), vip4)
	c.CloseWrite()
	s.SetReadDeadline(time.Now().Add(patience))
	if _, err := s.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("read: %v", err)
	}
	if _, err := Dump(s); !errors.Is(err, ErrNotEstablished) {
		t.Fatalf("dump of a half-closed connection: %v", err)
	}
	if _, err := s.Write([]byte("bye")); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if got, err := io.ReadAll(c); string(got) != "bye" || err != nil {
		t.Fatalf("after the refusal the client read %q, %v", got, err)
	}
}
