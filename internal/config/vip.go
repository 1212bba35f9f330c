package config

import (
	"maps"
	"net/netip"
	"slices"
)

// VIP says which addresses the nodes of this site share by a lease, without a router.
type VIP struct {
	// Device is where the addresses stand while this node owns them.
	Device string `yaml:"device"`
	// Members are the nodes of the site that vote, with an address each on every medium
	// by which they hear each other.
	Members map[string][]netip.AddrPort `yaml:"members"`
	// VoteOnly: this node owns nothing.
	VoteOnly bool `yaml:"vote_only"`
	// Leases are sets of addresses that have one owner each, by name.
	Leases map[string][]netip.Addr `yaml:"leases"`
}

const (
	minVIPMembers, maxVIPMembers = 3, 15
	maxDeviceName                = 15 // IFNAMSIZ - 1
)

// checkVIP checks the leases.
func (n *Node) checkVIP(src *source) {
	v := n.VIP
	if v == nil {
		return
	}
	if !slices.Contains(n.Node.Roles, RoleEdge) || n.Identity == "" {
		src.fail([]string{"vip"}, "needs role edge, and an identity for the key of the site")
	}
	if v.Device == "" || len(v.Device) > maxDeviceName {
		src.fail([]string{"vip", "device"}, "%q is not the name of a network device", v.Device)
	}
	n.checkVIPMembers(src)
	n.checkVIPLeases(src)
}

// checkVIPMembers wants three at least: of two neither could tell the other's end from a cut
// between them.
func (n *Node) checkVIPMembers(src *source) {
	v, at := n.VIP, []string{"vip", "members"}
	if c := len(v.Members); c < minVIPMembers || c > maxVIPMembers {
		src.fail(at, "%d members: want %d to %d, for more than half of them must agree; one may serve nothing and only vote", c, minVIPMembers, maxVIPMembers)
	}
	if v.Members[n.Node.Name] == nil {
		src.fail(at, "this node, %s, is none of them", n.Node.Name)
	}
	var seen []netip.AddrPort
	for _, name := range slices.Sorted(maps.Keys(v.Members)) {
		list := v.Members[name]
		if !isLabel(name) || len(list) == 0 || len(list) != len(v.Members[n.Node.Name]) {
			src.fail(at, "%s has %d addresses: want as many as this node has, one for each medium", name, len(list))
		}
		for _, a := range list {
			if !a.IsValid() || a.Port() == 0 || slices.Contains(seen, a) {
				src.fail(at, "%s: %s stands twice, or is not ADDRESS:PORT", name, a)
			}
			seen = append(seen, a)
		}
	}
}

func (n *Node) checkVIPLeases(src *source) {
	at := []string{"vip", "leases"}
	if len(n.VIP.Leases) == 0 {
		src.fail(at, "no lease: there is nothing to share")
	}
	var seen []netip.Addr
	for _, name := range slices.Sorted(maps.Keys(n.VIP.Leases)) {
		list := n.VIP.Leases[name]
		if !isLabel(name) || len(list) == 0 {
			src.fail(at, "lease %q: want a name and addresses", name)
		}
		for _, a := range list {
			if !a.IsValid() || a.Is4In6() || a.Zone() != "" || !a.IsGlobalUnicast() || slices.Contains(seen, a) {
				src.fail(at, "lease %s: %s stands twice, or is not a unicast address", name, a)
			}
			seen = append(seen, a)
		}
	}
}
