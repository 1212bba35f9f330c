package main

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"rhumb/health"
	"rhumb/placement"
)

// alarmEdgeNodeSilent tells that another node of a site's edge is dead.
const alarmEdgeNodeSilent = "EdgeNodeSilent"

// member is the edge that this machine is: its site, or one of the nodes of that.
func (u *unit) member(site *placement.Site) (placement.Member, error) {
	m, ok := site.Member(u.cfg.Node.Name)
	switch {
	case !ok && len(site.Nodes) > 0:
		return m, fmt.Errorf("role edge: node %s is none of sites.%s.nodes", u.cfg.Node.Name, site.Name)
	case !ok || u.identity == nil:
		return m, errors.New("role edge needs the site's edge address in the fleet and an identity in the node file")
	case m.Name != site.Name && u.cfg.VIP != nil:
		return m, fmt.Errorf("role edge: with sites.%s.nodes the router spreads clients over the nodes; addresses shared by lease (vip) have one owner", site.Name)
	}
	return m, nil
}

// edges are those of a fleet but one, in order of their sites.
func edges(inv *placement.Inventory, but string) (out []placement.Member) {
	for i := range inv.Sites {
		for _, m := range inv.Sites[i].Members() {
			if m.Name != but {
				out = append(out, m)
			}
		}
	}
	return out
}

// edgesOf names the edges of some sites.
func edgesOf(inv *placement.Inventory, sites []string) (out []string) {
	for _, name := range sites {
		if s := inv.Site(name); s != nil {
			for _, m := range s.Members() {
				out = append(out, m.Name)
			}
		}
	}
	return out
}

// hearingOfEdges says of each edge what is heard of its site.
func hearingOfEdges(inv *placement.Inventory, list []placement.Hearing) []placement.Hearing {
	if list == nil {
		return nil // nobody knows
	}
	out := make([]placement.Hearing, 0, len(list))
	for _, h := range list {
		by, silent := edgesOf(inv, h.By), edgesOf(inv, h.Silent)
		for _, name := range edgesOf(inv, []string{h.Site}) {
			h.Site, h.By, h.Silent = name, by, silent
			out = append(out, h)
		}
	}
	return out
}

// neighbours watches the other nodes of this site's edge by their beats, and beats for
// them. tell has the silent ones, whenever the set changes or one has come.
type neighbours struct {
	unit *unit
	self placement.Member
	tell chan []string
	// follow has the snapshots; who beats to whom follows them.
	follow chan *placement.Snapshot
	known  *prometheus.GaugeVec
}

// newNeighbours counts them in a metric.
func newNeighbours(u *unit, self placement.Member) (*neighbours, error) {
	n := &neighbours{unit: u, self: self, tell: make(chan []string), follow: make(chan *placement.Snapshot, 1),
		known: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "rhumb_edge_nodes", Help: "Other nodes of this site's edge, by what is heard of them."}, []string{"state"})}
	if err := u.metrics.Register(n.known); err != nil {
		return nil, fmt.Errorf("edge: register metrics: %w", err)
	}
	return n, nil
}

// apply lets the beats follow a snapshot. It does not block.
func (n *neighbours) apply(s *placement.Snapshot) {
	select {
	case <-n.follow: // an older one
	default:
	}
	n.follow <- s
}

// run watches and beats until the context ends. A site with one edge, or whose nodes
// have no beats, has nothing to watch.
func (n *neighbours) run(ctx context.Context) error {
	if len(n.self.Beats) == 0 {
		<-ctx.Done()
		return nil
	}
	key, err := n.key()
	if err != nil {
		return err
	}
	watch, err := health.ListenMachines(n.self.Beats, key, n.unit.log)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return watch.Run(ctx) })
	g.Go(func() error { return n.judge(ctx, watch) })
	g.Go(func() error { return n.beat(ctx, key) })
	return g.Wait()
}

// key is known to the nodes of this site alone.
func (n *neighbours) key() (key [32]byte, err error) {
	id := n.unit.identity
	own := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: id.Cert.Certificate[0]})
	if key, err = id.PairKey(id.Site, string(own), "edge-nodes"); err != nil {
		return key, fmt.Errorf("beats of edge nodes: %w", err)
	}
	return key, nil
}

