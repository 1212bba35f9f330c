package authdns

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"rhumb/placement"
)

// rowRFC says where each row of docs/reference/dns-conformance.md comes from; it
// goes into the names of the cases.
var rowRFC = [103]string{
	1: "RFC 1035 4.1.1", 2: "RFC 1035 4.1.1", 3: "RFC 7873 5.4", 4: "RFC 9619", 5: "RFC 1035 4.1.1", 6: "RFC 2136, RFC 1996", 7: "RFC 8490 5.1",
	8: "RFC 1035 4.1.1", 9: "RFC 1035 4.1.2", 10: "RFC 1035 4.1", 11: "RFC 1035 4.1", 12: "RFC 1035 2.3.3", 13: "RFC 2181 4", 14: "RFC 1035 2.3.4, 4.1.4",
	15: "RFC 4892", 16: "RFC 1035 3.2.5", 17: "RFC 4892", 18: "RFC 8482", 19: "RFC 5936 4.2", 20: "RFC 1995 2", 21: "RFC 6895 3.1", 22: "RFC 3597 3",
	23: "RFC 4035 3.1", 24: "RFC 8499 7", 25: "RFC 8914 4.15", 26: "RFC 6891 6.1.3", 27: "RFC 6891 6.1.2", 28: "RFC 6891 6.1.4", 29: "RFC 6891 6.1.1",
	30: "RFC 6891 6.1.2", 31: "RFC 6891 6.1.2", 32: "RFC 6891 6.1.1", 33: "RFC 6891 7", 34: "RFC 6891 6.2.3", 35: "RFC 6891 7", 36: "RFC 5001 2.1",
	37: "RFC 7873 5.2.2", 38: "RFC 9018 4", 39: "RFC 7873 5.2.4", 40: "RFC 9018 4.3", 41: "RFC 7828 3.2.2", 42: "RFC 7828 3.2.1", 43: "RFC 8467 4.1",
	44: "RFC 7871 7.2.1", 45: "RFC 7871 7.2.1", 46: "RFC 7871 7.2.1", 47: "RFC 7871 7.1.2", 48: "RFC 7871 7.1.2", 49: "RFC 7871 6", 50: "RFC 7871 6",
	51: "RFC 7871 7.1.3", 52: "RFC 7871 7.1.3", 53: "RFC 7871 7.2.1", 54: "RFC 7871 7.3.1", 55: "RFC 6891 6.1.2", 56: "RFC 2308 2.2", 57: "RFC 8020 2",
	58: "RFC 4592 2.2.2", 59: "RFC 4592 2.2", 60: "RFC 4592 4.4", 61: "RFC 6604 2", 62: "RFC 1034 3.6.2", 63: "RFC 6672 2, 3", 64: "RFC 1034 4.3.2",
	65: "RFC 1034 4.2.1", 66: "RFC 4035 3.1.4.1", 67: "RFC 4035 3.1.4", 68: "RFC 9471 3", 69: "RFC 2181 10.3", 70: "RFC 2181 5.4.1", 71: "RFC 1912 2.8",
	72: "RFC 2181 9", 73: "RFC 9715 3.1", 74: "RFC 7766 5", 75: "RFC 7766 6.2.1.1", 76: "RFC 7766 6.2.4", 77: "RFC 7766 8", 78: "RFC 7766 6.2.4",
	79: "RFC 7766 6.2.3", 80: "RFC 9210 4.2", 81: "RFC 5358 3", 82: "RFC 4035 3.1", 83: "RFC 4035 3.1.1", 84: "RFC 9824", 85: "RFC 4035 3.1.3", 86: "RFC 7344 4",
	87: "RFC 8901", 88: "RFC 4035 5", 89: "RFC 5936, RFC 8945", 90: "RFC 1996, RFC 1982", 91: "RFC 8906", 92: "RFC 9210 4",
	93: "RFC 9250 4.1.1", 94: "RFC 9250 4.2", 95: "RFC 9250 4.2.1", 96: "RFC 9250 4.3.1", 97: "RFC 9250 4.3.3", 98: "RFC 9250 4.5", 99: "RFC 9250 5.3",
	100: "RFC 9250 5.4", 101: "RFC 9250 5.5.1", 102: "RFC 9250 5.5.2",
}

