package placement

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Position is a point on the earth in degrees, latitude first: [52.37, 4.90].
type Position [2]float64

// Lat returns the latitude in degrees, north positive.
func (p Position) Lat() float64 { return p[0] }

// Lon returns the longitude in degrees, east positive.
func (p Position) Lon() float64 { return p[1] }

// Site is a PoP: one place with one fate. Its name stands in keys, labels and host
// names, so it never changes.
type Site struct {
	Name   string   `json:"name"`
	City   string   `json:"city,omitempty"`
	At     Position `json:"at"`
	Region string   `json:"region,omitempty"`
	// Number marks the site's routes (large community ASN:1:Number); 1..65535,
	// unique in the fleet.
	Number uint16 `json:"number"`
	// Domains are the failure domains it shares with others (ISP, power, build).
	// A quorum counts domains, not sites; empty means the site is its own domain.
	Domains []string `json:"domains,omitempty"`
	// Beat is where its health role hears the heartbeats of other sites.
	Beat netip.AddrPort `json:"beat"`
	// SecondBeat is where the health role of a second machine hears them.
	SecondBeat netip.AddrPort `json:"second_beat,omitzero"`
	// Edge is the unicast address for session control and the tunnel.
	Edge netip.AddrPort `json:"edge"`
	// Nodes are the machines with role edge, where several stand behind the site's router;
	// then Edge is not set.
	Nodes []EdgeNode `json:"nodes,omitempty"`
	// QUICID is the server id, in hexadecimal digits, that the site's QUIC servers
	// write into their connection ids (draft-ietf-quic-load-balancers).
	QUICID string `json:"quic_id,omitempty"`
	// Relay is what the site passes on for others round broken paths, octets a second;
	// 0 means 100 Mbit/s, less nothing.
	Relay int64 `json:"relay,omitempty"`
	// Sessions is how many sessions of our own server it serves at most; 0 means
	// DefaultSessions. Where there are Nodes it is not set.
	Sessions int `json:"sessions,omitempty"`
	// Identity is the site's certificate (PEM), signed by the offline group key;
	// it carries the public key from which pair keys for beats and tunnel come.
	Identity string    `json:"identity,omitempty"`
	Clusters []Cluster `json:"clusters"`
}

// secondNode is set in the number of a site's second machine among those that beat;
// sites with one have numbers below it.
const secondNode = 1 << 15

// BeatNode is a machine of a site that beats.
type BeatNode struct {
	Number uint16 // unique in the fleet
	Addr   netip.AddrPort
}

// BeatNodes are the machines of a site that beat: none, one or two.
func (s *Site) BeatNodes() (out []BeatNode) {
	if s.Beat.IsValid() {
		out = append(out, BeatNode{s.Number, s.Beat})
	}
	if s.Beat.IsValid() && s.SecondBeat.IsValid() {
		out = append(out, BeatNode{s.Number | secondNode, s.SecondBeat})
	}
	return out
}

// EdgeNode is one of several machines of a site with role edge.
type EdgeNode struct {
	Name string `json:"name"` // as in its node file
	// Edge is the node's own address for session control and the tunnel.
	Edge netip.AddrPort `json:"edge"`
	// Beats are where it hears the site's other nodes, an address in each network that
	// joins them; none: nobody notices its death but by the router.
	Beats []netip.AddrPort `json:"beats,omitempty"`
	// Weight is its capacity beside the other nodes'; 0 means 1.
	Weight int    `json:"weight,omitempty"`
	QUICID string `json:"quic_id,omitempty"` // as that of a site
	// Sessions is as that of a site; where it is given, Weight is not.
	Sessions int `json:"sessions,omitempty"`
}

// DefaultSessions is how many sessions an edge serves where nobody says it.
const DefaultSessions = 100_000

// Capacity is what an edge can take over from others, relative to what others can.
func (m *Member) Capacity() int {
	if m.Sessions > 0 {
		return m.Sessions
	}
	return max(m.Weight, 1) * DefaultSessions
}

// Member is one edge of the fleet: a site, or a node of a site with several. Sessions are
// owned and kept by members.
type Member struct {
	EdgeNode // Name is SITE, or SITE/NODE
	Site     string
}

// Members are the site's edges: itself, its nodes, or none.
func (s *Site) Members() []Member {
	if s.Edge.IsValid() {
		return []Member{{EdgeNode{Name: s.Name, Edge: s.Edge, Weight: 1, QUICID: s.QUICID, Sessions: s.Sessions}, s.Name}}
	}
	var out []Member
	for _, n := range s.Nodes {
		n.Name, n.Weight = s.Name+"/"+n.Name, max(n.Weight, 1)
		out = append(out, Member{n, s.Name})
	}
	return out
}

// Member returns the edge that a machine of the site is, false if it is none.
func (s *Site) Member(node string) (Member, bool) {
	for _, m := range s.Members() {
		if m.Name == s.Name || m.Name == s.Name+"/"+node {
			return m, true
		}
	}
	return Member{}, false
}

// Domain returns the failure domain in which the site's vantage votes. Sites with
// the same set of domains are one voice: what breaks one breaks the other.
func (s *Site) Domain() string {
	if len(s.Domains) > 0 {
		return strings.Join(s.Domains, "+")
	}
	return s.Name
}

// Cluster is a set of servers behind one address set in a Site. It is served or not
// as a whole: which of its servers works is the business of whoever balances it.
type Cluster struct {
	Name      string           `json:"name"`
	Addresses []netip.AddrPort `json:"addresses"`
	// CNAME stands in for addresses where others serve, who steer by themselves: a name
	// of theirs, lower case and fully qualified.
	CNAME string `json:"cname,omitempty"`
	// Capacity is in queries or requests per second; 0 means without limit.
	Capacity int64 `json:"capacity,omitempty"`
	// Check overrides the service's check for this cluster.
	Check string `json:"check,omitempty"`
}

// Foreign tells whether others serve at a site: nobody of ours looks at it, announces
// there, or keeps sessions.
func (s *Site) Foreign() bool {
	return len(s.Clusters) > 0 && !slices.ContainsFunc(s.Clusters, func(c Cluster) bool { return c.CNAME == "" })
}

// ClusterID names a Cluster in the fleet, or with Name "-" the Site itself.
type ClusterID struct {
	Site string
	Name string
}

// SiteItself is the Name of a ClusterID which means the whole site.
const SiteItself = "-"

// SiteID returns the object which stands for the whole site.
func SiteID(site string) ClusterID { return ClusterID{site, SiteItself} }

func (c ClusterID) String() string { return c.Site + "/" + c.Name }

// IsSite tells whether c means the site itself.
func (c ClusterID) IsSite() bool { return c.Name == SiteItself }

// Compare orders by site, then by name: the tie-break of every decision.
func (c ClusterID) Compare(o ClusterID) int {
	return cmp.Or(strings.Compare(c.Site, o.Site), strings.Compare(c.Name, o.Name))
}

// MarshalText prints SITE/CLUSTER; it makes the id usable as a JSON map key.
func (c ClusterID) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads SITE/CLUSTER. A second slash is refused: the id becomes part
// of keys in the store, where a slash separates.
func (c *ClusterID) UnmarshalText(b []byte) error {
	site, name, ok := strings.Cut(string(b), "/")
	if !ok || site == "" || name == "" || strings.Contains(name, "/") {
		return fmt.Errorf("cluster %q: want SITE/CLUSTER", b)
	}
	*c = ClusterID{site, name}
	return nil
}
