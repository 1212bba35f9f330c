package hold

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Flow is a connection of this host.
type Flow struct{ Local, Peer netip.AddrPort }

// parse reads whose segment it is and what it acknowledges. ok is false for anything
// but a TCP segment with an acknowledgement: that is not ours to hold.
func parse(b []byte) (f Flow, ack uint32, ok bool) {
	if len(b) < 20 {
		return f, 0, false
	}
	var src, dst netip.Addr
	var tcp []byte
	switch head := int(b[0]&15) * 4; {
	case b[0]>>4 == 4 && b[9] == unix.IPPROTO_TCP && head >= 20 && len(b) >= head:
		src, dst, tcp = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20])), b[head:]
	case b[0]>>4 == 6 && len(b) >= 40 && b[6] == unix.IPPROTO_TCP:
		src, dst, tcp = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40])), b[40:]
	default:
		return f, 0, false
	}
	const flagACK = 0x10
	if len(tcp) < 14 || tcp[13]&flagACK == 0 {
		return f, 0, false
	}
	be := binary.BigEndian
	f = Flow{Local: netip.AddrPortFrom(src, be.Uint16(tcp)), Peer: netip.AddrPortFrom(dst, be.Uint16(tcp[2:]))}
	return f, be.Uint32(tcp[8:]), true
}
