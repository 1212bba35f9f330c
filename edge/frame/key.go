package frame

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Key names one client session. Both addresses are of one family and plain:
// no zone, no IPv4 mapped into IPv6.
type Key struct {
	Client netip.AddrPort
	VIP    netip.AddrPort
}

func (k Key) String() string { return k.Client.String() + ">" + k.VIP.String() }

// Valid reports whether the key can be encoded.
func (k Key) Valid() bool {
	c, v := k.Client.Addr(), k.VIP.Addr()
	return c.IsValid() && c.BitLen() == v.BitLen() && !c.Is4In6() && !v.Is4In6() && c.Zone() == "" && v.Zone() == ""
}

// Compare orders keys by VIP, then client, so that lists are stable.
func (k Key) Compare(o Key) int {
	if c := k.VIP.Compare(o.VIP); c != 0 {
		return c
	}
	return k.Client.Compare(o.Client)
}

// Families on the wire. A frame about no session has family 0 and no key.
const (
	familyNone = 0
	family4    = 4
	family6    = 6
)

func (k Key) family() byte {
	switch {
	case !k.Client.IsValid() && !k.VIP.IsValid():
		return familyNone
	case k.Client.Addr().Is4():
		return family4
	}
	return family6
}

// appendKey writes the key without its family.
func appendKey(b []byte, k Key) []byte {
	if k.family() == familyNone {
		return b
	}
	for _, a := range [2]netip.AddrPort{k.Client, k.VIP} {
		b = append(b, a.Addr().AsSlice()...)
		b = binary.BigEndian.AppendUint16(b, a.Port())
	}
	return b
}

func (r *reader) key(family byte) Key {
	size := 0
	switch family {
	case familyNone:
		return Key{}
	case family4:
		size = 4
	case family6:
		size = 16
	default:
		r.fail(fmt.Errorf("address family %d", family))
		return Key{}
	}
	k := Key{Client: r.addrPort(size), VIP: r.addrPort(size)}
	if r.err == nil && !k.Valid() {
		r.fail(fmt.Errorf("key %s mixes address forms", k))
	}
	return k
}

func (r *reader) addrPort(size int) netip.AddrPort {
	a, ok := netip.AddrFromSlice(r.bytes(size))
	if !ok {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a, r.u16())
}
