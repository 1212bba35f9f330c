package placement

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Inventory is what the operator wants, at one store revision. It is immutable
// once published; slices are sorted by name.
type Inventory struct {
	// Revision is the store revision of the newest change folded in.
	Revision int64 `json:"revision"`
	Fleet
	Intents
}

// Fleet is the configured part of an Inventory: what `rhumb apply` writes.
type Fleet struct {
	Version   int             `json:"version"`
	Mode      Mode            `json:"mode"`
	Roles     map[string]Mode `json:"roles,omitempty"` // mode per role
	Sites     []Site          `json:"sites"`
	Checks    []Check         `json:"checks"`
	Policies  []Policy        `json:"policies"`
	Services  []Service       `json:"services"`
	Prefixes  []Prefix        `json:"prefixes"`
	Zones     []Zone          `json:"zones"`
	Overrides []Override      `json:"overrides,omitempty"`
	RTT       []RTT           `json:"rtt,omitempty"`
	ECS       ECS             `json:"ecs"`
	Safety    Safety          `json:"safety"`
	// Recovery is nil where the fleet says nothing of it: Comeback has the values.
	Recovery *Recovery `json:"recovery,omitempty"`
	// Revoked are the serial numbers of site certificates which nobody believes
	// any more: lower-case hex without leading zeros, in order.
	Revoked []string `json:"revoked,omitempty"`
	// SetAside are the rules which the apply of this configuration set aside by name,
	// and why: the guard must know what an operator has taken upon himself.
	SetAside Audit `json:"set_aside,omitzero"`
}

// Intents are the operator's standing orders beside the configuration.
type Intents struct {
	Drains []Drain `json:"drains,omitempty"`
	Forces []Force `json:"forces,omitempty"`
	Dials  []Dial  `json:"dials,omitempty"`
	Pins   []Pin   `json:"pins,omitempty"`
	Freeze Freeze  `json:"freeze,omitzero"`
	// Retirements outlive the prefixes they are about.
	Retirements []Retirement `json:"retirements,omitempty"`
}

// Level says on which listeners a Zone is served.
type Level string

// The two levels of DNS.
const (
	TopLevel Level = "top" // anycast; refers to the name servers of a region
	LowLevel Level = "low" // beside the edges; answers with the nearest cluster
)

// Zone is a zone file, immutable by its digest: nodes fetch it from wherever it is
// found, and need not trust who gave it to them.
type Zone struct {
	Name   string `json:"name"` // lower case, fully qualified
	SHA256 string `json:"sha256"`
	Size   int    `json:"size"`
	Names  int    `json:"names"` // owner names, for the shrink rule
	Level  Level  `json:"level"`
	// NameServers is the service whose clusters are the zone's name servers,
	// chosen per resolver; empty for a zone with a static NS set.
	NameServers string `json:"name_servers,omitempty"`
	// DNSSEC says who signs the zone: nobody, or the nodes as they answer.
	DNSSEC DNSSEC `json:"dnssec,omitempty"`
	// OtherKeys are those of other providers which sign it too, in order of name.
	OtherKeys []OtherKey `json:"other_keys,omitempty"`
	// Serial of the SOA, so that a change which secondaries would not see is noticed.
	Serial uint32 `json:"serial,omitempty"`
	// Transfer says who may copy the zone; nil: nobody.
	Transfer *Transfer `json:"transfer,omitempty"`
	// Secondary says where the zone is copied from; nil where it has a file. Then
	// SHA256, Size, Names and Serial are those of the file.
	Secondary *Secondary `json:"secondary,omitempty"`
	// Aliases are names that have the addresses of others, in order of name.
	Aliases []Alias `json:"aliases,omitempty"`
	// Catalog makes it a list of zones; nil for a zone of names.
	Catalog *Catalog `json:"catalog,omitempty"`
	// Listed is what our catalogs say of a zone that others may copy; nil: that there
	// is one.
	Listed *Listed `json:"listed,omitempty"`
}

// Alias is a name with the addresses of another one, beside records of its own. Both are
// lower case and fully qualified.
type Alias struct {
	Name   string `json:"name"`
	Target string `json:"target"`
}

