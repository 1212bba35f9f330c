package authdns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
)

// The PROXY protocol, version 2: 12 octets by which it is known, version and
// command, family, length, then addresses and extensions that are passed over.
const (
	proxySignature = "\r\n\r\n\x00\r\nQUIT\n"
	proxyHeader    = 16
	proxyLocal     = 0x20 // the proxy itself asks, as its health checks do
	proxyOther     = 0x21 // on behalf of the addresses that follow
	proxyUnknown   = 0x00
	proxyTCP4      = 0x11
	proxyTCP6      = 0x21
	// proxyMost bounds what a proxy may say: addresses and all known extensions
	// with a client's certificate name are far below it.
	proxyMost = 2048
)

var errNoProxy = errors.New("authdns: no PROXY v2 header")

// readProxy reads the header with which a proxy begins a connection, and returns
// the client's address. It takes not an octet more: what follows may be TLS.
// A proxy that is listed must send one; to guess would let its clients write it.
func readProxy(r io.Reader, proxy netip.AddrPort) (netip.AddrPort, error) {
	var h [proxyHeader]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return proxy, fmt.Errorf("authdns: PROXY header of %s: %w", proxy.Addr(), err)
	}
	if string(h[:12]) != proxySignature {
		return proxy, errNoProxy
	}
	n := int(binary.BigEndian.Uint16(h[14:]))
	if n > proxyMost {
		return proxy, fmt.Errorf("authdns: PROXY header of %s: %d octets of addresses", proxy.Addr(), n)
	}
	rest := make([]byte, n)
	if _, err := io.ReadFull(r, rest); err != nil {
		return proxy, fmt.Errorf("authdns: PROXY header of %s: %w", proxy.Addr(), err)
	}
	switch {
	case h[12] == proxyLocal, h[12] == proxyOther && h[13] == proxyUnknown:
		return proxy, nil
	case h[12] == proxyOther && h[13] == proxyTCP4 && n >= 12:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(rest)), binary.BigEndian.Uint16(rest[8:])), nil
	case h[12] == proxyOther && h[13] == proxyTCP6 && n >= 36:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(rest)), binary.BigEndian.Uint16(rest[32:])), nil
	}
	return proxy, fmt.Errorf("authdns: PROXY header of %s: command %#x, family %#x, %d octets", proxy.Addr(), h[12], h[13], n)
}

// proxied tells whether whoever connects from an address is a proxy.
func (s *Server) proxied(from netip.Addr) bool {
	for _, p := range s.shield.proxies {
		if p.Contains(from) {
			return true
		}
	}
	return false
}
