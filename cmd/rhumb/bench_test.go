package main

import (
	"encoding/json"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"rhumb/authdns"
	"rhumb/internal/config"
)

// TestLatenciesOracle: quantiles are those of the sorted list, within 1/32.
func TestLatenciesOracle(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 2, 99, 1000, 5000} {
		var l, half latencies
		var all []time.Duration
		for i := range n {
			d := time.Duration(r.Uint64N(1 << r.UintN(36)))
			all = append(all, d)
			if i%2 == 0 {
				l.add(d)
			} else {
				half.add(d)
			}
		}
		l.merge(&half)
		slices.Sort(all)
		for _, q := range []float64{0.01, .5, .9, .99, .999, 1} {
			at := int(q * float64(n))
			if float64(at) < q*float64(n) {
				at++
			}
			want, got := all[max(at, 1)-1], l.quantile(q)
			if got < want || got > want+want/32 {
				t.Errorf("%d values, quantile %v: %v, the list says %v", n, q, got, want)
			}
		}
		if sum := int64(0); true {
			for _, b := range l.bars() {
				sum += b.Count
			}
			if sum != int64(n) || l.max != all[n-1] {
				t.Errorf("%d values: bars hold %d, max %v", n, sum, l.max)
			}
		}
	}
}

func TestBuckets(t *testing.T) {
	for i := range benchBuckets - 1 {
		if bucket(upper(i)) != i || bucket(upper(i)+1) != i+1 {
			t.Fatalf("bucket %d ends at %d: %d, %d", i, upper(i), bucket(upper(i)), bucket(upper(i)+1))
		}
	}
}

// TestPaceOpen: what a stall kept from being asked is due at its own time.
func TestPaceOpen(t *testing.T) {
	p := pace{every: 10 * time.Millisecond, first: 5 * time.Millisecond, end: 100 * time.Millisecond}
	if n := p.ready(4*time.Millisecond, 0); n != 0 {
		t.Errorf("%d due before the first", n)
	}
	if n := p.ready(5*time.Millisecond, 0); n != 1 {
		t.Errorf("%d due at the first", n)
	}
	if d := p.next(6 * time.Millisecond); d != 5*time.Millisecond {
		t.Errorf("the first was due at %v", d)
	}
	if w := p.wait(6 * time.Millisecond); w != 9*time.Millisecond {
		t.Errorf("waits %v", w)
	}
	if n := p.ready(50*time.Millisecond, 0); n != 4 {
		t.Errorf("%d due after a stall, want 4", n)
	}
	for range p.ready(time.Second, 0) {
		p.next(time.Second)
	}
	if p.asked != 10 || !p.over(time.Second) || p.ready(time.Second, 0) != 0 {
		t.Errorf("%d asked in all", p.asked)
	}
}

func TestPaceClosed(t *testing.T) {
	p := pace{outstanding: 3, end: time.Second}
	if n := p.ready(0, 1); n != 2 {
		t.Errorf("%d due with one open of three", n)
	}
	if p.next(7) != 7 || p.over(0) || !p.over(time.Second) || p.ready(time.Second, 0) != 0 {
		t.Error("a closed loop asks when it may, until the end")
	}
}

func TestInFlight(t *testing.T) {
	var f inFlight
	ids := map[uint16]bool{}
	for i := range maxOpen {
		ids[f.add(time.Duration(i), time.Duration(i))] = true
	}
	if len(ids) != maxOpen || f.count != maxOpen {
		t.Fatalf("%d IDs for %d queries", len(ids), maxOpen)
	}
	if due, ok := f.take(7); !ok || due != 7 {
		t.Errorf("query 7 was due at %v, %v", due, ok)
	}
	if _, ok := f.take(7); ok {
		t.Error("a second reply is none")
	}
	if lost := f.expire(100); lost != 99 || f.count != maxOpen-100 {
		t.Errorf("%d lost, %d open", lost, f.count)
	}
	for range 3 * maxOpen { // IDs come around; those of open queries are passed over
		id := f.add(200, 200)
		if ids[id] && id >= 100 && id < maxOpen && f.due[id] != 201 {
			t.Fatalf("ID %d is in use", id)
		}
		f.take(id)
	}
}

