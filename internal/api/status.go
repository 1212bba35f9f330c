package api

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"rhumb/placement"
)

// Identity says which process answers.
type Identity struct {
	Node    string `json:"node"`
	Unit    string `json:"unit"`
	Version string `json:"version"`
	Lab     bool   `json:"lab,omitempty"`
}

// Status is one screen: what runs, what is loud, how fresh it is.
type Status struct {
	Identity
	Now      time.Time      `json:"now"`
	Healthy  bool           `json:"healthy"`
	Snapshot SnapshotStatus `json:"snapshot"`
	Store    StoreStatus    `json:"store"`
	Mode     placement.Mode `json:"mode"`
	// Modes by role, where a role differs from the fleet.
	Modes  map[string]placement.Mode `json:"modes,omitempty"`
	Leader string                    `json:"leader,omitempty"` // NODE/UNIT which holds the director's lease
	// Sites counts sites by status word.
	Sites    map[string]int    `json:"sites"`
	Units    int               `json:"units"`
	Zones    int               `json:"zones"`
	Services int               `json:"services"`
	Peers    SiteBGP           `json:"peers"`
	Edge     SiteEdge          `json:"edge"`
	Drains   []placement.Drain `json:"drains,omitempty"`
	Slots    []placement.Slot  `json:"slots,omitempty"`
	// Twins are the input-delayed twins of the fleet.
	Twins []Twin `json:"twins,omitempty"`
	// Notices are the loud things, worst first.
	Notices []Notice `json:"notices"`
}

// SnapshotStatus names the state in force here.
type SnapshotStatus struct {
	Name      string    `json:"name"`
	Digest    string    `json:"digest,omitempty"`
	Made      time.Time `json:"made,omitzero"` // when the plan was made
	By        string    `json:"by,omitempty"`
	Inventory int64     `json:"inventory"` // revision of the configuration and intents
	Plan      int64     `json:"plan"`      // newest plan known
}

// StoreStatus tells how fresh everything else is.
type StoreStatus struct {
	Connected bool      `json:"connected"`
	Heartbeat time.Time `json:"heartbeat,omitzero"`
	Age       float64   `json:"age_seconds"`
	// Encrypted and InClear count units by whether their traffic with the store leaves
	// their machine in clear. Waits is what keeps the store from going over to TLS.
	Encrypted int    `json:"encrypted"`
	InClear   int    `json:"in_clear"`
	Waits     string `json:"waits,omitempty"`
}

// encryption tells how all units speak with the store.
func (s *StoreStatus) encryption(nodes []placement.Node) {
	for i := range nodes {
		l := nodes[i].Store
		switch {
		case l == nil:
			continue
		case l.Encrypted:
			s.Encrypted++
		default:
			s.InClear++
		}
		s.Waits = cmp.Or(s.Waits, l.Waits)
	}
}

// Level says how loud a Notice is.
type Level string

// The levels of a Notice.
const (
	Page Level = "page" // somebody must look now
	Warn Level = "warn"
	Info Level = "info"
)

func (l Level) rank() int { return slices.Index([]Level{Page, Warn, Info}, l) }

// Notice is a loud condition.
type Notice struct {
	Level  Level  `json:"level"`
	Kind   string `json:"kind"`
	Object string `json:"object,omitempty"`
	Text   string `json:"text"`
	// Unit which raised it, NODE/UNIT; empty for this one.
	Unit string `json:"unit,omitempty"`
}

// StaleAfter is how old the store's last word may be before everything shown is
// called stale.
const StaleAfter = 15 * time.Second

