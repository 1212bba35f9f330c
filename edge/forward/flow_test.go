package forward

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
)

// tcpPacket builds an IP packet of a flow, client to server, with a payload.
func tcpPacket(f Flow, flags byte, payload string) []byte {
	tcp := make([]byte, 20, 20+len(payload))
	binary.BigEndian.PutUint16(tcp[0:], f.Client.Port())
	binary.BigEndian.PutUint16(tcp[2:], f.VIP.Port())
	tcp[12], tcp[13] = 5<<4, flags
	tcp = append(tcp, payload...)
	if f.VIP.Addr().Is4() {
		ip := make([]byte, 20)
		ip[0], ip[8], ip[9] = 0x45, 64, protoTCP
		binary.BigEndian.PutUint16(ip[2:], uint16(20+len(tcp)))
		copy(ip[12:], f.Client.Addr().AsSlice())
		copy(ip[16:], f.VIP.Addr().AsSlice())
		return append(ip, tcp...)
	}
	ip := make([]byte, 40)
	ip[0], ip[6], ip[7] = 0x60, protoTCP, 64
	binary.BigEndian.PutUint16(ip[4:], uint16(len(tcp)))
	copy(ip[8:], f.Client.Addr().AsSlice())
	copy(ip[24:], f.VIP.Addr().AsSlice())
	return append(ip, tcp...)
}

// udpPacket builds one of UDP.
func udpPacket(f Flow, payload string) []byte {
	udp := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(udp[0:], f.Client.Port())
	binary.BigEndian.PutUint16(udp[2:], f.VIP.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(8+len(payload)))
	return ipPacket(f.Client.Addr(), f.VIP.Addr(), protoUDP, append(udp, payload...))
}

// ipPacket puts an IP header before what it carries.
func ipPacket(src, dst netip.Addr, proto byte, body []byte) []byte {
	if dst.Is4() {
		ip := make([]byte, 20)
		ip[0], ip[8], ip[9] = 0x45, 64, proto
		binary.BigEndian.PutUint16(ip[2:], uint16(20+len(body)))
		copy(ip[12:], src.AsSlice())
		copy(ip[16:], dst.AsSlice())
		return append(ip, body...)
	}
	ip := make([]byte, 40)
	ip[0], ip[6], ip[7] = 0x60, proto, 64
	binary.BigEndian.PutUint16(ip[4:], uint16(len(body)))
	copy(ip[8:], src.AsSlice())
	copy(ip[24:], dst.AsSlice())
	return append(ip, body...)
}

// sentBack is the beginning of a packet from server to client, as an ICMP error
// quotes it: its IP header and so many octets.
func sentBack(f Flow, proto byte, octets int) []byte {
	body := binary.BigEndian.AppendUint16(nil, f.VIP.Port())
	body = append(binary.BigEndian.AppendUint16(body, f.Client.Port()), make([]byte, 1400)...)
	p := ipPacket(f.VIP.Addr(), f.Client.Addr(), proto, body)
	return p[:len(p)-len(body)+octets]
}

// icmpPacket is an error from a router to the VIP.
func icmpPacket(f Flow, kind byte, quote []byte) []byte {
	router, proto := netip.MustParseAddr("198.51.100.1"), byte(protoICMP)
	if f.VIP.Addr().Is6() {
		router, proto = netip.MustParseAddr("2001:db8:1::1"), protoICMPv6
	}
	return ipPacket(router, f.VIP.Addr(), proto, append([]byte{kind, 0, 0, 0, 0, 0, 5, 20}, quote...))
}

func flow4(port uint16) Flow {
	return Flow{Client: netip.AddrPortFrom(netip.MustParseAddr("198.51.100.7"), port), VIP: netip.MustParseAddrPort("192.0.2.10:80")}
}

