package authdns

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"rhumb/authdns/zone"
	"rhumb/placement"
)

// start runs a Server on loopback until the test ends.
func start(t *testing.T, c Config) *Server {
	t.Helper()
	c.Site, c.Node, c.Version = self.Site, self.Node, self.Version
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s
}

func loopback(level placement.Level, addr string) Listener {
	return Listener{Level: level, Addr: netip.MustParseAddrPort(addr)}
}

// exchange sends octets over a network and returns the reply, nil for silence.
func exchange(t *testing.T, network string, to netip.AddrPort, query []byte) *dns.Msg {
	t.Helper()
	c, err := net.Dial(network, to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return roundTrip(t, c, network, query)
}

func roundTrip(t *testing.T, c net.Conn, network string, query []byte) *dns.Msg {
	t.Helper()
	if strings.HasPrefix(network, "tcp") {
		query = append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)
	}
	if _, err := c.Write(query); err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(network, "tcp") {
		return readTCP(t, c)
	}
	buf := make([]byte, 65536)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return unpack(t, buf[:n])
}

func readTCP(t *testing.T, c net.Conn) *dns.Msg {
	t.Helper()
	buf := make([]byte, 65536)
	n, err := readLength(c)
	if err == nil {
		_, err = io.ReadFull(c, buf[:n])
	}
	if err != nil {
		t.Fatal(err)
	}
	return unpack(t, buf[:n])
}

func unpack(t *testing.T, b []byte) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	if err := m.Unpack(b); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestLevelsByAddress: one server, two addresses, two levels.
func TestLevelsByAddress(t *testing.T) {
	s := start(t, Config{Listeners: []Listener{loopback(top, "127.0.0.1:0"), loopback(low, "127.0.0.1:0")}})
	s.SetZones(sources())
	s.Apply(t.Context(), fleet(t, plan{}))
	q := ask(t, "www.cdn.demo.test. A")
	if m := exchange(t, "udp", s.Addrs()[0], q); m.Authoritative || len(m.Ns) != 2 {
		t.Errorf("top: %s", show(m))
	}
	if m := exchange(t, "udp", s.Addrs()[1], q); !m.Authoritative || len(m.Answer) != 1 {
		t.Errorf("low: %s", show(m))
	}
}

// TestReplyFromAddressAsked is row 13: a socket bound to every address answers
// from the one that was asked; a connected client would not see it otherwise.
func TestReplyFromAddressAsked(t *testing.T) {
	dual, err := net.ListenPacket("udp", "[::]:0") // as an init system hands it over
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, Config{Listeners: []Listener{loopback(top, "0.0.0.0:0"), loopback(top, "[::]:0"), {Level: top, Packet: dual}}})
	s.SetZones(sources())
	for i, asked := range []string{"127.0.0.9", "::1", "127.0.0.9"} {
		to := netip.AddrPortFrom(netip.MustParseAddr(asked), s.Addrs()[i].Port())
		if got := show(exchange(t, "udp", to, ask(t, "www.demo.test. A"))); got != "NOERROR aa | "+wwwA {
			t.Errorf("%s: %s", asked, got)
		}
	}
}

