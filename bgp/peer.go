package bgp

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Peer is a router we speak BGP with.
type Peer struct {
	Address netip.Addr
	ASN     uint32
	// Local is the address to speak from; zero leaves it to the routing table.
	Local netip.Addr
	// Password is the TCP-MD5 secret (RFC 2385); empty means none.
	Password string
	// GTSM accepts only packets with TTL 255 (RFC 5082): a directly connected
	// eBGP peer. It excludes Multihop.
	GTSM bool
	// Multihop is the TTL towards an eBGP peer which is not directly connected; 0 is off.
	Multihop uint8
	// Hold and Keepalive default to 9 s and 3 s; whole seconds (RFC 4271 section 4.2).
	Hold, Keepalive time.Duration
	// Passive waits for the peer to connect.
	Passive bool
	// Port of the peer; 0 is 179.
	Port uint16
	// OwnFamily carries only routes of Address's family. A Transit wants it: it
	// writes the session's own address as next hop, which must be of that family.
	OwnFamily bool
	// AllPaths asks the peer for more than its best path (RFC 7911): a daemon on
	// our own host prefers our route, and is to show us those of other sites.
	AllPaths bool
	// MaxPrefixes ends the session when the peer sends more; 0 is no limit.
	MaxPrefixes uint32
	// BFD watches a directly connected peer (RFC 5881); zero does not.
	BFD PeerBFD
	// Probe looks at the path behind the peer; nil does not.
	Probe *Probe
	// GracefulRestart is named here only to be refused.
	GracefulRestart bool
}

// The defaults of a session. Its failure is normally seen sooner by BFD or by
// the link; the hold time is the net below.
const (
	DefaultHold      = 9 * time.Second
	DefaultKeepalive = 3 * time.Second
)

// Check tells what is wrong with a peer of a speaker in the given AS.
func (p *Peer) Check(asn uint32) error {
	switch {
	case !p.Address.IsValid():
		return errors.New("bgp: peer without an address")
	case p.ASN == 0:
		return fmt.Errorf("bgp: peer %s: no AS", p.Address)
	case p.GracefulRestart:
		// RFC 4724: the peer would go on sending traffic to a dead speaker for
		// the restart time, and FRR ignores BFD meanwhile.
		return fmt.Errorf("bgp: peer %s: graceful restart keeps traffic coming to a dead site; it cannot be used with health-gated prefixes", p.Address)
	case p.GTSM && p.Multihop > 0:
		return fmt.Errorf("bgp: peer %s: gtsm accepts one hop only (RFC 5082), multihop asks for more", p.Address)
	case p.GTSM && p.ASN == asn, p.Multihop > 0 && p.ASN == asn:
		return fmt.Errorf("bgp: peer %s: gtsm and multihop are for eBGP, AS %d is our own", p.Address, asn)
	case p.BFD != PeerBFD{} && p.Multihop > 0:
		return fmt.Errorf("bgp: peer %s: bfd watches directly connected peers only (RFC 5881), multihop is set", p.Address)
	}
	if err := p.BFD.check(); err != nil {
		return fmt.Errorf("bgp: peer %s: %w", p.Address, err)
	}
	return p.checkTimers()
}

// checkTimers holds the timers to what the wire can say and RFC 4271 section 10
// asks: whole seconds, and three keepalives within a hold time.
func (p *Peer) checkTimers() error {
	hold, keepalive := p.timers()
	switch {
	case hold < 3*time.Second: // RFC 4271 section 4.2: zero or at least three; zero never notices
		return fmt.Errorf("bgp: peer %s: hold time %s is below 3s", p.Address, hold)
	case hold%time.Second != 0 || keepalive%time.Second != 0 || keepalive < time.Second:
		return fmt.Errorf("bgp: peer %s: hold %s and keepalive %s must be whole seconds", p.Address, hold, keepalive)
	case keepalive*3 > hold:
		return fmt.Errorf("bgp: peer %s: keepalive %s is more than a third of hold %s", p.Address, keepalive, hold)
	}
	return nil
}

// timers returns the timers with their defaults filled in.
func (p *Peer) timers() (hold, keepalive time.Duration) {
	hold, keepalive = p.Hold, p.Keepalive
	if hold == 0 {
		hold = DefaultHold
	}
	if keepalive == 0 {
		keepalive = hold / 3
	}
	return hold, keepalive
}
