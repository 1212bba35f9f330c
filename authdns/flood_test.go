package authdns

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// flooded is a Server that signs, on loopback, with one client of each good class, and
// somebody who floods it.
type flooded struct {
	t      *testing.T
	server *Server
	to     *net.UDPAddr
	// ahead is by how much the Server's clock is, in nanoseconds.
	ahead atomic.Int64
	// rate is how many names that do not exist one core can sign in a second.
	rate int
	sent atomic.Int64 // by the flood
}

// The clients, each in a network of its own; those of the flood are in 127.64.0.0/10.
const (
	floodCookie = "127.4.0.1"
	floodKnown  = "127.1.0.1"
)

// newFlooded measures how fast this machine signs, and starts a Server that may use a
// quarter of that.
func newFlooded(t *testing.T) *flooded {
	t.Helper()
	f := &flooded{t: t}
	src := signedSources(t)
	st := loadedBy(t, time.Now, 1<<20, src...).current.Load()
	out, began := make([]byte, maxUDP), time.Now()
	const signed = 300
	for i := range signed {
		st.answer(ask(t, fmt.Sprintf("m%d.demo.test. A", i), do), out, from(euResolver, top))
	}
	f.rate = max(int(signed/time.Since(began).Seconds()), 400)
	f.server = start(t, Config{Workers: 2, Listeners: []Listener{loopback(top, "127.0.0.1:0")}, Secrets: testSecrets(), SignBudget: f.rate / 4,
		Now: func() time.Time { return time.Now().Add(time.Duration(f.ahead.Load())) }})
	if errs := f.server.SetZones(src); errs != nil {
		t.Fatal(errs)
	}
	f.to = net.UDPAddrFromAddrPort(f.server.Addrs()[0])
	return f
}

func (f *flooded) dial(addr string) *net.UDPConn {
	f.t.Helper()
	c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(addr)}, f.to)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	return c
}

// befriend lets a network ask in calm minutes until it is known.
func (f *flooded) befriend(addr string) {
	f.t.Helper()
	a, c, buf := netip.MustParseAddr(addr), f.dial(addr), make([]byte, 4096)
	for began := time.Now(); !f.server.shield.overload.known.has(a, f.server.now().UnixNano()); f.ahead.Add(int64(time.Minute)) {
		for range 2 * knownSampling {
			c.SetDeadline(time.Now().Add(20 * time.Second))
			if _, err := c.Write(ask(f.t, "www.demo.test. A", do)); err != nil {
				f.t.Fatal(err)
			}
			if _, err := c.Read(buf); err != nil {
				f.t.Fatalf("calm times: %v", err)
			}
		}
		if time.Since(began) > 60*time.Second {
			f.t.Fatalf("%s asked for %d minutes and is not known", addr, f.ahead.Load()/int64(time.Minute))
		}
	}
}

// queued is how many octets the fullest socket of the Server holds.
func (f *flooded) queued() (most int) {
	for _, k := range f.server.sockets {
		if k.packet == nil {
			continue
		}
		raw, err := k.packet.(*net.UDPConn).SyscallConn()
		if err != nil {
			f.t.Error(err)
			return 0
		}
		raw.Control(func(fd uintptr) {
			var info [9]uint32 // SK_MEMINFO_RMEM_ALLOC, ...
			size := uint32(unsafe.Sizeof(info))
			if _, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO, uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0); errno != 0 {
				f.t.Errorf("SO_MEMINFO: %v", errno)
			}
			most = max(most, int(info[0]))
		})
	}
	return most
}

// flood asks for random names from many networks, at twice the rate that one core can
// sign, until the context ends. A bounded one waits while a socket holds some thousand
// queries: then what is lost was turned away, and not lost on the way because machine
// and test are busy with something else.
func (f *flooded) flood(ctx context.Context, bounded bool) {
	var conns []*net.UDPConn
	for i := range 64 {
		conns = append(conns, f.dial(fmt.Sprintf("127.%d.%d.1", 64+i, i)))
	}
	query := ask(f.t, "xxxxxxxxxxxx.demo.test. A", do)
	began := time.Now()
	for n := int64(0); ctx.Err() == nil; {
		due := int64(2 * float64(f.rate) * time.Since(began).Seconds())
		if n >= due || bounded && f.queued() > 1<<20 {
			time.Sleep(time.Millisecond)
			continue
		}
		for ; n < due && n%32 != 31; n++ {
			f.random(conns, query, n)
		}
		f.random(conns, query, n)
		n++
	}
}

// random sends the flood's nth query.
func (f *flooded) random(conns []*net.UDPConn, query []byte, n int64) {
	copy(query[headerLen+1:], fmt.Sprintf("%012x", uint64(n)*0x9e3779b97f4a7c15>>16))
	if _, err := conns[n%int64(len(conns))].Write(query); err != nil {
		f.t.Error(err)
	}
	f.sent.Add(1)
}

