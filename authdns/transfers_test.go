package authdns

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"rhumb/authdns/transfer"
	"rhumb/placement"
)

const (
	xfrKey    = "one.test."
	xfrSecret = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
)

// desk makes the server's side of transfers, with one key.
func desk(t testing.TB) *transfer.Desk {
	t.Helper()
	keys, err := transfer.ParseKeys("keys", strings.NewReader("hmac-sha256:"+xfrKey+":"+xfrSecret))
	if err != nil {
		t.Fatal(err)
	}
	return &transfer.Desk{Keys: keys, Out: &transfer.Out{Max: 8}, Now: time.Now}
}

// leaving returns the fixture's zones, which loopback may copy, or who has the key.
func leaving(demo string) []Source {
	out := sources()
	for i := range out {
		out[i].Zone.SHA256 = ""
		out[i].Zone.Transfer = &placement.Transfer{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
		if out[i].Zone.Name == "demo.test." {
			out[i].Data = []byte(demo)
			out[i].Zone.Transfer = &placement.Transfer{Keys: []string{"ONE.test"}}
		}
	}
	return out
}

// copyZone asks as a secondary that runs the library, and returns the records.
func copyZone(t *testing.T, s *Server, m *dns.Msg, key string) ([]string, error) {
	t.Helper()
	x := new(dns.Transfer)
	if key != "" {
		x.TsigSecret = map[string]string{key: xfrSecret}
		m.SetTsig(key, dns.HmacSHA256, 300, time.Now().Unix())
	}
	ch, err := x.In(m, s.Addrs()[0].String())
	if err != nil {
		return nil, err
	}
	var out []string
	for e := range ch {
		if e.Error != nil {
			return nil, e.Error
		}
		for _, rr := range e.RR {
			out = append(out, rr.String())
		}
	}
	return out, nil
}

func axfr(zone string) *dns.Msg {
	m := new(dns.Msg)
	m.SetAxfr(zone)
	return m
}

// TestTransferOut: a zone as it leaves, and who gets it.
func TestTransferOut(t *testing.T) {
	s := start(t, Config{Workers: 1, Listeners: []Listener{loopback(low, "127.0.0.1:0")}, Transfers: desk(t)})
	if errs := s.SetZones(leaving(demoZone)); errs != nil {
		t.Fatal(errs)
	}
	s.Apply(t.Context(), fleet(t, plan{}))

	all, err := copyZone(t, s, axfr("demo.test."), xfrKey)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 190 || !strings.Contains(all[0], "SOA") || all[0] != all[len(all)-1] {
		t.Errorf("RFC 5936 2.2: %d records from %s to %s", len(all), all[0], all[len(all)-1])
	}
	for _, want := range []string{"www.demo.test.\t3600\tIN\tA\t192.0.2.10", "www.demo.test.\t3600\tCLASS1\tTYPE65400\t\\# 2 abcd", "ns.sub.demo.test.\t3600\tIN\tA\t192.0.2.14"} {
		if !slices.Contains(all, want) {
			t.Errorf("%q is missing", want)
		}
	}
	for _, c := range []struct{ why, zone, key, want string }{
		{"not signed", "demo.test.", "", "bad xfr rcode: 5"},
		{"a key which the zone does not name", "cdn.demo.test.", "", ""},
		{"a zone that is not ours", "other.test.", "", "bad xfr rcode: 5"},
		{"RFC 5936 2.2.1 the same, signed", "other.test.", xfrKey, "bad authentication"},
		{"RFC 8945 5.2.1 a key we do not have", "demo.test.", "none.test.", "bad authentication"},
	} {
		_, err := copyZone(t, s, axfr(c.zone), c.key)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.why, err, c.want)
		}
	}
}

