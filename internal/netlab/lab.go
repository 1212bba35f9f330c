package netlab

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// The address plan of the lab, documentation prefixes throughout (RFC 5737,
// RFC 3849). The IPv6 plan mirrors the IPv4 one.
//
//	192.0.2.0/24     2001:db8:53::/48          anycast, on lo of the sites; routed by BGP alone
//	198.51.100.0/25  2001:db8:64::/64          links, a /31 or /127 each, in order of declaration
//	198.51.100.128/25  2001:db8:64:1::/64      nodes' own addresses, on lo: routers, sites, ops;
//	                                           from .160 on, eight a site, those of its servers
//	203.0.113.0/24   2001:db8:100::/56         clients: every region has the block below
//
// Region number i (eu 0, us 1, ap 2) owns 203.0.113.(32*i)/28 and
// 2001:db8:100:(i in hexadecimal, times two)0::/60, in which host number 1 is
// the router, 2 the resolver and 3 onwards are the clients.
//
// The anycast blocks are text because netip has no constants.
const (
	AnycastV4 = "192.0.2.0/24"
	AnycastV6 = "2001:db8:53::/48"
)

// Regions of the lab in order of their blocks.
const (
	Europe  = "eu"
	America = "us"
	Asia    = "ap"
)

// LabSite places a site in a region.
type LabSite struct{ Name, Region string }

// LabOptions vary the lab. The zero value is the one that "rhumb lab" runs.
type LabOptions struct {
	Sites   []LabSite                       // default: ams1 in eu, nyc1 in us, tyo1 in ap
	Regions []string                        // default: eu, us, ap; at most 8
	Clients int                             // in each region; default 8, at most 12
	Delay   func(a, b string) time.Duration // one way between two regions; default: LabDelay
}

// siteDelay is the one-way delay between a site and its transit router; small,
// but present, so that every site hangs on a line which can be slowed.
const siteDelay = 500 * time.Microsecond

// LabDelay is the usual one-way delay between two regions of the lab.
func LabDelay(a, b string) time.Duration {
	pair := []string{a, b}
	slices.Sort(pair)
	switch pair[0] + pair[1] {
	case Europe + America:
		return 40 * time.Millisecond
	case Asia + America:
		return 75 * time.Millisecond
	case Asia + Europe:
		return 110 * time.Millisecond
	}
	return 20 * time.Millisecond
}

// withDefaults fills in the standard lab.
func (o LabOptions) withDefaults() LabOptions {
	if o.Sites == nil {
		o.Sites = []LabSite{{"ams1", Europe}, {"nyc1", America}, {"tyo1", Asia}}
	}
	if o.Regions == nil {
		o.Regions = []string{Europe, America, Asia}
	}
	if o.Clients == 0 {
		o.Clients = 8
	}
	if o.Delay == nil {
		o.Delay = LabDelay
	}
	return o
}

// RouterName names the transit router of a region.
func RouterName(region string) string { return "t-" + region }

// ResolverName names the resolver of a region.
func ResolverName(region string) string { return "res-" + region }

// ClientName names client number i, from 1, of a region.
func ClientName(region string, i int) string {
	return "client-" + region + "-" + strconv.Itoa(i)
}

// OpsName names the supervisor's own node.
const OpsName = "ops"

// LabBlock returns the client blocks of region number i.
func LabBlock(i int) (v4, v6 netip.Prefix) {
	a4 := [4]byte{203, 0, 113, byte(32 * i)}
	a6 := netip.MustParseAddr("2001:db8:100::").As16()
	a6[7] = byte(0x20 * i)
	return netip.PrefixFrom(netip.AddrFrom4(a4), 28), netip.PrefixFrom(netip.AddrFrom16(a6), 60)
}

// Lab declares the standard small internet: a transit router in every region,
// fully meshed through lines; a resolver and clients at each router; every site
// at its region's router through a line; and ops, where the supervisor lives, at
// the first. Unicast is routed statically, with a detour by every other router
// in case a mesh link goes down; anycast is left to BGP.
func Lab(o LabOptions) Topology {
	l := labPlan{LabOptions: o.withDefaults(), own: map[string][]netip.Addr{}, routes: map[string][]Route{}}
	for i, region := range l.Regions {
		l.addNode(RouterName(region), Router, region)
		l.addEdge(i, region)
	}
	for i, s := range l.Sites {
		l.addNode(s.Name, Site, s.Region)
		l.addServers(s.Name, i)
		l.attach(s.Name, s.Region, Impairment{Delay: siteDelay})
	}
	l.addNode(OpsName, Operator, l.Regions[0])
	l.attach(OpsName, l.Regions[0], Impairment{})
	l.mesh()
	for i := range l.nodes {
		l.nodes[i].Routes = l.routes[l.nodes[i].Name]
	}
	return Topology{Nodes: l.nodes, Links: l.links}
}

