package api

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"rhumb/placement"
)

// Peer is one BGP neighbour of one node.
type Peer struct {
	// Name is NODE/ADDRESS, unique in the fleet.
	Name        string `json:"name"`
	Site        string `json:"site"`
	Node        string `json:"node"`
	Established bool   `json:"established"`
	placement.PeerStatus
}

// PeersOf lists neighbours, those which are not established first; site ""
// means every site.
func PeersOf(s State, site string) []Peer {
	out := []Peer{}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if n.BGP == nil || site != "" && n.Site != site {
			continue
		}
		for _, p := range n.BGP.Peers {
			out = append(out, Peer{Name: n.Name + "/" + p.Address.String(), Site: n.Site, Node: n.Name,
				Established: established(p.State), PeerStatus: p})
		}
	}
	slices.SortStableFunc(out, func(a, b Peer) int {
		if a.Established != b.Established {
			return map[bool]int{true: 1, false: -1}[a.Established]
		}
		return cmp.Or(strings.Compare(a.Site, b.Site), strings.Compare(a.Name, b.Name))
	})
	return out
}

// NodeRoute is one prefix as one node announces it to all its neighbours.
type NodeRoute struct {
	Site string `json:"site"`
	Node string `json:"node"`
	placement.RouteStatus
}

// RoutesOf lists what the nodes of a site announce; site "" means every site.
func RoutesOf(s State, site string) []NodeRoute {
	out := []NodeRoute{}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if n.BGP == nil || site != "" && n.Site != site {
			continue
		}
		for _, r := range n.BGP.Routes {
			out = append(out, NodeRoute{Site: n.Site, Node: n.Name, RouteStatus: r})
		}
	}
	slices.SortStableFunc(out, func(a, b NodeRoute) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()),
			strings.Compare(a.Site, b.Site), strings.Compare(a.Node, b.Node))
	})
	return out
}

// Zone is a zone of the fleet and how the units serve it.
type Zone struct {
	Name        string          `json:"name"`
	Level       placement.Level `json:"level"`
	SHA256      string          `json:"sha256"`
	Size        int             `json:"size"`
	Names       int             `json:"names"`
	NameServers string          `json:"name_servers,omitempty"`
	// Primaries are those that the zone is copied from; empty where it has a file.
	Primaries []string `json:"primaries,omitempty"`
	// Copied tells that others may copy the zone.
	Copied bool `json:"copied,omitempty"`
	// Received is when the last unit has received the version that it serves.
	Received placement.Time `json:"received,omitzero"`
	// Serials from lowest to highest as served; one when all agree.
	Serials []uint32 `json:"serials"`
	// Served by so many units, of Units which answer DNS at all.
	Served int `json:"served"`
	Units  int `json:"units"`
	// Steered are the names in it which services answer.
	Steered []string    `json:"steered,omitempty"`
	Errors  []ZoneError `json:"errors,omitempty"`
	// Warnings are what will go wrong with the version that is served.
	Warnings []ZoneError `json:"warnings,omitempty"`
	// Catalog lists the zone, which is not in the configuration then. Of a long list some
	// zones are told of, those with errors first.
	Catalog string `json:"catalog,omitempty"`
	// Members are how many zones it lists, where it is a catalog, and Conflicts those
	// of them that are not taken, since somebody else has them.
	Members   int         `json:"members,omitempty"`
	Conflicts []ZoneError `json:"conflicts,omitempty"`
}

// ZoneError is why a unit does not serve the newest version, or not for long.
type ZoneError struct {
	Unit  string `json:"unit"`
	Error string `json:"error"`
}