// Listed is what catalogs of our own say of a zone.
type Listed struct {
	// Off keeps it out of all of them.
	Off bool `json:"off,omitempty"`
	// In is the one that lists it; empty: all of them.
	In string `json:"in,omitempty"`
	// Coo is the catalog that the zone is about to move to (RFC 9432 section 4.4.1).
	Coo string `json:"coo,omitempty"`
	// From is the one of our own that it moves from: it lists the zone still, and says
	// that it moves. Who follows both has to have heard that first.
	From string `json:"from,omitempty"`
	// Group is how it wants to be served by those who follow them (section 4.4.2).
	Group string `json:"group,omitempty"`
}

// Catalog says what becomes of a list of zones (RFC 9432). One that is copied is
// followed: each node serves what it lists. One without a file and a primary is made of
// the fleet's zones which others may copy.
type Catalog struct {
	Members CatalogMembers `json:"members"`
	// Groups are settings of their own for members whose producer names the group.
	Groups map[string]CatalogMembers `json:"groups,omitempty"`
}

// CatalogMembers are the settings of zones which a catalog lists.
type CatalogMembers struct {
	Level Level `json:"level"`
	// Secondary says where they are copied from; nil: from where the catalog is.
	Secondary *Secondary `json:"secondary,omitempty"`
	Transfer  *Transfer  `json:"transfer,omitempty"`
}

// Transfer says who may copy a zone, and who is told when it changes. Keys are
// names; the secrets lie on the nodes.
type Transfer struct {
	Allow []netip.Prefix `json:"allow,omitempty"`
	Keys  []string       `json:"keys,omitempty"`
	// Notify are secondaries, signed to with NotifyKey where that is set.
	Notify    []netip.AddrPort `json:"notify,omitempty"`
	NotifyKey string           `json:"notify_key,omitempty"`
}

// Secondary says where a zone is copied from.
type Secondary struct {
	// Primaries are asked in this order.
	Primaries []netip.AddrPort `json:"primaries"`
	Key       string           `json:"key,omitempty"`
	// TLS is the name in the primaries' certificate (RFC 9103); empty: in clear.
	TLS string `json:"tls,omitempty"`
	// AllowShrink takes a version that loses more names than the fleet's rule allows.
	AllowShrink bool `json:"allow_shrink,omitempty"`
}

// DNSSEC is how a zone is signed; empty: not at all.
type DNSSEC string

// Online: each node signs with the keys that it holds.
const Online DNSSEC = "online"

// Override forces the location of a client prefix, or of the clients of an AS; it
// beats every data set, since whoever runs a network knows better where it is.
type Override struct {
	// Prefix is invalid where AS is set. A prefix beats an AS.
	Prefix netip.Prefix `json:"prefix,omitzero"`
	// AS means all addresses whose longest route it announces, by the routing
	// tables of the nodes.
	AS       uint32   `json:"as,omitempty"`
	Location Location `json:"location"`
}

// Name is the override's key in a fleet file.
func (o Override) Name() string {
	if o.AS != 0 {
		return "AS" + strconv.FormatUint(uint64(o.AS), 10)
	}
	return o.Prefix.String()
}

// ECS caps how much of a client subnet option is used (RFC 7871), in bits. Longer
// scopes fill the caches of resolvers with one answer for each of their clients.
type ECS struct {
	Off   bool `json:"off,omitempty"`
	Bits4 int  `json:"bits4"`
	Bits6 int  `json:"bits6"`
}

// Safety are the thresholds of the rules which judge intents. Measured failures are
// never judged by them: a site that is dead is dead, however many were drained.
type Safety struct {
	MinSites        int     `json:"min_sites"`
	MaxDrains       int     `json:"max_drains"`
	MinHeadroom     float64 `json:"min_headroom"`
	MaxAnswerChange float64 `json:"max_answer_change"`
	KeepNames       float64 `json:"keep_names"` // the part of a zone's names an apply must keep
}

// Site returns the site of that name, or nil.
func (f *Fleet) Site(name string) *Site {
	return find(f.Sites, name, func(s *Site) string { return s.Name })
}

// Node returns the node of a site with several edges, by its name SITE/NODE, false if there
// is none.
func (f *Fleet) Node(name string) (Member, bool) {
	site, _, _ := strings.Cut(name, "/")
	if s := f.Site(site); s != nil && name != site {
		for _, m := range s.Members() {
			if m.Name == name {
				return m, true
			}
		}
	}
	return Member{}, false
}

// Service returns the service of that name, or nil.
func (f *Fleet) Service(name string) *Service {
	return find(f.Services, name, func(s *Service) string { return s.Name })
}

