package netlab

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Role says what a Node is for; it decides forwarding and how tools list it.
type Role string

// The roles of a lab.
const (
	Client   Role = "client"
	Resolve  Role = "resolver"
	Router   Role = "router"
	Site     Role = "site"
	Operator Role = "ops" // the supervisor's own place in the network
)

// Node declares one machine.
type Node struct {
	Name      string       `json:"name"`
	Role      Role         `json:"role"`
	Region    string       `json:"region"`
	Loopback  []netip.Addr `json:"loopback,omitempty"`  // on lo, as /32 and /128
	Resolvers []netip.Addr `json:"resolvers,omitempty"` // written into the node's own /etc/resolv.conf
	Routes    []Route      `json:"-"`
}

// Route is a static route of a Node.
type Route struct {
	Prefix netip.Prefix
	Link   string     // interface it leaves by: the End's interface name
	Via    netip.Addr // next hop on that link, not necessarily of its subnet; invalid: directly attached
	Metric int        // the lower wins; zero is the kernel's default
}

// End is one side of a Link.
type End struct {
	Node  string
	If    string         // interface name, at most 15 bytes; empty: the other node's name
	Addrs []netip.Prefix // an address a /32 or /128 alone makes the end unnumbered
}

// Link joins two Nodes. With Line it passes through a delay line, whose
// Impairment may be changed while it runs; without, it is a bare veth pair.
type Link struct {
	A, B   End
	Line   bool
	Impair Impairment // applies to both directions at first
}

// Impairment is what a Line does to the frames of one direction.
type Impairment struct {
	Delay   time.Duration // one way
	Jitter  time.Duration // added, uniformly in [0, Jitter), order kept
	Loss    float64       // share of frames dropped, 0 to 1
	Reorder float64       // share of frames which skip the delay and so overtake
	Rate    int64         // bit/s of serialization; 0: unlimited
	Queue   int           // bytes held at most, what exceeds is dropped; 0: 16 MiB
}

// Topology declares a whole internet.
type Topology struct {
	Nodes []Node
	Links []Link
}

// maxIfName is IFNAMSIZ less the terminating zero.
const maxIfName = 15

// ifName is the interface name of end e whose other side is peer.
func (e End) ifName(peer End) string {
	if e.If != "" {
		return e.If
	}
	return peer.Node
}

// interfaces are the names of a node's ends of links.
func (t Topology) interfaces(node string) map[string]bool {
	all := map[string]bool{}
	for _, l := range t.Links {
		if l.A.Node == node {
			all[l.A.ifName(l.B)] = true
		}
		if l.B.Node == node {
			all[l.B.ifName(l.A)] = true
		}
	}
	return all
}

// Addresses lists every address of the named node, loopback first, in order of
// declaration, without repeats.
func (t Topology) Addresses(node string) []netip.Addr {
	var all []netip.Addr
	seen := map[netip.Addr]bool{}
	add := func(a netip.Addr) {
		if !seen[a] && !a.IsLinkLocalUnicast() {
			seen[a] = true
			all = append(all, a)
		}
	}
	for _, n := range t.Nodes {
		if n.Name == node {
			for _, a := range n.Loopback {
				add(a)
			}
		}
	}
	for _, l := range t.Links {
		for _, e := range []End{l.A, l.B} {
			if e.Node == node {
				for _, p := range e.Addrs {
					add(p.Addr())
				}
			}
		}
	}
	return all
}

// Check reports every way in which the declaration contradicts itself: names
// used twice, links to nowhere, an address at two nodes, routes over links that
// the node lacks.
func (t Topology) Check() error {
	c := topologyCheck{links: map[string]map[string]bool{}, owner: map[netip.Addr]string{}}
	for _, n := range t.Nodes {
		c.node(n)
	}
	for _, l := range t.Links {
		c.end(l.A, l.B)
		c.end(l.B, l.A)
		c.impair(l)
	}
	for _, n := range t.Nodes {
		c.routes(n)
	}
	return errors.Join(c.errs...)
}

// topologyCheck gathers what Check has seen so far.
type topologyCheck struct {
	links map[string]map[string]bool // node → its interface names
	owner map[netip.Addr]string
	errs  []error
}

// failf adds one contradiction; the check goes on, to name them all at once.
func (c *topologyCheck) failf(format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf("netlab: topology: "+format, args...))
}

// own notes an address. One node may have it on several links; two nodes may not,
// for anycast is announced by routing and not declared.
func (c *topologyCheck) own(a netip.Addr, node string) {
	if a.IsLinkLocalUnicast() {
		return // a scope of its own on each link
	}
	if o, taken := c.owner[a]; taken && o != node {
		c.failf("address %s is at %s and at %s", a, o, node)
	}
	c.owner[a] = node
}

// node checks a declaration by itself and notes its name.
func (c *topologyCheck) node(n Node) {
	switch {
	case n.Name == "":
		c.failf("a node without a name")
	case c.links[n.Name] != nil:
		c.failf("node %s is declared twice", n.Name)
	}
	c.links[n.Name] = map[string]bool{"lo": true}
	for _, a := range n.Loopback {
		c.own(a, n.Name)
	}
}

// end checks one side of a link and notes its interface.
func (c *topologyCheck) end(e, peer End) {
	name := e.ifName(peer)
	ifs := c.links[e.Node]
	switch {
	case ifs == nil:
		c.failf("link %s-%s: no node %q", e.Node, peer.Node, e.Node)
		return
	case e.Node == peer.Node:
		c.failf("link %s-%s: both ends at one node", e.Node, peer.Node)
		return
	case ifs[name]:
		c.failf("node %s: interface %s is used twice", e.Node, name)
	case name == "" || len(name) > maxIfName:
		c.failf("node %s: interface name %q is not of 1 to %d bytes", e.Node, name, maxIfName)
	}
	ifs[name] = true
	for _, p := range e.Addrs {
		c.own(p.Addr(), e.Node)
	}
}

// impair checks that only a line is asked to do what only a line can.
func (c *topologyCheck) impair(l Link) {
	i := l.Impair
	if !l.Line && i != (Impairment{}) {
		c.failf("link %s-%s: an impairment needs a line", l.A.Node, l.B.Node)
	}
	if err := i.check(); err != nil {
		c.failf("link %s-%s: %w", l.A.Node, l.B.Node, err)
	}
}

// check refuses values without a meaning.
func (i Impairment) check() error {
	switch {
	case i.Delay < 0, i.Jitter < 0, i.Rate < 0, i.Queue < 0:
		return errors.New("a negative delay, jitter, rate or queue")
	case i.Loss < 0, i.Loss > 1, i.Reorder < 0, i.Reorder > 1:
		return errors.New("a share outside 0 to 1")
	}
	return nil
}

// routes checks a node's routes, after all interfaces are known.
func (c *topologyCheck) routes(n Node) {
	for _, r := range n.Routes {
		switch {
		case !r.Prefix.IsValid() || r.Prefix != r.Prefix.Masked():
			c.failf("node %s: route to %s: not a network", n.Name, r.Prefix)
		case !c.links[n.Name][r.Link]:
			c.failf("node %s: route to %s: no interface %q", n.Name, r.Prefix, r.Link)
		case r.Via.IsValid() && r.Via.Is4() != r.Prefix.Addr().Is4():
			c.failf("node %s: route to %s: next hop %s of the other family", n.Name, r.Prefix, r.Via)
		}
	}
}