// StatusOf makes the status document.
func StatusOf(s State, id Identity, sites []Site) Status {
	inv, plan := s.inventory(), s.plan()
	out := Status{
		Identity: id, Now: s.Now.UTC(), Mode: inv.Mode.Or(placement.Observe), Modes: inv.Roles,
		Sites: make(map[string]int), Units: len(s.Nodes), Zones: len(inv.Zones), Services: len(inv.Services),
		Slots: s.Slots, Store: StoreStatus{Connected: s.Connected, Heartbeat: s.Heartbeat},
		Snapshot: SnapshotStatus{Name: s.name(), Inventory: inv.Revision, Plan: plan.Revision, Made: plan.Made, By: plan.By},
	}
	if !s.Heartbeat.IsZero() {
		out.Store.Age = max(0, s.Now.Sub(s.Heartbeat).Seconds())
	}
	if s.Snapshot != nil {
		out.Snapshot.Digest = s.Snapshot.Digest
	}
	for _, site := range sites {
		out.Sites[site.Status]++
		out.Peers.Established += site.BGP.Established
		out.Peers.Configured += site.BGP.Configured
		out.Edge.sum(site.Edge)
	}
	for _, n := range s.Nodes {
		if n.Leader {
			out.Leader = n.Name + "/" + n.Unit
		}
	}
	for _, d := range inv.Drains {
		if d.Live() {
			out.Drains = append(out.Drains, d)
		}
	}
	out.Store.encryption(s.Nodes)
	out.Twins = TwinsOf(s)
	out.Notices = Notices(s, sites)
	out.Healthy = !slices.ContainsFunc(out.Notices, func(n Notice) bool { return n.Level == Page }) &&
		out.Sites[StatusDown] == 0 && s.Snapshot != nil
	return out
}

func (e *SiteEdge) sum(o SiteEdge) {
	e.Own += o.Own
	e.Foreign += o.Foreign
	e.Forwarded += o.Forwarded
	e.Moving += o.Moving
	e.MovedIn += o.MovedIn
	e.MovedOut += o.MovedOut
	e.Failed += o.Failed
}

// notices gathers loud things and forgets doubles.
type notices struct {
	list []Notice
}

func (n *notices) add(level Level, kind, object, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !slices.ContainsFunc(n.list, func(o Notice) bool { return o.Kind == kind && o.Object == object }) {
		n.list = append(n.list, Notice{Level: level, Kind: kind, Object: object, Text: text})
	}
}

// Notices returns everything an operator must see before anything else, worst first.
func Notices(s State, sites []Site) []Notice {
	n := &notices{list: []Notice{}}
	n.freshness(&s)
	n.encryption(s.Nodes)
	n.intents(&s)
	n.modes(s.inventory())
	n.verdicts(&s)
	n.routes(sites, s.inventory())
	n.zones(&s)
	n.alarms(&s)
	n.skew(&s)
	slices.SortStableFunc(n.list, func(a, b Notice) int {
		return cmp.Or(cmp.Compare(a.Level.rank(), b.Level.rank()), strings.Compare(a.Kind, b.Kind), strings.Compare(a.Object, b.Object))
	})
	return n.list
}

func (n *notices) freshness(s *State) {
	age := s.Now.Sub(s.Heartbeat)
	switch {
	case s.Snapshot == nil:
		n.add(Page, "NoSnapshot", "", "no snapshot yet: apply a fleet, or wait for the first plan")
	case !s.Connected:
		n.add(Warn, "StateStale", "", "the store does not answer; the last snapshot %s goes on serving", s.name())
	case !s.Heartbeat.IsZero() && age > StaleAfter:
		n.add(Warn, "StateStale", "", "last word of the store %s ago", age.Round(time.Second))
	}
}

// encryption tells that what decides about answers and routes is written and read in
// clear, by whom, and what keeps it so.
func (n *notices) encryption(nodes []placement.Node) {
	var s StoreStatus
	if s.encryption(nodes); s.InClear == 0 {
		return
	}
	why := ""
	if s.Waits != "" {
		why = ": " + s.Waits
	}
	n.add(Warn, "StoreInClear", "", "%d of %d units speak with the store in clear%s", s.InClear, s.InClear+s.Encrypted, why)
}

