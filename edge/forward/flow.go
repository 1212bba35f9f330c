package forward

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Flow names one TCP connection or QUIC path by its two ends, as seen from the
// server: the client, and the VIP and port it speaks to.
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
	errProto    = errors.New("packet is neither TCP nor UDP nor an ICMP error about one")
	errFragment = errors.New("packet is a fragment")
	errVersion  = errors.New("packet is neither IPv4 nor IPv6")
)

const (
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58

	// The IPv6 headers which may stand between the fixed header and TCP
	// (RFC 8200 section 4.1).
	headerHopByHop = 0
	headerRouting  = 43
	headerFragment = 44
	headerDestOpts = 60

	// maxExtensions bounds the walk over them. Nobody sends more, and a
	// packet that does may not cost us time.
	maxExtensions = 8

	udpHeader  = 8 // RFC 768
	icmpHeader = 8 // RFC 792, RFC 4443 section 3: what an error has before the quoted packet
)

// session names a flow with its protocol: the same ends may speak both.
type session struct {
	proto byte // protoTCP or protoUDP
	flow  Flow
}

// stray is a packet that travels from client to server, or an ICMP error about
// one that travelled back.
type stray struct {
	session
	// quoted tells that it is an ICMP error: the session is that of the packet
	// which it quotes.
	quoted bool
	// packet is all of it, without what a link added behind its own end.
	packet []byte
	// datagram is the content of UDP, nil in an error.
	datagram []byte
}

// ipHead is what an IP header says.
type ipHead struct {
	proto    byte
	at       int // where the transport header begins
	total    int // the packet's own length
	src, dst netip.Addr
}

// parsePacket reads the session of an IP packet.
func parsePacket(p []byte) (stray, error) {
	h, err := parseIP(p)
	if err != nil {
		return stray{}, err
	}
	if h.total > len(p) {
		return stray{}, errShort
	}
	p = p[:h.total]
	switch h.proto {
	case protoTCP, protoUDP:
		return parseDirect(p, h)
	case protoICMP, protoICMPv6:
		return parseError(p, h)
	}
	return stray{}, errProto
}

// parseDirect reads a packet from client to server: TCP (RFC 9293 section 3.1)
// or UDP (RFC 768).
func parseDirect(p []byte, h ipHead) (stray, error) {
	least := 20
	if h.proto == protoUDP {
		least = udpHeader
	}
	if h.at+least > len(p) {
		return stray{}, errShort
	}
	s := stray{session: session{proto: h.proto}, packet: p}
	s.flow.Client, s.flow.VIP = parsePorts(p, h)
	if h.proto == protoUDP {
		s.datagram = p[h.at+udpHeader:]
	}
	return s, nil
}

// parseError reads an ICMP error. What it quotes travelled from server to
// client and may end behind the ports (RFC 792).
func parseError(p []byte, h ipHead) (stray, error) {
	if h.at+icmpHeader > len(p) {
		return stray{}, errShort
	}
	if !isICMPError(h.proto, p[h.at]) {
		return stray{}, errProto
	}
	quote := p[h.at+icmpHeader:]
	q, err := parseIP(quote)
	if err != nil {
		return stray{}, err
	}
	if q.proto != protoTCP && q.proto != protoUDP {
		return stray{}, errProto
	}
	if q.at+4 > len(quote) {
		return stray{}, errShort
	}
	s := stray{session: session{proto: q.proto}, quoted: true, packet: p}
	s.flow.VIP, s.flow.Client = parsePorts(quote, q)
	// One about somebody else's packet is none of ours.
	if s.flow.VIP.Addr() != h.dst {
		return stray{}, errProto
	}
	return s, nil
}

// icmpErrors are the types that tell something about a session: unreachable
// (too big among them), time exceeded, parameter problem (RFC 792); the same and
// packet too big (RFC 4443 section 3).
func icmpErrors(v6 bool) []byte {
	if v6 {
		return []byte{1, 2, 3, 4}
	}
	return []byte{3, 11, 12}
}

func isICMPError(proto, kind byte) bool {
	return slices.Contains(icmpErrors(proto == protoICMPv6), kind)
}

