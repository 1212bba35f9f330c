package main

import (
	"net/netip"
	"slices"

	"rhumb/internal/netlab"
)

// The numbers of the lab's autonomous systems (RFC 5398). Every site has one of
// its own, as RFC 6382 recommends for anycast: the transit routers' library never
// shows a peer a route with that peer's AS in it, so that sites of one AS would
// see no witness. Their routes are marked under one common number.
const (
	labMarkerASN = 64500
	labRouterASN = 64501 // the first router's; the others follow
	labSiteASN   = 64505 // the first site's; the others follow
)

// labSites are the sites in order of declaration, which is that of their numbers.
func labSites(topo netlab.Topology) []string { return nodesOf(topo, netlab.Site) }

// nodesOf are the nodes of a role in order of declaration.
func nodesOf(topo netlab.Topology, role netlab.Role) []string {
	var out []string
	for _, n := range topo.Nodes {
		if n.Role == role {
			out = append(out, n.Name)
		}
	}
	return out
}

// ownAddresses returns a node's unicast addresses on lo, the first of each family.
func ownAddresses(topo netlab.Topology, node string) []netip.Addr {
	var out []netip.Addr
	for _, n := range topo.Nodes {
		if n.Name != node {
			continue
		}
		for _, v6 := range []bool{false, true} {
			for _, a := range n.Loopback {
				if a.Is6() == v6 {
					out = append(out, a)
					break
				}
			}
		}
	}
	return out
}

// labASN is the autonomous system of a router or site; 0 for any other node.
func labASN(topo netlab.Topology, node string) uint32 {
	for i, r := range nodesOf(topo, netlab.Router) {
		if r == node {
			return labRouterASN + uint32(i)
		}
	}
	for i, s := range labSites(topo) {
		if s == node {
			return labSiteASN + uint32(i)
		}
	}
	return 0
}

// sitePeers are the transit router's addresses on a site's link, one a family.
func sitePeers(topo netlab.Topology, site string, frr []string) []labPeer {
	var out []labPeer
	for _, l := range topo.Links {
		if l.B.Node == site {
			for _, p := range l.A.Addrs {
				peer := labPeer{Addr: p.Addr(), ASN: labASN(topo, l.A.Node), BFD: true}
				if slices.Contains(frr, l.A.Node) {
					peer.BFDPort = frrBFDPort
				}
				out = append(out, peer)
			}
		}
	}
	return out
}

// routerConfig is the file of `rhumb lab router`.
type routerConfig struct {
	Name     string     `json:"name"`
	ASN      uint32     `json:"asn"`
	RouterID netip.Addr `json:"router_id"`
	Peers    []labPeer  `json:"peers"`
}

// labRouterConfig peers a router with the sites and routers on its numbered links.
func labRouterConfig(topo netlab.Topology, router string) routerConfig {
	c := routerConfig{Name: router, ASN: labASN(topo, router), RouterID: ownAddresses(topo, router)[0]}
	roles := make(map[string]netlab.Role)
	for _, n := range topo.Nodes {
		roles[n.Name] = n.Role
	}
	for _, l := range topo.Links {
		far := l.B
		if l.B.Node == router {
			far = l.A
		} else if l.A.Node != router {
			continue
		}
		site := roles[far.Node] == netlab.Site
		if !site && roles[far.Node] != netlab.Router {
			continue
		}
		for _, p := range far.Addrs {
			c.Peers = append(c.Peers, labPeer{Addr: p.Addr(), ASN: labASN(topo, far.Node), BFD: site})
		}
	}
	return c
}
