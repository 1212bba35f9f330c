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
		{"UDP", change(v4, 9, 17), Flow{}, 0, errNotTCP},
		{"RFC 8200 3 plain", v6, flow6(1000), len(v6), nil},
		{"RFC 8200 4.3 hop by hop, 16 octets", withHeaders(v6, 0, append([]byte{6, 1}, make([]byte, 14)...)), flow6(1000), len(v6) + 16, nil},
		{"RFC 8200 4.6 destination options", withHeaders(v6, 60, append([]byte{6, 0}, make([]byte, 6)...)), flow6(1000), len(v6) + 8, nil},
		{"RFC 8200 4.5 fragment", withHeaders(v6, 44, append([]byte{6, 0}, make([]byte, 6)...)), Flow{}, 0, errFragment},
		{"RFC 8200 4.1 headers without end", withHeaders(v6, 60, bytes.Repeat([]byte{60, 0, 0, 0, 0, 0, 0, 0}, 20)), Flow{}, 0, errNotTCP},
		{"RFC 8200 4.1 header beyond the packet", withHeaders(v6, 60, []byte{60, 255, 0, 0, 0, 0, 0, 0}), Flow{}, 0, errShort},
		{"RFC 9293 3.1 TCP header cut", change(v4[:39], 2, 0, 39), Flow{}, 0, errShort},
		{"version 5", []byte{0x50}, Flow{}, 0, errVersion},
		{"empty", nil, Flow{}, 0, errShort},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f, p, err := parseFlow(test.p)
			if !errors.Is(err, test.err) || f != test.flow || len(p) != test.size {
				t.Errorf("%v, %d octets, %v; want %v, %d, %v", f, len(p), err, test.flow, test.size, test.err)
			}
		})
	}
}

func TestFlowWireForm(t *testing.T) {
	for _, f := range []Flow{flow4(1), flow6(65535)} {
		b := appendFlow([]byte("x"), f)[1:]
		got, rest, err := readFlow(append(b, 9))
		if err != nil || got != f || !bytes.Equal(rest, []byte{9}) {
			t.Errorf("%v: read back %v, rest %v, %v", f, got, rest, err)
		}
		for n := range len(b) {
			if _, _, err := readFlow(b[:n]); err == nil {
				t.Errorf("%v: %d of %d octets were enough", f, n, len(b))
			}
		}
	}
	if n := len(appendFlow(nil, flow4(1))) + overhead + 28; n > 80 {
		t.Errorf("an ask takes %d octets on the wire, want at most 80", n)
	}
}

// FuzzParseFlow holds that parsing reads nothing beyond the packet, returns a
// prefix of it, and that what it accepts survives the wire form.
func FuzzParseFlow(f *testing.F) {
	v6 := tcpPacket(flow6(9), flagACK, "")
	f.Add(tcpPacket(flow4(9), flagACK, "payload"))
	f.Add(v6)
	f.Add(withHeaders(v6, 0, append([]byte{60, 0}, make([]byte, 6)...)))
	f.Fuzz(func(t *testing.T, p []byte) {
		flow, cut, err := parseFlow(p[:len(p):len(p)])
		if err != nil {
			return
		}
		if len(cut) > len(p) || len(cut) < 40 {
			t.Fatalf("%d octets of %d", len(cut), len(p))
		}
		if flow.Client.Addr().Is4() != flow.VIP.Addr().Is4() {
			t.Fatalf("mixed families in %v", flow)
		}
		back, rest, err := readFlow(appendFlow(nil, flow))
		if err != nil || back != flow || len(rest) != 0 {
			t.Fatalf("%v becomes %v, %v", flow, back, err)
		}
	})
}