// TestTransferStandIns: what is chosen per client leaves as a static set, at the
// name's own types only, and a parent knows the zone that it refers to.
func TestTransferStandIns(t *testing.T) {
	s := start(t, Config{Workers: 1, Listeners: []Listener{loopback(low, "127.0.0.1:0")}, Transfers: desk(t)})
	if errs := s.SetZones(leaving(demoZone)); errs != nil {
		t.Fatal(errs)
	}
	if _, err := copyZone(t, s, axfr("demo.test."), xfrKey); err == nil {
		t.Error("a zone left before its stand-ins were known")
	}
	s.Apply(t.Context(), fleet(t, plan{}))
	has := func(zone, key string, wants ...string) {
		t.Helper()
		all, err := copyZone(t, s, axfr(zone), key)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range wants {
			fields := strings.Fields(want)
			if !slices.ContainsFunc(all, func(s string) bool { return slices.Equal(strings.Fields(s), fields) }) {
				t.Errorf("%s lacks %q:\n%s", zone, want, strings.Join(all, "\n"))
			}
		}
	}
	has("cdn.demo.test.", "",
		"www.cdn.demo.test. 20 IN A 198.51.100.10", "www.cdn.demo.test. 20 IN A 198.51.100.138", "www.cdn.demo.test. 20 IN AAAA 2001:db8:b::11",
		"*.any.cdn.demo.test. 20 IN A 198.51.100.74", "cdn.demo.test. 20 IN A 198.51.100.10",
		"about.cdn.demo.test. 300 IN TXT \"static\"", "ns-ams1.cdn.demo.test. 3600 IN A 198.51.100.9", "ns-ams1.cdn.demo.test. 3600 IN AAAA 2001:db8:a::9")
	has("demo.test.", xfrKey,
		"cdn.demo.test. 3600 IN NS ns-ams1.cdn.demo.test.", "cdn.demo.test. 3600 IN NS ns-tyo1.cdn.demo.test.", "ns-tyo1.cdn.demo.test. 3600 IN AAAA 2001:db8:c::9")
	if all, _ := copyZone(t, s, axfr("cdn.demo.test."), ""); slices.ContainsFunc(all, func(s string) bool { return strings.Contains(s, "192.0.2.77") }) {
		t.Error("the address of the file stands beside the stand-ins of kept.cdn.demo.test.")
	}
	// Snapshots with the same inventory are no new version.
	before := s.copies.views["cdn.demo.test."]
	s.Apply(t.Context(), fleet(t, plan{out: map[string]placement.Out{"ams1": placement.OutDown}}))
	if s.copies.views["cdn.demo.test."] != before {
		t.Error("a Snapshot with another state of health made another version")
	}
}

// TestTransferIncremental: differences between the versions in force, over TCP and
// as far as a datagram goes.
func TestTransferIncremental(t *testing.T) {
	s := start(t, Config{Workers: 1, Listeners: []Listener{loopback(low, "127.0.0.1:0")}, Transfers: desk(t)})
	s.Apply(t.Context(), fleet(t, plan{}))
	second := strings.Replace(strings.Replace(demoZone, "hostmaster 5 ", "hostmaster 6 ", 1), "www	IN A 192.0.2.10\n", "www	IN A 192.0.2.20\n", 1)
	for _, z := range []string{demoZone, second} {
		if errs := s.SetZones(leaving(z)); errs != nil {
			t.Fatal(errs)
		}
	}
	ixfr := func(serial uint32) *dns.Msg {
		m := new(dns.Msg)
		m.SetIxfr("demo.test.", serial, "a.ns.demo.test.", "hostmaster.demo.test.")
		return m
	}
	got, err := copyZone(t, s, ixfr(5), xfrKey)
	if err != nil {
		t.Fatal(err)
	}
	var short []string
	for _, rr := range got {
		f := strings.Fields(rr)
		short = append(short, f[3]+" "+f[len(f)-5+4*bool2int(f[3] != "SOA")])
	}
	if want := []string{"SOA 6", "SOA 5", "A 192.0.2.10", "SOA 6", "A 192.0.2.20", "SOA 6"}; !slices.Equal(short, want) {
		t.Errorf("RFC 1995 4: %v, want %v", short, want)
	}
	if got, err := copyZone(t, s, ixfr(3), xfrKey); err != nil || len(got) < 190 {
		t.Errorf("a serial that the journal does not have: %d records, %v; want the whole zone", len(got), err)
	}
	// dns.Transfer takes the SOA alone for an unfinished reply; so these go by hand.
	for _, network := range []string{"udp", "tcp"} {
		for _, c := range []struct {
			why    string
			serial uint32
			skip   bool
		}{{"RFC 1995 2 the newest is held", 6, false}, {"RFC 1995 2 over UDP the SOA alone", 5, network == "tcp"}} {
			if c.skip {
				continue
			}
			m := ixfr(c.serial)
			m.SetTsig(xfrKey, dns.HmacSHA256, 300, time.Now().Unix())
			client := &dns.Client{Net: network, TsigSecret: map[string]string{xfrKey: xfrSecret}}
			r, _, err := client.Exchange(m, s.Addrs()[0].String())
			if err != nil || len(r.Answer) != 1 || r.Answer[0].(*dns.SOA).Serial != 6 || r.IsTsig() == nil {
				t.Errorf("%s, %s: %v, %v", network, c.why, r, err)
			}
		}
	}
}

