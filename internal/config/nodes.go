package config

import (
	"maps"
	"net/netip"
	"slices"

	"rhumb/placement"
)

// edgeNodeFile is one of several machines of a site with role edge.
type edgeNodeFile struct {
	Edge   netip.AddrPort   `yaml:"edge"`
	Beats  []netip.AddrPort `yaml:"beats"`
	Weight *int             `yaml:"weight"`
	QUICID string           `yaml:"quic_id"`
	// Sessions stands in for Weight.
	Sessions *int `yaml:"sessions"`
}

// maxNodeWeight is far beyond any difference between machines of one site.
const maxNodeWeight = 1000

// edgeNodes takes the nodes of a site, in order of their names. An address may stand there
// once: what is sent to one node must not reach another.
func (d *document) edgeNodes(site []string, s *siteFile) (out []placement.EdgeNode) {
	at := append(slices.Clone(site), "nodes")
	if len(s.Nodes) > 0 && s.Edge.IsValid() {
		d.fail(append(slices.Clone(site), "edge"), "is that of a site with one edge; this one has nodes, each with its own")
	}
	if len(s.Nodes) > 0 && s.QUICID != "" {
		d.fail(append(slices.Clone(site), "quic_id"), "is that of a site with one edge; this one has nodes, each with its own")
	}
	if len(s.Nodes) > 0 && s.Sessions != nil {
		d.fail(append(slices.Clone(site), "sessions"), "is that of a site with one edge; this one has nodes, each with its own")
	}
	taken := make(map[netip.AddrPort]bool)
	for _, name := range slices.Sorted(maps.Keys(s.Nodes)) {
		n, at := s.Nodes[name], append(slices.Clone(at), name)
		if !isLabel(name) {
			d.fail(at, "%q is not a name (lower-case letters, digits, hyphens)", name)
		}
		if !n.Edge.IsValid() {
			d.fail(at, "needs its own address for tunnel and hand-off: edge: ADDRESS:PORT")
		}
		w := deref(n.Weight, 1)
		if w < 1 || w > maxNodeWeight {
			d.fail(append(slices.Clone(at), "weight"), "%d: want 1 to %d", w, maxNodeWeight)
		}
		if n.Weight != nil && n.Sessions != nil {
			d.fail(append(slices.Clone(at), "weight"), "stands beside sessions, which says the same: one of them is enough")
		}
		d.edgeNodeAddresses(at, n, taken)
		out = append(out, placement.EdgeNode{Name: name, Edge: n.Edge, Beats: n.Beats, Weight: w, QUICID: n.QUICID, Sessions: d.sessions(at, n.Sessions)})
	}
	return out
}

// sessions reads how many sessions an edge serves at most, 0 where nobody says it.
func (d *document) sessions(at []string, n *int) int {
	if n != nil && (*n < 1 || *n > placement.DefaultSessions) {
		d.fail(append(slices.Clone(at), "sessions"), "%d: want 1 to %d", *n, placement.DefaultSessions)
	}
	return deref(n, 0)
}

// edgeNodeAddresses checks the addresses of one node and notes them.
func (d *document) edgeNodeAddresses(at []string, n edgeNodeFile, taken map[netip.AddrPort]bool) {
	check := func(key string, a netip.AddrPort) {
		if taken[a] || !usable(a) {
			d.fail(append(slices.Clone(at), key), "%s stands twice in the site, or is no address of a machine", a)
		}
		taken[a] = true
	}
	if n.Edge.IsValid() {
		check("edge", n.Edge)
	}
	for _, a := range n.Beats {
		check("beats", a)
	}
}
