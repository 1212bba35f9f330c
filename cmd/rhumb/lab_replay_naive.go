package main

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"rhumb/bgp"
	"rhumb/health"
	"rhumb/internal/config"
	"rhumb/placement"
)

// labNaiveCommand is what stands in the place of rhumb-bgp while a replay runs
// with --naive. It is a process of the lab alone: `serve` has no such role, and no
// setting leads here.
func labNaiveCommand(a *app) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "naive", Short: "Announce as health says, and ask nobody", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.LoadNode(file)
			if err != nil {
				return withCode(exitConfig, err)
			}
			return runNaive(cmd.Context(), a, cfg)
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "node file of a site of the lab")
	return cmd
}

// runNaive is the unit of bgp and health as `serve` builds it, with the same probes,
// votes, snapshots and engine. In the speaker's place stands the rule by which
// health checks are tied to anycast in many places: announced while the site's own
// checks pass and the configuration names it, withdrawn at once when not. For that
// rule the checks are made a second time, by an agent that knows of no other site
// and so has nobody to doubt itself by.
func runNaive(ctx context.Context, a *app, cfg *config.Node) error {
	u, err := newUnit(ctx, cfg, []string{config.RoleBGP, config.RoleHealth}, a.logger())
	if err != nil {
		return err
	}
	addHealth(u)
	addNaive(u)
	u.buildLoop()
	u.add("report", u.reportLoop)
	if err := addAPI(u, false); err != nil {
		return err
	}
	u.log.Warn("naive: neither guard, Anchors, Slots nor witness; faults are not told apart")
	return u.run(ctx)
}

// naive announces by one rule. Owned by the goroutine of its task.
type naive struct {
	u      *unit
	site   *placement.Site
	engine *bgp.GoBGP
	host   *bgp.Loopback
	attrs  bgp.Attrs
	bound  []netip.Addr
	on     map[netip.Prefix]bool
	checks *ownChecks
}

// ownChecks are what the site's own checks say, as an agent's sink. Safe for
// concurrent use.
type ownChecks struct {
	mu      sync.Mutex
	down    map[placement.ClusterID]string // object → cause
	changed chan struct{}
}

func (c *ownChecks) cast(v placement.Vote) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.down, v.Object)
	if v.State == placement.Down {
		c.down[v.Object] = or(v.Cause, "down")
	}
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// cause says why an object is down; empty where it is not.
func (c *ownChecks) cause(id placement.ClusterID) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.down[id]
}

func addNaive(u *unit) {
	snaps := newSnapshotBox()
	u.appliers = append(u.appliers, snaps)
	u.bound = make(chan struct{})
	var engine *bgp.GoBGP
	ready := make(chan struct{})
	u.reports = append(u.reports, func(n *placement.Node) {
		select {
		case <-ready:
			n.BGP = naiveStatus(u, engine)
		default:
		}
	})
	u.add("naive", func(ctx context.Context) error {
		_, site, err := u.awaitSnapshot(ctx)
		if err != nil {
			return err
		}
		c := u.speakerConfig(site)
		engine, err = bgp.StartGoBGP(ctx, bgp.GoBGPConfig{ASN: c.ASN, RouterID: c.RouterID, Port: c.Port, Peers: c.Peers, Logger: u.log})
		if err != nil {
			return err
		}
		close(ready)
		n := &naive{u: u, site: site, engine: engine, host: bgp.NewLoopback(), on: map[netip.Prefix]bool{},
			checks: &ownChecks{down: map[placement.ClusterID]string{}, changed: make(chan struct{}, 1)},
			attrs:  bgp.Attrs{LargeCommunities: []bgp.LargeCommunity{{c.MarkerASN, 1, uint32(c.SiteNumber)}}}}
		return n.run(ctx, snaps.box)
	})
}

// naiveStatus tells how the sessions are.
func naiveStatus(u *unit, engine *bgp.GoBGP) *placement.BGPStatus {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	st, err := engine.PeerState(ctx)
	if err != nil {
		u.log.Warn("naive: peers", "err", err)
	}
	out := &placement.BGPStatus{}
	for _, p := range st.Peers {
		out.Peers = append(out.Peers, placement.PeerStatus{Address: p.Address, ASN: p.ASN, State: p.State, Since: p.Since})
	}
	return out
}

