package forward

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/placement"
)

// Mode says what is done with the strays of a VIP.
type Mode uint8

const (
	// Observe counts strays and names their owner; the kernel resets them
	// as if the forwarder weren't there.
	Observe Mode = iota
	// Act tunnels strays to their owner.
	Act
)

// String returns the word used in configuration.
func (m Mode) String() string {
	if m == Act {
		return "act"
	}
	return "observe"
}

// Config is what New needs. Only Site and Local must be set.
type Config struct {
	// Site is this site's name, the same which its peers know it by.
	Site string
	// Local is where the tunnel listens: a unicast address of this site.
	Local netip.AddrPort
	Peers []Peer
	// VIPs are the anycast addresses and ports whose servers run here, all
	// with Mode; SetVIPs gives each its own.
	VIPs []netip.AddrPort
	Mode Mode

	// QUICIdle is how long a QUIC flow whose client sends nothing is known: as
	// long as the servers keep a connection, or longer. 0 means 90 s.
	QUICIdle time.Duration
	// PathMTU is that of the paths between sites; 0 means 1,500.
	PathMTU int
	// OnForeign is told while strays of a flow owned elsewhere arrive here,
	// every 250 ms at most for each, with the time of the first. It is
	// called by the goroutine that reads strays and must not block.
	OnForeign func(f Flow, owner string, since time.Time)
	// OnHeld is told of each packet of a claimed flow, whether it is kept or
	// not. It must neither block nor keep the packet.
	OnHeld func(f Flow, packet []byte)
	// Shadowed tells whether the session of a flow could be revived here. Its
	// packets then wait when no site answers for it: who does not may have
	// been its owner. It must not block.
	Shadowed func(f Flow) bool
	// KeptFor names the site whose session of a flow would be revived here, or "".
	// Sites that ask for the flow's owner are told. It must not block.
	KeptFor func(f Flow) string
	// First names the sites that most likely have the record of a flow's session, the best
	// first. After the loss of a site they are asked before the rest of the group. It must
	// not block.
	First func(f Flow) []string
	// Pair names the site which likely has this client's sessions, as the
	// previous routing had it, or "". It must not block.
	Pair func(client netip.Addr) string

	// At is where this site stands; zero: not known.
	At placement.Position
	// RelayRate is what this site passes on for others round broken paths, octets a
	// second; 0 means 100 Mbit/s, less than 0 nothing.
	RelayRate int64
	// OnRelay is told when what is for a peer goes another way. It must not block.
	OnRelay func(RelayChange)

	Logger     *slog.Logger
	Registerer prometheus.Registerer
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// defaultMTU is that of Ethernet, and so of most paths between sites.
const defaultMTU = 1500

// withDefaults sets what was left out and may be.
func (c Config) withDefaults() Config {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.PathMTU == 0 {
		c.PathMTU = defaultMTU
	}
	if c.QUICIdle == 0 {
		c.QUICIdle = quicIdle
	}
	if c.RelayRate == 0 {
		c.RelayRate = relayRate
	}
	if c.Pair == nil {
		c.Pair = func(netip.Addr) string { return "" }
	}
	if c.Shadowed == nil {
		c.Shadowed = func(Flow) bool { return false }
	}
	if c.KeptFor == nil {
		c.KeptFor = func(Flow) string { return "" }
	}
	return c
}

// check refuses what can't work.
func (c *Config) check() error {
	if c.Site == "" || strings.ContainsRune(c.Site, 0) || !c.Local.IsValid() || c.Local.Port() == 0 {
		return fmt.Errorf("forward: site %q at %s: a name, an address and a port are needed", c.Site, c.Local)
	}
	if c.PathMTU < smallMTU {
		return fmt.Errorf("forward: path MTU %d: at least %d is needed", c.PathMTU, smallMTU)
	}
	return nil
}
