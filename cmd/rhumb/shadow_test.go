package main

import (
	"encoding/binary"
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"rhumb/placement"
)

// asked is a question of the recording, and what is done to the reply that we would
// give, to make the recorded one; "" leaves out that.
type asked struct {
	question string // NAME TYPE
	client   string
	times    int
	recorded func(*dns.Msg) *dns.Msg
}

func same(m *dns.Msg) *dns.Msg { return m }

// recordShadow writes a capture of raw IPv4 packets, with replies made of what the
// fleet file gives.
func recordShadow(t *testing.T, all []asked) string {
	t.Helper()
	r, err := newRehearsal("../../etc/fleet.yaml", []string{"../../placement/geo/testdata/GeoIP2-City-Test.mmdb"}, []placement.Level{placement.LowLevel, placement.TopLevel}, true, &app{err: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	b := binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4)
	b = append(append(b, make([]byte, 16)...), 101, 0, 0, 0)
	server, id := netip.MustParseAddrPort("192.0.2.53:53"), uint16(0)
	put := func(from, to netip.AddrPort, data []byte) {
		p := make([]byte, 28)
		p[0], p[9] = 0x45, 17
		binary.BigEndian.PutUint16(p[2:], uint16(28+len(data)))
		copy(p[12:], from.Addr().AsSlice())
		copy(p[16:], to.Addr().AsSlice())
		binary.BigEndian.PutUint16(p[20:], from.Port())
		binary.BigEndian.PutUint16(p[22:], to.Port())
		binary.BigEndian.PutUint16(p[24:], uint16(8+len(data)))
		p = append(p, data...)
		b = append(b, make([]byte, 8)...)
		b = binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(b, uint32(len(p))), uint32(len(p)))
		b = append(b, p...)
	}
	for _, a := range all {
		client := netip.MustParseAddrPort(a.client + ":4000")
		for range a.times {
			id++
			name, kind, _ := strings.Cut(a.question, " ")
			q := new(dns.Msg).SetQuestion(name, dns.StringToType[kind])
			q.Id = id
			packed, err := q.Pack()
			if err != nil {
				t.Fatal(err)
			}
			put(client, server, packed)
			data, _ := r.answer(t.Context(), packed, client)
			m := new(dns.Msg)
			if err := m.Unpack(data); err != nil {
				t.Fatal(err)
			}
			if m = a.recorded(m); m != nil {
				if data, err = m.Pack(); err != nil {
					t.Fatal(err)
				}
				put(server, client, data)
			}
		}
	}
	file := filepath.Join(t.TempDir(), "asked.pcap")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestShadow: what is answered otherwise is counted by what differs, the most frequent
// first, with an example of each; what may differ does not count.
func TestShadow(t *testing.T) {
	file := recordShadow(t, []asked{
		{"demo.test. SOA", "198.51.100.5", 10, func(m *dns.Msg) *dns.Msg { // in another case, with more beside it
			m.Question[0].Name, m.Answer[0].Header().Name = "DEMO.test.", "Demo.Test."
			m.Extra = append(m.Extra, &dns.A{Hdr: dns.RR_Header{Name: "x.demo.test.", Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(192, 0, 2, 9)})
			return m
		}},
		{"www.cdn.demo.test. A", "198.51.100.5", 3, func(m *dns.Msg) *dns.Msg {
			m.Answer[0].(*dns.A).A = net.IPv4(192, 0, 2, 99)
			return m
		}},
		{"nix.demo.test. A", "198.51.100.6", 2, func(m *dns.Msg) *dns.Msg { m.Rcode, m.Ns = dns.RcodeSuccess, nil; return m }},
		{"demo.test. NS", "198.51.100.6", 1, func(m *dns.Msg) *dns.Msg { m.Answer[0].Header().Ttl++; return m }},
		{"demo.test. NS", "198.51.100.7", 1, func(m *dns.Msg) *dns.Msg { m.Authoritative = false; return m }},
		{"other.test. A", "198.51.100.7", 4, func(m *dns.Msg) *dns.Msg { m.Rcode = dns.RcodeSuccess; return m }},
		{"demo.test. SOA", "198.51.100.8", 1, func(m *dns.Msg) *dns.Msg { m.Truncated, m.Answer = true, nil; return m }},
		{"demo.test. SOA", "198.51.100.8", 1, func(*dns.Msg) *dns.Msg { return nil }},
	})
	line := []string{"shadow", "--pcap", file, "--fleet", "../../etc/fleet.yaml", "--geo", "../../placement/geo/testdata/GeoIP2-City-Test.mmdb"}
	code, out, errs := cli(t.Context(), append(line, "--act", "-o", "json")...)
	var r shadowReport
	if err := json.Unmarshal([]byte(out), &r); code != exitOK || err != nil {
		t.Fatalf("exit %d, %v: %s%s", code, err, out, errs)
	}
	if r.Queries != 23 || r.Compared != 21 || r.Differing != 11 || r.Unanswered != 1 || r.Uncut != 1 || r.Skipped != 0 {
		t.Errorf("%d queries, %d compared, %d differ, %d without a reply, %d truncated, %d skipped; want 23, 21, 11, 1, 1, 0\n%s", r.Queries, r.Compared, r.Differing, r.Unanswered, r.Uncut, r.Skipped, out)
	}
	var got []string
	for _, g := range r.Top {
		got = append(got, g.Name+" "+g.Type+" "+g.Kind)
	}
	want := "other.test. A rcode, www.cdn.demo.test. A answer, nix.demo.test. A rcode, demo.test. NS aa, demo.test. NS ttl"
	if strings.Join(got, ", ") != want {
		t.Fatalf("differences %s; want %s", strings.Join(got, ", "), want)
	}
	if g := r.Top[0]; g.Queries != 4 || g.Theirs != "NOERROR" || g.Ours != "REFUSED" || g.Why != "no zone of this fleet" || g.Client.String() != "198.51.100.7" {
		t.Errorf("first: %+v", g)
	}
	if g := r.Top[1]; !strings.Contains(g.Theirs, "192.0.2.99") || !strings.HasPrefix(g.Why, "service www: site ") || strings.Contains(g.Ours, "192.0.2.99") {
		t.Errorf("second: %+v", g)
	}
	code, out, _ = cli(t.Context(), append(line, "--act", "--most", "1")...)
	if code != exitOK || !strings.Contains(out, "11 of 21 (52.381 %): rcode 6, answer 3, aa 1, ttl 1") || strings.Contains(out, "\n2 ") {
		t.Errorf("exit %d:\n%s", code, out)
	}
	// The sample fleet observes: without --act the name has its static set, which is none.
	code, out, _ = cli(t.Context(), append(line, "--level", "low")...)
	if code != exitOK || !strings.Contains(out, "www.cdn.demo.test. A  rcode, 3 queries") && !strings.Contains(out, "www.cdn.demo.test. A  answer, 3 queries") || !strings.Contains(out, "demo.test. SOA  rcode, 10 queries") {
		t.Errorf("as the fleet says, on a low listener: exit %d\n%s", code, out)
	}
}

// TestShadowLive: with --against the server of today is asked, each question once.
func TestShadowLive(t *testing.T) {
	file := recordShadow(t, []asked{{"demo.test. SOA", "198.51.100.5", 5, same}, {"www.cdn.demo.test. A", "198.51.100.5", 5, same}, {"demo.test. NS", "198.51.100.5", 1, func(*dns.Msg) *dns.Msg { return nil }}})
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	live := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeServerFailure))
	})}
	done := make(chan error, 1)
	go func() { done <- live.ActivateAndServe() }()
	defer func() {
		live.Shutdown()
		<-done
	}()
	code, out, errs := cli(t.Context(), "shadow", "--pcap", file, "--fleet", "../../etc/fleet.yaml", "--geo", "../../placement/geo/testdata/GeoIP2-City-Test.mmdb", "--act", "--against", conn.LocalAddr().String(), "-o", "json")
	var r shadowReport
	if err := json.Unmarshal([]byte(out), &r); code != exitOK || err != nil || r.Compared != 11 || r.Kinds[differsRcode] != 11 || r.Unanswered != 0 {
		t.Errorf("exit %d, %v, %+v; want 11 compared that differ by rcode\n%s%s", code, err, r.Kinds, out, errs)
	}
	code, out, _ = cli(t.Context(), "shadow", "--pcap", file, "--ours", conn.LocalAddr().String())
	if code != exitOK || !strings.Contains(out, "10 of 10 (100.000 %): rcode 10") || !strings.Contains(out, "1 without a recorded reply") {
		t.Errorf("with --ours: exit %d\n%s", code, out)
	}
}

