package vip

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// Config says what an agent takes part in. All members of a site have the same Members, Leases
// and Key.
type Config struct {
	// Self is this node's name among the members.
	Self string
	// Members are the nodes that vote, three at least: of two, neither could tell the
	// other's end from a cut between them. At most one is added or taken away
	// at a time, so that any two majorities share a member.
	Members []Member
	Leases  []Lease
	// Device is where the addresses stand while they are ours.
	Device string
	// Key authenticates the members to each other.
	Key []byte
	// OnChange is told when a lease becomes ours, or ceases to be; nil for nobody.
	// It must not block.
	OnChange   func(lease string, ours bool)
	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil: no metrics
}

// Member is a node of the site, and its own addresses: one for each medium, in the
// same order at each member. What one medium loses the other brings.
type Member struct {
	Name  string
	Addrs []netip.AddrPort
}

// Lease is a set of addresses which have one owner. Several leases spread over the
// members: each prefers another one.
type Lease struct {
	Name  string
	Addrs []netip.Addr
}

// State is what a member knows of a lease.
type State struct {
	Lease string
	Addrs []netip.Addr
	// Ours tells whether this node answers.
	Ours bool
	// Owner is the member to whom this node granted the lease, or ""; a member that is
	// trying looks like an owner.
	Owner string
}

// maxMembers is more than a segment of one site has.
const maxMembers = 15

// check refuses what cannot work, or would work differently on another member.
func (c *Config) check() error {
	n := len(c.Members)
	if n < 3 || n > maxMembers {
		return fmt.Errorf("vip: %d members, want 3 to %d", n, maxMembers)
	}
	if c.Device == "" || len(c.Leases) == 0 || len(c.Key) == 0 || c.self() < 0 {
		return errors.New("vip: want a device, leases, a key, and this node among the members")
	}
	names := make(map[string]bool)
	for _, m := range c.Members {
		if names[m.Name] || len(m.Addrs) == 0 || len(m.Addrs) != len(c.Members[0].Addrs) {
			return fmt.Errorf("vip: member %q stands twice, or has not as many addresses as the others", m.Name)
		}
		names[m.Name] = true
	}
	owned := make(map[netip.Addr]bool)
	clear(names)
	for _, l := range c.Leases {
		if names[l.Name] || len(l.Addrs) == 0 {
			return fmt.Errorf("vip: lease %q stands twice, or has no addresses", l.Name)
		}
		names[l.Name] = true
		for _, a := range l.Addrs {
			if !a.IsValid() || a.Is4In6() || a.Zone() != "" || owned[a] {
				return fmt.Errorf("vip: lease %q: %s stands twice, or is not an address", l.Name, a)
			}
			owned[a] = true
		}
	}
	return nil
}

// self is this node's place in the list, or -1.
func (c *Config) self() int {
	return slices.IndexFunc(c.Members, func(m Member) bool { return m.Name == c.Self })
}

// order is who is preferred for a lease, by the hash of both names: each node computes the
// same, and a member more or less changes nothing among the others.
func (c *Config) order(lease string) []int {
	order := make([]int, len(c.Members))
	for i := range order {
		order[i] = i
	}
	score := func(i int) uint64 { return nameHash(lease + "\x00" + c.Members[i].Name) }
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(score(b), score(a)), cmp.Compare(c.Members[a].Name, c.Members[b].Name))
	})
	return order
}