// cited adds the RFC to the name of a case that begins with its row.
func cited(name string) string {
	number, _, _ := strings.Cut(strings.TrimPrefix(name, "R"), "_")
	row, err := strconv.Atoi(number)
	if err != nil || row >= len(rowRFC) {
		return name
	}
	return name + " " + rowRFC[row]
}

// rowsZone holds the shapes which the other zones of the fixture lack. The TTL of
// its SOA is lower than the MINIMUM.
const rowsZone = `$ORIGIN rows.test.
$TTL 3600
@	IN SOA ns hostmaster 5 7200 900 1209600 7200
	IN NS ns
ns	IN A 192.0.2.1
*.w	IN A 192.0.2.12
	IN MX 10 ns
b.w	IN TXT "blocks"
c.d.w	IN TXT "below an empty one"
sub.w	IN NS ns.sub.w
ns.sub.w	IN A 192.0.2.14
*.*.odd	IN A 192.0.2.15
x.y.cut	IN NS ns
d	60 IN DNAME new
new	IN A 192.0.2.16
a.new	IN A 192.0.2.13
c1	IN CNAME c2
c2	IN CNAME c3
c3	IN A 192.0.2.17
c4	IN CNAME a.d
back\046slash	IN A 192.0.2.18
$GENERATE 1-40 mid A 192.0.2.$
`

func rowsSource() Source {
	return Source{Zone: placement.Zone{Name: "rows.test.", Level: placement.TopLevel}, Data: []byte(rowsZone)}
}

func allSources() []Source { return append(sources(), rowsSource()) }

const rowsSOA = " ns rows.test. 3600 SOA ns.rows.test. hostmaster.rows.test. 5 7200 900 1209600 7200"

// header makes a request of 12 octets.
func header(opcode, questions byte) []byte {
	return []byte{0x42, 0x42, opcode << 3, 0, 0, questions, 0, 0, 0, 0, 0, 0}
}