func flow6(port uint16) Flow {
	return Flow{Client: netip.AddrPortFrom(netip.MustParseAddr("2001:db8:1::7"), port), VIP: netip.MustParseAddrPort("[2001:db8:100::10]:443")}
}

// withHeaders puts extension headers between the fixed header and TCP.
func withHeaders(p []byte, first byte, headers []byte) []byte {
	out := append(bytes.Clone(p[:40]), headers...)
	out = append(out, p[40:]...)
	out[6] = first
	binary.BigEndian.PutUint16(out[4:], uint16(len(out)-40))
	return out
}

func TestParseFlow(t *testing.T) {
	v4, v6 := tcpPacket(flow4(1000), flagACK, "hello"), tcpPacket(flow6(1000), flagACK, "hello")
	change := func(p []byte, at int, b ...byte) []byte {
		p = bytes.Clone(p)
		copy(p[at:], b)
		return p
	}
	options := bytes.Clone(v4[:20])
	options[0] = 0x46
	options = append(append(options, 1, 1, 1, 1), v4[20:]...)
	binary.BigEndian.PutUint16(options[2:], uint16(len(options)))
	tests := []struct {
		name string
		p    []byte
		flow Flow
		size int
		err  error
	}{
		{"RFC 791 3.1 plain", v4, flow4(1000), len(v4), nil},
		{"RFC 791 3.1 options", options, flow4(1000), len(options), nil},
		{"RFC 791 3.1 padding of the link", append(bytes.Clone(v4), 0, 0, 0), flow4(1000), len(v4), nil},
		{"RFC 791 3.1 total length beyond the packet", v4[:len(v4)-1], Flow{}, 0, errShort},
		{"RFC 791 3.1 header length below 5", change(v4, 0, 0x44), Flow{}, 0, errShort},
		{"RFC 791 3.2 more fragments", change(v4, 6, 0x20), Flow{}, 0, errFragment},
		{"RFC 791 3.2 fragment offset", change(v4, 6, 0, 1), Flow{}, 0, errFragment},
		{"RFC 791 3.1 don't fragment", change(v4, 6, 0x40), flow4(1000), len(v4), nil},
		{"RFC 768 plain", udpPacket(flow4(1000), "hello"), flow4(1000), 33, nil},
		{"RFC 768 IPv6", udpPacket(flow6(1000), "hello"), flow6(1000), 53, nil},
		{"RFC 768 header cut", change(udpPacket(flow4(1000), "")[:27], 2, 0, 27), Flow{}, 0, errShort},
		{"GRE", change(v4, 9, 47), Flow{}, 0, errProto},
		{"RFC 792 unreachable about TCP", icmpPacket(flow4(1000), 3, sentBack(flow4(1000), protoTCP, 8)), flow4(1000), 56, nil},
		{"RFC 792 parameter problem about UDP", icmpPacket(flow4(1000), 12, sentBack(flow4(1000), protoUDP, 8)), flow4(1000), 56, nil},
		{"RFC 792 ports cut", icmpPacket(flow4(1000), 3, sentBack(flow4(1000), protoTCP, 3)), Flow{}, 0, errShort},
		{"RFC 792 echo", icmpPacket(flow4(1000), 8, sentBack(flow4(1000), protoTCP, 8)), Flow{}, 0, errProto},
		{"RFC 792 about somebody else's packet", icmpPacket(flow4(1000), 3, sentBack(Flow{flow4(1).VIP, flow4(1).Client}, protoTCP, 8)), Flow{}, 0, errProto},
		{"RFC 4443 3.2 packet too big", icmpPacket(flow6(1000), 2, sentBack(flow6(1000), protoTCP, 20)), flow6(1000), 108, nil},
		{"RFC 4443 4.1 echo", icmpPacket(flow6(1000), 128, sentBack(flow6(1000), protoTCP, 20)), Flow{}, 0, errProto},
		{"RFC 8200 3 plain", v6, flow6(1000), len(v6), nil},
		{"RFC 8200 4.3 hop by hop, 16 octets", withHeaders(v6, 0, append([]byte{6, 1}, make([]byte, 14)...)), flow6(1000), len(v6) + 16, nil},
		{"RFC 8200 4.6 destination options", withHeaders(v6, 60, append([]byte{6, 0}, make([]byte, 6)...)), flow6(1000), len(v6) + 8, nil},
		{"RFC 8200 4.5 fragment", withHeaders(v6, 44, append([]byte{6, 0}, make([]byte, 6)...)), Flow{}, 0, errFragment},
		{"RFC 8200 4.1 headers without end", withHeaders(v6, 60, bytes.Repeat([]byte{60, 0, 0, 0, 0, 0, 0, 0}, 20)), Flow{}, 0, errProto},
		{"RFC 8200 4.1 header beyond the packet", withHeaders(v6, 60, []byte{60, 255, 0, 0, 0, 0, 0, 0}), Flow{}, 0, errShort},
		{"RFC 9293 3.1 TCP header cut", change(v4[:39], 2, 0, 39), Flow{}, 0, errShort},
		{"version 5", []byte{0x50}, Flow{}, 0, errVersion},
		{"empty", nil, Flow{}, 0, errShort},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s, err := parsePacket(test.p)
			if !errors.Is(err, test.err) || s.flow != test.flow || len(s.packet) != test.size {
				t.Errorf("%v, %d octets, %v; want %v, %d, %v", s.flow, len(s.packet), err, test.flow, test.size, test.err)
			}
		})
	}
}