// TestReplyFromOnlyAddress: a socket that is bound to one address replies from that one, which
// is not the one that routing would choose here, and is told of none.
func TestReplyFromOnlyAddress(t *testing.T) {
	s := start(t, Config{Listeners: []Listener{loopback(top, "127.0.0.9:0"), loopback(top, "[::1]:0")}, Workers: 1})
	s.SetZones(sources())
	for i := range s.Addrs() {
		if got := show(exchange(t, "udp", s.Addrs()[i], ask(t, "www.demo.test. A"))); got != "NOERROR aa | "+wwwA {
			t.Errorf("%v: %s", s.Addrs()[i], got)
		}
	}
	options := map[bool][2]int{true: {unix.IPPROTO_IP, unix.IP_PKTINFO}, false: {unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO}}
	for _, k := range s.Sockets() {
		u, ok := k.Conn.(*net.UDPConn)
		if !ok {
			continue
		}
		raw, err := u.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		o := options[addrPort(u.LocalAddr()).Addr().Is4()]
		if err := raw.Control(func(fd uintptr) {
			if told, err := unix.GetsockoptInt(int(fd), o[0], o[1]); told != 0 || err != nil {
				t.Errorf("%s is told the address asked: %d, %v", k.Name, told, err)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestGivenSockets: sockets that were handed in are served like our own.
func TestGivenSockets(t *testing.T) {
	p, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, Config{Listeners: []Listener{{Level: top, Packet: p, Stream: l}}})
	s.SetZones(sources())
	for network, a := range map[string]net.Addr{"udp": p.LocalAddr(), "tcp": l.Addr()} {
		if got := show(exchange(t, network, addrPort(a), ask(t, "www.demo.test. A"))); got != "NOERROR aa | "+wwwA {
			t.Errorf("%s: %s", network, got)
		}
	}
}

func dialTCP(t *testing.T) (net.Conn, *Server) {
	t.Helper()
	s := start(t, Config{Listeners: []Listener{loopback(top, "127.0.0.1:0")}})
	s.SetZones(sources())
	c, err := net.Dial("tcp", s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c, s
}

func framed(query []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)
}

func TestTCP(t *testing.T) {
	query := framed(ask(t, "www.demo.test. A"))
	t.Run("R75_pipelined_R76_half_close", func(t *testing.T) {
		c, _ := dialTCP(t)
		var all []byte
		for i := range 20 {
			q := framed(ask(t, "www.demo.test. A"))
			q[2], q[3] = 1, byte(i)
			all = append(all, q...)
		}
		if _, err := c.Write(all); err != nil {
			t.Fatal(err)
		}
		c.(*net.TCPConn).CloseWrite()
		seen := make(map[uint16]bool)
		for range 20 {
			seen[readTCP(t, c).Id] = true
		}
		if len(seen) != 20 {
			t.Errorf("%d replies of 20", len(seen))
		}
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("after the last reply: %v, want end of file", err)
		}
	})
	t.Run("R77_one_octet_at_a_time", func(t *testing.T) {
		c, _ := dialTCP(t)
		c.(*net.TCPConn).SetNoDelay(true)
		for _, b := range query {
			if _, err := c.Write([]byte{b}); err != nil {
				t.Fatal(err)
			}
		}
		if got := show(readTCP(t, c)); got != "NOERROR aa | "+wwwA {
			t.Error(got)
		}
	})
	for name, octets := range map[string][]byte{
		"R78_zero_length": {0, 0},
		"R78_garbage":     {0, 3, 1, 2, 3},
		"R78_cut_short":   query[:7],
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := dialTCP(t)
			if _, err := c.Write(octets); err != nil {
				t.Fatal(err)
			}
			c.(*net.TCPConn).CloseWrite()
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Error("got an answer")
			}
		})
	}
	t.Run("R74_large", func(t *testing.T) {
		c, _ := dialTCP(t)
		c.Write(framed(ask(t, "many.demo.test. A")))
		if m := readTCP(t, c); len(m.Answer) != 90 || m.Truncated {
			t.Errorf("%d answers, truncated %t", len(m.Answer), m.Truncated)
		}
	})
}

// TestZonesKept: a wrong new version is told and the previous one stays, for that
// zone alone.
func TestZonesKept(t *testing.T) {
	s := start(t, Config{Listeners: []Listener{loopback(top, "127.0.0.1:0")}})
	if errs := s.SetZones(sources()); errs != nil {
		t.Fatal(errs)
	}
	bad := sources()
	bad[0].Data = []byte(strings.Replace(demoZone, "192.0.2.10", "192.0.2.999", 1))
	bad[1].Data = []byte(strings.Replace(cdnZone, " 9 7200", " 10 7200", 1))
	errs := s.SetZones(bad)
	if len(errs) != 1 || !strings.Contains(errs[0].Error(), "demo.test.zone:9:") {
		t.Fatalf("errors %v; want one, at line 9", errs)
	}
	st := s.Status()
	if len(st.Zones) != 2 || st.Zones[0].Serial != 10 || st.Zones[0].Error != "" ||
		st.Zones[1].Serial != 5 || st.Zones[1].Error != errs[0].Error() {
		t.Errorf("status %+v", st.Zones)
	}
	if got := show(exchange(t, "udp", s.Addrs()[0], ask(t, "www.demo.test. A"))); got != "NOERROR aa | "+wwwA {
		t.Errorf("the previous version is gone: %s", got)
	}
	s.SetZones(bad[1:])
	if got := show(exchange(t, "udp", s.Addrs()[0], ask(t, "www.demo.test. A"))); got != "REFUSED" {
		t.Errorf("a zone taken away is still there: %s", got)
	}
}