// ZonesOf lists zones, those with errors first.
func ZonesOf(s State) []Zone {
	inv := s.inventory()
	out := make([]Zone, 0, len(inv.Zones))
	for _, z := range inv.Zones {
		view := Zone{Name: z.Name, Level: z.Level, SHA256: z.SHA256, Size: z.Size, Names: z.Names,
			NameServers: z.NameServers, Primaries: primaries(z.Secondary), Copied: z.Transfer != nil, Serials: []uint32{}, Steered: steered(inv, z.Name)}
		out = append(out, view)
	}
	out = append(out, listed(s, inv)...)
	for k := range out {
		for i := range s.Nodes {
			out[k].serve(&s.Nodes[i])
		}
		slices.Sort(out[k].Serials)
		out[k].Serials = slices.Compact(out[k].Serials)
	}
	slices.SortStableFunc(out, func(a, b Zone) int {
		return cmp.Or(cmp.Compare(len(b.Errors), len(a.Errors)), strings.Compare(a.Name, b.Name))
	})
	return out
}

// listed are the zones that units have from catalogs, each once.
func listed(s State, inv *placement.Inventory) []Zone {
	known := make(map[string]bool)
	for i := range inv.Zones {
		known[fqdn(inv.Zones[i].Name)] = true
	}
	var out []Zone
	for i := range s.Nodes {
		if s.Nodes[i].DNS == nil {
			continue
		}
		for _, st := range s.Nodes[i].DNS.Zones {
			if st.Catalog == "" || known[fqdn(st.Name)] {
				continue
			}
			known[fqdn(st.Name)] = true
			view := Zone{Name: st.Name, Level: st.Level, Catalog: st.Catalog, Serials: []uint32{}}
			if st.Primary != "" {
				view.Primaries = []string{st.Primary}
			}
			out = append(out, view)
		}
	}
	return out
}

// primaries are the addresses that a zone is copied from, in order.
func primaries(s *placement.Secondary) []string {
	if s == nil {
		return nil
	}
	var out []string
	for _, a := range s.Primaries {
		out = append(out, a.String())
	}
	return out
}

func (z *Zone) serve(n *placement.Node) {
	if n.DNS == nil {
		return
	}
	z.Units++
	for _, st := range n.DNS.Zones {
		if fqdn(st.Name) != fqdn(z.Name) {
			continue
		}
		z.Served++
		if z.SHA256 == "" {
			z.Names = max(z.Names, st.Names) // the fleet has no file to count
		}
		if st.Received.After(z.Received) {
			z.Received = st.Received
		}
		z.Serials = append(z.Serials, st.Serial)
		if st.Error != "" {
			z.Errors = append(z.Errors, ZoneError{Unit: n.Name + "/" + n.Unit, Error: st.Error})
		}
		z.Members = max(z.Members, st.Members)
		if st.Conflict != "" {
			z.Conflicts = append(z.Conflicts, ZoneError{Unit: n.Name + "/" + n.Unit, Error: st.Conflict})
		}
		if st.Warning != "" {
			z.Warnings = append(z.Warnings, ZoneError{Unit: n.Name + "/" + n.Unit, Error: st.Warning})
		}
	}
}

// steered lists the service names of which zone is the closest encloser.
func steered(inv *placement.Inventory, zone string) []string {
	var out []string
	for _, svc := range inv.Services {
		for _, name := range svc.Names {
			if zoneOf(inv, name) == fqdn(zone) {
				out = append(out, name)
			}
		}
	}
	slices.Sort(out)
	return out
}

// zoneOf returns the longest zone which encloses a name, or "".
func zoneOf(inv *placement.Inventory, name string) string {
	best := ""
	for _, z := range inv.Zones {
		zone := fqdn(z.Name)
		if (fqdn(name) == zone || strings.HasSuffix(fqdn(name), "."+zone)) && len(zone) > len(best) {
			best = zone
		}
	}
	return best
}

// fqdn writes a name as the nouns do: lower case, with the dot of the root.
func fqdn(name string) string {
	name = strings.ToLower(name)
	if !strings.HasSuffix(name, ".") {
		name += "."
	}
	return name
}

// Sessions is the client sessions of one node.
type Sessions struct {
	Site  string `json:"site"`
	Node  string `json:"node"`
	Total int    `json:"total"`
	SiteEdge
	// Away are those whose packets arrive at other sites and come by tunnel; the
	// longest since AwaySince, all together AwayRate octets a second.
	Away      int            `json:"away"`
	AwaySince placement.Time `json:"away_since,omitzero"`
	AwayRate  int64          `json:"away_rate"`
	// Backups are the sites which shadow them, nearest in failure first.
	Backups []string `json:"backups,omitempty"`
	Epoch   uint64   `json:"epoch,omitempty"`
}