func TestFlowWireForm(t *testing.T) {
	for _, f := range []session{{protoTCP, flow4(1)}, {protoTCP, flow6(65535)}, {protoUDP, flow4(1)}, {protoUDP, flow6(65535)}} {
		b := appendSession([]byte("x"), f)[1:]
		got, rest, err := readSession(append(b, 9))
		if err != nil || got != f || !bytes.Equal(rest, []byte{9}) {
			t.Errorf("%v: read back %v, rest %v, %v", f, got, rest, err)
		}
		for n := range len(b) {
			if _, _, err := readSession(b[:n]); err == nil {
				t.Errorf("%v: %d of %d octets were enough", f, n, len(b))
			}
		}
	}
	if n := len(appendSession(nil, session{protoTCP, flow4(1)})) + overhead + 28; n > 80 {
		t.Errorf("an ask takes %d octets on the wire, want at most 80", n)
	}
}

// FuzzParsePacket holds that parsing reads nothing beyond the packet, returns a
// prefix of it, and that what it accepts survives the wire form.
func FuzzParsePacket(f *testing.F) {
	v6 := tcpPacket(flow6(9), flagACK, "")
	f.Add(tcpPacket(flow4(9), flagACK, "payload"))
	f.Add(v6)
	f.Add(withHeaders(v6, 0, append([]byte{60, 0}, make([]byte, 6)...)))
	f.Add(udpPacket(flow4(9), "payload"))
	f.Add(icmpPacket(flow4(9), 3, sentBack(flow4(9), protoUDP, 8)))
	f.Add(icmpPacket(flow6(9), 2, sentBack(flow6(9), protoTCP, 20)))
	f.Fuzz(func(t *testing.T, p []byte) {
		s, err := parsePacket(p[:len(p):len(p)])
		if err != nil {
			return
		}
		if len(s.packet) > len(p) || len(s.packet) < 28 {
			t.Fatalf("%d octets of %d", len(s.packet), len(p))
		}
		if s.flow.Client.Addr().Is4() != s.flow.VIP.Addr().Is4() {
			t.Fatalf("mixed families in %v", s.flow)
		}
		back, rest, err := readSession(appendSession(nil, s.session))
		if err != nil || back != s.session || len(rest) != 0 {
			t.Fatalf("%v becomes %v, %v", s.session, back, err)
		}
	})
}
