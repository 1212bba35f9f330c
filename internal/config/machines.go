package config

import (
	"net/netip"
	"slices"
	"time"

	"rhumb/placement"
)

// Machines says how the machines of one site hear each other. Those with role health, one
// or two, listen; all tell those that they are there. Each lists an address for every
// network that joins them.
type Machines struct {
	Listen   []netip.AddrPort   `yaml:"listen"`
	Watchers []netip.AddrPort   `yaml:"watchers"`
	Interval placement.Duration `yaml:"interval"` // of beats; 50ms by default
	// Second is set on the second machine with role health: it beats to other sites from
	// the site's second_beat.
	Second bool `yaml:"second"`
}

// defaultPulse notices a dead machine in 150 ms.
const defaultPulse = 50 * time.Millisecond

// checkMachines checks who listens and who tells.
func (n *Node) checkMachines(src *source) {
	m := n.Machines
	if m == nil {
		return
	}
	health := slices.Contains(n.Node.Roles, RoleHealth)
	switch d := m.Interval.D(); {
	case n.Identity == "":
		src.fail([]string{"machines"}, "needs identity: the beats are sealed with the site's key")
	case len(m.Listen)+len(m.Watchers) == 0:
		src.fail([]string{"machines"}, "want listen on the machine with role health, watchers on the others")
	case len(m.Listen) > 0 && !health:
		src.fail([]string{"machines", "listen"}, "needs role health: nobody else judges what is heard")
	case len(m.Watchers) > 0 && health && len(m.Listen) == 0:
		src.fail([]string{"machines", "watchers"}, "role health runs on this machine and on that one: each hears the other, so it needs listen, too")
	case m.Second && !health:
		src.fail([]string{"machines", "second"}, "is said of the second machine with role health")
	case d < 10*time.Millisecond || d > time.Second:
		src.fail([]string{"machines", "interval"}, "%s: want 10ms to 1s", d)
	}
	for key, list := range map[string][]netip.AddrPort{"listen": m.Listen, "watchers": m.Watchers} {
		for i, a := range list {
			if !a.IsValid() || a.Port() == 0 || a.Addr().IsUnspecified() || slices.Contains(list[:i], a) {
				src.fail([]string{"machines", key}, "%s stands twice, or is not ADDRESS:PORT", a)
			}
		}
	}
}