// moreRows are cases of the top level which conformanceRows has not.
func moreRows(t testing.TB) (out []conformance) {
	www := func(change ...func(*dns.Msg)) []byte { return ask(t, "www.demo.test. A", change...) }
	rows := func(question string, change ...func(*dns.Msg)) []byte {
		name, qtype, _ := strings.Cut(question, " ")
		return ask(t, strings.TrimPrefix(name+".rows.test.", "@.")+" "+qtype, change...)
	}
	badvers := func(m *dns.Msg) {
		m.SetEdns0(4096, true)
		m.IsEdns0().SetVersion(1)
	}
	for _, n := range []byte{1, 2, 3, 7, 8, 9, 10, 11, 12, 13, 14, 15} {
		out = append(out, conformance{fmt.Sprintf("R05_opcode_%d_header_only", n), header(n, 0), "NOTIMP"},
			conformance{fmt.Sprintf("R05_opcode_%d", n), www(opcode(int(n))), "NOTIMP"},
			conformance{fmt.Sprintf("R05_opcode_%d_edns", n), www(opcode(int(n)), edns0()), "NOTIMP" + opt})
	}
	return append(out, []conformance{
		{"R05_question_cut", header(3, 1), "NOTIMP"},
		{"R06_update_header_only", header(dns.OpcodeUpdate, 0), "NOTIMP"},
		{"R07_dso_with_a_question", www(opcode(6)), "NOTIMP"},
		{"R09_question_missing", header(0, 1), "FORMERR"},
		{"R09_additional_count_lies", raw(www(), func(b []byte) []byte { b[11] = 1; return b }), "FORMERR"},
		{"R10_records_in_authority", www(func(m *dns.Msg) { m.Ns = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeTXT}}} }), "NOERROR aa | " + wwwA},
		{"R10_records_in_additional", www(func(m *dns.Msg) { m.Extra = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeTXT}}} }), "NOERROR aa | " + wwwA},
		{"R11_trailing_octets_behind_opt", append(www(edns0()), 0, 0, 41), "NOERROR aa | " + wwwA + opt},
		{"R12_dot_within_a_label", rows(`back\.slash A`), `NOERROR aa | back\.slash.rows.test. 3600 A 192.0.2.18`},
		{"R14_forward_pointer", []byte{0x42, 0x42, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 14, 1, 'a', 0, 0, 1, 0, 1}, "FORMERR"},
		{"R14_reserved_label_type", []byte{0x42, 0x42, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x41, 'a', 0, 0, 1, 0, 1}, "FORMERR"},
		{"R14_pointer_behind_a_label", []byte{0x42, 0x42, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 'a', 0xc0, 12, 0, 1, 0, 1}, "FORMERR"},
		{"R14_name_of_255", append(append(header(0, 1), strings.Repeat("\x07abcdefg", 31)+"\x05abcde"...), 0, 0, 1, 0, 1), "REFUSED"},
		{"R15_version_server", ask(t, "version.server. TXT", class(dns.ClassCHAOS)), `NOERROR aa | version.server. 0 CH TXT "rhumb 1.2"`},
		{"R16_class_any_nodata", ask(t, "www.demo.test. MX", class(dns.ClassANY)), "NOERROR aa" + demoSOA},
		{"R16_class_none", www(class(dns.ClassNONE)), "REFUSED"},
		{"R18_any_at_a_wildcard", rows("x.w ANY"), `NOERROR aa | x.w.rows.test. 3600 HINFO "RFC8482" ""`},
		{"R18_any_below_a_cut", rows("x.sub.w ANY"), "NOERROR ns sub.w.rows.test. 3600 NS ns.sub.w.rows.test. ar ns.sub.w.rows.test. 3600 A 192.0.2.14"},
		{"R18_any_below_a_dname", rows("a.d ANY"), "NOERROR aa | d.rows.test. 60 DNAME new.rows.test., a.d.rows.test. 60 CNAME a.new.rows.test., a.new.rows.test. 3600 HINFO \"RFC8482\" \"\""},
		{"R21_type_tkey", ask(t, "demo.test. TKEY"), "FORMERR"},
		{"R21_type_mailb", ask(t, "demo.test. MAILB"), "NOTIMP"},
		{"R22_unknown_nxdomain", ask(t, "nix.demo.test. A", func(m *dns.Msg) { m.Question[0].Qtype = 65401 }), "NXDOMAIN aa" + demoSOA},
		{"R23_nsec", ask(t, "www.demo.test. NSEC"), "NOERROR aa" + demoSOA},
		{"R24_a_suffix_in_common", ask(t, "xdemo.test. A"), "REFUSED"},
		{"R26_badvers_do", www(badvers), "BADVERS" + opt + " do"},
		{"R26_badvers_outside", ask(t, "www.other.test. A", badvers), "BADVERS" + opt + " do"},
		{"R26_badvers_class_chaos", www(class(dns.ClassCHAOS), badvers), "BADVERS" + opt + " do"},
		{"R26_badvers_type_opt", ask(t, "demo.test. OPT", badvers), "BADVERS" + opt + " do"},
		{"R26_badvers_opcode", www(opcode(9), badvers), "BADVERS" + opt + " do"},
		{"R27_many_options", www(edns0(&dns.EDNS0_LOCAL{Code: 65001}, &dns.EDNS0_LOCAL{Code: 20292, Data: []byte{7}}, &dns.EDNS0_LOCAL{Code: 26946, Data: []byte{1, 2}})), "NOERROR aa | " + wwwA + opt},
		{"R27_option_of_length_0", www(option(65001)), "NOERROR aa | " + wwwA + opt},
		{"R27_dau_dhu_n3u", www(edns0(&dns.EDNS0_LOCAL{Code: 5, Data: []byte{13}}, &dns.EDNS0_LOCAL{Code: 6, Data: []byte{2}}, &dns.EDNS0_LOCAL{Code: 7, Data: []byte{1}})), "NOERROR aa | " + wwwA + opt},
		{"R31_option_header_cut", raw(www(edns0()), func(b []byte) []byte { b[len(b)-1] = 3; return append(b, 0, 1, 0) }), "FORMERR" + opt},
		{"R34_size_0", ask(t, "mid.rows.test. A", ednsSize(0)), "NOERROR aa tc" + opt},
		{"R35_opt_refused_class", www(class(dns.ClassHESIOD), edns0()), "REFUSED" + opt},
		{"R35_opt_notimp", ask(t, "demo.test. MAILA", edns0()), "NOTIMP" + opt},
		{"R43_padding_in_clear", www(edns0(&dns.EDNS0_PADDING{Padding: make([]byte, 3)})), "NOERROR aa | " + wwwA + opt},
		{"R51_ecs_refused", ask(t, "www.other.test. A", edns0(ecs("198.51.100.0/24"))), "REFUSED" + opt + " ecs=1:198.51.100.0/24/0 ede=20"},
		{"R51_ecs_nxdomain", ask(t, "nix.demo.test. A", edns0(ecs("198.51.100.0/24"))), "NXDOMAIN aa" + demoSOA + opt + " ecs=1:198.51.100.0/24/0"},
		{"R55_two_ecs", www(edns0(ecs("198.51.100.0/24"), ecs("203.0.113.0/24"))), "NOERROR aa | " + wwwA + opt + " ecs=1:198.51.100.0/24/0"},
		{"R56_soa_ttl_below_minimum", rows("ns MX"), "NOERROR aa" + rowsSOA},
		{"R57_below_a_leaf", rows("x.ns A"), "NXDOMAIN aa" + rowsSOA},
		{"R58_ent_above_a_cut", rows("y.cut A"), "NOERROR aa" + rowsSOA},
		{"R58_ent_two_above_a_cut", rows("cut TXT"), "NOERROR aa" + rowsSOA},
		{"R58_child_of_an_ent_above_a_cut", rows("z.cut A"), "NXDOMAIN aa" + rowsSOA},
		{"R59_existing_name_blocks", rows("b.w A"), "NOERROR aa" + rowsSOA},
		{"R59_below_an_existing_name", rows("x.b.w A"), "NXDOMAIN aa" + rowsSOA},
		{"R59_ent_blocks", rows("d.w A"), "NOERROR aa" + rowsSOA},
		{"R59_below_an_ent", rows("x.d.w A"), "NXDOMAIN aa" + rowsSOA},
		{"R59_the_owner_of_a_wildcard", rows("w A"), "NOERROR aa" + rowsSOA},
		{"R59_below_a_cut", rows("x.sub.w A"), "NOERROR ns sub.w.rows.test. 3600 NS ns.sub.w.rows.test. ar ns.sub.w.rows.test. 3600 A 192.0.2.14"},
		{"R59_asterisk_below_an_asterisk", rows("x.*.odd A"), "NOERROR aa | x.*.odd.rows.test. 3600 A 192.0.2.15"},
		{"R59_beside_an_asterisk", rows("x.y.odd A"), "NOERROR aa" + rowsSOA},
		{"R61_chain_of_three", rows("c1 A"), "NOERROR aa | c1.rows.test. 3600 CNAME c2.rows.test., c2.rows.test. 3600 CNAME c3.rows.test., c3.rows.test. 3600 A 192.0.2.17"},
		{"R61_through_a_dname", rows("c4 A"), "NOERROR aa | c4.rows.test. 3600 CNAME a.d.rows.test., d.rows.test. 60 DNAME new.rows.test., a.d.rows.test. 60 CNAME a.new.rows.test., a.new.rows.test. 3600 A 192.0.2.13"},
		{"R63_ttl_of_the_dname", rows("a.d A"), "NOERROR aa | d.rows.test. 60 DNAME new.rows.test., a.d.rows.test. 60 CNAME a.new.rows.test., a.new.rows.test. 3600 A 192.0.2.13"},
		{"R63_nothing_there", rows("b.d A"), "NXDOMAIN aa | d.rows.test. 60 DNAME new.rows.test., b.d.rows.test. 60 CNAME b.new.rows.test." + rowsSOA},
		{"R63_dname_asked", rows("d DNAME"), "NOERROR aa | d.rows.test. 60 DNAME new.rows.test."},
		{"R65_ns_asked_at_the_cut", rows("sub.w NS"), "NOERROR ns sub.w.rows.test. 3600 NS ns.sub.w.rows.test. ar ns.sub.w.rows.test. 3600 A 192.0.2.14"},
		{"R65_soa_asked_at_the_cut", rows("sub.w SOA"), "NOERROR ns sub.w.rows.test. 3600 NS ns.sub.w.rows.test. ar ns.sub.w.rows.test. 3600 A 192.0.2.14"},
		{"R65_the_name_server_itself", rows("ns.sub.w A"), "NOERROR ns sub.w.rows.test. 3600 NS ns.sub.w.rows.test. ar ns.sub.w.rows.test. 3600 A 192.0.2.14"},
		{"R66_ds_below_the_cut", rows("x.sub.w DS"), "NOERROR ns sub.w.rows.test. 3600 NS ns.sub.w.rows.test. ar ns.sub.w.rows.test. 3600 A 192.0.2.14"},
		{"R71_lame", ask(t, "x.sub.other.test. A"), "REFUSED"},
		{"R72_truncated_question_kept", rows("mid A"), "NOERROR aa tc"},
	}...)
}

