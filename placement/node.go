package placement

import "net/netip"

// Node is a machine running rhumb, as its units report themselves to the store
// (leased, so that a dead one vanishes). It is for people and for two questions:
// which algorithm can all run, and does everybody serve the same. Nothing lowers a
// route because a node is not listed.
type Node struct {
	Name string `json:"name"`
	Site string `json:"site"`
	Unit string `json:"unit"` // rhumb-bgp, rhumb-dns, rhumb-edge, rhumb-director, or rhumb
	// Roles that this unit runs: placement, authdns, bgp, health, edge.
	Roles   []string `json:"roles"`
	Version string   `json:"version"`
	// Algorithms lists the versions it can run.
	Algorithms []int  `json:"algorithms"`
	ClassTable string `json:"class_table"`
	// Snapshot in force, its digest, and since when.
	Snapshot string `json:"snapshot"`
	Digest   string `json:"digest,omitempty"`
	Listed   bool   `json:"listed,omitempty"` // as Snapshot.Listed
	Applied  Time   `json:"applied,omitzero"`
	Started  Time   `json:"started"`
	At       Time   `json:"at"`
	// Alarms of this unit: SnapshotStale, StateStale …
	Alarms []Alarm      `json:"alarms,omitempty"`
	DNS    *DNSStatus   `json:"dns,omitempty"`
	BGP    *BGPStatus   `json:"bgp,omitempty"`
	Edge   *EdgeStats   `json:"edge,omitempty"`
	Health *HealthStats `json:"health,omitempty"`
	Leader bool         `json:"leader,omitempty"` // holds the director's lease
	// Store is how its connections to the store run; nil: a version that knows no TLS
	// there, or a unit without such connections.
	Store *StoreLink `json:"store,omitempty"`
	// Twin is set where the node is an input-delayed twin.
	Twin *TwinStatus `json:"twin,omitempty"`
}

// TwinStatus is how late the inputs of an input-delayed twin are.
type TwinStatus struct {
	Delay  Duration `json:"delay"`
	Inputs Time     `json:"inputs"` // it acts by what was in force then
	// Held says why no newer inputs are taken, from HeldSince on, until an operator says
	// that all is well; Waits why they are not taken for the moment.
	Held      string `json:"held,omitempty"`
	HeldSince Time   `json:"held_since,omitzero"`
	Waits     string `json:"waits,omitempty"`
}

// String is the twin in a line.
func (t *TwinStatus) String() string {
	out := "twin, inputs of " + t.Inputs.UTC().Format("15:04:05")
	switch {
	case t.Held != "":
		out += ", feed held since " + t.HeldSince.UTC().Format("15:04:05") + " because of " + t.Held
	case t.Waits != "":
		out += ", feed waits: " + t.Waits
	}
	return out
}

// StoreLink is how a unit's connections to the store run.
type StoreLink struct {
	TLS       string `json:"tls"`       // the setting: off, allow, auto or require
	Encrypted bool   `json:"encrypted"` // nothing leaves the machine in clear
	// Ready tells that this unit gets on if the store takes TLS alone; if not, Missing
	// says why.
	Ready   bool   `json:"ready"`
	Missing string `json:"missing,omitempty"`
	// Member tells that it carries a member of the embedded store, and Waits what keeps
	// the members from going over to TLS.
	Member bool   `json:"member,omitempty"`
	Waits  string `json:"waits,omitempty"`
}

// DNSStatus is what an authdns role reports.
type DNSStatus struct {
	QPS float64 `json:"qps"`
	// Answers counts answers by the site they name, since start.
	Answers map[string]int64 `json:"answers,omitempty"`
	Zones   []ZoneStatus     `json:"zones,omitempty"`
	// Crashed is when a process of this name server last ended itself, Confined when a
	// kind of query was last put into quarantine here.
	Crashed  Time `json:"crashed,omitzero"`
	Confined Time `json:"confined,omitzero"`
}

// ZoneStatus is a zone as one unit serves it.
type ZoneStatus struct {
	Name   string `json:"name"`
	Serial uint32 `json:"serial"`
	Names  int    `json:"names"`
	Level  Level  `json:"level"`
	Error  string `json:"error,omitempty"` // why the newest version is not served
	// Warning is what will go wrong with the version that is served.
	Warning string `json:"warning,omitempty"`
	// Primary sent the version, at Received; both are of a zone that is copied from
	// elsewhere, and empty while it is served from disk.
	Primary  string `json:"primary,omitempty"`
	Received Time   `json:"received,omitzero"`
	// Catalog lists the zone; empty for one that is configured by itself.
	Catalog string `json:"catalog,omitempty"`
	// Members are how many zones it lists, where it is a catalog; Conflict says which of
	// them somebody else has.
	Members  int    `json:"members,omitempty"`
	Conflict string `json:"conflict,omitempty"`
}

// BGPStatus is what a bgp role reports.
type BGPStatus struct {
	Peers  []PeerStatus  `json:"peers"`
	Routes []RouteStatus `json:"routes"`
}

