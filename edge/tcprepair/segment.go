package tcprepair

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// Flags of a TCP header (RFC 9293 section 3.1).
const (
	FIN = 0x01
	SYN = 0x02
	RST = 0x04
	PSH = 0x08
	ACK = 0x10
)

// Segment is what can be told, or asked, of a connection by one TCP segment.
type Segment struct {
	Src, Dst     netip.AddrPort
	Seq, Ack     uint32
	Flags        uint8
	Window       uint16 // as on the wire, not scaled
	Timestamps   bool
	TSVal, TSEcr uint32
	Data         int // octets of payload; those of a Segment that is sent are zero
}

const (
	ipv4Size, ipv6Size, tcpSize = 20, 40, 20
	protoTCP                    = 6
	hopLimit                    = 64
	timestampOption             = 8 // RFC 7323 section 3.2, with two NOPs before it
	timestampSize               = 12
)

var (
	errNoTCP = errors.New("tcprepair: not a TCP segment of IPv4 or IPv6")
	errShort = errors.New("tcprepair: segment is cut short")
)

// Append encodes the segment behind b as one IP packet, checksums included.
func (s Segment) Append(b []byte) []byte {
	size := tcpSize + s.Data
	if s.Timestamps {
		size += timestampSize
	}
	b = s.appendIP(b, size)
	at, be := len(b), binary.BigEndian
	b = be.AppendUint16(b, s.Src.Port())
	b = be.AppendUint16(b, s.Dst.Port())
	b = be.AppendUint32(b, s.Seq)
	b = be.AppendUint32(b, s.Ack)
	b = append(b, byte((size-s.Data)/4)<<4, s.Flags)
	b = be.AppendUint16(b, s.Window)
	b = append(b, 0, 0, 0, 0) // checksum, urgent
	if s.Timestamps {
		b = append(b, 1, 1, timestampOption, 10)
		b = be.AppendUint32(be.AppendUint32(b, s.TSVal), s.TSEcr)
	}
	b = append(b, make([]byte, s.Data)...)
	sum := checksum(0, s.Src.Addr().AsSlice())
	sum = checksum(sum, s.Dst.Addr().AsSlice())
	sum = checksum(sum+protoTCP+uint32(size), b[at:])
	be.PutUint16(b[at+16:], fold(sum))
	return b
}

func (s Segment) appendIP(b []byte, size int) []byte {
	be, at := binary.BigEndian, len(b)
	if s.Src.Addr().Is4() {
		b = append(b, 0x45, 0)
		b = be.AppendUint16(b, uint16(ipv4Size+size))
		b = append(b, 0, 0, 0x40, 0, hopLimit, protoTCP, 0, 0) // DF: probes are small
	} else {
		b = append(b, 0x60, 0, 0, 0)
		b = be.AppendUint16(b, uint16(size))
		b = append(b, protoTCP, hopLimit)
	}
	b = append(b, s.Src.Addr().AsSlice()...)
	b = append(b, s.Dst.Addr().AsSlice()...)
	if s.Src.Addr().Is4() {
		be.PutUint16(b[at+10:], fold(checksum(0, b[at:])))
	}
	return b
}

// ParseSegment reads a whole IP packet that holds one unfragmented TCP segment.
// Checksums are not looked at: the packets come by our own kernel, which may
// leave them to the hardware.
func ParseSegment(p []byte) (Segment, error) {
	var s Segment
	src, dst, tcp, err := splitIP(p)
	if err != nil {
		return s, err
	}
	if len(tcp) < tcpSize {
		return s, errShort
	}
	be, head := binary.BigEndian, int(tcp[12]>>4)*4
	if head < tcpSize || head > len(tcp) {
		return s, errShort
	}
	s = Segment{Src: netip.AddrPortFrom(src, be.Uint16(tcp)), Dst: netip.AddrPortFrom(dst, be.Uint16(tcp[2:])),
		Seq: be.Uint32(tcp[4:]), Ack: be.Uint32(tcp[8:]), Flags: tcp[13], Window: be.Uint16(tcp[14:]), Data: len(tcp) - head}
	s.options(tcp[tcpSize:head])
	return s, nil
}

// splitIP returns the ends and the payload. IPv6 extension headers do not stand
// before a TCP segment of an ordinary client, so a packet with one is refused.
func splitIP(p []byte) (src, dst netip.Addr, payload []byte, err error) {
	be := binary.BigEndian
	switch {
	case len(p) >= ipv4Size && p[0]>>4 == 4:
		head, total := int(p[0]&15)*4, int(be.Uint16(p[2:]))
		if p[9] != protoTCP || be.Uint16(p[6:])&0x3fff != 0 {
			return src, dst, nil, errNoTCP
		}
		if head < ipv4Size || total < head || total > len(p) {
			return src, dst, nil, errShort
		}
		return netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20])), p[head:total], nil
	case len(p) >= ipv6Size && p[0]>>4 == 6:
		if p[6] != protoTCP {
			return src, dst, nil, errNoTCP
		}
		total := ipv6Size + int(be.Uint16(p[4:]))
		if total > len(p) {
			return src, dst, nil, errShort
		}
		return netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40])), p[ipv6Size:total], nil
	}
	return src, dst, nil, errNoTCP
}

// options looks for timestamps. A list that ends in the middle of an option is
// as good as one that ends before it.
func (s *Segment) options(b []byte) {
	for len(b) > 0 && b[0] != 0 {
		if b[0] == 1 { // NOP
			b = b[1:]
			continue
		}
		if len(b) < 2 || b[1] < 2 || int(b[1]) > len(b) {
			return
		}
		if b[0] == timestampOption && b[1] == 10 {
			s.Timestamps = true
			s.TSVal, s.TSEcr = binary.BigEndian.Uint32(b[2:]), binary.BigEndian.Uint32(b[6:])
		}
		b = b[b[1]:]
	}
}

// checksum adds b to a sum of 16-bit words (RFC 1071).
func checksum(sum uint32, b []byte) uint32 {
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}

func fold(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