func (n *notices) intents(s *State) {
	inv := s.inventory()
	if inv.Frozen() {
		n.add(Warn, "Frozen", "", "frozen by %s: %s; nothing is decided by itself", inv.Freeze.Who, inv.Freeze.Reason)
	}
	for i := range inv.Drains {
		d := &inv.Drains[i]
		state := s.plan().Drain(d.Site)
		switch {
		case d.Expired(s.Now), d.Live() && state != nil && state.Expired:
			n.add(Page, "DrainExpired", d.Site, "the drain of %s ran out and it stays drained: rhumb undrain %s", d.Site, d.Site)
		case d.Live():
			n.add(Info, "Drain", d.Site, "%s is drained by %s: %s", d.Site, d.Who, d.Reason)
		}
	}
	for _, p := range inv.Pins {
		if p.Live() && p.Revision > 0 {
			n.add(Warn, "Pinned", p.Site, "%s is held at plan %d by %s: %s", p.Site, p.Revision, p.Who, p.Reason)
		}
	}
	for _, f := range inv.Forces {
		if f.Live() && f.State != placement.NoForce {
			n.add(Warn, "Forced", f.Object.String(), "%s is forced %s by %s: %s", f.Object, f.State, f.Who, f.Reason)
		}
	}
}

// modes names whatever only watches.
func (n *notices) modes(inv *placement.Inventory) {
	if len(inv.Sites) == 0 {
		return
	}
	if inv.Mode.Or(placement.Observe) == placement.Observe {
		n.add(Warn, "Observe", "", "mode observe: differences are computed, logged and counted; nothing is changed")
		return
	}
	for _, role := range []string{"authdns", "bgp", "edge"} {
		if inv.RoleMode(role) == placement.Observe {
			n.add(Warn, "Observe", role, "role %s observes and changes nothing", role)
		}
	}
	for _, svc := range inv.Services {
		if svc.Mode == placement.Observe {
			n.add(Info, "Observe", "service "+svc.Name, "service %s is observed only", svc.Name)
		}
	}
	for _, p := range inv.Prefixes {
		if p.Mode == placement.Observe {
			n.add(Info, "Observe", p.Prefix.String(), "prefix %s is observed only", p.Prefix)
		}
	}
}

func (n *notices) verdicts(s *State) {
	if s.Snapshot == nil {
		return
	}
	for _, v := range s.Snapshot.Verdicts {
		if v.Capped {
			n.add(Page, "RemovalCapped", v.Object.String(), "%s measures down and is kept in service by the removal cap: %s", v.Object, v.Cause)
		}
	}
	for i := range s.Snapshot.Maps {
		m := &s.Snapshot.Maps[i]
		if slices.ContainsFunc(m.Rows, func(r *placement.Row) bool { return r.FailOpen }) {
			n.add(Page, "FailOpenActive", m.Service.Name, "every cluster of %s is down: answers are given as if all were up", m.Service.Name)
		}
	}
	for _, sp := range s.plan().Services {
		if sp.Kept && sp.Refusal != nil {
			n.add(Warn, "ServiceKept", sp.Service, "the last good plan of %s stays: %v", sp.Service, sp.Refusal)
		}
	}
}

// routes finds prefixes which nobody announces, though nobody has retired them, and
// lowerings which were refused.
func (n *notices) routes(sites []Site, inv *placement.Inventory) {
	heard, loud := make(map[string]bool), make(map[string]bool)
	for _, site := range sites {
		for _, r := range site.Routes {
			p := r.Prefix.String()
			if r.Refusal != nil {
				hint := ""
				if r.Refusal.Hint != "" {
					hint = "; " + r.Refusal.Hint
				}
				n.add(Warn, "RouteRefused", site.Name+" "+p, "%s stays at %s at %s: %v%s", p, r.Announced, site.Name, r.Refusal, hint)
			}
			if r.Origin == "invalid" {
				n.add(Page, "OriginInvalid", site.Name+" "+p, "the RPKI calls our origin of %s at %s invalid (%s); announced: %s", p, site.Name, r.OriginText, r.Announced)
			}
			if r.Reported && r.Mode == placement.Act {
				heard[p] = true
				loud[p] = loud[p] || r.Announced != placement.Withdrawn
			}
		}
	}
	for _, site := range sites {
		for _, r := range site.Routes {
			if p := r.Prefix.String(); heard[p] && !loud[p] && inv.Retired(r.Prefix) == nil {
				n.add(Page, "PrefixNowhereAnnounced", p, "%s is announced nowhere", p)
			}
		}
	}
}

