package authdns

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"rhumb/placement"
)

// swapQuestions are asked while states change: static, denied, steered by the
// fast path, and one that only the slow path answers.
var swapQuestions = []string{"www.demo.test. A", "nix.demo.test. A", "www.cdn.demo.test. A", "www.cdn.demo.test. AAAA", "cdn.demo.test. NS", "about.cdn.demo.test. TXT", "www.demo.test. ANY"}

// TestSwapUnderLoad: while states change, every query is answered exactly once,
// wholly from one of the states, and is counted once.
func TestSwapUnderLoad(t *testing.T) {
	one, two := fleet(t, plan{}), fleet(t, plan{out: map[string]placement.Out{"ams1": placement.OutDown}})
	two.Name = placement.Name{Plan: 1042, Votes: 18}
	zones := []Source{sources()[1], textSource(low, "demo.test.", "", strings.SplitN(demoZone, "\n", 3)[2])}
	want := map[string]string{} // by question and state
	for _, snap := range []*placement.Snapshot{one, two} {
		st := compiled(t, snap, zones...)
		for _, q := range swapQuestions {
			want[q+" "+snap.Name.String()] = show(st.reply(t, swapQuery(t, q, 0), from("127.0.0.1", low)))
		}
	}
	s := start(t, Config{Workers: 2, Listeners: []Listener{loopback(low, "127.0.0.1:0")}})
	if errs := s.SetZones(zones); errs != nil {
		t.Fatal(errs)
	}
	s.Apply(t.Context(), one)

	const clients, half = 4, 750
	const each = 2 * half
	enough := make(chan struct{}) // closed after so many changes that something is shown
	var left atomic.Int64
	left.Store(clients)
	var asking, swapping sync.WaitGroup
	for c := range clients {
		asking.Go(func() {
			defer left.Add(-1)
			swapClient(t, s.Addrs()[0], half, c, want)
			<-enough
			swapClient(t, s.Addrs()[0], half, c, want)
		})
	}
	swaps := 0
	swapping.Go(func() {
		for ; left.Load() > 0; swaps++ {
			s.Apply(t.Context(), []*placement.Snapshot{two, one}[swaps%2])
			s.fold() // as a scrape does
			if swaps == 10 {
				close(enough)
			}
		}
	})
	asking.Wait()
	swapping.Wait()
	if swaps < 10 {
		t.Errorf("only %d changes of state", swaps)
	}
	if got := sum(t, s, "rhumb_dns_requests_total"); got != clients*each {
		t.Errorf("counted %v of %d queries", got, clients*each)
	}
	for _, spread := range []*spread{s.metrics.size, s.metrics.duration} {
		n := uint64(0)
		for i := range spread.proto[0].counts {
			n += spread.proto[0].counts[i].Load()
		}
		if n != clients*each {
			t.Errorf("%s: %d of %d replies", spread.desc, n, clients*each)
		}
	}
	steered := 0
	for i := range half {
		if q := swapQuestions[i%len(swapQuestions)]; strings.HasPrefix(q, "www.cdn") {
			steered += 2 * clients
		}
	}
	if got := sum(t, s, "rhumb_dns_decisions_total"); int(got) != steered {
		t.Errorf("counted %v of %d decisions", got, steered)
	}
}

func swapQuery(t *testing.T, question string, id uint16) []byte {
	return ask(t, question, edns0(&dns.EDNS0_NSID{Code: dns.EDNS0NSID}), func(m *dns.Msg) { m.Id = id })
}

// swapClient asks n times, four at once, and checks each reply.
func swapClient(t *testing.T, to netip.AddrPort, n, phase int, want map[string]string) {
	c, err := net.Dial("udp", to.String())
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(60 * time.Second))
	sent, open, buf := 0, map[uint16]string{}, make([]byte, 4096)
	for sent < n || len(open) > 0 {
		if sent < n && len(open) < 4 {
			q := swapQuestions[sent%len(swapQuestions)]
			open[uint16(sent)] = q
			if _, err := c.Write(swapQuery(t, q, uint16(sent))); err != nil {
				t.Error(err)
				return
			}
			sent++
			continue
		}
		size, err := c.Read(buf)
		if err != nil {
			t.Errorf("client %d, %d sent, %d open: %v", phase, sent, len(open), err)
			return
		}
		m, id := new(dns.Msg), binary.BigEndian.Uint16(buf)
		q, ok := open[id]
		if err := m.Unpack(buf[:size]); err != nil || !ok {
			t.Errorf("reply %d: open %v, %v", id, ok, err)
			return
		}
		delete(open, id)
		if got := show(m); got != want[q+" "+stateOf(m)] {
			t.Errorf("%s from state %s: %s", q, stateOf(m), got)
			return
		}
	}
}

// stateOf reads the state's name from the NSID.
func stateOf(m *dns.Msg) string {
	for _, o := range m.IsEdns0().Option {
		if n, ok := o.(*dns.EDNS0_NSID); ok {
			b, _ := hex.DecodeString(n.Nsid)
			return string(b[bytes.LastIndexByte(b, ' ')+1:])
		}
	}
	return ""
}

// sum adds up all samples of a metric.
func sum(t *testing.T, s *Server, name string) (total float64) {
	t.Helper()
	for line := range strings.Lines(samples(t, s, name)) {
		var v float64
		if _, err := fmt.Sscan(line[strings.LastIndex(line, "]")+1:], &v); err != nil {
			t.Fatal(err)
		}
		total += v
	}
	return total
}

// TestIdleWorkersFollow: when a state was put in force, no worker holds one before
// it, even where nobody asked since.
func TestIdleWorkersFollow(t *testing.T) {
	s := start(t, Config{Workers: 3, Listeners: []Listener{loopback(top, "127.0.0.1:0")}})
	s.SetZones(sources())
	exchange(t, "udp", s.Addrs()[0], ask(t, "www.demo.test. A"))
	s.Apply(t.Context(), fleet(t, plan{}))
	s.workersMu.Lock()
	defer s.workersMu.Unlock()
	for _, w := range s.udpWorkers {
		if w.ledger.Load().state != s.current.Load() {
			t.Error("a worker holds the state before")
		}
	}
}

// TestEndsUnderLoad: a Server ends though its socket is never empty: whenever it
// looks at the clock to answer, the next query comes in.
func TestEndsUnderLoad(t *testing.T) {
	flood, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	var c net.Conn
	q, flowing := ask(t, "www.demo.test. A"), make(chan struct{}, 1)
	s, err := New(Config{Workers: 1, Listeners: []Listener{loopback(top, "127.0.0.1:0")}, Now: func() time.Time {
		if c != nil && flood.Err() == nil {
			if _, err := c.Write(q); err == nil {
				select {
				case flowing <- struct{}{}:
				default:
				}
			}
		}
		return time.Now()
	}})
	if err != nil {
		t.Fatal(err)
	}
	s.SetZones(sources())
	if c, err = net.Dial("udp", s.Addrs()[0].String()); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	if _, err := c.Write(q); err != nil {
		t.Fatal(err)
	}
	select {
	case <-flowing:
	case <-flood.Done():
		t.Error("no query was answered")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if flood.Err() != nil {
		t.Error("answered on, a minute after its end")
	}
}
