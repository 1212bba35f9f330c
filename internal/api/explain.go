package api

import (
	"cmp"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"rhumb/placement"
)

// ExplainRequest asks why a client gets the answer it gets.
type ExplainRequest struct {
	Name string `json:"name"`
	Type string `json:"type,omitempty"` // A (default), AAAA, NS …
	// Client is an address or a prefix: the end user, as ECS tells it. Without
	// one the resolver stands for its users.
	Client   string `json:"client,omitempty"`
	Resolver string `json:"resolver,omitempty"`
	// At names a state of the past, as 1042.17; empty: the one in force.
	At string `json:"at,omitempty"`
}

// Explanation is the whole chain from a question to its answer.
type Explanation struct {
	Snapshot string `json:"snapshot"`
	// Past is set when that was not the state in force. What is announced is known
	// of the present only, so that Anycast is empty then.
	Past   bool   `json:"past,omitempty"`
	Name   string `json:"name"`
	Type   string `json:"type"`
	Zone   string `json:"zone,omitempty"`
	Client Client `json:"client"`
	// Static is set when no service steers the name: the zone file answers.
	Static bool   `json:"static,omitempty"`
	Text   string `json:"text"` // the outcome in a sentence
	// Service and its mode; with observe the answer is what would be given.
	Service string           `json:"service,omitempty"`
	Policy  string           `json:"policy,omitempty"`
	Mode    placement.Mode   `json:"mode,omitempty"`
	Trace   *placement.Trace `json:"trace,omitempty"`
	// Demand of the client's class; none while nothing is asked from it.
	Demand  *ClassDemand  `json:"demand,omitempty"`
	Answer  *Answer       `json:"answer,omitempty"`
	Anycast []AnycastStep `json:"anycast,omitempty"`
	TookUS  float64       `json:"took_us"` // of the choice
	// Twin says how late the inputs are by which this node decides; empty where they are not.
	Twin string `json:"twin,omitempty"`
}

// Client is whom the decision is about.
type Client struct {
	Subnet   netip.Prefix `json:"subnet"`
	From     string       `json:"from"` // ecs, resolver
	Resolver netip.Addr   `json:"resolver,omitzero"`
	// Capped is set when the fleet uses fewer bits than were given.
	Capped bool `json:"capped,omitempty"`
}

// Answer is what the name server sends.
type Answer struct {
	Cluster string `json:"cluster,omitempty"` // SITE/CLUSTER
	// Clusters are all of which the answer is made, where the policy says of several.
	Clusters  []string     `json:"clusters,omitempty"`
	AllDown   string       `json:"all_down,omitempty"`
	Addresses []netip.Addr `json:"addresses,omitempty"`
	// CNAME is the name of others who serve.
	CNAME string `json:"cname,omitempty"`
	// NameServers of a referral, SITE/CLUSTER.
	NameServers []string `json:"name_servers,omitempty"`
	TTL         float64  `json:"ttl_seconds"`
	// Scope is the client block for which the answer holds; none without a subnet.
	Scope netip.Prefix `json:"scope,omitzero"`
}

// AnycastStep is what one site announces of a prefix in which an answer's
// address lies: there, routes choose the site and not the answer.
type AnycastStep struct {
	Prefix netip.Prefix   `json:"prefix"`
	Site   string         `json:"site"`
	Step   placement.Step `json:"step"`
	Want   placement.Step `json:"want"`
	Cause  string         `json:"cause,omitempty"`
}

// explainAt answers for a state of the past, as the State was then as far as it is
// kept: snapshot, inventory and plan.
func (s *Server) explainAt(r *http.Request, req ExplainRequest) (*Explanation, error) {
	st := s.cfg.State()
	if req.At == "" || req.At == st.name() {
		e, err := Explain(st, req, s.clock)
		if err == nil && st.Twin != nil {
			e.Twin = st.Twin.String()
		}
		return e, err
	}
	name, err := placement.ParseName(req.At)
	if err != nil {
		return nil, fmt.Errorf("explain: %w: %w", ErrInvalid, err)
	}
	if s.cfg.Past == nil {
		return nil, fmt.Errorf("explain at %s: %w", name, ErrNotHere)
	}
	snap, err := s.cfg.Past(r.Context(), name)
	if err != nil {
		return nil, fmt.Errorf("explain at %s (now %s): %w", name, cmp.Or(st.name(), "none"), err)
	}
	e, err := Explain(State{Snapshot: snap, Plan: snap.Plan, Inventory: snap.Inventory, Now: st.Now}, req, s.clock)
	if err != nil {
		return nil, err
	}
	e.Past, e.Anycast = true, nil
	return e, nil
}

