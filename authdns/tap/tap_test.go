package tap

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var (
	client4 = netip.MustParseAddrPort("203.0.113.7:4242")
	client6 = netip.MustParseAddrPort("[2001:db8::7]:4242")
	ours4   = netip.MustParseAddrPort("192.0.2.1:53")
)

func exchange(query, reply string) *Exchange {
	at := time.Unix(1_700_000_000, 123456789)
	return &Exchange{Protocol: UDP, Client: client4, Server: ours4, Asked: at, Told: at.Add(time.Microsecond), Query: []byte(query), Reply: []byte(reply)}
}

// text is an exchange whole.
func text(e *Exchange) string {
	return fmt.Sprint(e.Protocol, e.Client, e.Server, e.Asked.UnixNano(), e.Told.UnixNano(), string(e.Query), string(e.Reply))
}

// TestRing: what is read is what was put, in order, without what found no room, whatever
// the sizes; compared with a list.
func TestRing(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		r := New(Config{Size: 4096}).Ring()
		var want []string
		dropped, used := uint64(0), 0
		for range 2000 {
			if rnd.IntN(3) > 0 {
				e := exchange(strings.Repeat("q", rnd.IntN(300)), strings.Repeat("r", rnd.IntN(700)))
				if rnd.IntN(2) == 0 {
					e.Client, e.Server = client6, netip.AddrPort{}
				}
				before := r.dropped.Load()
				r.Put(e)
				if r.dropped.Load() == before {
					want = append(want, text(e))
				} else {
					dropped++
				}
				continue
			}
			stop := rnd.IntN(8)
			r.take(func(e *Exchange) bool {
				if len(want) == 0 || text(e) != want[0] {
					t.Fatalf("seed %d: got %s", seed, text(e))
				}
				want, used, stop = want[1:], used+1, stop-1
				return stop > 0
			})
		}
		if used == 0 || dropped == 0 {
			t.Errorf("seed %d: %d read, %d dropped: nothing was tested", seed, used, dropped)
		}
	}
}

// TestRingTakeEnds: a writer who is as fast as the reader does not hold it.
func TestRingTakeEnds(t *testing.T) {
	r, n := New(Config{Size: 4096}).Ring(), 0
	r.Put(exchange("q", "r"))
	r.take(func(*Exchange) bool {
		r.Put(exchange("q", "r"))
		n++
		return n < 100
	})
	if n != 1 {
		t.Errorf("%d taken, want the one that lay there", n)
	}
}

// TestRingShared: one writes while another reads.
func TestRingShared(t *testing.T) {
	const n = 20_000
	r := New(Config{Size: 4096}).Ring()
	var done sync.WaitGroup
	done.Go(func() {
		for i := range n {
			r.Put(exchange(fmt.Sprintf("%08d", i), "r"))
		}
	})
	last, got := "", uint64(0)
	look := func(e *Exchange) bool {
		if string(e.Query) <= last || string(e.Reply) != "r" {
			t.Errorf("%s after %s", e.Query, last)
			return false
		}
		last, got = string(e.Query), got+1
		return true
	}
	stopped := make(chan struct{})
	go func() { done.Wait(); close(stopped) }()
	for over := false; !over; {
		select {
		case <-stopped:
			over = true
		default:
		}
		r.take(look)
	}
	if got+r.dropped.Load() != n || got == 0 {
		t.Errorf("%d read, %d dropped, of %d", got, r.dropped.Load(), n)
	}
}

// TestPutIsFree: a worker that tells allocates nothing, with room and without.
func TestPutIsFree(t *testing.T) {
	r := New(Config{Size: 4096, Every: 2}).Ring()
	e := exchange("query", "reply")
	if n := testing.AllocsPerRun(500, func() {
		if r.Wanted() {
			r.Put(e)
		}
	}); n != 0 || r.dropped.Load() == 0 {
		t.Errorf("%v allocations, %d dropped", n, r.dropped.Load())
	}
}

// TestTakeIsCheap: reading makes no garbage for each exchange: of a busy server that would
// be a hundred megabytes in a second.
func TestTakeIsCheap(t *testing.T) {
	r, w, e := New(Config{Size: 1 << 16}).Ring(), &writer{}, exchange("query", "reply")
	if n := testing.AllocsPerRun(50, func() {
		for range 100 {
			r.Put(e)
		}
		r.take(func(e *Exchange) bool {
			w.buf = w.frames(w.buf[:0], e)
			return true
		})
	}); n > 5 {
		t.Errorf("%v allocations for 100 exchanges", n)
	}
}

