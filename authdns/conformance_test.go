package authdns

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"rhumb/placement"
)

const (
	demoSOA = " ns demo.test. 60 SOA a.ns.demo.test. hostmaster.demo.test. 5 7200 900 1209600 60"
	wwwA    = "www.demo.test. 3600 A 192.0.2.10"
	opt     = " ar OPT0/1232"
)

// conformance is the table of what every server owes: the row of the checklist,
// a request to a top listener, the reply.
type conformance struct {
	name  string
	query []byte
	want  string
}

func raw(b []byte, change func([]byte) []byte) []byte { return change(b) }

// flags sets bits of the second header word.
func flags(bits uint16) func([]byte) []byte {
	return func(b []byte) []byte {
		binary.BigEndian.PutUint16(b[2:], binary.BigEndian.Uint16(b[2:])|bits)
		return b
	}
}

func opcode(n int) func(*dns.Msg) { return func(m *dns.Msg) { m.Opcode = n } }
func class(c uint16) func(*dns.Msg) {
	return func(m *dns.Msg) { m.Question[0].Qclass = c }
}
func ednsSize(n uint16) func(*dns.Msg) { return func(m *dns.Msg) { m.SetEdns0(n, false) } }

// option adds an EDNS option by its octets, malformed ones too.
func option(code uint16, data ...byte) func(*dns.Msg) {
	return edns0(&dns.EDNS0_LOCAL{Code: code, Data: data})
}

