package forward

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// Flow names one TCP connection by its two ends, as seen from the server:
// the client, and the VIP and port it speaks to.
type Flow struct {
	Client, VIP netip.AddrPort
}

// String shows the flow as "client > vip".
func (f Flow) String() string { return f.Client.String() + " > " + f.VIP.String() }

// compare orders flows by client, then VIP, so that lists of flows are stable.
func (f Flow) compare(g Flow) int {
	return cmp.Or(f.Client.Compare(g.Client), f.VIP.Compare(g.VIP))
}

// The reasons why a packet has no flow. Such a packet is not ours to judge:
// it is given back to the kernel.
var (
	errShort    = errors.New("packet is cut short")
	errNotTCP   = errors.New("packet is not TCP")
	errFragment = errors.New("packet is a fragment")
	errVersion  = errors.New("packet is neither IPv4 nor IPv6")
)

const (
	protoTCP = 6

	// The IPv6 headers which may stand between the fixed header and TCP
	// (RFC 8200 section 4.1).
	headerHopByHop = 0
	headerRouting  = 43
	headerFragment = 44
	headerDestOpts = 60

	// maxExtensions bounds the walk over them. Nobody sends more, and a
	// packet that does may not cost us time.
	maxExtensions = 8
)

// parseFlow reads the flow of an IP packet that travels from client to server,
// and cuts off what a link added behind the packet's own end.
func parseFlow(p []byte) (Flow, []byte, error) {
	if len(p) < 1 {
		return Flow{}, nil, errShort
	}
	switch p[0] >> 4 {
	case 4:
		return parseIPv4(p)
	case 6:
		return parseIPv6(p)
	}
	return Flow{}, nil, errVersion
}

// parseIPv4 follows RFC 791 section 3.1.
func parseIPv4(p []byte) (Flow, []byte, error) {
	if len(p) < 20 {
		return Flow{}, nil, errShort
	}
	header := int(p[0]&15) * 4
	total := int(binary.BigEndian.Uint16(p[2:]))
	if header < 20 || total < header || total > len(p) {
		return Flow{}, nil, errShort
	}
	if binary.BigEndian.Uint16(p[6:])&0x3fff != 0 {
		return Flow{}, nil, errFragment
	}
	src, dst := netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20]))
	return parsePorts(p[:total], header, p[9], src, dst)
}

// parseIPv6 follows RFC 8200 sections 3 and 4.
func parseIPv6(p []byte) (Flow, []byte, error) {
	if len(p) < 40 {
		return Flow{}, nil, errShort
	}
	total := 40 + int(binary.BigEndian.Uint16(p[4:]))
	if total > len(p) {
		return Flow{}, nil, errShort
	}
	p = p[:total]
	src, dst := netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40]))
	next, at := p[6], 40
	for range maxExtensions {
		switch next {
		case headerHopByHop, headerRouting, headerDestOpts:
			if at+8 > total {
				return Flow{}, nil, errShort
			}
			next, at = p[at], at+8+8*int(p[at+1])
		case headerFragment:
			return Flow{}, nil, errFragment
		default:
			return parsePorts(p, at, next, src, dst)
		}
	}
	return Flow{}, nil, errNotTCP
}

// parsePorts reads the ports from a TCP header at offset at (RFC 9293 section 3.1).
func parsePorts(p []byte, at int, proto byte, src, dst netip.Addr) (Flow, []byte, error) {
	if proto != protoTCP {
		return Flow{}, nil, errNotTCP
	}
	if at+20 > len(p) {
		return Flow{}, nil, errShort
	}
	sport, dport := binary.BigEndian.Uint16(p[at:]), binary.BigEndian.Uint16(p[at+2:])
	return Flow{Client: netip.AddrPortFrom(src, sport), VIP: netip.AddrPortFrom(dst, dport)}, p, nil
}

// The wire form of a flow in asks and answers: family (4 or 6), client
// address and port, VIP address and port; 13 or 37 octets.

// appendFlow writes the wire form of f behind b.
func appendFlow(b []byte, f Flow) []byte {
	family := byte(4)
	if f.VIP.Addr().Is6() {
		family = 6
	}
	b = append(b, family)
	for _, end := range [2]netip.AddrPort{f.Client, f.VIP} {
		b = append(b, end.Addr().AsSlice()...)
		b = binary.BigEndian.AppendUint16(b, end.Port())
	}
	return b
}

// readFlow reads the wire form of a flow and returns what follows it.
func readFlow(b []byte) (Flow, []byte, error) {
	if len(b) < 1 {
		return Flow{}, nil, errShort
	}
	size := 4
	switch b[0] {
	case 4:
	case 6:
		size = 16
	default:
		return Flow{}, nil, fmt.Errorf("flow of family %d: %w", b[0], errVersion)
	}
	b = b[1:]
	if len(b) < 2*(size+2) {
		return Flow{}, nil, errShort
	}
	var ends [2]netip.AddrPort
	for i := range ends {
		addr, _ := netip.AddrFromSlice(b[:size])
		ends[i] = netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[size:]))
		b = b[size+2:]
	}
	return Flow{Client: ends[0], VIP: ends[1]}, b, nil
}
