package authdns

import (
	"encoding/binary"
	"net/netip"

	"rhumb/placement"
)

// Address families of RFC 7871 section 6.
const (
	familyNone = 0
	familyIPv4 = 1
	familyIPv6 = 2
)

// subnet is the client subnet option of a request. Family, source and octets go
// back as they came (RFC 7871 section 7.2.1).
type subnet struct {
	family uint16
	source int
	octets []byte
	// prefix is the client's; invalid where source is 0 or the family is none.
	prefix netip.Prefix
}

// parseSubnet reads the option; false means FORMERR (RFC 7871 sections 6 and 7.1.2).
func parseSubnet(data []byte) (s subnet, ok bool) {
	if len(data) < 4 {
		return s, false
	}
	s = subnet{family: binary.BigEndian.Uint16(data), source: int(data[2]), octets: data[4:]}
	if data[3] != 0 || len(s.octets) != (s.source+7)/8 {
		return s, false
	}
	var addr netip.Addr
	switch s.family {
	case familyIPv4:
		var b [4]byte
		if s.source > 32 {
			return s, false
		}
		copy(b[:], s.octets)
		addr = netip.AddrFrom4(b)
	case familyIPv6:
		var b [16]byte
		if s.source > 128 {
			return s, false
		}
		copy(b[:], s.octets)
		addr = netip.AddrFrom16(b)
	case familyNone:
		return s, s.source == 0
	default:
		return s, false
	}
	p := netip.PrefixFrom(addr, s.source)
	if p.Masked() != p {
		return s, false // bits beyond the source length
	}
	if s.source > 0 {
		s.prefix = p
	}
	return s, true
}

// client returns the address by which to choose and how many of its bits count:
// no more than were sent, and no more than the cap. Without a usable option it
// is the resolver's address, and bits is 0.
func (s *subnet) client(resolver netip.Addr, limit placement.ECS) (addr netip.Addr, bits int) {
	if s == nil || limit.Off || !s.prefix.IsValid() {
		return resolver, 0
	}
	p := netip.PrefixFrom(s.prefix.Addr(), min(s.source, ecsCap(s.family, limit))).Masked()
	return p.Addr(), p.Bits()
}

// The default caps of ECS in bits.
const (
	defaultBits4 = 24
	defaultBits6 = 56
)

// ecsCap is how many bits may count. A finer answer would cost an entry in every
// resolver's cache for each /32.
func ecsCap(family uint16, limit placement.ECS) int {
	bits, def := limit.Bits4, defaultBits4
	if family == familyIPv6 {
		bits, def = limit.Bits6, defaultBits6
	}
	if bits == 0 {
		return def
	}
	return bits
}

// scope returns what the answer depends on: the block of the choice, which may
// be longer than the source, but not than the cap, beyond which nothing was
// looked at. Without a block nothing is known but what was used.
func (s *subnet) scope(block netip.Prefix, used int, limit placement.ECS) int {
	if !block.IsValid() {
		return used
	}
	return min(block.Bits(), ecsCap(s.family, limit))
}