// TestSample: of N exchanges one is told.
func TestSample(t *testing.T) {
	r, n := New(Config{Every: 10}).Ring(), 0
	for range 1000 {
		if r.Wanted() {
			n++
		}
	}
	if n != 100 {
		t.Errorf("%d of 1000, want 100", n)
	}
}

// welcome is a collector's side of the handshake.
func welcome(c net.Conn) error {
	if err := readControl(c, controlReady); err != nil {
		return err
	}
	if _, err := c.Write(control(controlAccept, true)); err != nil {
		return err
	}
	return readControl(c, controlStart)
}

// collector accepts once, shakes hands, and gives back all frames until the end, which it
// confirms.
func collector(t *testing.T, l net.Listener, frames func([]byte)) error {
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if err := welcome(c); err != nil {
		return err
	}
	for {
		var size [4]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return err
		}
		n := binary.BigEndian.Uint32(size[:])
		if n == 0 {
			var rest [8]byte
			if _, err := io.ReadFull(c, rest[:]); err != nil || binary.BigEndian.Uint32(rest[4:]) != controlStop {
				return fmt.Errorf("%v: not the end: %x", err, rest)
			}
			_, err := c.Write(control(controlFinish, false))
			return err
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(c, b); err != nil {
			return err
		}
		frames(b)
	}
}

// TestTap: everything that was put before the end arrives, over unix and over TCP, from a
// collector that came late too, and the end is said and confirmed.
func TestTap(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		address := filepath.Join(t.TempDir(), "tap.sock")
		if network == "tcp" {
			address = "127.0.0.1:0"
		}
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		tap := New(Config{Network: network, Address: l.Addr().String(), Identity: "ns1", Version: "v"})
		rings := []*Ring{tap.Ring(), tap.Ring()}
		rings[0].Put(exchange("asked", "told"))
		rings[1].Put(exchange("unanswered", ""))
		ctx, cancel := context.WithCancel(t.Context())
		var got [][]byte
		var served error
		var all sync.WaitGroup
		all.Go(func() {
			served = collector(t, l, func(b []byte) {
				if got = append(got, b); len(got) == 3 {
					rings[0].Put(exchange("last", "word"))
					cancel()
				}
			})
		})
		if err := tap.Run(ctx); err != nil {
			t.Error(err)
		}
		all.Wait()
		if served != nil || len(got) != 3 && len(got) != 5 {
			t.Fatalf("%s: %v, %d frames", network, served, len(got))
		}
		for i, want := range []string{"asked", "told", "unanswered"} {
			if !bytes.Contains(got[i], []byte(want)) || !bytes.Contains(got[i], []byte("ns1")) {
				t.Errorf("%s: frame %d is %q", network, i, got[i])
			}
		}
		if sent, dropped, _ := tap.Counts(); sent < 2 || dropped != 0 {
			t.Errorf("%s: %d sent, %d dropped", network, sent, dropped)
		}
	}
}

// TestTapSlow: a collector that does not read costs exchanges, and nobody's time.
func TestTapSlow(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "tap.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tap := New(Config{Network: "unix", Address: l.Addr().String(), Size: 1 << 14})
	r := tap.Ring()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { tap.Run(ctx) })
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := welcome(c); err != nil {
		t.Fatal(err)
	}
	e := exchange("q", strings.Repeat("r", 500))
	for began := time.Now(); time.Since(began) < 20*time.Second; r.Put(e) {
		if _, dropped, connected := tap.Counts(); dropped > 0 && connected {
			break
		}
	}
	if _, dropped, connected := tap.Counts(); dropped == 0 || !connected {
		t.Errorf("%d dropped, connected %v", dropped, connected)
	}
	c.Close()
	cancel()
	all.Wait()
}

// lines counts what is logged.
type lines struct {
	mu    sync.Mutex
	warns []string
}

