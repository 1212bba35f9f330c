package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// request packs a query as a client would send it.
func request(t testing.TB, name string, qtype uint16, change func(*dns.Msg)) []byte {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, qtype)
	m.Id = 0xabcd
	if change != nil {
		change(m)
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func withEDNS(size uint16, do bool, options ...dns.EDNS0) func(*dns.Msg) {
	return func(m *dns.Msg) {
		m.SetEdns0(size, do)
		m.IsEdns0().Option = options
	}
}

func subnetOption(prefix string) dns.EDNS0 {
	p := netip.MustParsePrefix(prefix)
	o := &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: uint8(p.Bits()), Address: p.Addr().AsSlice()}
	if p.Addr().Is6() {
		o.Family = 2
	}
	return o
}

func TestParse(t *testing.T) {
	long := strings.Repeat("abcdefgh.", 27) + "abcdefghi."
	for _, c := range []struct {
		name string
		in   []byte
		want string // the name in lower case, empty for a query that is left to others
		edns EDNS
	}{
		{"plain", request(t, "www.Demo.test.", dns.TypeA, nil), "www.demo.test.", EDNS{}},
		{"root", request(t, ".", dns.TypeNS, nil), ".", EDNS{}},
		{"all letters and others", request(t, `ABCXYZ@[abcxyz\255.TEST.`, dns.TypeA, nil), `abcxyz\@[abcxyz\255.test.`, EDNS{}},
		{"longest name", request(t, long, dns.TypeA, nil), long, EDNS{}},
		{"EDNS, RFC 6891", request(t, "a.test.", dns.TypeA, withEDNS(4096, true)), "a.test.", EDNS{Present: true, DO: true, Size: 4096}},
		{"NSID, RFC 5001", request(t, "a.test.", dns.TypeA, withEDNS(512, false, &dns.EDNS0_NSID{Code: dns.EDNS0NSID})), "a.test.", EDNS{Present: true, Size: 512, NSID: true}},
		{"subnet, RFC 7871", request(t, "a.test.", dns.TypeA, withEDNS(1232, false, subnetOption("192.0.2.0/24"))), "a.test.",
			EDNS{Present: true, Size: 1232, Subnet: []byte{0, 1, 24, 0, 192, 0, 2}}},
		{"a cookie is passed over", request(t, "a.test.", dns.TypeA, withEDNS(1232, false, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"})), "a.test.", EDNS{Present: true, Size: 1232}},
		{"two subnets", request(t, "a.test.", dns.TypeA, withEDNS(1232, false, subnetOption("192.0.2.0/24"), subnetOption("192.0.2.0/24"))), "", EDNS{}},
		{"EDNS version 1", request(t, "a.test.", dns.TypeA, func(m *dns.Msg) { withEDNS(1232, false)(m); m.IsEdns0().SetVersion(1) }), "", EDNS{}},
		{"a reply", request(t, "a.test.", dns.TypeA, func(m *dns.Msg) { m.Response = true }), "", EDNS{}},
		{"NOTIFY, RFC 1996", request(t, "a.test.", dns.TypeSOA, func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }), "", EDNS{}},
		{"CHAOS", request(t, "a.test.", dns.TypeTXT, func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }), "", EDNS{}},
		{"two questions, RFC 9619", request(t, "a.test.", dns.TypeA, func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }), "", EDNS{}},
		{"TSIG, RFC 8945", request(t, "a.test.", dns.TypeA, func(m *dns.Msg) { m.SetTsig("k.", dns.HmacSHA256, 300, 0) }), "", EDNS{}},
		{"a pointer in the question", append(bytes.Clone(request(t, ".", dns.TypeA, nil)[:12]), 0xc0, 12, 0, 1, 0, 1), "", EDNS{}},
	} {
		var q Query
		ok := q.Parse(c.in)
		if ok != (c.want != "") {
			t.Errorf("%s: taken %v", c.name, ok)
			continue
		}
		if !ok {
			continue
		}
		name, _, err := dns.UnpackDomainName(q.Name(), 0)
		if err != nil || name != c.want {
			t.Errorf("%s: name %q (%v), want %q", c.name, name, err, c.want)
		}
		if e := q.EDNS; e.Present != c.edns.Present || e.DO != c.edns.DO || e.NSID != c.edns.NSID || e.Size != c.edns.Size || !bytes.Equal(e.Subnet, c.edns.Subnet) {
			t.Errorf("%s: %+v, want %+v", c.name, e, c.edns)
		}
	}
}

