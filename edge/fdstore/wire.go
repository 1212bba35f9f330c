package fdstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// Flow is a connection of this host. Its addresses are as they are on the wire: IPv4 is not
// mapped into IPv6.
type Flow struct{ Local, Peer netip.AddrPort }

// A message is its kind and some flows; those of keep and kept come with a descriptor for
// each, in their order.
const (
	kindKeep = 'k' // agent: hold these; store: these were kept
	kindDrop = 'd' // agent: close these
	kindDone = 'e' // store: this is all that was kept
	kindEnd  = 'x' // agent: close all, and end

	// most flows in one message: the kernel takes 253 descriptors (SCM_MAX_FD).
	most     = 128
	endSize  = 18 // address, port
	flowSize = 2 * endSize
	largest  = 1 + most*flowSize
)

var errMessage = errors.New("malformed message")

// appendMessage writes one.
func appendMessage(b []byte, kind byte, flows []Flow) []byte {
	b = append(b, kind)
	for _, f := range flows {
		b = appendEnd(appendEnd(b, f.Local), f.Peer)
	}
	return b
}

func appendEnd(b []byte, a netip.AddrPort) []byte {
	addr := a.Addr().As16()
	return binary.BigEndian.AppendUint16(append(b, addr[:]...), a.Port())
}

// parseMessage reads one.
func parseMessage(b []byte) (kind byte, flows []Flow, err error) {
	if len(b) == 0 || (len(b)-1)%flowSize != 0 || len(b) > largest {
		return 0, nil, fmt.Errorf("fdstore: %w of %d octets", errMessage, len(b))
	}
	kind, b = b[0], b[1:]
	for ; len(b) > 0; b = b[flowSize:] {
		flows = append(flows, Flow{Local: parseEnd(b), Peer: parseEnd(b[endSize:])})
	}
	return kind, flows, nil
}

func parseEnd(b []byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[:16])).Unmap(), binary.BigEndian.Uint16(b[16:]))
}