func (l *lines) Enabled(context.Context, slog.Level) bool { return true }
func (l *lines) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *lines) WithGroup(string) slog.Handler            { return l }
func (l *lines) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.Level == slog.LevelWarn {
		r.Attrs(func(a slog.Attr) bool { l.warns = append(l.warns, a.String()); return true })
	}
	return nil
}

// TestTapLogsOnce: a collector that breaks off each time, from a port that is another each
// time, is told of once, and again when there was one in between.
func TestTapLogsOnce(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	log := new(lines)
	tap := New(Config{Network: "tcp", Address: l.Addr().String(), Retry: time.Millisecond, Log: slog.New(log)})
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { tap.Run(ctx) })
	reset := func(times int) {
		for range times {
			c, err := l.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			c.SetDeadline(time.Now().Add(20 * time.Second))
			readControl(c, controlReady)
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
	}
	reset(5)
	c, err := l.Accept() // the fifth was told by now
	if err != nil {
		t.Fatal(err)
	}
	log.mu.Lock()
	if len(log.warns) != 2 || !strings.Contains(log.warns[1], "reset") {
		t.Errorf("five times the same: %q", log.warns)
	}
	log.mu.Unlock()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if err := welcome(c); err != nil {
		t.Fatal(err)
	}
	r := tap.Ring()
	await := func(want bool, meanwhile func()) {
		for began := time.Now(); time.Since(began) < 20*time.Second; meanwhile() {
			if _, _, connected := tap.Counts(); connected == want {
				return
			}
		}
		t.Fatalf("connected is not %t", want)
	}
	await(true, func() { time.Sleep(time.Millisecond) })
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
	await(false, func() { r.Put(exchange("q", "r")) })
	reset(3)
	cancel()
	l.Close()
	all.Wait()
	if n := len(log.warns); n < 4 || n > 8 {
		t.Errorf("after one that listened: %q", log.warns)
	}
}

// TestTapEnds: a collector that takes nothing keeps the server from ending for a moment,
// not for as long as it may take in service.
func TestTapEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, greets := range []bool{false, true} {
			ours, theirs := net.Pipe()
			tap := New(Config{})
			tap.Ring().Put(exchange("asked", "told"))
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- tap.converse(ctx, ours) }()
			if greets {
				if err := welcome(theirs); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
			began := time.Now()
			cancel()
			if err := <-ended; err == nil || time.Since(began) != endWithin {
				t.Errorf("greeted %v: ends after %s, %v", greets, time.Since(began), err)
			}
			ours.Close()
			theirs.Close()
		}
	})
}

// TestTapRefused: who does not take dnstap is not sent any.
func TestTapRefused(t *testing.T) {
	var b []byte
	for _, content := range []string{"protobuf:other", ""} {
		body := binary.BigEndian.AppendUint32(nil, controlAccept)
		if content != "" {
			body = binary.BigEndian.AppendUint32(body, fieldContentType)
			body = binary.BigEndian.AppendUint32(body, uint32(len(content)))
			body = append(body, content...)
		}
		b = append(binary.BigEndian.AppendUint32(make([]byte, 4), uint32(len(body))), body...)
		if err := readControl(bytes.NewReader(b), controlAccept); (err != nil) != (content != "") {
			t.Errorf("%q: %v", content, err)
		}
	}
	for _, bad := range [][]byte{{}, b[:7], {0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 1}, {0, 0, 0, 0, 0xff, 0, 0, 0}, control(controlFinish, true), slices.Concat(b[:4], []byte{0, 0, 0, 9}, b[8:], []byte{1, 2, 3, 4, 5})} {
		if readControl(bytes.NewReader(bad), controlAccept) == nil {
			t.Errorf("%x is taken", bad)
		}
	}
}

// FuzzControl: no collector can end the server by what it says.
func FuzzControl(f *testing.F) {
	f.Add(control(controlAccept, true))
	f.Add(control(controlFinish, false))
	f.Fuzz(func(t *testing.T, b []byte) { readControl(bytes.NewReader(b), controlAccept) })
}

func BenchmarkPut(b *testing.B) {
	r := New(Config{}).Ring()
	e := exchange(strings.Repeat("q", 45), strings.Repeat("r", 61))
	b.ReportAllocs()
	for b.Loop() {
		if r.Put(e); r.head.Load()-r.tail.Load() > ringSize/2 {
			r.tail.Store(r.head.Load())
		}
	}
}