func TestBenchQueries(t *testing.T) {
	q := &benchQueries{subnet: netip.MustParsePrefix("198.51.100.0/22").Masked()}
	if err := readNames(strings.NewReader("# queries\nwww.demo.test\n\nmail.demo.test. mx # one\n"), dns.TypeAAAA, q); err != nil {
		t.Fatal(err)
	}
	r, out, blocks := rand.New(rand.NewPCG(1, 1)), make([]byte, 2048), map[string]bool{}
	for i := range 200 {
		m := new(dns.Msg)
		if err := m.Unpack(out[:q.write(out, uint16(i), r)]); err != nil || m.Id != uint16(i) {
			t.Fatal(m, err)
		}
		o := m.IsEdns0().Option[0].(*dns.EDNS0_SUBNET)
		a, _ := netip.AddrFromSlice(o.Address.To4())
		if !q.subnet.Contains(a) || o.SourceNetmask != 24 {
			t.Fatalf("subnet %v", o)
		}
		blocks[m.Question[0].String()+a.String()] = true
	}
	if len(blocks) != 8 {
		t.Errorf("%d of 2 names times 4 blocks", len(blocks))
	}
	v6 := &benchQueries{subnet: netip.MustParsePrefix("2001:db8::/40")}
	if err := v6.generate("demo.test", 2, dns.TypeA); err != nil {
		t.Fatal(err)
	}
	m := new(dns.Msg)
	if err := m.Unpack(out[:v6.write(out, 1, r)]); err != nil || !strings.HasPrefix(m.Question[0].Name, "h") {
		t.Fatal(m, err)
	}
	if a, _ := netip.AddrFromSlice(m.IsEdns0().Option[0].(*dns.EDNS0_SUBNET).Address); !v6.subnet.Contains(a) {
		t.Errorf("%s is not in %s", a, v6.subnet)
	}
	for _, bad := range []string{"www.demo.test NOTYPE", "a..b"} {
		if readNames(strings.NewReader(bad), dns.TypeA, q) == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func benchJSON(t *testing.T, line ...string) *benchReport {
	t.Helper()
	code, out, errs := cli(t.Context(), append(append([]string{"bench"}, line...), "-o", "json")...)
	if code != exitOK {
		t.Fatalf("exit %d: %s", code, errs)
	}
	var r benchReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	return &r
}

// benchUntil benches for as long as it takes to see enough: a busy machine may take all
// of a short time before the first query.
func benchUntil(t *testing.T, enough func(*benchReport) bool, line ...string) *benchReport {
	t.Helper()
	line = append(append([]string{"bench"}, line...), "--patience", "10s", "-o", "json")
	for d := 200 * time.Millisecond; ; d *= 2 {
		var r benchReport
		code, out, errs := cli(t.Context(), append(line, "--duration", d.String())...)
		if code == exitOK {
			if err := json.Unmarshal([]byte(out), &r); err != nil {
				t.Fatal(err)
			}
			if enough(&r) {
				return &r
			}
		}
		if d > 10*time.Second {
			t.Fatalf("in %v not enough was asked: exit %d: %s%s", d, code, errs, out)
		}
	}
}

// TestBench asks a server in every way, and all is answered.
func TestBench(t *testing.T) {
	server := strings.TrimPrefix(startServer(t), "@")
	names := filepath.Join(t.TempDir(), "names")
	if err := os.WriteFile(names, []byte("www.demo.test\nmail.demo.test AAAA\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, line := range map[string][]string{
		"closed, UDP": {"--zone", "demo.test", "--count", "20", "--outstanding", "7"},
		"closed, TCP": {"--names", names, "--tcp", "--outstanding", "7", "--sockets", "2"},
		"open, UDP":   {"--names", names, "--rate", "500", "--subnet", "198.51.100.0/24"},
		"open, TCP":   {"--zone", "demo.test", "--rate", "500", "--tcp"},
		"one at once": {"--zone", "demo.test", "--outstanding", "1"},
	} {
		t.Run(name, func(t *testing.T) {
			open := strings.HasPrefix(name, "open")
			var r *benchReport
			if open { // which asks all that is due, however late
				r = benchJSON(t, append([]string{server, "--duration", "200ms", "--patience", "10s"}, line...)...)
			} else {
				r = benchUntil(t, func(r *benchReport) bool { return r.Sent > 0 }, append([]string{server}, line...)...)
			}
			if r.Sent == 0 || r.Answered != r.Sent || r.Lost != 0 || r.Strays != 0 || r.Rcodes["NOERROR"] != r.Sent {
				t.Errorf("%+v", r)
			}
			if open && r.Sent != 100 {
				t.Errorf("sent %d, want 500 a second for 200 ms", r.Sent)
			}
			if r.Latency["p50"] <= 0 || r.Latency["p50"] > r.Latency["p99"] || r.Latency["p99"] > r.Latency["max"] || len(r.Histogram) == 0 {
				t.Errorf("latency %v", r.Latency)
			}
		})
	}
}

// TestBenchEncrypted asks our own server over everything that it speaks.
func TestBenchEncrypted(t *testing.T) {
	dir := t.TempDir()
	writePair(t, dir, 1)
	cert, key := filepath.Join(dir, "dot.crt"), filepath.Join(dir, "dot.key")
	for name, c := range map[string]struct {
		listen func(*authdns.Config, []netip.AddrPort) error
		line   []string
	}{
		"tls": {func(c *authdns.Config, low []netip.AddrPort) error {
			return listenDoT(c, &config.DoT{Low: low, Cert: cert, Key: key})
		}, []string{"--tls"}},
		"https": {func(c *authdns.Config, low []netip.AddrPort) error {
			return listenDoH(c, &config.DoH{Low: low, Cert: cert, Key: key})
		}, []string{"--https"}},
		"quic": {func(c *authdns.Config, low []netip.AddrPort) error {
			return listenDoQ(c, &config.DoQ{Low: low, Cert: cert, Key: key})
		}, []string{"--quic"}},
	} {
		t.Run(name, func(t *testing.T) {
			pc, free := bothPorts(t)
			defer pc.Close()
			defer free.Close()
			var cfg authdns.Config
			if err := c.listen(&cfg, []netip.AddrPort{netip.MustParseAddrPort(free.Addr().String())}); err != nil {
				t.Fatal(err)
			}
			if cfg.Listeners[0].QUIC {
				cfg.Listeners[0].Packet = pc
			} else {
				cfg.Listeners[0].Stream = free
			}
			defer serveDemo(t, cfg)()
			line := append([]string{free.Addr().String(), "--zone", "demo.test", "--sockets", "2"}, c.line...)
			some := func(r *benchReport) bool { return r.Answered > 0 }
			closed := benchUntil(t, some, append(line, "--outstanding", "7")...)
			open := benchJSON(t, append(line, "--rate", "500", "--duration", "200ms", "--patience", "10s")...)
			for _, r := range []*benchReport{closed, open} {
				if r.Answered != r.Sent || r.Lost != 0 || r.Strays != 0 || r.Rcodes["NXDOMAIN"] != r.Sent || r.Transport != name {
					t.Errorf("%+v", r)
				}
			}
			if open.Sent != 100 {
				t.Errorf("sent %d, want 500 a second for 200 ms", open.Sent)
			}
			_, out, errs := cli(t.Context(), "query", "ns.demo.test", "+"+name, "@"+free.Addr().String(), "+short", "--timeout", "20s")
			if out != "192.0.2.1\n" {
				t.Errorf("query says %q %s", out, errs)
			}
		})
	}
}

// TestBenchStreamsEnd: a connection on which queries fail ends the bench, and says why.
func TestBenchStreamsEnd(t *testing.T) {
	web := httptest.NewUnstartedServer(http.NotFoundHandler())
	web.EnableHTTP2 = true
	web.StartTLS()
	defer web.Close()
	where := web.Listener.Addr().String()
	code, _, errs := cli(t.Context(), "bench", where, "--zone", "demo.test", "--https", "--patience", "10s")
	if code != exitUnreachable || !strings.Contains(errs, "404") {
		t.Errorf("exit %d: %s", code, errs)
	}
	code, _, errs = cli(t.Context(), "query", "www.demo.test", "+https=/ask", "@"+where)
	if code != exitUnreachable || !strings.Contains(errs, "404") {
		t.Errorf("query: exit %d: %s", code, errs)
	}
}

// TestBenchReconnects: a server that closes each connection after ten queries.
func TestBenchReconnects(t *testing.T) {
	server := strings.TrimPrefix(startServerFor(t, 10), "@")
	two := func(r *benchReport) bool { return r.Answered >= 20 } // connections
	r := benchUntil(t, two, server, "--zone", "demo.test", "--tcp", "--outstanding", "1")
	if r.Answered < 20 || r.Answered+r.Lost != r.Sent {
		t.Errorf("%+v", r)
	}
}

// TestBenchLoss: a server that answers every second query, and that one twice.
func TestBenchLoss(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	go func() {
		b := make([]byte, 4096)
		for i := 0; ; i++ {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			b[2], b[3] = b[2]|0x80, byte(dns.RcodeRefused)
			if i%2 == 0 {
				_, _ = pc.WriteTo(b[:n], from) // the test counts what is missing
				_, _ = pc.WriteTo(b[:n], from)
			}
		}
	}()
	r := benchJSON(t, pc.LocalAddr().String(), "--zone", "demo.test", "--rate", "1000", "--duration", "100ms", "--patience", "2s", "--sockets", "1")
	if r.Sent != 100 || r.Answered != 50 || r.Lost != 50 || r.Rcodes["REFUSED"] != 50 || r.Strays == 0 {
		t.Errorf("%+v", r)
	}
}

func TestBenchText(t *testing.T) {
	code, out, errs := cli(t.Context(), "bench", strings.TrimPrefix(startServer(t), "@"), "--zone", "demo.test", "--duration", "1s", "--patience", "10s")
	for _, want := range []string{"closed, 64 outstanding", "lost      0 of", "NOERROR", "p99.9", "#"} {
		if code != exitOK || !strings.Contains(out, want) {
			t.Errorf("exit %d, no %q in\n%s%s", code, want, out, errs)
		}
	}
}

func TestBenchLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // whose clock stands still
		l := &lane{began: time.Now().Add(-5 * time.Second)}
		l.tally.answered.Store(500)
		line := benchLine(style{ascii: true}, []*lane{l}, &benchPlan{duration: 10 * time.Second})
		if !strings.HasPrefix(line, "###############...............  5.0 s of 10s  500 answered") {
			t.Error(line)
		}
		if line = benchLine(style{ascii: true}, []*lane{l}, &benchPlan{duration: time.Second}); !strings.HasPrefix(line, strings.Repeat("#", 30)+" ") {
			t.Errorf("beyond its end: %s", line)
		}
	})
}