// TestParseShort: no prefix of a query is read beyond its end, nor taken for one.
func TestParseShort(t *testing.T) {
	whole := request(t, "www.demo.test.", dns.TypeA, withEDNS(1232, true, subnetOption("192.0.2.0/24")))
	for n := range whole {
		var q Query
		if q.Parse(whole[:n:n]) {
			t.Errorf("the first %d of %d octets were taken for a query", n, len(whole))
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(request(f, "www.demo.test.", dns.TypeA, withEDNS(1232, true, subnetOption("192.0.2.0/24"))))
	f.Add(request(f, ".", dns.TypeNS, nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		var q Query
		if !q.Parse(in) {
			return
		}
		name, off, err := dns.UnpackDomainName(in, headerLen)
		if err != nil {
			t.Fatalf("read %x, the oracle %v", q.Name(), err)
		}
		want := make([]byte, 255)
		n, err := dns.PackDomainName(dns.CanonicalName(name), want, 0, nil, false)
		if err != nil || !bytes.Equal(q.Name(), want[:n]) || q.Type != binary.BigEndian.Uint16(in[off:]) {
			t.Fatalf("read %x type %d, the oracle %x, %v", q.Name(), q.Type, want[:n], err)
		}
	})
}

// sample is an Index of a few names, whose answers are packed by the library.
func sample(t testing.TB, names ...string) *Index {
	t.Helper()
	var b Builder
	for i, name := range names {
		m := new(dns.Msg)
		m.SetQuestion(name, dns.TypeA)
		m.Response, m.Authoritative, m.Compress = true, true, true
		rr, err := dns.NewRR(name + " 20 IN A 192.0.2." + string(rune('1'+i)))
		if err != nil {
			t.Fatal(err)
		}
		m.Answer = []dns.RR{rr}
		msg, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		wireName := make([]byte, 255)
		n, err := dns.PackDomainName(name, wireName, 0, nil, false)
		if err != nil {
			t.Fatal(err)
		}
		b.Add(wireName[:n], dns.TypeA, uint16(i))
		b.Reply(msg)
		b.Reply(nil)
	}
	return b.Index()
}

func TestReply(t *testing.T) {
	x := sample(t, "www.demo.test.", "a.test.")
	for _, c := range []struct {
		name    string
		in      []byte
		options Options
		want    string
	}{
		{"plain, case kept", request(t, "wWw.dEmo.test.", dns.TypeA, nil), Options{NSID: "x", Subnet: true}, "wWw.dEmo.test.\t20\tIN\tA\t192.0.2.1"},
		{"EDNS", request(t, "a.test.", dns.TypeA, withEDNS(1232, true)), Options{NSID: "x", Subnet: true}, "a.test.\t20\tIN\tA\t192.0.2.2"},
		{"NSID and subnet", request(t, "a.test.", dns.TypeA, withEDNS(1232, false, &dns.EDNS0_NSID{Code: dns.EDNS0NSID}, subnetOption("192.0.2.0/24"))),
			Options{NSID: "ams1 1042.17", Subnet: true, Scope: 20}, "a.test.\t20\tIN\tA\t192.0.2.2"},
	} {
		var q Query
		out := make([]byte, MaxUDP)
		if !q.Parse(c.in) {
			t.Fatalf("%s: not taken", c.name)
		}
		e := x.Find(&q)
		if e == nil {
			t.Fatalf("%s: not found", c.name)
		}
		n := x.Reply(out, &q, x.Body(e.First), &c.options)
		m, asked := new(dns.Msg), new(dns.Msg)
		if err := m.Unpack(out[:n]); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if err := asked.Unpack(c.in); err != nil {
			t.Fatal(err)
		}
		if len(m.Answer) != 1 || m.Answer[0].String() != c.want || m.Id != 0xabcd || !m.Authoritative || m.Rcode != 0 || !m.RecursionDesired || m.Question[0] != asked.Question[0] {
			t.Errorf("%s: %s", c.name, m)
		}
		opt, askedOpt := m.IsEdns0(), asked.IsEdns0()
		if (opt == nil) != (askedOpt == nil) {
			t.Fatalf("%s: OPT %v", c.name, opt)
		}
		if opt == nil {
			continue
		}
		if opt.Do() != askedOpt.Do() || len(opt.Option) != len(askedOpt.Option) || opt.UDPSize() != MaxUDP {
			t.Errorf("%s: %s", c.name, opt)
		}
		for _, o := range opt.Option {
			if s, ok := o.(*dns.EDNS0_SUBNET); ok && (s.SourceScope != 20 || s.SourceNetmask != 24 || !s.Address.Equal(net.IPv4(192, 0, 2, 0))) {
				t.Errorf("%s: subnet %v", c.name, s)
			}
		}
	}
}

// TestReplyTooLong: what does not fit is left to the slow path.
func TestReplyTooLong(t *testing.T) {
	x := sample(t, "a.test.")
	var q Query
	if !q.Parse(request(t, "a.test.", dns.TypeA, withEDNS(512, false, &dns.EDNS0_NSID{Code: dns.EDNS0NSID}))) {
		t.Fatal("not taken")
	}
	e, out := x.Find(&q), make([]byte, MaxUDP)
	if n := x.Reply(out, &q, x.Body(e.First), &Options{NSID: strings.Repeat("x", 500)}); n != 0 {
		t.Errorf("a reply of %d octets for a client that takes 512", n)
	}
	if x.Body(e.First+1) != nil {
		t.Error("a body that was left out is there")
	}
}

// TestFindOracle: an Index finds what a map holds, and nothing else.
func TestFindOracle(t *testing.T) {
	var names []string
	for i := range 9 {
		names = append(names, strings.Repeat("x", i+1)+".test.")
	}
	x := sample(t, names...)
	var q Query
	for i, name := range names {
		q.Parse(request(t, strings.ToUpper(name), dns.TypeA, nil))
		if e := x.Find(&q); e == nil || int(e.Tag) != i {
			t.Errorf("%s: %+v", name, e)
		}
		q.Parse(request(t, name, dns.TypeAAAA, nil))
		if e := x.Find(&q); e != nil {
			t.Errorf("%s AAAA: %+v", name, e)
		}
		q.Parse(request(t, "y"+name, dns.TypeA, nil))
		if e := x.Find(&q); e != nil {
			t.Errorf("y%s: %+v", name, e)
		}
	}
}

// TestAllocations: a query costs none, from its octets to its reply.
func TestAllocations(t *testing.T) {
	x := sample(t, "www.demo.test.")
	in := request(t, "WWW.demo.test.", dns.TypeA, withEDNS(1232, true, subnetOption("192.0.2.0/24")))
	out, o := make([]byte, MaxUDP), Options{NSID: "ams1", Subnet: true, Scope: 20}
	var q Query
	if n := testing.AllocsPerRun(100, func() {
		if !q.Parse(in) || x.Reply(out, &q, x.Body(x.Find(&q).First), &o) == 0 {
			t.Error("no reply")
		}
	}); n != 0 {
		t.Errorf("%v allocations for a query", n)
	}
}

// TestBatch: datagrams of many clients come in one call, each gets its own
// reply, from the address that it asked.
func TestBatch(t *testing.T) {
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	raw, err := server.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	const clients = 5
	var conns []*net.UDPConn
	for i := range clients {
		c, err := net.DialUDP("udp4", nil, server.LocalAddr().(*net.UDPAddr))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte{byte(i), 1, 2}); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	b, seen := NewBatch(8), 0
	if err := raw.Read(func(fd uintptr) bool {
		n, err := b.Receive(fd)
		if err != nil {
			t.Error(err)
			return true
		}
		for i := range n {
			if q := b.Query(i); len(q) != 3 || b.Source(i) != netip.MustParseAddrPort(conns[q[0]].LocalAddr().String()) {
				t.Errorf("%v from %s", q, b.Source(i))
			}
			if seen++; seen%2 == 0 {
				continue // no reply to every other one
			}
			b.Reply(i, copy(b.Out(i), append([]byte{0xff}, b.Query(i)...)))
		}
		if lost, err := b.Send(fd); lost != 0 || err != nil {
			t.Errorf("%d lost, %v", lost, err)
		}
		return seen == clients
	}); err != nil {
		t.Fatal(err)
	}
	for i, c := range conns {
		if i%2 == 1 {
			continue
		}
		got := make([]byte, 16)
		if n, err := c.Read(got); err != nil || !bytes.Equal(got[:n], []byte{0xff, byte(i), 1, 2}) {
			t.Errorf("client %d got %v, %v", i, got[:n], err)
		}
	}
}

// TestBatchForeignControl: a socket that was handed in may be set to tell more
// than the address asked; the reply takes that one alone along.
func TestBatchForeignControl(t *testing.T) {
	for network, listen := range map[string]string{"udp4": "127.0.0.1:0", "udp6": "[::1]:0"} {
		server, err := net.ListenPacket(network, listen)
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		raw, err := server.(*net.UDPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		client, err := net.Dial(network, server.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		b := NewBatch(1)
		if err := raw.Control(func(fd uintptr) {
			err = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1))
			if network == "udp4" {
				err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1), unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVTTL, 1))
			} else {
				err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1), unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1))
			}
		}); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Write([]byte{1, 2, 3}); err != nil {
			t.Fatal(err)
		}
		if err := raw.Read(func(fd uintptr) bool {
			n, err := b.Receive(fd)
			if n == 0 && err == nil {
				return false
			}
			if len(asked(b.control[0][:b.recv[0].hdr.Controllen])) == 0 {
				t.Errorf("%s: the address asked is not found in %x", network, b.control[0])
			}
			b.Reply(0, copy(b.Out(0), b.Query(0)))
			if lost, err2 := b.Send(fd); lost != 0 || err != nil || err2 != nil {
				t.Errorf("%s: %d lost, %v, %v", network, lost, err, err2)
			}
			return true
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAskedShort: control data cut off anywhere are not read beyond their end.
func TestAskedShort(t *testing.T) {
	whole := unix.PktInfo4(&unix.Inet4Pktinfo{Ifindex: 7, Spec_dst: [4]byte{192, 0, 2, 1}})
	for n := range whole {
		b := make([]byte, n)
		copy(b, whole)
		if got := asked(b); got != nil && n < unix.CmsgLen(unix.SizeofInet4Pktinfo) {
			t.Errorf("the first %d octets were taken for %x", n, got)
		}
	}
	if got := asked(whole); len(got) == 0 || got[unix.CmsgLen(0)] != 0 {
		t.Errorf("%x", got)
	}
}

func BenchmarkAnswer(b *testing.B) {
	x := sample(b, "www.demo.test.")
	in := request(b, "www.demo.test.", dns.TypeA, withEDNS(1232, false, subnetOption("192.0.2.0/24")))
	out, o := make([]byte, MaxUDP), Options{Subnet: true, Scope: 20}
	var q Query
	b.ReportAllocs()
	for b.Loop() {
		q.Parse(in)
		x.Reply(out, &q, x.Body(x.Find(&q).First), &o)
	}
}

// TestBodiesKeptOnce: many names with the same records need the room of one, those with
// others their own.
func TestBodiesKeptOnce(t *testing.T) {
	var b Builder
	reply := func(name, addr string) []byte {
		m := new(dns.Msg)
		m.SetQuestion(name, dns.TypeA)
		m.Response, m.Compress = true, true
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.ParseIP(addr)}}
		out, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	octets := func(names int, addr func(i int) string) int {
		total := 0
		for i := range names {
			msg := reply("h"+string(rune('a'+i))+".test.", addr(i))
			name := msg[headerLen : headerLen+9]
			total += len(name)
			b.Add(name, dns.TypeA, 0)
			b.Reply(msg)
		}
		x := b.Index()
		for i := range names {
			var q Query
			if !q.Parse(request(t, "h"+string(rune('a'+i))+".test.", dns.TypeA, nil)) {
				t.Fatal("not parsed")
			}
			out := make([]byte, MaxUDP)
			n := x.Reply(out, &q, x.Body(x.Find(&q).First), &Options{})
			m := new(dns.Msg)
			if err := m.Unpack(out[:n]); err != nil || len(m.Answer) != 1 || m.Answer[0].(*dns.A).A.String() != addr(i) {
				t.Errorf("name %d of %d: %v, %v; want %s", i, names, m, err, addr(i))
			}
		}
		return len(x.arena) - total
	}
	same := octets(20, func(int) string { return "192.0.2.1" })
	one := octets(1, func(int) string { return "192.0.2.1" })
	own := octets(20, func(i int) string { return netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}).String() })
	if same != one || own != 20*one {
		t.Errorf("records of one name take %d octets, the same of 20 %d, their own of 20 %d", one, same, own)
	}
}
