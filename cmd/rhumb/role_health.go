package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"rhumb/health"
	"rhumb/placement"
)

// addHealth adds the role health: an agent which looks at this site's clusters
// and listens to other sites, and the stream by which the units of this machine
// hear its votes.
func addHealth(u *unit) {
	stream := health.NewStream(u.socket("votes.sock"), u.log)
	u.add("stream", stream.Run)
	hearing := health.NewHearingStream(u.socket(hearingSocket), u.log)
	u.add("hearing", hearing.Run)
	units := health.NewUnits(u.socket(aliveSocket), u.log)
	u.add("units", units.Run)
	snaps := newSnapshotBox()
	u.appliers = append(u.appliers, snaps, newCappedCounter(u.metrics))
	var agent atomic.Pointer[health.Agent]
	u.reports = append(u.reports, func(n *placement.Node) {
		if a := agent.Load(); a != nil {
			r := a.Report()
			n.Health = r.Short()
			n.Alarms = slices.Concat(n.Alarms, healthAlarms(r))
		}
	})
	addVantage(u, func() []netip.AddrPort {
		if a := agent.Load(); a != nil {
			return a.Ended()
		}
		return nil
	})
	u.looks = func() *placement.HealthStats {
		if a := agent.Load(); a != nil {
			return a.Report()
		}
		return nil
	}
	u.desk.now = func(r placement.LookRequest, tell func(placement.LookAnswer)) bool {
		a := agent.Load()
		return a != nil && a.LookNow(r, tell)
	}
	evidence := health.NewEvidence(u.socket("evidence.sock"), func(e health.Encounter) {
		if a := agent.Load(); a != nil {
			a.Meet(e)
		}
	}, u.log)
	u.add("evidence", evidence.Run)
	u.add("health", func(ctx context.Context) error {
		_, site, err := u.awaitSnapshot(ctx)
		if err != nil {
			return err
		}
		u.awaitBound(ctx)
		machines, err := u.hearMachines()
		if err != nil {
			return err
		}
		return runHealth(ctx, u, site, health.Config{Stream: stream, Hearing: hearing.Tell, Units: units.Events(), Machines: machines, Misses: u.misses}, snaps.box, &agent)
	})
}

// boundWithin is how long the first look waits for the speaker.
const boundWithin = 5 * time.Second

// awaitBound waits until the addresses to look at are there. A look before would
// find every anycast cluster down at each start, and it would come back by ramp.
func (u *unit) awaitBound(ctx context.Context) {
	if u.bound == nil {
		return
	}
	select {
	case <-u.bound:
	case <-time.After(boundWithin):
	case <-ctx.Done():
	}
}

// runHealth builds the agent and owns it until it ends. A site without a beat
// address or an identity probes its own clusters and hears nobody.
func runHealth(ctx context.Context, u *unit, site *placement.Site, c health.Config, snaps <-chan *placement.Snapshot, shown *atomic.Pointer[health.Agent]) error {
	incarnation, err := nextIncarnation(filepath.Join(u.cfg.Node.DataDir, "incarnation"), time.Now())
	if err != nil {
		return err
	}
	teller := newVoteTeller(u.event)
	beats := u.beatsAs(site)
	c.Node, c.Site, c.Domain, c.NodeID, c.Incarnation = u.cfg.Node.Name, site.Name, site.Domain(), beats.Number, incarnation
	c.Interval, c.ScriptDir, c.Fit, c.Plan, c.Log, c.Metric = beatInterval, u.cfg.Scripts, u.fitness().Look, u.planRevision, u.log, u.metrics
	c.Away = u.away()
	c.Sink = func(v placement.Vote) { u.session.SetVote(v); teller.cast(v) }
	c.Ended = func(id placement.ClusterID) { u.session.DropVote(id); teller.forget(id) }
	if beats.Addr.IsValid() && u.identity != nil {
		conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(beats.Addr))
		if err != nil {
			return fmt.Errorf("beats: %w", err)
		}
		if err := conn.SetReadBuffer(beatBuffer); err != nil {
			u.log.Warn("beats: the socket's buffer stays small; a pause of this process may lose some", "err", err)
		}
		c.Beat = conn
	}
	agent := health.New(c)
	shown.Store(agent)
	done := make(chan error, 1)
	go func() { done <- agent.Run(ctx) }()
	var peers watching
	look := func(inv *placement.Inventory) {
		agent.SetServices(health.ServicesOf(inv))
		agent.Set(u.healthPeers(inv, &peers), health.Probes(inv, site.Name))
	}
	look(u.current.Load().Inventory)
	for {
		select {
		case s := <-snaps:
			look(s.Inventory)
		case err := <-done:
			return err
		}
	}
}

// beatBuffer holds the beats of some seconds' pause of ours, from a hundred sites;
// the kernel gives at most net.core.rmem_max.
const beatBuffer = 1 << 20

// beatInterval is that of a fleet of few sites: with three, a dead one
// is seen within a second, with six after a third of one.
const beatInterval = 100 * time.Millisecond

func (u *unit) planRevision() int64 {
	if s := u.current.Load(); s != nil {
		return s.Name.Plan
	}
	return 0
}

// healthPeers are the other sites which this one watches, of those that have a beat
// address and an identity.
func (u *unit) healthPeers(inv *placement.Inventory, w *watching) []health.Peer {
	var out []health.Peer
	w.follow(inv)
	for _, s := range inv.Sites {
		if u.identity == nil || !slices.Contains(w.names[u.cfg.Node.Site], s.Name) {
			continue
		}
		key, err := u.identity.PairKey(s.Name, s.Identity, "beat")
		if err != nil {
			u.log.Error("beats: a site is not heard", "peer", s.Name, "err", err)
			continue
		}
		for _, n := range s.BeatNodes() {
			out = append(out, health.Peer{Site: s.Name, NodeID: n.Number, Addr: n.Addr, Keys: [][32]byte{key},
				Watches: w.of(s.Name), HalfLife: inv.Comeback().HalfLife.D()})
		}
	}
	return out
}

// nextIncarnation returns a number above every earlier one of this node, by which
// others tell a restart from an old datagram; a clock set back must not lower it: the
// greater of a counter on disk and the seconds of the Unix time.
func nextIncarnation(file string, now time.Time) (uint32, error) {
	next := uint32(now.Unix())
	if b, err := os.ReadFile(file); err == nil && len(b) == 4 {
		next = max(next, binary.BigEndian.Uint32(b)+1)
	}
	if err := os.WriteFile(file, binary.BigEndian.AppendUint32(nil, next), 0o644); err != nil {
		return 0, fmt.Errorf("incarnation: %w", err)
	}
	return next, nil
}