// TestShadowWords: wrong words and wrong files end with their codes.
func TestShadowWords(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pcap")
	if err := os.WriteFile(empty, append([]byte{0xd4, 0xc3, 0xb2, 0xa1}, make([]byte, 20)...), 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]int{
		"--fleet f":                             exitUsage,
		"--pcap a --dnstap b --fleet f":         exitUsage,
		"--pcap a":                              exitUsage,
		"--pcap a --fleet f --ours 192.0.2.1":   exitUsage,
		"--pcap a --fleet f --level middle":     exitUsage,
		"--pcap a --fleet f --rate 0":           exitUsage,
		"--pcap " + empty + " --ours nowhere":   exitUsage,
		"--pcap /nowhere --fleet f":             exitNotFound,
		"--pcap shadow_test.go --fleet f":       exitUsage,
		"--pcap " + empty + " --ours 192.0.2.1": exitNotFound,
		"--pcap " + empty + " --fleet ../../internal/config/testdata/nowhere": exitConfig,
	} {
		if code, out, errs := cli(t.Context(), append([]string{"shadow"}, strings.Fields(line)...)...); code != want {
			t.Errorf("%s: exit %d, want %d\n%s%s", line, code, want, out, errs)
		}
	}
}

// TestCompare: what differs, and what only looks as if it did.
func TestCompare(t *testing.T) {
	pack := func(change func(*dns.Msg)) []byte {
		m := new(dns.Msg).SetQuestion("a.test.", dns.TypeA)
		m.Response, m.Authoritative = true, true
		for _, text := range []string{"a.test. 60 IN A 192.0.2.1", "a.test. 60 IN A 192.0.2.2"} {
			rr, err := dns.NewRR(text)
			if err != nil {
				t.Fatal(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		change(m)
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	record := func(text string) dns.RR {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		return rr
	}
	base := pack(func(*dns.Msg) {})
	for name, c := range map[string]struct {
		ours []byte
		want string
		ok   bool
	}{
		"the same":      {base, "", true},
		"another order": {pack(func(m *dns.Msg) { m.Answer[0], m.Answer[1] = m.Answer[1], m.Answer[0] }), "", true},
		"signed": {pack(func(m *dns.Msg) {
			m.Answer = append(m.Answer, record("a.test. 60 IN RRSIG A 13 2 60 20300101000000 20200101000000 1 test. AAAA"))
		}), "", true},
		"beside it":   {pack(func(m *dns.Msg) { m.Ns = append(m.Ns, record("test. 60 IN NS ns.test.")) }), "", true},
		"EDNS":        {pack(func(m *dns.Msg) { m.SetEdns0(1232, false) }), "", true},
		"fewer":       {pack(func(m *dns.Msg) { m.Answer = m.Answer[:1] }), differsAnswer, true},
		"another TTL": {pack(func(m *dns.Msg) { m.Answer[0].Header().Ttl = 61 }), differsTTL, true},
		"not AA":      {pack(func(m *dns.Msg) { m.Authoritative = false }), differsAA, true},
		"BADVERS":     {pack(func(m *dns.Msg) { m.Answer = nil; m.SetEdns0(1232, false); m.Rcode = dns.RcodeBadVers }), differsRcode, true},
		"a referral":  {pack(func(m *dns.Msg) { m.Answer = nil; m.Ns = []dns.RR{record("test. 60 IN NS ns.test.")} }), differsReferral, true},
		"no records":  {pack(func(m *dns.Msg) { m.Answer = nil; m.Ns = []dns.RR{record("test. 60 IN SOA a. b. 1 2 3 4 5")} }), differsAnswer, true},
		"silence":     {nil, differsSilence, true},
		"truncated":   {pack(func(m *dns.Msg) { m.Truncated = true }), "", false},
		"no message":  {[]byte("hello, this is nothing"), "", false},
		"a query":     {pack(func(m *dns.Msg) { m.Response = false }), "", false},
	} {
		d, ok := compare(base, c.ours)
		if d.kind != c.want || ok != c.ok {
			t.Errorf("%s: %+v, %v; want %q, %v", name, d, ok, c.want, c.ok)
		}
		if back, ok2 := compare(c.ours, base); back.kind != d.kind || ok2 != ok {
			t.Errorf("%s, the other way round: %+v, %v", name, back, ok2)
		}
	}
	if d, ok := compare(nil, nil); d.kind != "" || !ok {
		t.Errorf("silence twice: %+v", d)
	}
}