// labPlan gathers the declaration; numbers are given out in order.
type labPlan struct {
	LabOptions
	nodes  []Node
	links  []Link
	own    map[string][]netip.Addr // node → its loopback addresses
	routes map[string][]Route      // node → static routes
	nets   int                     // numbered links so far
}

// addNode declares a node with an address of its own on lo.
func (l *labPlan) addNode(name string, role Role, region string) {
	n := uint32(len(l.own) + 1)
	addrs := []netip.Addr{plus("198.51.100.128", n), plus("2001:db8:64:1::", n)}
	l.own[name] = addrs
	l.nodes = append(l.nodes, Node{Name: name, Role: role, Region: region, Loopback: addrs})
}

// Servers of a site have addresses of their own beside the site's, in a block of
// eight: 198.51.100.(160 + 8 k + j) for server j of site number k.
const (
	serversAt      = 32 // after the base of nodes' own addresses
	serversPerSite = 2
	serverBlock    = 8
)

// addServers gives site number k the addresses of its servers.
func (l *labPlan) addServers(site string, k int) {
	for j := range serversPerSite {
		n := uint32(serversAt + serverBlock*k + j)
		l.own[site] = append(l.own[site], plus("198.51.100.128", n), plus("2001:db8:64:1::", n))
	}
	l.nodes[len(l.nodes)-1].Loopback = l.own[site]
}

// addEdge declares what hangs at a region's router inside its client block: the
// resolver and the clients, each on an unnumbered link of its own.
func (l *labPlan) addEdge(i int, region string) {
	v4, v6 := LabBlock(i)
	resolver := []netip.Addr{host(v4, 2), host(v6, 2)}
	l.addLeaf(ResolverName(region), Resolve, region, i, 2)
	l.nodes[len(l.nodes)-1].Resolvers = resolver
	for c := range l.Clients {
		l.addLeaf(ClientName(region, c+1), Client, region, i, 3+c)
		l.nodes[len(l.nodes)-1].Resolvers = resolver
	}
}

// leafGateway is the router's IPv6 address on every leaf link: a neighbour is
// only asked for addresses of the link itself, so it must be one of the link.
const leafGateway = "fe80::1"

// addLeaf declares one machine of a client block.
func (l *labPlan) addLeaf(name string, role Role, region string, block, number int) {
	v4, v6 := LabBlock(block)
	router := RouterName(region)
	gateway := netip.MustParseAddr(leafGateway)
	addrs := []netip.Prefix{single(host(v4, number)), single(host(v6, number))}
	l.nodes = append(l.nodes, Node{Name: name, Role: role, Region: region})
	l.links = append(l.links, Link{
		A: End{Node: router, Addrs: []netip.Prefix{single(host(v4, 1)), netip.PrefixFrom(gateway, 64)}},
		B: End{Node: name, Addrs: addrs},
	})
	l.routes[name] = []Route{
		{Prefix: anywhere()[0], Link: router, Via: host(v4, 1)},
		{Prefix: anywhere()[1], Link: router, Via: gateway},
	}
	for _, p := range addrs {
		l.routes[router] = append(l.routes[router], Route{Prefix: p, Link: name})
	}
}

// attach joins a node to its region's router by a numbered link and routes its
// own addresses there.
func (l *labPlan) attach(name, region string, imp Impairment) {
	router := RouterName(region)
	up, down := l.number()
	l.links = append(l.links, Link{
		A: End{Node: router, Addrs: up}, B: End{Node: name, Addrs: down},
		Line: true, Impair: imp,
	})
	for i, p := range anywhere() {
		l.routes[name] = append(l.routes[name], Route{Prefix: p, Link: router, Via: up[i].Addr()})
	}
	for _, a := range l.own[name] {
		l.routes[router] = append(l.routes[router], Route{Prefix: single(a), Link: name, Via: down[family(a)].Addr()})
	}
}

