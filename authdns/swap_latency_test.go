package authdns

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rhumb/placement"
)

// steadily asks the Server at an address by a fixed schedule until the context ends, and returns how
// long each reply took from when its query was due, sorted, and how far a clock went from
// the query to the reply, sorted too. A query without an answer fails the test.
func steadily(ctx context.Context, t *testing.T, addr string, pace time.Duration, clock func() time.Duration) (took, ran []time.Duration) {
	c, err := net.Dial("udp", addr)
	if err != nil {
		t.Error(err)
		return nil, nil
	}
	defer c.Close()
	// A reader who gets no processor for a while still finds what was answered meanwhile.
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err == nil {
		_, err = makeRoom(raw, roomLeast)
	}
	if err != nil {
		t.Error(err)
		return nil, nil
	}
	var due, at [1 << 16]atomic.Int64
	var sent atomic.Int64
	var asking sync.WaitGroup
	asking.Go(func() {
		var queries [][]byte
		for _, q := range []string{"www.cdn.demo.test. A", "about.cdn.demo.test. TXT", "www.cdn.demo.test. AAAA", "nix.cdn.demo.test. A"} {
			queries = append(queries, ask(t, q, do))
		}
		began := time.Now()
		for n := 0; n == 0 || ctx.Err() == nil; n++ { // one at least, however late it is begun
			next := began.Add(time.Duration(n) * pace)
			if wait := time.Until(next); wait > 0 {
				time.Sleep(wait)
			}
			q := queries[n%len(queries)]
			binary.BigEndian.PutUint16(q, uint16(n))
			due[n%len(due)].Store(next.UnixNano())
			at[n%len(at)].Store(int64(clock()))
			if _, err := c.Write(q); err != nil {
				t.Error(err)
				return
			}
			sent.Add(1)
		}
	})
	done := make(chan struct{}) // closed when the last query was sent
	go func() {
		asking.Wait()
		close(done)
	}()
	buf, heard := make([]byte, 4096), time.Now()
	for {
		c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := c.Read(buf); err == nil {
			heard = time.Now()
			id := binary.BigEndian.Uint16(buf)
			took = append(took, time.Duration(heard.UnixNano()-due[id].Load()))
			ran = append(ran, clock()-time.Duration(at[id].Load()))
			continue
		}
		select {
		case <-done:
		default:
			continue
		}
		if missing := sent.Load() - int64(len(took)); missing == 0 {
			break
		} else if time.Since(heard) > 20*time.Second {
			t.Errorf("%d of %d queries have no answer 20 s after the last that has", missing, sent.Load())
			break
		}
	}
	slices.Sort(took)
	slices.Sort(ran)
	return took, ran
}

// TestSwapLatency asks a Server with signed zones at a steady pace, first left alone and
// then while its Snapshot changes ten times a second. Every query is answered, whatever
// changes; the long form holds p99 with the changes against p99 without.
func TestSwapLatency(t *testing.T) {
	long := os.Getenv("RHUMB_SOAK") != ""
	span := time.Duration(rounds(1, 100)) * 200 * time.Millisecond
	pace := time.Second / time.Duration(rounds(500, 10_000))
	src := signedSources(t)
	many := "$ORIGIN many.test.\n$TTL 300\n@ IN SOA ns hostmaster 1 7200 900 1209600 60\n IN NS ns\nns IN A 192.0.2.1\n$GENERATE 1-10000 h$ A 192.0.2.9\n"
	src = append(src, signedSource("many.test.", keysOf(t, "many.test.", true), strings.SplitN(many, "\n", 3)[2]))
	s := start(t, Config{Workers: 2, Listeners: []Listener{loopback(low, "127.0.0.1:0")}})
	if errs := s.SetZones(src); errs != nil {
		t.Fatal(errs)
	}
	snaps := []*placement.Snapshot{fleet(t, plan{}), fleet(t, plan{out: map[string]placement.Out{"ams1": placement.OutDown}})}
	s.Apply(t.Context(), snaps[0])
	measure := func(swaps bool) (p99 time.Duration, n int) {
		ctx, cancel := context.WithTimeout(t.Context(), span)
		defer cancel()
		var group sync.WaitGroup
		if swaps {
			group.Go(func() {
				tick := time.NewTicker(100 * time.Millisecond)
				defer tick.Stop()
				for i := 1; i == 1 || ctx.Err() == nil; i++ {
					s.Apply(t.Context(), snaps[i%2])
					n++
					<-tick.C
				}
			})
		}
		took, _ := steadily(ctx, t, s.Addrs()[0].String(), pace, func() time.Duration { return 0 })
		group.Wait()
		return p99Of(t, took, fmt.Sprintf("%d snapshots came", n)), n
	}
	alone, _ := measure(false)
	swapped, n := measure(true)
	if n == 0 {
		t.Error("no snapshot came")
	}
	if long && swapped > max(2*alone, 10*time.Millisecond) {
		t.Errorf("p99 %v while snapshots come, %v without: it shows", swapped, alone)
	}
}

// p99Of tells how long replies took, in order, while something went on.
func p99Of(t *testing.T, took []time.Duration, while string) time.Duration {
	t.Helper()
	if len(took) == 0 {
		t.Fatal("nothing was answered")
	}
	p99 := took[len(took)*99/100]
	t.Logf("%d replies while %s: p50 %v, p99 %v, most %v", len(took), while, took[len(took)/2], p99, took[len(took)-1])
	return p99
}