// run follows snapshots until the context ends; then addresses and sessions go.
func (n *naive) run(ctx context.Context, snaps <-chan *placement.Snapshot) error {
	defer func() {
		for _, a := range n.bound {
			if err := n.host.Unbind(a); err != nil {
				n.u.log.Warn("naive: unbind", "err", err)
			}
		}
		if err := n.engine.Close(context.Background()); err != nil {
			n.u.log.Warn("naive: close", "err", err)
		}
	}()
	agent := health.New(health.Config{Node: n.u.cfg.Node.Name, Site: n.site.Name, Domain: n.site.Domain(), NodeID: n.site.Number,
		Sink: n.checks.cast, Ended: func(id placement.ClusterID) { n.checks.cast(placement.Vote{Object: id}) }, Log: n.u.log})
	var looking sync.WaitGroup
	defer looking.Wait()
	looking.Go(func() {
		if err := agent.Run(ctx); err != nil {
			n.u.log.Error("naive: checks", "err", err)
		}
	})
	for first := true; ; first = false {
		snap := n.u.current.Load()
		if err := n.follow(ctx, snap); err != nil {
			return err
		}
		if first {
			close(n.u.bound)
		}
		agent.Set(nil, health.Probes(snap.Inventory, n.site.Name))
		select {
		case <-ctx.Done():
			return nil
		case <-snaps:
		case <-n.checks.changed:
		}
	}
}

// follow announces what is wanted and withdraws the rest.
func (n *naive) follow(ctx context.Context, s *placement.Snapshot) error {
	wanted := map[netip.Prefix]bool{}
	for i := range s.Inventory.Prefixes {
		p := &s.Inventory.Prefixes[i]
		n.bind(s.Inventory, p.Prefix)
		why := naiveNo(s.Inventory, p, n.site.Name, n.checks.cause)
		if wanted[p.Prefix] = why == ""; why != "" && n.on[p.Prefix] {
			n.u.log.Warn("naive: withdrawn", "prefix", p.Prefix, "cause", why)
		}
	}
	for p := range n.on {
		if _, named := wanted[p]; !named {
			wanted[p] = false
		}
	}
	for _, p := range sortedPrefixes(wanted) {
		if err := n.set(ctx, p, wanted[p]); err != nil {
			return err
		}
	}
	return nil
}

// set makes one prefix announced or not.
func (n *naive) set(ctx context.Context, p netip.Prefix, on bool) error {
	if n.on[p] == on {
		return nil
	}
	n.on[p] = on
	step := placement.Withdrawn
	do := func() error { return n.engine.Withdraw(ctx, p) }
	if on {
		step = placement.Announce
		do = func() error { return n.engine.Announce(ctx, bgp.Route{Prefix: p, Attrs: n.attrs}) }
	}
	n.u.session.SetAnnounced(placement.Announced{Prefix: p, Site: n.site.Name, Node: n.u.cfg.Node.Name, Step: step})
	return do()
}

// naiveNo says why a site does not announce a prefix; empty where it does. What
// was not looked at yet is taken for well.
func naiveNo(inv *placement.Inventory, p *placement.Prefix, site string, down func(placement.ClusterID) string) string {
	if !slices.Contains(inv.AnnouncingSites(p), site) {
		return "not configured here"
	}
	for _, name := range p.Clusters {
		id := placement.ClusterID{Site: site, Name: name}
		if cause := down(id); cause != "" {
			return id.String() + ": " + cause
		}
	}
	return ""
}

// bind puts what the site serves within a prefix on lo, and leaves it there.
func (n *naive) bind(inv *placement.Inventory, p netip.Prefix) {
	var all []netip.Addr
	for _, a := range n.u.cfg.Listen.Top {
		all = append(all, a.Addr())
	}
	site := inv.Site(n.site.Name)
	if site == nil {
		return
	}
	for _, c := range site.Clusters {
		for _, a := range c.Addresses {
			all = append(all, a.Addr())
		}
	}
	for _, s := range inv.Services {
		if s.Edge == nil {
			continue
		}
		for _, v := range s.Edge.VIPs {
			all = append(all, v.Addr())
		}
	}
	for _, a := range all {
		if !p.Contains(a) || slices.Contains(n.bound, a) {
			continue
		}
		n.bound = append(n.bound, a)
		if err := n.host.Bind(a); err != nil {
			n.u.log.Warn("naive: bind", "err", err)
		}
	}
}

// sortedPrefixes are the keys in order.
func sortedPrefixes[V any](m map[netip.Prefix]V) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(m))
	for p := range m {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b netip.Prefix) int { return strings.Compare(a.String(), b.String()) })
	return out
}
