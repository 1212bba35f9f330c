package config

import (
	"slices"
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