// SessionsOf lists client sessions by node; site "" means every site. state
// leaves nodes out which have none in that state (own, foreign, forwarded, away, moving).
func SessionsOf(s State, site, state string) []Sessions {
	out := []Sessions{}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if n.Edge == nil || site != "" && n.Site != site {
			continue
		}
		row := Sessions{Site: n.Site, Node: n.Name, Total: n.Edge.Sessions + n.Edge.Foreign,
			Away: n.Edge.Away, AwaySince: n.Edge.AwaySince, AwayRate: n.Edge.AwayRate}
		row.add(n.Edge)
		if s.Snapshot != nil {
			row.Backups, row.Epoch = s.Snapshot.BackupOrder(n.Site)
		}
		if row.in(state) {
			out = append(out, row)
		}
	}
	slices.SortStableFunc(out, func(a, b Sessions) int {
		return cmp.Or(cmp.Compare(b.Moving, a.Moving), strings.Compare(a.Site, b.Site), strings.Compare(a.Node, b.Node))
	})
	return out
}

func (s *Sessions) in(state string) bool {
	switch state {
	case "own":
		return s.Own > 0
	case "foreign":
		return s.Foreign > 0
	case "forwarded":
		return s.Forwarded > 0
	case "away":
		return s.Away > 0
	case "moving":
		return s.Moving > 0
	}
	return true
}

// Slot is one of a prefix's slots, free or held.
type Slot struct {
	Prefix netip.Prefix `json:"prefix"`
	Number int          `json:"number"`
	Free   bool         `json:"free"`
	Site   string       `json:"site,omitempty"`
	Cause  string       `json:"cause,omitempty"`
	Taken  time.Time    `json:"taken,omitzero"`
	// Anchors of the prefix, and the sites which announce it now.
	Anchors    []string `json:"anchors,omitempty"`
	Announcing []string `json:"announcing"`
}

// SlotsOf lists every slot of every prefix, held ones first.
func SlotsOf(s State) []Slot {
	out := []Slot{}
	inv := s.inventory()
	for i := range inv.Prefixes {
		p := &inv.Prefixes[i]
		base := Slot{Prefix: p.Prefix, Free: true, Announcing: announcing(&s, p.Prefix)}
		if s.Snapshot != nil {
			base.Anchors = s.Snapshot.AnchorSites(p.Prefix)
		}
		for number := 1; number <= max(p.Slots, 1); number++ {
			out = append(out, base.held(s.Slots, number))
		}
	}
	slices.SortStableFunc(out, func(a, b Slot) int {
		if a.Free != b.Free {
			return map[bool]int{true: 1, false: -1}[a.Free]
		}
		return 0
	})
	return out
}

func (s Slot) held(slots []placement.Slot, number int) Slot {
	s.Number = number
	for _, h := range slots {
		if h.Prefix == s.Prefix && h.Number == number {
			s.Free, s.Site, s.Cause, s.Taken = false, h.Site, h.Cause, h.Taken
		}
	}
	return s
}

// announcing lists the sites which say they announce a prefix, at whatever step
// above withdrawn.
func announcing(s *State, p netip.Prefix) []string {
	out := []string{}
	for _, a := range s.Announced {
		if a.Prefix == p && a.Step != placement.Withdrawn {
			out = append(out, a.Site)
		}
	}
	for _, r := range RoutesOf(*s, "") {
		if r.Prefix == p && r.Announced != placement.Withdrawn {
			out = append(out, r.Site)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// NodesOf lists the units, by site, node and unit.
func NodesOf(s State) []placement.Node {
	out := slices.Clone(s.Nodes)
	slices.SortStableFunc(out, func(a, b placement.Node) int {
		return cmp.Or(strings.Compare(a.Site, b.Site), strings.Compare(a.Name, b.Name), strings.Compare(a.Unit, b.Unit))
	})
	if out == nil {
		out = []placement.Node{}
	}
	return out
}