func bool2int(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestSignedQuery: a secondary that has a key signs its questions for the SOA, too.
func TestSignedQuery(t *testing.T) {
	s := start(t, Config{Workers: 1, Listeners: []Listener{loopback(low, "127.0.0.1:0")}, Transfers: desk(t)})
	if errs := s.SetZones(leaving(demoZone)); errs != nil {
		t.Fatal(errs)
	}
	for _, network := range []string{"udp", "tcp"} {
		c := &dns.Client{Net: network, TsigSecret: map[string]string{xfrKey: xfrSecret}}
		for _, q := range []string{"demo.test.", "nix.demo.test.", "wide.demo.test."} {
			m := new(dns.Msg)
			m.SetQuestion(q, dns.TypeSOA)
			m.SetTsig(xfrKey, dns.HmacSHA256, 300, time.Now().Unix())
			r, _, err := c.Exchange(m, s.Addrs()[0].String())
			if err != nil || r.IsTsig() == nil {
				t.Errorf("%s %s: %v, %v", network, q, r, err)
			}
		}
		m := new(dns.Msg)
		m.SetQuestion("demo.test.", dns.TypeSOA)
		m.SetTsig(xfrKey, dns.HmacSHA256, 300, time.Now().Unix()-900)
		if r, _, _ := c.Exchange(m, s.Addrs()[0].String()); r == nil || r.Rcode != dns.RcodeNotAuth || len(r.Answer) != 0 || r.IsTsig().Error != dns.RcodeBadTime {
			t.Errorf("%s: a clock 15 minutes behind: %v", network, r)
		}
	}
}

// TestSlowReader: who takes a zone slower than a message in twenty seconds is cut off.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := New(Config{Transfers: desk(t)})
		if err != nil {
			t.Fatal(err)
		}
		if errs := s.SetZones(leaving(demoZone + "$GENERATE 1-900 big$ TXT \"0123456789012345678901234567890123456789\"\n")); errs != nil {
			t.Fatal(errs)
		}
		s.Apply(t.Context(), fleet(t, plan{}))
		ours, theirs := net.Pipe()
		c := newConn(theirs, asker{addr: netip.MustParseAddrPort("127.0.0.1:4000"), level: low, tcp: true})
		ended := make(chan time.Time)
		began := time.Now()
		go func() {
			s.serveConn(c, newConns(&Limits{}), nil, s.tallies.worker())
			ended <- time.Now()
		}()
		m := axfr("demo.test.")
		m.SetTsig(xfrKey, dns.HmacSHA256, 300, time.Now().Unix())
		q, _, err := dns.TsigGenerate(m, xfrSecret, "", false)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ours.Write(append([]byte{byte(len(q) >> 8), byte(len(q))}, q...)); err != nil {
			t.Fatal(err)
		}
		first := make([]byte, 2)
		if _, err := io.ReadFull(ours, first); err != nil {
			t.Fatal(err)
		}
		// An octet now and then is not enough: the deadline is the whole message's.
		var last error
		read := make(chan struct{})
		go func() {
			defer close(read)
			one := make([]byte, 1)
			for last == nil {
				time.Sleep(time.Second)
				_, last = ours.Read(one)
			}
		}()
		if took := (<-ended).Sub(began); took != 20*time.Second {
			t.Errorf("it was cut off after %s", took)
		}
		if sent := s.copies.desk.Out.Sent(); len(sent) != 1 || sent[0].Result != "broken" {
			t.Errorf("counted %v", sent)
		}
		if <-read; !errors.Is(last, io.EOF) {
			t.Errorf("the connection ends with %v, want EOF", last)
		}
	})
}

