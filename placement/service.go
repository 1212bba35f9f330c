package placement

import "net/netip"

// Service is what clients ask for: names, how to choose, and where it lives.
type Service struct {
	Name string `json:"name"`
	// Names are the steered owner names, lower case and fully qualified; a name
	// is either static (in a zone file) or steered, never both.
	Names []string `json:"names,omitempty"`
	// Clusters are cluster names; each site which has one of them is eligible.
	Clusters []string `json:"clusters"`
	// Sites restricts the service to some sites; empty means every site.
	Sites  []string `json:"sites,omitempty"`
	Policy string   `json:"policy"`
	Check  string   `json:"check,omitempty"`
	// TTL overrides the policy's.
	TTL  Duration `json:"ttl,omitempty"`
	Mode Mode     `json:"mode"`
	// Zone is set for the name servers of a delegated zone: the service's
	// clusters are then name servers, and the answer is a referral.
	Zone string `json:"zone,omitempty"`
	// Demand is the expected load in requests per second by region. With PerQuery a
	// region counts for what is measured there, and never for less than this.
	Demand map[string]int64 `json:"demand,omitempty"`
	// PerQuery is how many requests reach the clusters for each query that name
	// servers answer, since resolvers keep answers; 0: what is measured is shown, and
	// counts for no plan.
	PerQuery int64 `json:"per_query,omitempty"`
	// HTTPS and SVCB are what the service's names say to questions of these types (RFC
	// 9460), beside the addresses of whoever serves the client; nil: nothing.
	HTTPS *Binding `json:"https,omitempty"`
	SVCB  *Binding `json:"svcb,omitempty"`
	Edge  *Edge    `json:"edge,omitempty"`
}

// Binding is how a service is reached where its addresses are (RFC 9460 section 7). It
// is the same for all of its clusters.
type Binding struct {
	// ALPN are protocols beside the default one of the scheme; with NoDefault without it.
	ALPN      []string `json:"alpn,omitempty"`
	NoDefault bool     `json:"no_default_alpn,omitempty"`
	// Port is another one than that of the scheme; 0: that one.
	Port uint16 `json:"port,omitempty"`
}

// EdgeKind is who owns the sockets of a service's sessions.
type EdgeKind string

// The kinds of edge service.
const (
	Forward EdgeKind = "forward" // another server on the host; nothing is terminated
	Content EdgeKind = "content" // our own HTTP server; sessions can move
	// Handoff is another server on the host that gives its sessions away by the
	// hand-off socket.
	Handoff EdgeKind = "handoff"
)

// Edge says how the client sessions of a Service are kept alive.
type Edge struct {
	Kind EdgeKind         `json:"kind"`
	Mode Mode             `json:"mode"`
	VIPs []netip.AddrPort `json:"vips"`
	// QUIC says how the owner of a QUIC connection to the VIPs is found; empty:
	// UDP is left to the kernel. Kind forward only.
	QUIC QUICOwner `json:"quic,omitempty"`
	// Root is a directory and Origin an HTTP URL; content has exactly one.
	Root   string `json:"root,omitempty"`
	Origin string `json:"origin,omitempty"`
	// Revival says whether content sessions go on after a crash; empty is ReviveOff.
	Revival Revival `json:"revival,omitempty"`
	// Freshness of what a session's Backup has, L0, L1 or, with uploads, L2; empty is L0.
	Freshness Freshness `json:"freshness,omitempty"`
	// Uploads is a directory on each of the service's nodes for what clients PUT, objects
	// of at most UploadMB MB (0: 1,024); empty: they may not.
	Uploads  string `json:"uploads,omitempty"`
	UploadMB int    `json:"upload_mb,omitempty"`
	// Cert and Key are files on each of the service's nodes; content without them
	// is served in clear.
	Cert string `json:"cert,omitempty"`
	Key  string `json:"key,omitempty"`
	// Events is the path below which the origin has event streams; empty: nowhere.
	// EventsStrict resumes none whose epoch no majority of its keepers knows.
	Events       string `json:"events,omitempty"`
	EventsStrict bool   `json:"events_strict,omitempty"`
	// ExportSecrets is how far the TLS secrets of sessions may go; empty: nowhere.
	ExportSecrets Export `json:"export_secrets,omitempty"`
}

// QUICOwner is how the owner of a QUIC connection is found.
type QUICOwner string

// The ways to find it.
const (
	QUICByFlow QUICOwner = "flow" // the site that saw it begin
	QUICByID   QUICOwner = "cid"  // the site which its connection id names
)

// Export is how far a secret may travel.
type Export string

// The reaches of a secret.
const (
	ExportNone  Export = "none"
	ExportSite  Export = "site"  // the machines of one site
	ExportGroup Export = "group" // the sites that take a session over
)

// Revival is what becomes of content sessions when their site or process dies.
type Revival string

// What it may be. It acts only where the service's mode does.
const (
	ReviveOff     Revival = "off"     // they end
	ReviveObserve Revival = "observe" // they end, and those that could have gone on are counted
	ReviveAct     Revival = "act"     // they go on at their Backup, or in the next process
)

// Freshness is how much of a content session a crash may cost.
type Freshness string

// The levels. Higher ones wait for more.
const (
	FreshL0 Freshness = "L0" // nothing waits for the record
	FreshL1 Freshness = "L1" // a response waits until its record is at the Backup
	FreshL2 Freshness = "L2" // and the acknowledgement of what a client sends until that is there
)

// Mapped tells whether the service is steered by answers at all.
func (s *Service) Mapped() bool { return len(s.Names) > 0 || s.Zone != "" }

// IsNameServer tells whether the answer of the service is a referral.
func (s *Service) IsNameServer() bool { return s.Zone != "" }