// PeerStatus is one neighbour.
type PeerStatus struct {
	Address netip.Addr `json:"address"`
	ASN     uint32     `json:"asn"`
	State   string     `json:"state"`
	Since   Time       `json:"since,omitzero"`
	Error   string     `json:"error,omitempty"`
	// BFD is the state of the peer's BFD session; empty where it is off.
	BFD string `json:"bfd,omitempty"`
}

// RouteStatus is one of our prefixes: what is wanted, what is announced, and
// what keeps the two apart.
type RouteStatus struct {
	Prefix    netip.Prefix `json:"prefix"`
	Want      Step         `json:"want"`
	Announced Step         `json:"announced"`
	Cause     string       `json:"cause,omitempty"`
	Since     Time         `json:"since,omitzero"`
	Refusal   *Refusal     `json:"refusal,omitempty"`
	Mode      Mode         `json:"mode"`
	Anchor    bool         `json:"anchor,omitempty"`
	Slot      int          `json:"slot,omitempty"` // 1.. when this site holds one
	MED       uint32       `json:"med,omitempty"`
	// Origin is what the RPKI says of our route: valid, invalid, not-found, or stale
	// where its data are too old; empty where nobody asks.
	Origin string `json:"origin,omitempty"`
	// OriginText names the VRPs which say so.
	OriginText string `json:"origin_text,omitempty"`
}

// EdgeStats is what an edge role reports.
type EdgeStats struct {
	Sessions  int   `json:"sessions"`  // of our own server
	Foreign   int   `json:"foreign"`   // of other servers on the VIPs (kinds forward and handoff)
	Forwarded int   `json:"forwarded"` // flows tunnelled to their owner
	Moving    int   `json:"moving"`
	MovedOut  int64 `json:"moved_out"`
	MovedIn   int64 `json:"moved_in"`
	Failed    int64 `json:"failed"`
	// Away counts the sessions served here whose packets arrive at other sites
	// and come by tunnel, within the last minute: what a leaving site still
	// serves. AwaySince is when the first packet of the longest came, AwayRate
	// the octets a second.
	Away      int   `json:"away,omitempty"`
	AwaySince Time  `json:"away_since,omitzero"`
	AwayRate  int64 `json:"away_rate,omitempty"`
	// Relays are the sites that are reached by a third one, since the path to them is
	// broken.
	Relays []EdgeRelay `json:"relays,omitempty"`
	// Prepared is what is made ready for the sessions of suspected sites.
	Prepared []EdgePrepared `json:"prepared,omitempty"`
	// Listeners are those of our own server.
	Listeners []EdgeListener `json:"listeners,omitempty"`
	// Handoffs are the services of kind handoff.
	Handoffs []EdgeHandoff `json:"handoffs,omitempty"`
	// Reserve is what is kept free for the sessions of others; nil: of a version that keeps
	// nothing free.
	Reserve *EdgeReserve `json:"reserve,omitempty"`
}

// EdgeReserve is how much of an edge's capacity is spoken for, in sessions of our own server.
type EdgeReserve struct {
	Capacity int    `json:"capacity"`
	Limit    int    `json:"limit"`          // what is served at most after the loss of others
	Most     int    `json:"most"`           // that one loss would bring here
	Loss     string `json:"loss,omitempty"` // which: a site or a failure domain
	// Bare are the edge's own sessions without a Backup, since nobody has room for them.
	Bare int `json:"bare,omitempty"`
	// Recall are those of them whose record is kept for the edge's next process alone: they
	// outlive a crash of the process, not the loss of the site.
	Recall int `json:"recall,omitempty"`
}

// EdgeHandoff is a service whose sessions another server gives away: how many such
// servers are connected to the node, and how many sessions are on the move.
type EdgeHandoff struct {
	Service string `json:"service"`
	Servers int    `json:"servers"`
	Moving  int    `json:"moving"`
}

// EdgeRelay is a site and by whom it is reached: since when, and how many octets of
// sessions went so.
type EdgeRelay struct {
	To    string `json:"to"`
	Via   string `json:"via"`
	Since Time   `json:"since"`
	Bytes int64  `json:"bytes"`
}

// EdgePrepared is a site that may be lost, since when, and how many of its sessions would
// go on at the node that says so: Ready of them without a look at disk or origin, Observed
// are only counted.
type EdgePrepared struct {
	Site     string `json:"site"`
	Since    Time   `json:"since"`
	Sessions int    `json:"sessions"`
	Ready    int    `json:"ready"`
	Observed int    `json:"observed,omitempty"`
}

// EdgeListener is one address of our own server and what is spoken there.
type EdgeListener struct {
	Service string         `json:"service"`
	VIP     netip.AddrPort `json:"vip"`
	Speaks  string         `json:"speaks"`            // protocols, and whether sessions can move
	Expires Time           `json:"expires,omitzero"`  // of the certificate in service
	Refused string         `json:"refused,omitempty"` // why the certificate's files are not
}