// lowRows are cases of the low level.
func lowRows(t testing.TB) []conformance {
	const tyo = "NOERROR aa | www.cdn.demo.test. 20 A 198.51.100.138"
	www := func(change ...func(*dns.Msg)) []byte { return ask(t, "www.cdn.demo.test. A", change...) }
	return []conformance{
		{"R08_flags_ignored", raw(www(edns0(ecs("192.0.2.0/24"))), flags(0x0400|0x0200|0x0080|0x0040|0x0020|0x0010)), tyo + opt + " ecs=1:192.0.2.0/24/6"},
		{"R44_ecs", www(edns0(ecs("203.0.113.0/24"))), "NOERROR aa | www.cdn.demo.test. 20 A 198.51.100.74" + opt + " ecs=1:203.0.113.0/24/24"},
		{"R44_ecs_ipv6", www(edns0(ecs("2001:db8:e::/48"))), "NOERROR aa | www.cdn.demo.test. 20 A 198.51.100.10, www.cdn.demo.test. 20 A 198.51.100.11" + opt + " ecs=2:2001:db8:e::/48/48"},
		{"R46_scope_beyond_source", www(edns0(ecs("203.0.112.0/20"))), tyo + opt + " ecs=1:203.0.112.0/20/24"},
		{"R51_steered_formerr", www(option(optECS, 0, 1, 24, 24, 198, 51, 100)), "FORMERR" + opt},
		{"R51_steered_badvers", www(edns0(ecs("203.0.113.0/24")), func(m *dns.Msg) { m.IsEdns0().SetVersion(3) }), "BADVERS" + opt},
		{"R55_two_ecs", www(edns0(ecs("203.0.113.0/24"), ecs("198.51.100.0/24"))), "NOERROR aa | www.cdn.demo.test. 20 A 198.51.100.74" + opt + " ecs=1:203.0.113.0/24/24"},
		{"R58_ent_made_by_a_steered_name", ask(t, "any.cdn.demo.test. TXT"), "NOERROR aa" + cdnSOA},
		{"R59_steered_wildcard_two_labels", ask(t, "x.y.any.cdn.demo.test. MX"), "NOERROR aa" + cdnSOA},
		{"R71_the_child_at_its_own_server", ask(t, "about.cdn.demo.test. TXT"), `NOERROR aa | about.cdn.demo.test. 300 TXT "static"`},
		{"R71_the_parent_is_not_here", ask(t, "www.demo.test. A"), "REFUSED"},
	}
}

