package config

import (
	"slices"
	"time"

	"rhumb/placement"
)

// Twin makes a node an input-delayed twin: it acts by what was in force some time ago,
// and announces its prefixes as the last resort.
type Twin struct {
	// Delay is how late its inputs are; 0: the node is none.
	Delay placement.Duration `yaml:"delay"`
	// Wave is how many other name servers must have come to harm, within the delay, for
	// its feed to stop; 2 by default.
	Wave int `yaml:"wave"`
	// Prepend and MED are added to its routes: copies of our AS, 3 by default, and 1000.
	Prepend int    `yaml:"prepend"`
	MED     uint32 `yaml:"med"`
}

// On tells whether the node is a twin.
func (t *Twin) On() bool { return t != nil && t.Delay > 0 }

// What a twin's settings may be. With less than some seconds its inputs would be there
// before it is seen that they end others; a day is a fleet's own past.
const (
	minTwinDelay = 10 * time.Second
	maxTwinDelay = 24 * time.Hour
	maxPrepend   = 10
)

func (t *Twin) defaults() {
	t.Wave, t.Prepend, t.MED = or(t.Wave, 2), or(t.Prepend, 3), or(t.MED, 1000)
}

// checkTwin refuses what would make a twin worthless, or the fleet hang on a node which
// lives in the past.
func (n *Node) checkTwin(src *source) {
	t := n.Twin
	if t == nil {
		return
	}
	at := func(key string) []string { return []string{"twin", key} }
	switch d := t.Delay.D(); {
	case d < minTwinDelay || d > maxTwinDelay:
		src.fail(at("delay"), "%s: want %s to %s; 30m to 1h leaves time to see what an input does to others", t.Delay, minTwinDelay, maxTwinDelay)
	case n.Store.Etcd == nil:
		src.fail(at("delay"), "a twin needs store.etcd: there it sees what becomes of others")
	case n.Store.Etcd.Embedded[n.Node.Name].IsValid():
		src.fail(at("delay"), "%s carries a member of the store: a twin only reads it", n.Node.Name)
	}
	if !slices.Contains(n.Node.Roles, RoleAuthDNS) {
		src.fail([]string{"twin"}, "is for a node with role authdns")
	}
	for _, r := range n.Node.Roles {
		if r == RolePlacement || r == RoleEdge || r == RoleConsole {
			src.fail([]string{"node", "roles"}, "a twin has no role %s: it would act by what was %s ago", r, t.Delay)
		}
	}
	if t.Wave < 1 {
		src.fail(at("wave"), "%d: want the number of name servers whose harm stops the feed", t.Wave)
	}
	if t.Prepend < 1 || t.Prepend > maxPrepend {
		src.fail(at("prepend"), "%d: want 1 to %d copies of our AS", t.Prepend, maxPrepend)
	}
}
