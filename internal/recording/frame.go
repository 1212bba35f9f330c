package recording

import (
	"encoding/binary"
	"net/netip"
)

// Link types (www.tcpdump.org/linktypes.html).
const (
	linkNull     = 0
	linkEthernet = 1
	linkRaw12    = 12
	linkRaw14    = 14
	linkRaw      = 101
	linkSLL      = 113
	linkIPv4     = 228
	linkIPv6     = 229
	linkSLL2     = 276
)

const (
	etherIPv4   = 0x0800
	etherVLAN   = 0x8100
	etherIPv6   = 0x86dd
	etherQinQ   = 0x88a8
	protoUDP    = 17
	headerIPv4  = 20
	headerIPv6  = 40
	headerUDP   = 8
	headerDNS   = 12
	maxHeaders6 = 8 // extension headers before we give up
)

// frame finds the DNS message in a frame; false where there is none.
func (r *Reader) frame(link uint32, b []byte) (p Packet, ok bool) {
	switch link {
	case linkRaw, linkRaw12, linkRaw14, linkIPv4, linkIPv6:
		return r.ip(b)
	case linkNull:
		if len(b) < 4 {
			return p, false
		}
		return r.ip(b[4:])
	case linkEthernet:
		return r.ether(b, 12)
	case linkSLL:
		return r.ether(b, 14)
	case linkSLL2:
		if len(b) < 20 {
			return p, false
		}
		return r.typed(binary.BigEndian.Uint16(b), b[20:])
	}
	return p, false
}

// ether reads a header which ends with its type at an offset.
func (r *Reader) ether(b []byte, at int) (Packet, bool) {
	if len(b) < at+2 {
		return Packet{}, false
	}
	return r.typed(binary.BigEndian.Uint16(b[at:]), b[at+2:])
}

// typed reads what an Ethernet type says, behind tags.
func (r *Reader) typed(kind uint16, b []byte) (Packet, bool) {
	for (kind == etherVLAN || kind == etherQinQ) && len(b) >= 4 {
		kind, b = binary.BigEndian.Uint16(b[2:]), b[4:]
	}
	if kind != etherIPv4 && kind != etherIPv6 {
		return Packet{}, false
	}
	return r.ip(b)
}

func (r *Reader) ip(b []byte) (Packet, bool) {
	if len(b) == 0 {
		return Packet{}, false
	}
	switch b[0] >> 4 {
	case 4:
		return r.ip4(b)
	case 6:
		return r.ip6(b)
	}
	return Packet{}, false
}

func (r *Reader) ip4(b []byte) (Packet, bool) {
	if len(b) < headerIPv4 {
		return Packet{}, false
	}
	head, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	fragment := binary.BigEndian.Uint16(b[6:]) & 0x3fff // the offset, and whether more follow
	if head < headerIPv4 || total < head || total > len(b) || fragment != 0 || b[9] != protoUDP {
		return Packet{}, false
	}
	return r.udp(netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20])), b[head:total])
}

func (r *Reader) ip6(b []byte) (Packet, bool) {
	if len(b) < headerIPv6 {
		return Packet{}, false
	}
	total := headerIPv6 + int(binary.BigEndian.Uint16(b[4:]))
	if total > len(b) {
		return Packet{}, false
	}
	from, to := netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	next, rest := b[6], b[headerIPv6:total]
	for range maxHeaders6 {
		switch next {
		case protoUDP:
			return r.udp(from, to, rest)
		case 0, 43, 60: // hop by hop, routing, destination options
			if len(rest) < 8 {
				return Packet{}, false
			}
			size := 8 + 8*int(rest[1])
			if size > len(rest) {
				return Packet{}, false
			}
			next, rest = rest[0], rest[size:]
		default:
			return Packet{}, false
		}
	}
	return Packet{}, false
}

func (r *Reader) udp(from, to netip.Addr, b []byte) (Packet, bool) {
	if len(b) < headerUDP+headerDNS {
		return Packet{}, false
	}
	size := int(binary.BigEndian.Uint16(b[4:]))
	if size < headerUDP+headerDNS || size > len(b) {
		return Packet{}, false
	}
	p := Packet{From: netip.AddrPortFrom(from, binary.BigEndian.Uint16(b)), To: netip.AddrPortFrom(to, binary.BigEndian.Uint16(b[2:])), Data: b[headerUDP:size]}
	// A query goes to the servers' port, a reply comes from there.
	reply := p.Data[2]&0x80 != 0
	return p, !reply && p.To.Port() == r.Port || reply && p.From.Port() == r.Port
}