func (n *notices) zones(s *State) {
	ill := make(map[string][]string) // by catalog
	for _, z := range ZonesOf(*s) {
		if len(z.Conflicts) > 0 {
			n.add(Warn, "CatalogConflict", z.Name, "%s: %s", z.Conflicts[0].Unit, z.Conflicts[0].Error)
		}
		if z.Catalog != "" { // there may be thousands
			if len(z.Errors) > 0 {
				ill[z.Catalog] = append(ill[z.Catalog], z.Name+": "+z.Errors[0].Error)
			}
			continue
		}
		for _, e := range z.Errors {
			n.add(Warn, "ZoneNotServed", z.Name, "%s keeps the last good version of %s: %s", e.Unit, z.Name, e.Error)
		}
		if len(z.Warnings) > 0 { // of all units the same, so one speaks for all
			n.add(Warn, "ZoneSignaturesEnd", z.Name, "%s: %s", z.Name, z.Warnings[0].Error)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(ill)) {
		n.add(Warn, "ZoneNotServed", name, "zones that it lists keep their last good version, %d at least, the first %s", len(ill[name]), ill[name][0])
	}
}

func (n *notices) alarms(s *State) {
	if s.Snapshot != nil {
		for _, a := range s.Snapshot.Alarms {
			n.add(levelOf(a.Kind), a.Kind, a.Object, "%s", a.Text)
		}
	}
	for _, a := range s.Alarms {
		n.add(levelOf(a.Kind), a.Kind, a.Object, "%s", a.Text)
	}
	for i := range s.Nodes {
		unit := s.Nodes[i].Name + "/" + s.Nodes[i].Unit
		for _, a := range s.Nodes[i].Alarms {
			before := len(n.list)
			n.add(levelOf(a.Kind), a.Kind, a.Object, "%s", a.Text)
			if len(n.list) > before {
				n.list[before].Unit = unit
			}
		}
	}
}

// levelOf says which alarms wake somebody.
func levelOf(kind string) Level {
	switch kind {
	case "FailOpenActive", "DrainExpired", "AnchorsShrunk", "PrefixNowhereAnnounced", "PrefixAnnouncedWhileSiteDown",
		"RemovalCapped", "QuerySilence", "SiteDown", "TwinHeld":
		return Page
	}
	return Warn
}

// skew tells of units which serve another snapshot than most, or the same name
// with another digest.
func (n *notices) skew(s *State) {
	digests := make(map[string]string)
	for i := range s.Nodes {
		u := &s.Nodes[i]
		if u.Digest == "" || strings.HasSuffix(u.Snapshot, "+p") {
			continue
		}
		if d, ok := digests[u.Snapshot]; ok && d != u.Digest {
			n.add(Page, "DigestDiffers", u.Snapshot, "snapshot %s has two digests: %s of %s is not %s", u.Snapshot, short(u.Digest), u.Name+"/"+u.Unit, short(d))
		}
		digests[u.Snapshot] = cmp.Or(digests[u.Snapshot], u.Digest)
	}
	plan := s.plan()
	for i := range s.Nodes {
		u := &s.Nodes[i]
		name, err := placement.ParseName(u.Snapshot)
		if err == nil && u.Twin == nil && name.Plan < plan.Revision && s.Now.Sub(plan.Made) > StaleAfter && !pinned(s.inventory(), u.Site) {
			n.add(Warn, "SnapshotSkew", u.Name+"/"+u.Unit, "%s/%s serves snapshot %s, the newest plan is %d", u.Name, u.Unit, u.Snapshot, plan.Revision)
		}
	}
}

func pinned(inv *placement.Inventory, site string) bool {
	return slices.ContainsFunc(inv.Pins, func(p placement.Pin) bool { return p.Site == site && p.Live() && p.Revision > 0 })
}

func short(digest string) string { return digest[:min(len(digest), 8)] }