// judge tells who is silent.
func (n *neighbours) judge(ctx context.Context, watch *health.Machines) error {
	state := make(map[string]health.UnitState)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-watch.Bell():
		}
		for _, e := range watch.Take() {
			if was, known := state[e.Machine]; e.Vantage || known && was == e.State {
				continue
			}
			state[e.Machine] = e.State
			n.unit.event(nodeEvent(n.self.Site, e))
		}
		silent := silentNodes(state)
		n.known.WithLabelValues("here").Set(float64(countState(state, health.UnitHere)))
		n.known.WithLabelValues("silent").Set(float64(len(silent)))
		select {
		case n.tell <- silent:
		case <-ctx.Done():
			return nil
		}
	}
}

func countState(state map[string]health.UnitState, want health.UnitState) (sum int) {
	for _, s := range state {
		if s == want {
			sum++
		}
	}
	return sum
}

// silentNodes are those that beat and don't any more. Who said goodbye is none: its
// sessions ended with it, and it may be back in a moment.
func silentNodes(state map[string]health.UnitState) []string {
	out := []string{}
	for name, s := range state {
		if s == health.UnitStalled {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// nodeEvent tells the log what becomes of a node.
func nodeEvent(site string, e health.MachineEvent) placement.Event {
	text := fmt.Sprintf("edge node %s is heard", e.Machine)
	switch e.State {
	case health.UnitStalled:
		text = fmt.Sprintf("edge node %s is silent: its neighbours go on with its sessions", e.Machine)
	case health.UnitLeft:
		text = fmt.Sprintf("edge node %s has stopped", e.Machine)
	}
	return placement.Event{At: time.Now(), Kind: "session", Site: site, Text: text}
}

// beat tells the other nodes that this one is there, wherever they listen now.
func (n *neighbours) beat(ctx context.Context, key [32]byte) error {
	var to []netip.AddrPort
	stop := func() {}
	var running errgroup.Group
	for {
		select {
		case <-ctx.Done():
			stop()
			return running.Wait()
		case s := <-n.follow:
			next := n.listeners(s.Inventory)
			if slices.Equal(next, to) {
				continue
			}
			stop()
			if err := running.Wait(); err != nil {
				return err
			}
			to = next
			inner, cancel := context.WithCancel(ctx)
			stop = cancel
			incarnation, err := nextIncarnation(filepath.Join(n.unit.cfg.Node.DataDir, "incarnation-edge"), time.Now())
			if err != nil {
				cancel()
				return err
			}
			p := health.Pulse{Node: n.self.Name, Incarnation: incarnation, Key: key, To: to, Log: n.unit.log,
				Listen: func() []netip.AddrPort { return nil }}
			running.Go(func() error { return p.Run(inner) })
		}
	}
}

// listeners are where the other nodes of this site hear beats.
func (n *neighbours) listeners(inv *placement.Inventory) (out []netip.AddrPort) {
	site := inv.Site(n.self.Site)
	if site == nil {
		return nil
	}
	for _, m := range site.Members() {
		if m.Name != n.self.Name {
			out = append(out, m.Beats...)
		}
	}
	return out
}

// silences takes which other nodes of this site are silent now: their sessions go on at
// whoever keeps their records. The router in front spreads all flows anew, so they are
// announced.
func (e *edgeRole) silences(silent []string) {
	e.silent = silent
	e.forwarder.SetSilent(silent)
	e.setDown()
	e.shown.Store(&silent)
	e.announceNear()
}

// announceNear tells the site's other nodes which flows are ours.
func (e *edgeRole) announceNear() {
	if _, err := e.forwarder.AnnounceNear(); err != nil {
		e.unit.log.Warn("edge: announcing the flows to the site's other nodes failed; they are asked for instead", "err", err)
	}
}

// setDown tells the agent which edges are lost.
func (e *edgeRole) setDown() {
	e.agent.SetDown(either(e.down, e.silent))
}

// nodeAlarms are raised for silent nodes.
func (e *edgeRole) nodeAlarms() (out []placement.Alarm) {
	if list := e.shown.Load(); list != nil {
		for _, name := range *list {
			out = append(out, placement.Alarm{Kind: alarmEdgeNodeSilent, Object: name, Text: fmt.Sprintf("edge node %s beats no more: its neighbours go on with its sessions", name)})
		}
	}
	return out
}