func TestBenchRefuses(t *testing.T) {
	gone, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	for name, c := range map[string]struct {
		code int
		line []string
	}{
		"no names":      {exitUsage, []string{"127.0.0.1"}},
		"both":          {exitUsage, []string{"127.0.0.1", "--zone", "demo.test", "--names", "-"}},
		"a name":        {exitUsage, []string{"ns.demo.test", "--zone", "demo.test"}},
		"empty names":   {exitUsage, []string{"127.0.0.1", "--names", "-"}},
		"type":          {exitUsage, []string{"127.0.0.1", "--zone", "demo.test", "--type", "NO"}},
		"subnet":        {exitUsage, []string{"127.0.0.1", "--zone", "demo.test", "--subnet", "x"}},
		"IDs":           {exitUsage, []string{"127.0.0.1", "--zone", "demo.test", "--outstanding", "1000000"}},
		"nobody there":  {exitUnreachable, []string{gone.LocalAddr().String(), "--zone", "demo.test", "--duration", "50ms", "--patience", "50ms"}},
		"nobody, TCP":   {exitUnreachable, []string{gone.LocalAddr().String(), "--zone", "demo.test", "--tcp", "--duration", "50ms", "--patience", "50ms"}},
		"nobody, TLS":   {exitUnreachable, []string{gone.LocalAddr().String(), "--zone", "demo.test", "--tls", "--duration", "50ms", "--patience", "50ms"}},
		"nobody, HTTPS": {exitUnreachable, []string{gone.LocalAddr().String(), "--zone", "demo.test", "--https", "--duration", "50ms", "--patience", "50ms"}},
		"nobody, QUIC":  {exitUnreachable, []string{gone.LocalAddr().String(), "--zone", "demo.test", "--quic", "--duration", "50ms", "--patience", "50ms"}},
		"two at once":   {exitUsage, []string{"127.0.0.1", "--zone", "demo.test", "--quic", "--tls"}},
		"no path":       {exitUsage, []string{"127.0.0.1", "--zone", "demo.test", "--https=ask"}},
		"negative rate": {exitUsage, []string{"127.0.0.1", "--zone", "demo.test", "--rate", "-1"}},
	} {
		if code, _, errs := cli(t.Context(), append([]string{"bench"}, c.line...)...); code != c.code {
			t.Errorf("%s: exit %d, want %d: %s", name, code, c.code, errs)
		}
	}
}