// TestMoreRows: cases that the fixture's first zones have no shape for.
func TestMoreRows(t *testing.T) {
	s := compiled(t, fleet(t, plan{}), allSources()...)
	for _, set := range []struct {
		level placement.Level
		rows  []conformance
	}{{top, moreRows(t)}, {low, lowRows(t)}} {
		for _, c := range set.rows {
			t.Run(cited(c.name), func(t *testing.T) {
				a := from(elsewhere, set.level)
				if got := show(s.reply(t, c.query, a)); got != c.want {
					t.Errorf("\n got %s\nwant %s", got, c.want)
				}
			})
		}
	}
}

// TestRowsQuick: every row through both paths.
func TestRowsQuick(t *testing.T) {
	st := compiled(t, fleet(t, plan{}), allSources()...)
	for l, rows := range map[placement.Level][]conformance{top: append(conformanceRows(t), moreRows(t)...), low: lowRows(t)} {
		p := newPaths(t, st, l)
		for _, c := range rows {
			p.compare(t, c.query, elsewhere)
		}
		if p.quick == 0 {
			t.Errorf("%s: no row took the fast path", l)
		}
	}
}

// differs tells whether a row is meant to have another reply over TCP: nothing is
// truncated there, and keepalive is answered.
func (c *conformance) differs() bool {
	return strings.Contains(c.want, " tc") || c.name == "R41_keepalive_udp"
}