// TestZoneReused: the same digest is not parsed again.
func TestZoneReused(t *testing.T) {
	s := start(t, Config{})
	src := sources()
	src[0].Zone.SHA256 = "d1"
	s.SetZones(src)
	before := s.zones["demo.test."].zone
	src[0].Data = []byte("not looked at")
	if errs := s.SetZones(src); errs != nil || s.zones["demo.test."].zone != before {
		t.Errorf("parsed again: %v", errs)
	}
}

// TestSteeredOverCNAME: where the file has an alias it wins, and Status says so.
func TestSteeredOverCNAME(t *testing.T) {
	s := start(t, Config{})
	src := sources()
	src[1].Data = []byte(cdnZone + "www IN CNAME about\n")
	s.SetZones(src)
	s.Apply(t.Context(), fleet(t, plan{}))
	if e := s.Status().Zones[0].Error; !strings.Contains(e, "www.cdn.demo.test. is a CNAME") {
		t.Errorf("status says %q", e)
	}
}

// TestNameServerWithoutAddress is row 69; a host that the Inventory makes counts.
func TestNameServerWithoutAddress(t *testing.T) {
	s := start(t, Config{})
	src := sources()
	src[1].Data = []byte(strings.Replace(cdnZone, "\tIN NS ns-nyc1\n", "\tIN NS ns-nyc1\n\tIN NS ns-tyo1\n\tIN NS ns-lax1\n", 1))
	s.SetZones(src)
	s.Apply(t.Context(), fleet(t, plan{}))
	if e := s.Status().Zones[0].Error; e != "name server ns-lax1.cdn.demo.test. has no address" {
		t.Errorf("status says %q", e)
	}
	src[1] = sources()[1]
	s.SetZones(src)
	if e := s.Status().Zones[0].Error; e != "" {
		t.Errorf("mended, status says %q", e)
	}
}