// TestUnserved: a copy that may not be served is ours all the same (RFC 8914
// section 4.25), and comes back as it was.
func TestUnserved(t *testing.T) {
	s, err := New(Config{Site: "ams1", Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	src := Source{Zone: placement.Zone{Name: "demo.test.", SHA256: "x", Level: placement.LowLevel}, Data: []byte(demoZone)}
	gone := src
	gone.Unserved = "expired"
	for i, c := range []struct {
		src   Source
		rcode int
		ede   int
	}{{src, dns.RcodeSuccess, 0}, {gone, dns.RcodeServerFailure, int(dns.ExtendedErrorCodeInvalidData)}, {src, dns.RcodeSuccess, 0}} {
		if errs := s.SetZones([]Source{c.src}); errs != nil {
			t.Fatal(errs)
		}
		m := new(dns.Msg)
		m.SetQuestion("www.demo.test.", dns.TypeA)
		m.SetEdns0(1232, false)
		q, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		out := make([]byte, maxTCP)
		n := s.handle(q, out, asker{addr: netip.MustParseAddrPort("192.0.2.9:4000"), level: low}, &tally{})
		r := unpack(t, out[:n])
		code := 0
		for _, o := range r.IsEdns0().Option {
			if e, ok := o.(*dns.EDNS0_EDE); ok {
				code = int(e.InfoCode)
			}
		}
		if r.Rcode != c.rcode || code != c.ede {
			t.Errorf("step %d: %s, EDE %d; want %s, %d", i, dns.RcodeToString[r.Rcode], code, dns.RcodeToString[c.rcode], c.ede)
		}
		if z := s.Status().Zones[0]; (z.Error != "") != (c.ede != 0) {
			t.Errorf("step %d: status %+v", i, z)
		}
	}
}

// TestTransferAmongQueries: a zone leaves between pipelined queries, each in its
// turn (RFC 7766 section 6.2.1).
func TestTransferAmongQueries(t *testing.T) {
	s := start(t, Config{Listeners: []Listener{loopback(top, "127.0.0.1:0")}, Transfers: desk(t)})
	if errs := s.SetZones(leaving(demoZone + "$GENERATE 1-900 big$ TXT \"0123456789012345678901234567890123456789\"\n")); errs != nil {
		t.Fatal(errs)
	}
	s.Apply(t.Context(), fleet(t, plan{}))
	c, err := net.Dial("tcp", s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	m := axfr("demo.test.")
	m.SetTsig(xfrKey, dns.HmacSHA256, 300, time.Now().Unix())
	transfer, _, err := dns.TsigGenerate(m, xfrSecret, "", false)
	if err != nil {
		t.Fatal(err)
	}
	www := framed(ask(t, "www.demo.test. A"))
	if _, err := c.Write(slices.Concat(www, framed(transfer), www)); err != nil {
		t.Fatal(err)
	}
	var seen []string
	soas := 0
	for range 200 {
		reply := readTCP(t, c)
		if reply.Id != m.Id || len(reply.Question) > 0 && reply.Question[0].Qtype == dns.TypeA {
			if seen = append(seen, show(reply)); len(seen) == 2 {
				break
			}
			continue
		}
		if len(seen) != 1 {
			t.Fatalf("a message of the transfer after %d answers", len(seen))
		}
		for _, rr := range reply.Answer {
			if rr.Header().Rrtype == dns.TypeSOA {
				soas++
			}
		}
	}
	if want := "NOERROR aa | " + wwwA; soas != 2 || len(seen) != 2 || seen[0] != want || seen[1] != want {
		t.Errorf("%d SOA, answers %q", soas, seen)
	}
}