// TestSockets asks every row that has a reply over UDP and TCP, IPv4 and IPv6: ID,
// question in its case, and the reply (rows 12, 74, 91). Those without one are sent
// as well, and the next query on the same socket is answered first.
func TestSockets(t *testing.T) {
	s := start(t, Config{Workers: 2, Listeners: []Listener{loopback(top, "127.0.0.1:0"), loopback(top, "[::1]:0"), loopback(low, "127.0.0.1:0"), loopback(low, "[::1]:0")}})
	if errs := s.SetZones(allSources()); errs != nil {
		t.Fatal(errs)
	}
	s.Apply(t.Context(), fleet(t, plan{}))
	rows := [2][]conformance{append(conformanceRows(t), moreRows(t)...), lowRows(t)}
	for i, network := range []string{"udp4", "tcp4", "udp6", "tcp6"} {
		for k, addr := range []netip.AddrPort{s.Addrs()[i/2], s.Addrs()[2+i/2]} {
			for _, c := range rows[k] {
				if strings.HasPrefix(network, "tcp") && c.differs() {
					continue
				}
				t.Run(network+"/"+cited(c.name), func(t *testing.T) {
					if c.want == "silence" {
						silent(t, network, addr, c.query)
						return
					}
					m := exchange(t, network, addr, c.query)
					if got := show(m); got != c.want {
						t.Errorf("\n got %s\nwant %s", got, c.want)
					}
					q := new(dns.Msg)
					if q.Unpack(c.query) == nil && (m.Id != q.Id || len(q.Question) == 1 && len(m.Question) == 1 && m.Question[0] != q.Question[0]) {
						t.Errorf("ID %x and question %v came back as %x, %v", q.Id, q.Question, m.Id, m.Question)
					}
				})
			}
		}
	}
}

// TestSocketsTLS asks every row over one connection of DNS over TLS.
func TestSocketsTLS(t *testing.T) {
	s, _ := startTLS(t, Config{}, "127.0.0.1:0")
	if errs := s.SetZones(allSources()); errs != nil {
		t.Fatal(errs)
	}
	s.Apply(t.Context(), fleet(t, plan{}))
	c := dialTLS(t, s.Addrs()[0], nil)
	for _, row := range append(conformanceRows(t), moreRows(t)...) {
		if row.want == "silence" || row.differs() || strings.HasPrefix(row.name, "R43") {
			continue
		}
		t.Run(cited(row.name), func(t *testing.T) {
			if got := show(roundTrip(t, c, "tcp", row.query)); got != row.want {
				t.Errorf("\n got %s\nwant %s", got, row.want)
			}
		})
	}
}