func conformanceRows(t testing.TB) []conformance {
	www := func(change ...func(*dns.Msg)) []byte { return ask(t, "www.demo.test. A", change...) }
	return []conformance{
		{"R01_reply", raw(www(), flags(0x8000)), "silence"},
		{"R02_short", www()[:11], "silence"},
		{"R03_no_question", []byte{0x42, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, "FORMERR"},
		{"R04_two_questions", ask(t, "www.demo.test. A", func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }), "FORMERR"},
		{"R05_opcode_1", www(opcode(1)), "NOTIMP"},
		{"R05_opcode_15_header_only", []byte{0x42, 0x42, 0x78, 0, 0, 0, 0, 0, 0, 0, 0, 0}, "NOTIMP"},
		{"R06_update", www(opcode(dns.OpcodeUpdate)), "NOTIMP"},
		{"R06_notify", www(opcode(dns.OpcodeNotify)), "NOTIMP"},
		{"R07_dso", []byte{0x42, 0x42, 0x30, 0, 0, 0, 0, 0, 0, 0, 0, 0}, "NOTIMP"},
		{"R08_flags_ignored", raw(www(), flags(0x0400|0x0200|0x0080|0x0040|0x0020|0x0010)), "NOERROR aa | " + wwwA},
		{"R08_rd_copied", raw(www(), flags(0x0100)), "NOERROR aa rd | " + wwwA},
		{"R09_question_cut", www()[:20], "FORMERR"},
		{"R09_question_without_class", www()[:len(www())-1], "FORMERR"},
		{"R10_records_in_answer", www(func(m *dns.Msg) { m.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeTXT}}} }), "NOERROR aa | " + wwwA},
		{"R10_answer_count_lies", raw(www(), func(b []byte) []byte { b[7] = 9; return b }), "FORMERR"},
		{"R11_trailing_octets", append(www(), 1, 2, 3), "NOERROR aa | " + wwwA},
		{"R14_label_over_63", append(append([]byte{0x42, 0x42, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 64}, make([]byte, 64)...), 0, 0, 1, 0, 1), "FORMERR"},
		{"R14_pointer_loop", []byte{0x42, 0x42, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1}, "FORMERR"},
		{"R14_pointer_past_end", []byte{0x42, 0x42, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 1, 0, 1}, "FORMERR"},
		{"R14_name_over_255", append(append([]byte{0x42, 0x42, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}, strings.Repeat("\x07abcdefg", 32)...), 0, 0, 1, 0, 1), "FORMERR"},
		{"R15_chaos_other", ask(t, "www.demo.test. TXT", class(dns.ClassCHAOS)), "REFUSED"},
		{"R15_chaos_A", ask(t, "id.server. A", class(dns.ClassCHAOS)), "REFUSED"},
		{"R15_id_server", ask(t, "id.server. TXT", class(dns.ClassCHAOS)), `NOERROR aa | id.server. 0 CH TXT "ams1 ams1-a 1042.17"`},
		{"R15_hostname_bind", ask(t, "HostName.bind. TXT", class(dns.ClassCHAOS)), `NOERROR aa | HostName.bind. 0 CH TXT "ams1 ams1-a 1042.17"`},
		{"R15_version_bind", ask(t, "version.bind. TXT", class(dns.ClassCHAOS)), `NOERROR aa | version.bind. 0 CH TXT "rhumb 1.2"`},
		{"R16_class_any", www(class(dns.ClassANY)), "NOERROR aa | " + wwwA},
		{"R16_class_0", www(class(0)), "REFUSED"},
		{"R16_class_hesiod", www(class(dns.ClassHESIOD)), "REFUSED"},
		{"R18_any", ask(t, "www.demo.test. ANY"), `NOERROR aa | www.demo.test. 3600 HINFO "RFC8482" ""`},
		{"R18_any_nxdomain", ask(t, "nix.demo.test. ANY"), "NXDOMAIN aa" + demoSOA},
		{"R18_any_alias", ask(t, "alias.demo.test. ANY"), `NOERROR aa | alias.demo.test. 3600 HINFO "RFC8482" ""`},
		{"R19_axfr", ask(t, "demo.test. AXFR"), "REFUSED"},
		{"R20_ixfr", ask(t, "demo.test. IXFR"), "REFUSED"},
		{"R21_type_opt", ask(t, "demo.test. OPT"), "FORMERR"},
		{"R21_type_tsig", ask(t, "demo.test. TSIG"), "FORMERR"},
		{"R21_type_maila", ask(t, "demo.test. MAILA"), "NOTIMP"},
		{"R22_unknown_nodata", ask(t, "www.demo.test. A", func(m *dns.Msg) { m.Question[0].Qtype = 666 }), "NOERROR aa" + demoSOA},
		{"R22_unknown_from_file", ask(t, "www.demo.test. A", func(m *dns.Msg) { m.Question[0].Qtype = 65400 }), `NOERROR aa | www.demo.test. 3600 CLASS1 TYPE65400 \# 2 abcd`},
		{"R23_rrsig", ask(t, "www.demo.test. RRSIG"), "NOERROR aa" + demoSOA},
		{"R24_outside", ask(t, "www.other.test. A"), "REFUSED"},
		{"R24_root", ask(t, ". NS"), "REFUSED"},
		{"R24_outside_edns", ask(t, "www.other.test. A", edns0()), "REFUSED" + opt + " ede=20"},
		{"R26_badvers", www(func(m *dns.Msg) { m.SetEdns0(4096, false); m.IsEdns0().SetVersion(1) }), "BADVERS" + opt},
		{"R26_badvers_with_bad_option", www(func(m *dns.Msg) {
			option(optECS, 0)(m)
			m.IsEdns0().SetVersion(7)
		}), "BADVERS" + opt},
		{"R27_unknown_option", www(option(65001, 1, 2)), "NOERROR aa | " + wwwA + opt},
		{"R28_unknown_flags", www(func(m *dns.Msg) { m.SetEdns0(4096, true); m.IsEdns0().Hdr.Ttl |= 0x7fff }), "NOERROR aa | " + wwwA + opt + " do"},
		{"R29_two_opt", www(edns0(), func(m *dns.Msg) { m.Extra = append(m.Extra, m.Extra[0]) }), "FORMERR" + opt},
		{"R30_opt_owner", www(edns0(), func(m *dns.Msg) { m.Extra[0].Header().Name = "x." }), "FORMERR"},
		{"R31_rdlen_past_end", raw(www(edns0()), func(b []byte) []byte { b[len(b)-1] = 4; return b }), "FORMERR"},
		{"R31_option_past_rdata", raw(www(option(65001, 1, 2)), func(b []byte) []byte { b[len(b)-3] = 9; return b }), "FORMERR" + opt},
		{"R32_opt_in_answer", raw(www(edns0()), func(b []byte) []byte { b[7], b[11] = 1, 0; return b }), "FORMERR"},
		{"R32_opt_in_authority", raw(www(edns0()), func(b []byte) []byte { b[9], b[11] = 1, 0; return b }), "FORMERR"},
		{"R33_no_opt", www(), "NOERROR aa | " + wwwA},
		{"R35_opt_nxdomain", ask(t, "nix.demo.test. A", edns0()), "NXDOMAIN aa" + demoSOA + opt},
		{"R35_opt_formerr", www(option(optECS, 0)), "FORMERR" + opt},
		{"R36_nsid", www(edns0(&dns.EDNS0_NSID{Code: dns.EDNS0NSID})), "NOERROR aa | " + wwwA + opt + " nsid=" + hexa("ams1 ams1-a 1042.17")},
		{"R36_nsid_payload", www(edns0(&dns.EDNS0_NSID{Code: dns.EDNS0NSID, Nsid: "ff"})), "NOERROR aa | " + wwwA + opt + " nsid=" + hexa("ams1 ams1-a 1042.17")},
		{"R41_keepalive_udp", www(option(optKeepalive)), "NOERROR aa | " + wwwA + opt},
		{"R45_not_steered", www(edns0(ecs("198.51.100.0/24"))), "NOERROR aa | " + wwwA + opt + " ecs=1:198.51.100.0/24/0"},
		{"R47_source_0", www(edns0(ecs("0.0.0.0/0"))), "NOERROR aa | " + wwwA + opt + " ecs=1:0.0.0.0/0/0"},
		{"R48_scope_in_query", www(option(optECS, 0, 1, 24, 24, 198, 51, 100)), "FORMERR" + opt},
		{"R49_too_few_octets", www(option(optECS, 0, 1, 24, 0, 198, 51)), "FORMERR" + opt},
		{"R49_too_many_octets", www(option(optECS, 0, 1, 16, 0, 198, 51, 100)), "FORMERR" + opt},
		{"R49_bits_beyond_source", www(option(optECS, 0, 1, 20, 0, 198, 51, 100)), "FORMERR" + opt},
		{"R49_source_33", www(option(optECS, 0, 1, 33, 0, 198, 51, 100, 1, 0)), "FORMERR" + opt},
		{"R49_source_129", www(option(optECS, append([]byte{0, 2, 129, 0}, make([]byte, 17)...)...)), "FORMERR" + opt},
		{"R49_under_4_octets", www(option(optECS, 0, 1, 0)), "FORMERR" + opt},
		{"R49_unknown_family", www(option(optECS, 0, 3, 8, 0, 1)), "FORMERR" + opt},
		{"R49_unknown_family_without_data", www(option(optECS, 0, 3, 0, 0)), "FORMERR" + opt},
		{"R50_family_0", www(option(optECS, 0, 0, 0, 0)), "NOERROR aa | " + wwwA + opt + " ecs=0:0.0.0.0/0/0"},
		{"R56_nodata", ask(t, "www.demo.test. AAAA"), "NOERROR aa" + demoSOA},
		{"R57_nxdomain", ask(t, "nix.demo.test. A"), "NXDOMAIN aa" + demoSOA},
		{"R57_nxdomain_below", ask(t, "a.nix.demo.test. A"), "NXDOMAIN aa" + demoSOA},
		{"R58_ent", ask(t, "b.ent.demo.test. A"), "NOERROR aa" + demoSOA},
		{"R58_ent_child", ask(t, "x.ent.demo.test. A"), "NXDOMAIN aa" + demoSOA},
		{"R59_wildcard", ask(t, "a.b.wild.demo.test. A"), "NOERROR aa | a.b.wild.demo.test. 3600 A 192.0.2.12"},
		{"R59_wildcard_nodata", ask(t, "a.wild.demo.test. MX"), "NOERROR aa" + demoSOA},
		{"R59_asterisk", ask(t, "*.wild.demo.test. A"), "NOERROR aa | *.wild.demo.test. 3600 A 192.0.2.12"},
		{"R60_wildcard_cname", ask(t, "a.cw.demo.test. A"), "NOERROR aa | a.cw.demo.test. 3600 CNAME www.demo.test., " + wwwA},
		{"R61_chain", ask(t, "alias.demo.test. A"), "NOERROR aa | alias.demo.test. 3600 CNAME www.demo.test., " + wwwA},
		{"R61_chain_nodata", ask(t, "alias.demo.test. MX"), "NOERROR aa | alias.demo.test. 3600 CNAME www.demo.test." + demoSOA},
		{"R61_chain_nxdomain", ask(t, "dangling.demo.test. A"), "NXDOMAIN aa | dangling.demo.test. 3600 CNAME nix.demo.test." + demoSOA},
		{"R61_leaves_zone", ask(t, "leave.demo.test. A"), "NOERROR aa | leave.demo.test. 3600 CNAME www.other.test."},
		{"R61_leaves_at_cut", ask(t, "tocut.demo.test. A"), "NOERROR aa | tocut.demo.test. 3600 CNAME x.sub.demo.test."},
		{"R62_cname_asked", ask(t, "alias.demo.test. CNAME"), "NOERROR aa | alias.demo.test. 3600 CNAME www.demo.test."},
		{"R63_dname", ask(t, "a.old.demo.test. A"), "NOERROR aa | old.demo.test. 3600 DNAME new.demo.test., a.old.demo.test. 3600 CNAME a.new.demo.test., a.new.demo.test. 3600 A 192.0.2.13"},
		{"R63_dname_owner", ask(t, "old.demo.test. A"), "NOERROR aa" + demoSOA},
		{"R63_dname_cname_asked", ask(t, "a.old.demo.test. CNAME"), "NOERROR aa | old.demo.test. 3600 DNAME new.demo.test., a.old.demo.test. 3600 CNAME a.new.demo.test."},
		{"R64_chain_stays_in_zone", ask(t, "todyn.demo.test. A"), "NOERROR aa | todyn.demo.test. 3600 CNAME www.cdn.demo.test."},
		{"R65_cut", ask(t, "x.sub.demo.test. A"), "NOERROR ns sub.demo.test. 3600 NS ns.sub.demo.test., sub.demo.test. 3600 NS b.ns.demo.test. ar ns.sub.demo.test. 3600 A 192.0.2.14, b.ns.demo.test. 3600 A 192.0.2.2"},
		{"R65_glue_asked", ask(t, "ns.sub.demo.test. AAAA"), "NOERROR ns sub.demo.test. 3600 NS ns.sub.demo.test., sub.demo.test. 3600 NS b.ns.demo.test. ar ns.sub.demo.test. 3600 A 192.0.2.14, b.ns.demo.test. 3600 A 192.0.2.2"},
		{"R66_ds", ask(t, "sub.demo.test. DS"), "NOERROR aa | sub.demo.test. 3600 DS 1 13 2 00000000000000000000000000000000000000000000000000000000000000AA"},
		{"R66_ds_absent", ask(t, "wide.demo.test. DS"), "NOERROR aa" + demoSOA},
		{"R66_ds_steered_cut", ask(t, "cdn.demo.test. DS"), "NOERROR aa" + demoSOA},
		{"R66_ds_apex_without_parent", ask(t, "demo.test. DS"), "NOERROR aa" + demoSOA},
		{"R68_glue_does_not_fit", ask(t, "x.wide.demo.test. A", edns0()), "NOERROR tc" + opt},
		{"R72_truncated", ask(t, "many.demo.test. A"), "NOERROR aa tc"},
		{"R72_truncated_edns", ask(t, "many.demo.test. A", edns0()), "NOERROR aa tc" + opt},
		{"R82_do_without_signatures", www(func(m *dns.Msg) { m.SetEdns0(4096, true) }), "NOERROR aa | " + wwwA + opt + " do"},
		{"R89_type_ns_apex", ask(t, "demo.test. NS"), "NOERROR aa | demo.test. 3600 NS a.ns.demo.test., demo.test. 3600 NS b.ns.demo.test. ar a.ns.demo.test. 3600 A 192.0.2.1, a.ns.demo.test. 3600 AAAA 2001:db8:53::1, b.ns.demo.test. 3600 A 192.0.2.2"},
	}
}