// Policy returns the policy of that name, or nil.
func (f *Fleet) Policy(name string) *Policy {
	return find(f.Policies, name, func(p *Policy) string { return p.Name })
}

// Check returns the check of that name, or nil.
func (f *Fleet) Check(name string) *Check {
	return find(f.Checks, name, func(c *Check) string { return c.Name })
}

// Zone returns the zone of that name, or nil.
func (f *Fleet) Zone(name string) *Zone {
	return find(f.Zones, name, func(z *Zone) string { return z.Name })
}

// Prefix returns the prefix's entry, or nil.
func (f *Fleet) Prefix(p netip.Prefix) *Prefix {
	i := slices.IndexFunc(f.Prefixes, func(e Prefix) bool { return e.Prefix == p })
	if i < 0 {
		return nil
	}
	return &f.Prefixes[i]
}

// Cluster returns the cluster of that id, or nil.
func (f *Fleet) Cluster(id ClusterID) *Cluster {
	s := f.Site(id.Site)
	if s == nil {
		return nil
	}
	return find(s.Clusters, id.Name, func(c *Cluster) string { return c.Name })
}

// CNAME is the name at which others serve as a cluster; empty for one of ours.
func (f *Fleet) CNAME(id ClusterID) string {
	if c := f.Cluster(id); c != nil {
		return c.CNAME
	}
	return ""
}

// Eligible returns the clusters which may serve a service, in order of id. No node
// asks whether they are well: the list is the same for as long as the inventory is,
// and candidates point into it by index.
func (f *Fleet) Eligible(s *Service) []ClusterID {
	var out []ClusterID
	for _, site := range f.Sites {
		if len(s.Sites) > 0 && !slices.Contains(s.Sites, site.Name) {
			continue
		}
		for _, c := range site.Clusters {
			if slices.Contains(s.Clusters, c.Name) {
				out = append(out, ClusterID{site.Name, c.Name})
			}
		}
	}
	slices.SortFunc(out, ClusterID.Compare)
	return out
}

// AnnouncingSites returns the sites which may announce a prefix, by name, each
// once: Anchors and Slots are counted against their number.
func (f *Fleet) AnnouncingSites(p *Prefix) []string {
	if len(p.Sites) > 0 {
		return slices.Compact(slices.Sorted(slices.Values(p.Sites)))
	}
	out := make([]string, 0, len(f.Sites))
	for _, s := range f.Sites {
		if !s.Foreign() {
			out = append(out, s.Name)
		}
	}
	slices.Sort(out)
	return out
}

// RoleMode returns the mode of a role: its own, else the fleet's, else observe.
func (f *Fleet) RoleMode(role string) Mode {
	return f.Roles[role].Or(f.Mode.Or(Observe))
}

// Drained returns the live drain of a site, or of a node of one (SITE/NODE), or nil.
func (i *Intents) Drained(site string) *Drain {
	for k := range i.Drains {
		if d := &i.Drains[k]; d.Site == site && d.Live() {
			return d
		}
	}
	return nil
}

// Forced returns the operator's word on an object; a force on the site holds
// for its clusters which have none of their own.
func (i *Intents) Forced(id ClusterID) ForceState {
	out := NoForce
	for k := range i.Forces {
		f := &i.Forces[k]
		if !f.Live() {
			continue
		}
		if f.Object == id {
			return f.State
		}
		if f.Object == SiteID(id.Site) {
			out = f.State
		}
	}
	return out
}

// Retired returns the live retirement of a prefix, or nil.
func (i *Intents) Retired(p netip.Prefix) *Retirement {
	for k := range i.Retirements {
		if r := &i.Retirements[k]; r.Prefix == p && r.Live() {
			return r
		}
	}
	return nil
}

// Frozen tells whether automatic decisions are stopped.
func (i *Intents) Frozen() bool { return i.Freeze.Reason != "" && i.Freeze.Live() }

// find returns the element of exactly that name: names are checked to be lower
// case when a fleet is read, and an intent about "AMS1" would be stored and then
// match no site. The slices are short and looked up
// off the hot path, so a map beside each would only be one more thing to keep
// equal.
func find[T any](list []T, name string, key func(*T) string) *T {
	for i := range list {
		if key(&list[i]) == name {
			return &list[i]
		}
	}
	return nil
}