// silent sends what deserves no reply: over UDP the next query is answered as if
// nothing had been, over TCP the connection ends.
func silent(t *testing.T, network string, to netip.AddrPort, query []byte) {
	t.Helper()
	c, err := net.Dial(network, to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	good := ask(t, "www.demo.test. A")
	good[0] = 0x77
	if strings.HasPrefix(network, "tcp") {
		query, good = framed(query), framed(good)
	}
	if _, err := c.Write(query); err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(network, "tcp") {
		if n, err := c.Read(make([]byte, 1)); n > 0 {
			t.Errorf("got a reply, %v", err)
		}
		return
	}
	if m := roundTrip(t, c, network, good); m.Id>>8 != 0x77 {
		t.Errorf("got a reply: %s", show(m))
	}
}

// TestTruncationEdge is row 72: a reply that just fits is whole, one octet less
// makes it question and OPT.
func TestTruncationEdge(t *testing.T) {
	s := compiled(t, fleet(t, plan{}), allSources()...)
	whole, _ := s.answer(ask(t, "mid.rows.test. A", ednsSize(1232)), make([]byte, maxTCP), from(euResolver, top))
	if whole <= minUDP || whole >= maxUDP {
		t.Fatalf("%d octets show no edge", whole)
	}
	for size, want := range map[int]string{whole: "false 40", whole - 1: "true 0", whole + 1: "false 40"} {
		m := s.reply(t, ask(t, "mid.rows.test. A", ednsSize(uint16(size))), from(euResolver, top))
		if got := fmt.Sprint(m.Truncated, len(m.Answer)); got != want || m.IsEdns0() == nil || len(m.Question) != 1 {
			t.Errorf("R72 %s, size %d: truncated and answers %s, want %s", rowRFC[72], size, got, want)
		}
	}
}

// TestNoPathMTU is row 73: what routers say about the path is not believed.
func TestNoPathMTU(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		p, err := listenUDP(netip.MustParseAddrPort(addr))
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		raw, err := p.(*net.UDPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		level, option, want := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_OMIT
		if strings.HasPrefix(addr, "[") {
			level, option, want = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_OMIT
		}
		raw.Control(func(fd uintptr) {
			if got, err := unix.GetsockoptInt(int(fd), level, option); err != nil || got != want {
				t.Errorf("R73 %s, %s: path MTU discovery %d, %v", rowRFC[73], addr, got, err)
			}
		})
	}
}

// TestShutDown is row 25: once it is over there is silence, and no refusal.
func TestShutDown(t *testing.T) {
	s, err := New(Config{Listeners: []Listener{loopback(top, "127.0.0.1:0")}})
	if err != nil {
		t.Fatal(err)
	}
	addr := s.Addrs()[0]
	for _, k := range s.sockets {
		defer k.close()
	}
	c, err := net.Dial("udp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(ask(t, "www.demo.test. A")); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := c.Read(make([]byte, 512)); err == nil {
		t.Errorf("R25: %d octets from a server that does not run", n)
	}
}

// TestFlood is row 92: queries nobody reads the replies of cost no goroutine, and
// the next one is answered.
func TestFlood(t *testing.T) {
	s := start(t, Config{Workers: 2, Listeners: []Listener{loopback(top, "127.0.0.1:0")}})
	s.SetZones(sources())
	addr := s.Addrs()[0]
	exchange(t, "udp", addr, ask(t, "www.demo.test. A")) // all of it runs
	before := runtime.NumGoroutine()
	c, err := net.Dial("udp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	q := ask(t, "www.demo.test. A")
	most := 0
	for i := range 5_000 {
		binary.BigEndian.PutUint16(q, uint16(i))
		c.Write(q) // a full buffer is no matter
		if i%500 == 0 {
			most = max(most, runtime.NumGoroutine())
		}
	}
	if most > before+8 {
		t.Errorf("R92: %d goroutines before, %d under a flood", before, most)
	}
	ok := slices.ContainsFunc(make([]struct{}, 100), func(struct{}) bool { // datagrams may still be lost
		c, err := net.Dial("udp", addr.String())
		if err != nil {
			return false
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(200 * time.Millisecond))
		c.Write(ask(t, "www.demo.test. A"))
		_, err = c.Read(make([]byte, 512))
		return err == nil
	})
	if !ok {
		t.Error("R92: no answer after the flood")
	}
}

// TestConformancePage: docs/reference/dns-conformance.md has every row once, cites
// what the cases cite, and names tests that exist.
func TestConformancePage(t *testing.T) {
	page, err := os.ReadFile("../docs/reference/dns-conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile(`(?m)^\| (\d+) \| ([^|]*) \| ([^|]*) \| ([^|]*) \|$`).FindAllStringSubmatch(string(page), -1)
	if len(rows) != len(rowRFC)-1 {
		t.Fatalf("%d rows, want %d", len(rows), len(rowRFC)-1)
	}
	tests := testNames(t)
	for i, r := range rows {
		if r[1] != strconv.Itoa(i+1) || r[2] != rowRFC[i+1] {
			t.Errorf("row %d is %s %q, want %q", i+1, r[1], r[2], rowRFC[i+1])
		}
		for _, m := range regexp.MustCompile("`(Test[A-Za-z0-9_]*)`").FindAllStringSubmatch(r[4], -1) {
			if !tests[m[1]] {
				t.Errorf("row %d names %s, which does not exist", i+1, m[1])
			}
		}
	}
	for _, set := range [][]conformance{conformanceRows(t), moreRows(t), lowRows(t)} {
		for _, c := range set {
			if !strings.Contains(cited(c.name), "RFC") {
				t.Errorf("case %s is of no row", c.name)
			}
		}
	}
}

// testNames are those of this package and below it.
func testNames(t *testing.T) map[string]bool {
	out := make(map[string]bool)
	for _, dir := range []string{".", "wire", "zone", "dnssec", "transfer", "../cmd/rhumb", "../internal/e2e"} {
		files, err := os.ReadDir(dir)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for _, f := range files {
			if !strings.HasSuffix(f.Name(), "_test.go") {
				continue
			}
			text, err := os.ReadFile(dir + "/" + f.Name())
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(string(text), -1) {
				out[m[1]] = true
			}
		}
	}
	return out
}