func hexa(s string) string {
	const digits = "0123456789abcdef"
	var b strings.Builder
	for i := range len(s) {
		b.WriteByte(digits[s[i]>>4])
		b.WriteByte(digits[s[i]&15])
	}
	return b.String()
}

func TestConformance(t *testing.T) {
	s := compiled(t, fleet(t, plan{}), sources()...)
	for _, c := range conformanceRows(t) {
		t.Run(cited(c.name), func(t *testing.T) {
			if got := show(s.reply(t, c.query, from(euResolver, placement.TopLevel))); got != c.want {
				t.Errorf("\n got %s\nwant %s", got, c.want)
			}
		})
	}
}

// TestReplyHeader holds what the table does not show: ID, opcode and question
// come back octet for octet (row 12), within the limit (rows 34, 72, 73).
func TestReplyHeader(t *testing.T) {
	s := compiled(t, fleet(t, plan{}), sources()...)
	for _, c := range []struct {
		name  string
		query []byte
		tcp   bool
		limit int
	}{
		{"R12_case_kept", ask(t, "wWw.DeMo.tESt. A"), false, 512},
		{"R34_size_100", ask(t, "many.demo.test. A", ednsSize(100)), false, 512},
		{"R34_size_600", ask(t, "wide.demo.test. NS", ednsSize(600)), false, 600},
		{"R73_size_4096", ask(t, "wide.demo.test. NS", ednsSize(4096)), false, 1232},
		{"R74_tcp", ask(t, "many.demo.test. A"), true, 65535},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := from(euResolver, placement.TopLevel)
			a.tcp = c.tcp
			out := make([]byte, maxTCP)
			n, _ := s.answer(c.query, out, a)
			q, rc := parse(c.query, false)
			if rc != dns.RcodeSuccess || string(out[headerLen:headerLen+len(q.question)]) != string(q.question) {
				t.Errorf("question changed: %q", out[headerLen:headerLen+len(q.question)])
			}
			if n > c.limit || out[0] != 0x42 || out[1] != 0x42 {
				t.Errorf("%d octets, limit %d; ID %x", n, c.limit, out[:2])
			}
			m := s.reply(t, c.query, a)
			if m.Truncated == c.tcp && c.limit != 512 {
				t.Errorf("truncated %t over tcp %t", m.Truncated, c.tcp)
			}
		})
	}
}

