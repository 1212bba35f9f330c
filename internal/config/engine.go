package config

import (
	"net/netip"
	"slices"
	"time"

	"rhumb/placement"
)

// The engines: our own speaker, or routes which a BIRD or FRR of this host takes
// from the kernel.
const (
	EngineGoBGP  = "gobgp"
	EngineKernel = "kernel"
)

// Kernel names the routes that engine kernel writes.
type Kernel struct {
	Table    int `yaml:"table"`    // 254 by default: the main table
	Protocol int `yaml:"protocol"` // 77 by default; marks our routes
}

// localTable holds the host's own addresses.
const localTable = 255

// defaults fills in the engine and what it decides.
func (b *BGP) defaults() {
	b.Engine = or(b.Engine, EngineGoBGP)
	if b.Engine == EngineKernel {
		b.Port = or(b.Port, -1) // the port is the daemon's
		if b.Kernel == nil {
			b.Kernel = &Kernel{}
		}
		b.Kernel.Table, b.Kernel.Protocol = or(b.Kernel.Table, 254), or(b.Kernel.Protocol, 77)
	}
	b.Port = or(b.Port, 179)
}

// checkEngine checks the engine and refuses keys which it would not heed.
func (b *BGP) checkEngine(src *source) {
	if b.Engine != EngineGoBGP && b.Engine != EngineKernel {
		src.fail([]string{"bgp", "engine"}, "unknown engine %q; want gobgp or kernel", b.Engine)
		return
	}
	if b.Engine == EngineGoBGP {
		if b.Kernel != nil {
			src.fail([]string{"bgp", "kernel"}, "needs engine: kernel")
		}
		return
	}
	if b.Port != -1 {
		src.fail([]string{"bgp", "port"}, "%d: with engine kernel the daemon owns the port; leave it out", b.Port)
	}
	if b.NextHop4.IsValid() {
		src.fail([]string{"bgp", "next_hop4"}, "with engine kernel the daemon says the next hop")
	}
	if b.NextHop6.IsValid() {
		src.fail([]string{"bgp", "next_hop6"}, "with engine kernel the daemon says the next hop")
	}
	if t := b.Kernel.Table; t < 1 || t == localTable || t > 1<<31-1 {
		src.fail([]string{"bgp", "kernel", "table"}, "%d: want a routing table, and not the host's own (%d)", t, localTable)
	}
	if p := b.Kernel.Protocol; p < 5 || p > 255 || slices.Contains(takenProtocols(), p) {
		src.fail([]string{"bgp", "kernel", "protocol"}, "%d: want a number that nobody else marks routes with, as 77 (/etc/iproute2/rt_protos)", p)
	}
}

// takenProtocols are those which daemons write into the kernel themselves
// (linux/rtnetlink.h): the engine would take their routes for its own.
func takenProtocols() []int {
	return []int{8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 42, 84, 99, 186, 187, 188, 189, 192, 193, 194, 195, 196, 197, 198, 199}
}

// PathProbe looks at what lies behind a neighbour, and says what is done there
// when nothing answers.
type PathProbe struct {
	Targets   []netip.AddrPort   `yaml:"targets"`   // one answer of any of them is enough
	From      netip.Addr         `yaml:"from"`      // source address; `local` of the peer by default
	Interface string             `yaml:"interface"` // to send through, whatever the routes say
	Every     placement.Duration `yaml:"every"`     // 200ms; also how long an answer may take
	Fall      int                `yaml:"fall"`      // 3
	Rise      int                `yaml:"rise"`      // 10
	Act       string             `yaml:"act"`       // advise, prepend or withdraw
}

// Step is what is done at the neighbour while its path is down; Announce only advises.
func (p *PathProbe) Step() placement.Step {
	switch p.Act {
	case "prepend":
		return placement.Prepend
	case "withdraw":
		return placement.Withdrawn
	}
	return placement.Announce
}

// check refuses what would never answer, and acts which nobody could perform.
func (p *PathProbe) check(src *source, at []string, peer netip.Addr, engine string) {
	if len(p.Targets) == 0 {
		src.refuse(placement.RuleEmptySelector, at, "peer %s: probe: no targets: it would be down at once", peer)
	}
	for _, t := range p.Targets {
		if !t.IsValid() || t.Port() == 0 {
			src.fail(at, "peer %s: probe: target %s is not ADDRESS:PORT", peer, t)
		}
		if p.From.IsValid() && p.From.Is4() != t.Addr().Is4() {
			src.fail(at, "peer %s: probe: from %s is of another family than target %s", peer, p.From, t)
		}
	}
	if e := p.Every.D(); e != 0 && (e < 50*time.Millisecond || e > time.Minute) {
		src.fail(at, "peer %s: probe: every %s: want 50ms to 1m", peer, e)
	}
	if p.Fall < 0 || p.Rise < 0 {
		src.fail(at, "peer %s: probe: fall and rise are counts", peer)
	}
	switch {
	case !slices.Contains([]string{"", "advise", "prepend", "withdraw"}, p.Act):
		src.fail(at, "peer %s: probe: act %q: want advise, prepend or withdraw", peer, p.Act)
	case p.Step() > placement.Announce && engine == EngineKernel:
		src.fail(at, "peer %s: probe: act %s: with engine kernel what a peer hears is the daemon's matter; it can only advise", peer, p.Act)
	}
}
