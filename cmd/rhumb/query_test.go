package main

import (
	"encoding/hex"
	"encoding/json"
	"net"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// startServer answers every query with one A record, its NSID and a scope; over
// UDP it truncates names that begin with "big.".
func startServer(t *testing.T) string { return startServerFor(t, -1) }

// bothPorts opens one port over UDP and TCP. What is free over UDP may be somebody's
// over TCP.
func bothPorts(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 20 {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if l, err := net.Listen("tcp", pc.LocalAddr().String()); err == nil {
			return pc, l
		}
		pc.Close()
	}
	t.Fatal("no port is free over UDP and TCP")
	return nil, nil
}

// startServerFor closes a connection after some queries; -1 is never.
func startServerFor(t *testing.T, tcpQueries int) string {
	t.Helper()
	pc, l := bothPorts(t)
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.Authoritative = true
		m.Truncated = strings.HasPrefix(q.Question[0].Name, "big.") && w.LocalAddr().Network() == "udp"
		if !m.Truncated {
			rr, _ := dns.NewRR(q.Question[0].Name + " 20 IN A 198.51.100.160")
			m.Answer = append(m.Answer, rr)
		}
		m.SetEdns0(1232, false)
		for _, o := range q.IsEdns0().Option {
			switch o := o.(type) {
			case *dns.EDNS0_NSID:
				o.Nsid = hex.EncodeToString([]byte("ams1 ams1-a 1042.17"))
			case *dns.EDNS0_SUBNET:
				o.SourceScope = 28
			}
			m.IsEdns0().Option = append(m.IsEdns0().Option, o)
		}
		_ = w.WriteMsg(m) // the test sees what is missing
	})
	udp, tcp := &dns.Server{PacketConn: pc, Handler: handler}, &dns.Server{Listener: l, Handler: handler, MaxTCPQueries: tcpQueries}
	for _, s := range []*dns.Server{udp, tcp} {
		ready := make(chan struct{})
		s.NotifyStartedFunc = func() { close(ready) }
		go s.ActivateAndServe()
		<-ready
		t.Cleanup(func() { s.Shutdown() })
	}
	return "@" + pc.LocalAddr().String()
}

func TestQueryShowsSiteAndSnapshot(t *testing.T) {
	server := startServer(t)
	code, out, errs := cli(t.Context(), "query", "www.cdn.demo.test", "a", "+subnet=203.0.113.67/28", server)
	if code != exitOK {
		t.Fatalf("exit %d %s", code, errs)
	}
	for _, want := range []string{"NOERROR", "198.51.100.160", ";; answered by ams1 ams1-a 1042.17", ";; client subnet 203.0.113.64/28, answer holds for /28", "flags qr aa"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if _, out, _ = cli(t.Context(), "query", "big.demo.test", server, "+short"); out != "198.51.100.160\n" {
		t.Errorf("truncated over UDP, then: %q", out)
	}
	_, out, _ = cli(t.Context(), "query", "www.cdn.demo.test", server, "-o", "json")
	var doc struct {
		NSID   string
		Answer []string
	}
	if err := json.Unmarshal([]byte(out), &doc); err != nil || doc.NSID != "ams1 ams1-a 1042.17" || len(doc.Answer) != 1 {
		t.Errorf("%v %s", err, out)
	}
}

func TestQueryWords(t *testing.T) {
	for line, want := range map[string]string{
		"":                         "no domain name",
		"www.test NOTYPE":          "neither a type",
		"www.test +loud":           "no option +loud",
		"www.test +subnet=tokyo":   "+subnet=tokyo",
		"www.test @":               "names no server",
		"www..test":                "no domain name",
		"www.test AAAA @192.0.2.1": "",
		"mx mx @2001:db8::1":       "",
		"www.test +tcp +dnssec":    "",
		"www.test @[2001:db8::1]":  "",
	} {
		q, err := parseQuestion(strings.Fields(line))
		if want == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", line, err, want)
		}
		if err != nil {
			continue
		}
		if _, _, err := net.SplitHostPort(q.server); err != nil {
			t.Errorf("%q asks %q", line, q.server)
		}
	}
	if q, _ := parseQuestion([]string{"mx", "mx"}); q == nil || q.name != "mx." || q.qtype != dns.TypeMX {
		t.Errorf("a name which is a type's: %+v", q)
	}
}