// turnedAway is how many queries were truncated, asked for a cookie or dropped.
func (f *flooded) turnedAway() (n int) {
	for line := range strings.Lines(samples(f.t, f.server, "rhumb_dns_overload_queries_total")) {
		var v int
		if _, err := fmt.Sscan(line[strings.LastIndex(line, "]")+1:], &v); err == nil && !strings.Contains(line, `"answered"`) {
			n += v
		}
	}
	return n
}

// heard is what became of a good client's queries.
type heard struct {
	sent, answered int
	took           []time.Duration // sorted, of those answered
}

func (h *heard) p99() time.Duration {
	if len(h.took) == 0 {
		return 0
	}
	return h.took[len(h.took)*99/100]
}

// good asks n times, a name that exists and one that does not in turn, at a given pace,
// and listens until all replies are there, or none came for ten seconds.
func (f *flooded) good(addr, name string, n int, pace time.Duration) *heard {
	c, h := f.dial(addr), &heard{}
	due := make([]atomic.Int64, n)
	var asking sync.WaitGroup
	asking.Go(func() {
		tick := time.NewTicker(pace)
		defer tick.Stop()
		for i := range n {
			question := "www.demo.test. A"
			if i%2 == 1 {
				question = fmt.Sprintf("%s%d.demo.test. A", name, i)
			}
			var cookie []byte
			if addr == floodCookie {
				cookie = serverCookie(&testSecrets()[0], addr, uint32(f.server.now().Unix()))
			}
			query := ask(f.t, question, signedWith(cookie))
			binary.BigEndian.PutUint16(query, uint16(i))
			due[i].Store(time.Now().UnixNano())
			if _, err := c.Write(query); err != nil {
				f.t.Error(err)
			}
			<-tick.C
		}
	})
	h.sent = n
	buf := make([]byte, 4096)
	for range n {
		c.SetReadDeadline(time.Now().Add(10*time.Second + 2*pace))
		size, err := c.Read(buf)
		if err != nil {
			break
		}
		id := int(binary.BigEndian.Uint16(buf))
		if truncated := buf[2]&0x02 != 0; size < headerLen || id >= n || truncated || buf[3]&0xf != 0 {
			continue
		}
		h.answered++
		h.took = append(h.took, time.Duration(time.Now().UnixNano()-due[id].Load()))
	}
	asking.Wait()
	slices.Sort(h.took)
	return h
}

// TestRandomNames: a flood of random names over real sockets, of twice what one core can sign.
// Whoever shows a cookie, or is known, is answered all the same; the flood is turned away,
// and it is told. The long form looks at the time that it takes as well.
func TestRandomNames(t *testing.T) {
	long := os.Getenv("RHUMB_SOAK") != ""
	f := newFlooded(t)
	f.befriend(floodKnown)
	ctx, end := context.WithCancel(t.Context())
	defer end()
	var flooding sync.WaitGroup
	flooding.Go(func() { f.flood(ctx, !long) })
	for began := time.Now(); f.turnedAway() < 500; time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > 60*time.Second {
			t.Fatalf("no overload: %d queries sent, %v turned away, %d signatures a second of one core, budget %d", f.sent.Load(), f.turnedAway(), f.rate, f.rate/4)
		}
	}
	// Each asks for an eighth of the budget at most, every second query for a signature.
	pace := time.Second / time.Duration(max(f.rate/4/4, 1))
	n := rounds(150, int(30*time.Second/pace))
	clients := map[string]*heard{floodCookie: nil, floodKnown: nil}
	var asking sync.WaitGroup
	var mu sync.Mutex
	for addr, name := range map[string]string{floodCookie: "c", floodKnown: "k"} {
		asking.Go(func() {
			h := f.good(addr, name, min(n, 60000), pace)
			mu.Lock()
			defer mu.Unlock()
			clients[addr] = h
		})
	}
	asking.Wait()
	f.server.lookAtStrain(f.server.now())
	told := f.server.Overload().String()
	end()
	flooding.Wait()
	t.Logf("one core signs %d names a second; the flood sent %d, %v were turned away; told: %s", f.rate, f.sent.Load(), f.turnedAway(), told)
	for addr, h := range clients {
		t.Logf("%s: %d of %d answered, p99 %v", addr, h.answered, h.sent, h.p99())
		if h.answered*100 < h.sent*99 {
			t.Errorf("%s: %d of %d answered, want 99 %%; by class:\n%s", addr, h.answered, h.sent, samples(t, f.server, "rhumb_dns_overload_queries_total"))
		}
		if long && h.p99() > 10*time.Millisecond {
			t.Errorf("%s: p99 %v, want 10 ms", addr, h.p99())
		}
	}
	if !strings.Contains(told, "below demo.test.") {
		t.Errorf("told: %q, want the name that is attacked", told)
	}
}