func TestCounts(t *testing.T) {
	now := time.Unix(1000, 0)
	var mu sync.Mutex
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	reg := prometheus.NewRegistry()
	current := new(placement.Current)
	current.Store(fleet(t, plan{}))
	s := start(t, Config{Registerer: reg, Now: clock, Current: current,
		Listeners: []Listener{loopback(low, "127.0.0.1:0")}})
	s.SetZones(sources())
	to := s.Addrs()[0]
	for range 10 {
		exchange(t, "tcp", to, ask(t, "www.cdn.demo.test. A", edns0(ecs("203.0.113.0/24"))))
	}
	exchange(t, "tcp", to, ask(t, "nix.cdn.demo.test. A"))
	mu.Lock()
	now = now.Add(4 * time.Second)
	mu.Unlock()
	st := s.Status()
	if st.Answers["nyc1"] != 10 || st.QPS < 2.5 || st.QPS > 2.75 {
		t.Errorf("status: %v answers, %v q/s", st.Answers, st.QPS)
	}
	if d := s.Demand(); milli(d, "www", 1) != 2500 {
		t.Errorf("demand %v; 10 queries in 4 s are 2500 thousandths a second", d)
	}
	if d := s.Demand(); milli(d, "www", 1) != 2500 {
		t.Errorf("demand asked for twice at one moment: %v", d)
	}
	for name, want := range map[string]float64{
		"rhumb_dns_decisions_total nearest nearest nyc1 cdn.demo.test.": 10,
		"rhumb_dns_requests_total 1 tcp A cdn.demo.test.":               11,
		"rhumb_dns_responses_total NXDOMAIN cdn.demo.test.":             1,
		"rhumb_dns_ecs_total used":                                      10,
		"rhumb_zone_serial cdn.demo.test.":                              9,
		"rhumb_dns_request_duration_seconds tcp":                        11,
	} {
		if got := series(t, reg, name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}

// series returns the value of a series, named with its label values in the
// order of the label names, or how often a histogram was observed.
func series(t *testing.T, reg *prometheus.Registry, want string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			if name == want {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	t.Errorf("no series %s", want)
	return -1
}

func TestObserveCounted(t *testing.T) {
	reg := prometheus.NewRegistry()
	s := start(t, Config{Registerer: reg, Mode: placement.Observe})
	s.SetZones(sources())
	s.Apply(t.Context(), fleet(t, plan{}))
	out := make([]byte, maxUDP)
	s.handle(ask(t, "www.cdn.demo.test. A"), out, from(usResolver, low), s.tallies.worker())
	if n := series(t, reg, "rhumb_observe_would_total answer authdns"); n != 1 {
		t.Errorf("would have answered %v times", n)
	}
	if st := s.Status(); len(st.Answers) != 0 {
		t.Errorf("answers by site while observing: %v", st.Answers)
	}
	if d := s.Demand(); milli(d, "www", 1) == 0 {
		t.Errorf("demand while observing: %v", d)
	}
}

// TestPanic: a panic costs one answer, is counted, and the next one is given.
func TestPanic(t *testing.T) {
	reg := prometheus.NewRegistry()
	s := start(t, Config{Registerer: reg})
	s.SetZones(sources())
	good := s.current.Load()
	broken := *good
	broken.top = nil
	broken.low = forest{"demo.test.": {name: "demo.test.", zone: &zone.Zone{Origin: "demo.test."}}} // a zone without a tree
	s.current.Store(&broken)
	out := make([]byte, maxUDP)
	q := ask(t, "demo.test. NS")
	n := s.handle(q, out, from(euResolver, low), s.tallies.worker())
	m := unpack(t, out[:n])
	if m.Rcode != dns.RcodeServerFailure || m.Id != 0x4242 || !m.Response {
		t.Errorf("got %s", show(m))
	}
	if c := series(t, reg, "rhumb_dns_panics_total"); c != 1 {
		t.Errorf("%v panics counted", c)
	}
	s.current.Store(good)
	for question, want := range map[string]int{"demo.test. NS": dns.RcodeRefused, "demo.test. SOA": dns.RcodeSuccess, "www.demo.test. A": dns.RcodeSuccess} {
		if n := s.handle(ask(t, question), out, from(euResolver, top), s.tallies.worker()); unpack(t, out[:n]).Rcode != want {
			t.Errorf("%s afterwards: %s", question, show(unpack(t, out[:n])))
		}
	}
	if c := series(t, reg, "rhumb_dns_quarantined_total"); c != 1 {
		t.Errorf("%v turned away", c)
	}
}

// TestSwap: answers go on while zones and Snapshots are swapped under load, and
// each is whole.
func TestSwap(t *testing.T) {
	s := start(t, Config{Listeners: []Listener{loopback(low, "127.0.0.1:0")}})
	s.SetZones(sources())
	snaps := []*placement.Snapshot{fleet(t, plan{}), fleet(t, plan{out: map[string]placement.Out{"ams1": placement.OutDown}})}
	s.Apply(t.Context(), snaps[0])
	var group sync.WaitGroup
	group.Go(func() {
		for i := range 40 {
			s.Apply(t.Context(), snaps[i%2])
			s.SetZones(sources())
		}
	})
	ok := map[string]bool{}
	for _, snap := range snaps {
		ok[show(compiled(t, snap, sources()...).reply(t, ask(t, "www.cdn.demo.test. AAAA"), from("127.0.0.1", low)))] = true
	}
	for range 200 {
		if got := show(exchange(t, "udp", s.Addrs()[0], ask(t, "www.cdn.demo.test. AAAA"))); !ok[got] {
			t.Fatalf("neither state gives %s", got)
		}
	}
	group.Wait()
}

func TestListenError(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = New(Config{Workers: 1, Listeners: []Listener{{Level: top, Addr: addrPort(l.Addr())}}})
	if err == nil || !strings.Contains(err.Error(), "authdns: listen tcp4 "+l.Addr().String()) {
		t.Errorf("got %v; want operation and address", err)
	}
}