// Explain runs the server's own choice with a Trace. took measures the choice
// alone; it is the caller's clock.
func Explain(s State, r ExplainRequest, clock func() time.Time) (*Explanation, error) {
	if s.Snapshot == nil {
		return nil, fmt.Errorf("explain %s: %w: no snapshot yet", r.Name, ErrUnavailable)
	}
	inv := s.Snapshot.Inventory
	out := &Explanation{Snapshot: s.name(), Name: fqdn(r.Name), Type: strings.ToUpper(cmp.Or(r.Type, "A")), Zone: zoneOf(inv, r.Name)}
	svc := serviceOf(inv, out.Name, out.Type)
	client, err := clientOf(inv, r, ignoresSubnet(inv, svc))
	if err != nil {
		return nil, fmt.Errorf("explain %s: %w", r.Name, err)
	}
	out.Client = client
	if svc == nil {
		return out, out.static(r.Name)
	}
	out.Service, out.Mode, out.Policy = svc.Name, serviceMode(inv, svc), svc.Policy
	out.Trace = &placement.Trace{Client: client.Subnet.Addr()}
	start := clock()
	choice, ok := s.Snapshot.Choose(svc.Name, client.Subnet.Addr(), out.Trace)
	out.TookUS = float64(clock().Sub(start).Nanoseconds()) / 1000
	if !ok {
		return nil, fmt.Errorf("explain %s: %w: the snapshot %s holds no service %s", r.Name, ErrNotFound, s.name(), svc.Name)
	}
	out.Demand = s.classDemand(svc.Name, out.Trace.Class)
	out.answer(&s, svc, &choice)
	return out, nil
}

// static ends the chain for names which no service steers.
func (e *Explanation) static(name string) error {
	if e.Zone == "" {
		return fmt.Errorf("explain %s: %w: no zone of the fleet encloses it", name, ErrNotFound)
	}
	e.Static = true
	e.Text = "static: zone " + e.Zone + " answers from its records; no service steers this name"
	return nil
}

// serviceOf finds the service which steers a name: by its names, or as a
// delegated zone whose name servers are chosen per resolver.
func serviceOf(inv *placement.Inventory, name, qtype string) *placement.Service {
	for i := range inv.Services {
		svc := &inv.Services[i]
		if slices.ContainsFunc(svc.Names, func(n string) bool { return fqdn(n) == name }) {
			return svc
		}
		if svc.Zone != "" && fqdn(svc.Zone) == name && qtype == "NS" {
			return svc
		}
	}
	return nil
}

func serviceMode(inv *placement.Inventory, svc *placement.Service) placement.Mode {
	if inv.Roles["authdns"] == placement.Observe {
		return placement.Observe
	}
	return svc.Mode.Or(inv.RoleMode("authdns"))
}

// ignoresSubnet tells whether no client subnet counts: with ECS off, in a referral, and
// where the policy of a service ignores it.
func ignoresSubnet(inv *placement.Inventory, svc *placement.Service) bool {
	if svc == nil {
		return inv.ECS.Off
	}
	p := inv.Policy(svc.Policy)
	return inv.ECS.Off || svc.IsNameServer() || p != nil && p.IgnoreECS
}

// clientOf finds whom to decide for, as the wire does: the client subnet cut to
// the fleet's cap (RFC 7871, 7.1.2), else the resolver's address. A subnet of no
// bits says nothing; where none counts, whoever is named stands there as the resolver.
func clientOf(inv *placement.Inventory, r ExplainRequest, ignored bool) (Client, error) {
	out := Client{From: "ecs"}
	if r.Resolver != "" {
		a, err := netip.ParseAddr(r.Resolver)
		if err != nil {
			return out, fmt.Errorf("%w: resolver %q is no address", ErrInvalid, r.Resolver)
		}
		out.Resolver = a.Unmap()
	}
	var p netip.Prefix
	var err error
	if r.Client != "" {
		if p, err = parsePrefix(r.Client); err != nil {
			return out, fmt.Errorf("%w: client %q is neither an address nor a prefix", ErrInvalid, r.Client)
		}
	}
	unused := p.Bits() <= 0 || ignored
	switch {
	case unused && out.Resolver.IsValid():
		out.From, out.Subnet = "resolver", netip.PrefixFrom(out.Resolver, out.Resolver.BitLen())
		return out, nil
	case p.Bits() <= 0:
		return out, fmt.Errorf("%w: name a client or a resolver", ErrInvalid)
	case ignored:
		out.From, out.Resolver = "resolver", p.Addr()
		out.Subnet = netip.PrefixFrom(p.Addr(), p.Addr().BitLen())
		return out, nil
	}
	limit := ecsBits(inv, p.Addr())
	out.Capped = p.Bits() > limit
	out.Subnet = netip.PrefixFrom(p.Addr(), min(p.Bits(), limit)).Masked()
	return out, nil
}