// number gives out the next /31 and /127, RFC 3021 and RFC 6164.
func (l *labPlan) number() (a, b []netip.Prefix) {
	n := uint32(2 * l.nets)
	l.nets++
	ends := func(n uint32) []netip.Prefix {
		return []netip.Prefix{
			netip.PrefixFrom(plus("198.51.100.0", n), 31),
			netip.PrefixFrom(plus("2001:db8:64::", n), 127),
		}
	}
	return ends(n), ends(n + 1)
}

// Metrics of the mesh: the direct way first, then by one other router.
const (
	metricDirect = 10
	metricDetour = 20
)

// mesh joins all routers and routes every region's unicast between them.
func (l *labPlan) mesh() {
	gateway := map[[2]string][]netip.Prefix{} // at the first router, towards the second
	for i, a := range l.Regions {
		for _, b := range l.Regions[i+1:] {
			ea, eb := l.number()
			gateway[[2]string{a, b}], gateway[[2]string{b, a}] = eb, ea
			l.links = append(l.links, Link{
				A: End{Node: RouterName(a), Addrs: ea}, B: End{Node: RouterName(b), Addrs: eb},
				Line: true, Impair: Impairment{Delay: l.Delay(a, b)},
			})
		}
	}
	for _, from := range l.Regions {
		for i, to := range l.Regions {
			if from == to {
				continue
			}
			l.routeRegion(from, to, to, metricDirect, i, gateway)
			for k, by := range l.Regions {
				if by != from && by != to {
					l.routeRegion(from, to, by, metricDetour+k, i, gateway)
				}
			}
		}
	}
}

// routeRegion routes all unicast of region to (number i) at the router of from
// by the router of by.
func (l *labPlan) routeRegion(from, to, by string, metric, i int, gateway map[[2]string][]netip.Prefix) {
	v4, v6 := LabBlock(i)
	targets := []netip.Prefix{v4, v6}
	for _, n := range l.nodes {
		if n.Region == to && n.Role != Client && n.Role != Resolve {
			for _, a := range l.own[n.Name] {
				targets = append(targets, single(a))
			}
		}
	}
	targets = append(targets, l.linksOf(to)...)
	for _, p := range targets {
		via := gateway[[2]string{from, by}][0].Addr()
		if p.Addr().Is6() {
			via = gateway[[2]string{from, by}][1].Addr()
		}
		l.routes[RouterName(from)] = append(l.routes[RouterName(from)],
			Route{Prefix: p, Link: RouterName(by), Via: via, Metric: metric})
	}
}

// linksOf lists the numbered links between a region's router and its own nodes,
// so that packets sent from their addresses are answered.
func (l *labPlan) linksOf(region string) []netip.Prefix {
	var all []netip.Prefix
	for _, link := range l.links {
		if link.A.Node != RouterName(region) || !link.Line || l.isRouter(link.B.Node) {
			continue
		}
		for _, p := range link.A.Addrs {
			all = append(all, p.Masked())
		}
	}
	return all
}

// isRouter reports whether a node is the transit router of a region.
func (l *labPlan) isRouter(node string) bool {
	return slices.ContainsFunc(l.Regions, func(r string) bool { return RouterName(r) == node })
}

// anywhere is the default route of both families, IPv4 first.
func anywhere() [2]netip.Prefix {
	return [2]netip.Prefix{
		netip.PrefixFrom(netip.IPv4Unspecified(), 0),
		netip.PrefixFrom(netip.IPv6Unspecified(), 0),
	}
}

// family is 0 for IPv4 and 1 for IPv6, as in anywhere.
func family(a netip.Addr) int {
	if a.Is6() {
		return 1
	}
	return 0
}

// plus is the address n after base.
func plus(base string, n uint32) netip.Addr {
	a := netip.MustParseAddr(base)
	b := a.AsSlice()
	last := b[len(b)-4:]
	binary.BigEndian.PutUint32(last, binary.BigEndian.Uint32(last)+n)
	sum, _ := netip.AddrFromSlice(b)
	return sum
}

// host is address number n of a block.
func host(block netip.Prefix, n int) netip.Addr {
	return plus(block.Addr().String(), uint32(n))
}

// single is the prefix which contains a alone.
func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// String lists a topology for people: nodes, then links.
func (t Topology) String() string {
	var b []byte
	for _, n := range t.Nodes {
		b = fmt.Appendf(b, "%-12s %-8s %-3s %v\n", n.Name, n.Role, n.Region, t.Addresses(n.Name))
	}
	for _, l := range t.Links {
		b = fmt.Appendf(b, "%s-%s %s\n", l.A.Node, l.B.Node, l.Impair.Delay)
	}
	return string(b)
}
