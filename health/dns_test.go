package health

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"rhumb/placement"
)

// TestSerialTime: what a serial says of its age.
func TestSerialTime(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		serial uint32
		ok     bool
		age    time.Duration
	}{
		{2026112200, true, -12 * time.Hour}, // the end of today is meant
		{2026112199, true, 12 * time.Hour},
		{2026010100, true, now.Sub(time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC))},
		{uint32(now.Unix()) - 3600, true, time.Hour},
		{1, false, 0}, {42, false, 0}, {4294967295, false, 0},
		{2026133200, false, 0}, // no such day, and a Unix time of 2034
		{1999123101, true, 0},  // within 30 years: a date
	} {
		at, ok := serialTime(c.serial, now)
		if ok != c.ok || ok && c.age != 0 && now.Sub(at) != c.age {
			t.Errorf("%d: %v (age %v), want %v (%v)", c.serial, ok, now.Sub(at), c.ok, c.age)
		}
	}
}

// dnsServer answers with f over UDP, and over TCP unless udpOnly.
func dnsServer(t *testing.T, udpOnly bool, f func(network string, m *dns.Msg)) string {
	t.Helper()
	pc, l := bothPorts(t, udpOnly)
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		m.Authoritative = true
		f(w.LocalAddr().Network(), m)
		w.WriteMsg(m)
	})
	servers := []*dns.Server{{PacketConn: pc, Handler: handler}}
	if l != nil {
		servers = append(servers, &dns.Server{Listener: l, Handler: handler})
	}
	for _, s := range servers {
		ready := make(chan struct{})
		s.NotifyStartedFunc = func() { close(ready) }
		go s.ActivateAndServe()
		<-ready
		t.Cleanup(func() { s.Shutdown() })
	}
	return pc.LocalAddr().String()
}

// bothPorts opens one port over UDP and, unless told otherwise, over TCP. What is free
// over UDP may be somebody's over TCP.
func bothPorts(t *testing.T, udpOnly bool) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 20 {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if udpOnly {
			return pc, nil
		}
		if l, err := net.Listen("tcp", pc.LocalAddr().String()); err == nil {
			return pc, l
		}
		pc.Close()
	}
	t.Fatal("no port is free over UDP and TCP")
	return nil, nil
}

func soaRecord(name string, serial uint32) dns.RR {
	return &dns.SOA{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 60}, Ns: "ns." + name, Mbox: "h." + name, Serial: serial}
}

// TestStaleZone: a server that answers well and from the past.
func TestStaleZone(t *testing.T) {
	for _, c := range []struct {
		name   string
		serial uint32
		limit  time.Duration
		kind   string
	}{
		{"young", uint32(time.Now().Unix() - 60), time.Hour, "ok"},
		{"old", uint32(time.Now().Unix() - 7200), time.Hour, "stale"},
		{"old, no bound", uint32(time.Now().Unix() - 7200), 0, "ok"},
		{"a serial without age", 7, time.Hour, "serial"},
	} {
		addr := dnsServer(t, false, func(_ string, m *dns.Msg) { m.Answer = append(m.Answer, soaRecord("demo.test.", c.serial)) })
		check := placement.Check{DNS: &placement.DNSCheck{Name: "demo.test.", MaxAge: placement.Duration(c.limit)}}
		r := ProbeDNS(within(t, 20*time.Second), target(addr, check))
		want := map[string]placement.State{"ok": placement.Up, "stale": placement.Down, "serial": placement.Unknown}[c.kind]
		if r.Kind != c.kind || r.State != want {
			t.Errorf("%s: %+v, want %s", c.name, r, c.kind)
		}
	}
}

// TestBothTransports: a server that lost one of them fails, with its name in the cause.
func TestBothTransports(t *testing.T) {
	good := func(_ string, m *dns.Msg) { m.Answer = append(m.Answer, soaRecord("demo.test.", 1)) }
	for _, c := range []struct {
		name, addr, kind, words string
	}{
		{"both", dnsServer(t, false, good), "ok", ""},
		{"UDP alone (RFC 7766 5)", dnsServer(t, true, good), "refused", "over TCP"},
		{"TCP is lame", dnsServer(t, false, func(network string, m *dns.Msg) {
			good(network, m)
			m.Authoritative = network == "udp"
		}), "lame", "over TCP"},
		{"cut over UDP, whole over TCP (RFC 7766 5)", dnsServer(t, false, func(network string, m *dns.Msg) {
			if m.Truncated = network == "udp"; !m.Truncated {
				good(network, m)
			}
		}), "ok", ""},
		{"cut refusal", dnsServer(t, false, func(network string, m *dns.Msg) { m.Truncated, m.Rcode = true, dns.RcodeRefused }), "rcode", "over UDP"},
	} {
		r := ProbeDNS(within(t, 20*time.Second), target(c.addr, placement.Check{DNS: &placement.DNSCheck{Name: "demo.test."}}))
		if r.Kind != c.kind || !strings.Contains(r.Cause, c.words) {
			t.Errorf("%s: %+v, want %s, %s", c.name, r, c.kind, c.words)
		}
	}
}