// ecsBits is the fleet's cap for the family of an address.
func ecsBits(inv *placement.Inventory, a netip.Addr) int {
	if a.Is6() {
		return cmp.Or(inv.ECS.Bits6, 56)
	}
	return cmp.Or(inv.ECS.Bits4, 24)
}

func parsePrefix(s string) (netip.Prefix, error) {
	if strings.Contains(s, "/") {
		return netip.ParsePrefix(s)
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	a = a.Unmap()
	return netip.PrefixFrom(a, a.BitLen()), nil
}

// answer fills what would go on the wire, and a sentence about it.
func (e *Explanation) answer(s *State, svc *placement.Service, c *placement.Choice) {
	pol := c.Map.Policy
	e.Answer = &Answer{TTL: c.TTL().Seconds(), Scope: e.scope(s.Snapshot.Inventory, c)}
	id, ok := c.Cluster()
	switch {
	case svc.IsNameServer():
		for _, ns := range s.Snapshot.NameServers(c, pol.Picks()) {
			e.Answer.NameServers = append(e.Answer.NameServers, ns.String())
		}
		e.Text = "refers to " + strings.Join(e.Answer.NameServers, ", ")
	case !ok:
		e.Answer.AllDown = string(cmp.Or(pol.AllDown, placement.FailOpen))
		e.Text = "no cluster is usable: " + e.Answer.AllDown
	default:
		e.Answer.Cluster, e.Answer.CNAME = id.String(), s.Snapshot.Inventory.CNAME(id)
		for _, a := range s.Snapshot.Addresses(c, e.Client.Subnet.Addr(), e.Type == "AAAA", pol.Picks()) {
			e.Answer.Addresses = append(e.Answer.Addresses, a.Addr())
		}
		e.Text = id.String()
		if pol.Answers.Set() && e.Answer.CNAME == "" {
			for _, i := range c.Clusters(e.Client.Subnet.Addr(), nil) {
				e.Answer.Clusters = append(e.Answer.Clusters, c.Map.Clusters[i].String())
			}
			e.Text = strings.Join(e.Answer.Clusters, ", ")
		}
		if e.Answer.CNAME != "" {
			e.Text += ": CNAME " + e.Answer.CNAME
		} else if len(e.Answer.Addresses) == 0 {
			e.Text += ", which has no address of type " + e.Type + ": NODATA"
		}
	}
	if e.Mode == placement.Observe {
		e.Text += " (observed only: the zone file answers)"
	}
	e.anycast(s)
}

// scope is the block for which a resolver may keep the answer: that of the
// choice, no longer than the fleet's cap, and none where no subnet was used.
func (e *Explanation) scope(inv *placement.Inventory, c *placement.Choice) netip.Prefix {
	switch {
	case e.Client.From != "ecs":
		return netip.Prefix{}
	case !c.Scope.IsValid():
		return e.Client.Subnet
	}
	return netip.PrefixFrom(e.Client.Subnet.Addr(), min(c.Scope.Bits(), ecsBits(inv, c.Scope.Addr()))).Masked()
}

// anycast lists, for each prefix that holds one of the answer's addresses, how
// loudly each site announces it.
func (e *Explanation) anycast(s *State) {
	inv := s.Snapshot.Inventory
	rows := Sites(*s, nil)
	slices.SortFunc(rows, func(a, b Site) int { return strings.Compare(a.Name, b.Name) })
	for i := range inv.Prefixes {
		p := inv.Prefixes[i].Prefix
		if !slices.ContainsFunc(e.Answer.Addresses, p.Contains) {
			continue
		}
		for _, row := range rows {
			for _, r := range row.Routes {
				if r.Prefix == p {
					e.Anycast = append(e.Anycast, AnycastStep{Prefix: p, Site: row.Name, Step: r.Announced, Want: r.Want, Cause: r.Cause})
				}
			}
		}
	}
}