// parsePorts reads both ends of a packet; four octets at h.at are there.
func parsePorts(p []byte, h ipHead) (src, dst netip.AddrPort) {
	return netip.AddrPortFrom(h.src, binary.BigEndian.Uint16(p[h.at:])),
		netip.AddrPortFrom(h.dst, binary.BigEndian.Uint16(p[h.at+2:]))
}

// parseIP reads an IP header. The packet may be cut behind it, as a quoted one
// is: the caller compares total.
func parseIP(p []byte) (ipHead, error) {
	if len(p) < 1 {
		return ipHead{}, errShort
	}
	switch p[0] >> 4 {
	case 4:
		return parseIPv4(p)
	case 6:
		return parseIPv6(p)
	}
	return ipHead{}, errVersion
}

// parseIPv4 follows RFC 791 section 3.1.
func parseIPv4(p []byte) (ipHead, error) {
	if len(p) < 20 {
		return ipHead{}, errShort
	}
	h := ipHead{proto: p[9], at: int(p[0]&15) * 4, total: int(binary.BigEndian.Uint16(p[2:])),
		src: netip.AddrFrom4([4]byte(p[12:16])), dst: netip.AddrFrom4([4]byte(p[16:20]))}
	if h.at < 20 || h.total < h.at || h.proto == protoICMPv6 {
		return ipHead{}, errShort
	}
	if binary.BigEndian.Uint16(p[6:])&0x3fff != 0 {
		return ipHead{}, errFragment
	}
	return h, nil
}

// parseIPv6 follows RFC 8200 sections 3 and 4.
func parseIPv6(p []byte) (ipHead, error) {
	if len(p) < 40 {
		return ipHead{}, errShort
	}
	h := ipHead{proto: p[6], at: 40, total: 40 + int(binary.BigEndian.Uint16(p[4:])),
		src: netip.AddrFrom16([16]byte(p[8:24])), dst: netip.AddrFrom16([16]byte(p[24:40]))}
	for range maxExtensions {
		switch h.proto {
		case headerHopByHop, headerRouting, headerDestOpts:
			if h.at+8 > min(h.total, len(p)) {
				return ipHead{}, errShort
			}
			h.proto, h.at = p[h.at], h.at+8+8*int(p[h.at+1])
		case headerFragment:
			return ipHead{}, errFragment
		case protoICMP:
			return ipHead{}, errProto
		default:
			return h, nil
		}
	}
	return ipHead{}, errProto
}

// The wire form of a session in asks and answers: family (4 or 6, and 16 more
// for UDP), client address and port, VIP address and port; 13 or 37 octets. A
// site that knows TCP only refuses the others by their family.
const wireUDP = 16

// appendSession writes the wire form behind b.
func appendSession(b []byte, s session) []byte {
	family := byte(4)
	if s.flow.VIP.Addr().Is6() {
		family = 6
	}
	if s.proto == protoUDP {
		family += wireUDP
	}
	b = append(b, family)
	for _, end := range [2]netip.AddrPort{s.flow.Client, s.flow.VIP} {
		b = append(b, end.Addr().AsSlice()...)
		b = binary.BigEndian.AppendUint16(b, end.Port())
	}
	return b
}

// readSession reads the wire form of a session and returns what follows it.
func readSession(b []byte) (session, []byte, error) {
	if len(b) < 1 {
		return session{}, nil, errShort
	}
	s, size := session{proto: protoTCP}, 4
	family := b[0]
	if family >= wireUDP {
		s.proto, family = protoUDP, family-wireUDP
	}
	switch family {
	case 4:
	case 6:
		size = 16
	default:
		return session{}, nil, fmt.Errorf("flow of family %d: %w", b[0], errVersion)
	}
	b = b[1:]
	if len(b) < 2*(size+2) {
		return session{}, nil, errShort
	}
	var ends [2]netip.AddrPort
	for i := range ends {
		addr, _ := netip.AddrFromSlice(b[:size])
		ends[i] = netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[size:]))
		b = b[size+2:]
	}
	s.flow = Flow{Client: ends[0], VIP: ends[1]}
	return s, b, nil
}