// TestCompression holds that answers point at the question in any case (row 12).
func TestCompression(t *testing.T) {
	s := compiled(t, fleet(t, plan{}), sources()...)
	for _, name := range []string{"www.demo.test.", "WWW.Demo.TEST.", "nIx.dEmo.test."} {
		out := make([]byte, maxUDP)
		n, _ := s.answer(ask(t, name+" A"), out, from(euResolver, placement.TopLevel))
		q := headerLen + len(name) + 1 + 4
		if out[q] != 0xc0 {
			t.Errorf("%s: the owner is not compressed: %x", name, out[q:n])
		}
	}
}

func TestHiddenIdentity(t *testing.T) {
	s := compiled(t, nil, sources()...)
	s.self.Hide = true
	for _, c := range []conformance{
		{"R17_chaos", ask(t, "id.server. TXT", class(dns.ClassCHAOS)), "REFUSED"},
		{"R17_nsid", ask(t, "www.demo.test. A", edns0(&dns.EDNS0_NSID{Code: dns.EDNS0NSID})), "NOERROR aa | " + wwwA + opt},
	} {
		if got := show(s.reply(t, c.query, from(euResolver, placement.TopLevel))); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
}

func TestKeepalive(t *testing.T) {
	s := compiled(t, nil, sources()...)
	a := from(euResolver, placement.TopLevel)
	a.tcp = true
	for _, c := range []conformance{
		{"R41_answered", ask(t, "www.demo.test. A", option(optKeepalive)), "NOERROR aa | " + wwwA + opt + " keepalive=100"},
		{"R42_with_data", ask(t, "www.demo.test. A", option(optKeepalive, 0, 1)), "FORMERR" + opt},
	} {
		if got := show(s.reply(t, c.query, a)); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
}

// TestYXDomain: RFC 6672 section 2.2.
func TestYXDomain(t *testing.T) {
	s := compiled(t, nil, sources()...)
	long := strings.Repeat("abcdefghijklmnopqrstuvwxyz1234567890.", 3)
	m := s.reply(t, ask(t, long+"long.demo.test. A"), from(euResolver, placement.TopLevel))
	if m.Rcode != dns.RcodeYXDomain || len(m.Answer) != 1 {
		t.Errorf("got %s", show(m))
	}
}

// TestChainBound: an alias loop ends (row 61).
func TestChainBound(t *testing.T) {
	s := compiled(t, nil, sources()...)
	m := s.reply(t, ask(t, "loop.demo.test. A", edns0()), from(euResolver, placement.TopLevel))
	if m.Rcode != dns.RcodeSuccess || len(m.Answer) != maxChain+1 {
		t.Errorf("got %d records: %s", len(m.Answer), show(m))
	}
}
