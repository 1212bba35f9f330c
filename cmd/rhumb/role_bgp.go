package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"rhumb/bgp"
	"rhumb/edge/forward"
	"rhumb/internal/config"
	"rhumb/placement"
	"rhumb/placement/node"
	"rhumb/placement/store"
)

// addBGP adds the role bgp: a speaker which follows the snapshot and what other
// nodes announce.
func addBGP(u *unit) {
	snaps := newSnapshotBox()
	u.appliers = append(u.appliers, snaps)
	views := u.views.subscribe()
	u.bound = make(chan struct{})
	addRPKI(u)
	var speaker *bgp.Speaker
	ready := make(chan struct{})
	u.reports = append(u.reports, func(n *placement.Node) {
		select {
		case <-ready:
			st := speaker.Status()
			n.BGP = &st
		default:
		}
	})
	u.add("bgp", func(ctx context.Context) error {
		_, site, err := u.awaitSnapshot(ctx)
		if err != nil {
			return err
		}
		speaker = bgp.New(u.speakerConfig(site))
		close(ready)
		done := make(chan error, 1)
		go func() { done <- speaker.Run(ctx) }()
		return feedSpeaker(ctx, u, speaker, snaps.box, views, done)
	})
}

// feedSpeaker hands over each snapshot and each change of the announcements, until
// the speaker has ended: on the way out it takes its time, for a graceful shutdown.
func feedSpeaker(ctx context.Context, u *unit, s *bgp.Speaker, snaps <-chan *placement.Snapshot, views <-chan *store.View, done <-chan error) error {
	prepared := s.Prepared()
	standing := node.NewStanding(u.cfg.Node.Site)
	for {
		now := time.Now()
		snap, due := standing.Settle(u.current.Load(), now)
		s.Apply(ctx, u.twin.worse(snap), u.views.view().Announced)
		var again <-chan time.Time
		if !due.IsZero() {
			again = time.After(due.Sub(now))
		}
		select {
		case <-again:
		case <-prepared:
			close(u.bound)
			prepared = nil
		case <-snaps:
		case <-views:
		case err := <-done:
			return err
		}
	}
}

// speakerConfig maps the node file to the speaker. Without etcd there are neither
// slots nor announcements of others: the guard then asks the witness alone.
func (u *unit) speakerConfig(site *placement.Site) bgp.Config {
	b := u.cfg.BGP
	c := bgp.Config{Site: site.Name, SiteNumber: site.Number, Node: u.cfg.Node.Name, ASN: b.ASN, MarkerASN: b.MarkerASN, RouterID: b.RouterID,
		Port: b.Port, Mode: u.cfg.Mode, Host: bgp.NewLoopback(), NextHop4: b.NextHop4, NextHop6: b.NextHop6,
		InUse: u.inUse, Events: func(e bgp.Event) { u.event(routeEvent(e)) }, BFDEvents: func(e bgp.BFDEvent) { tellBFD(u.event, e) },
		Logger: u.log, Registerer: u.metrics}
	for _, a := range u.cfg.Listen.Top {
		c.Addresses = append(c.Addresses, a.Addr())
	}
	c.Peers = bgpPeers(b)
	if b.Engine == config.EngineKernel {
		c.Kernel = &bgp.KernelConfig{Table: b.Kernel.Table, Protocol: uint8(b.Kernel.Protocol), Pulse: pulseFile(u.cfg)}
	}
	if u.has("health") {
		c.Listening = u.listening
	}
	if !u.alone() {
		ann := announcer{u}
		c.Slots, c.Announcer, c.Renewed, c.Held = u.store, ann, u.session.Renewed, ann.held
	}
	c.Twin = u.twin != nil
	c.MaxAnnounced, c.RPKI, c.Known, c.Memory = b.MaxAnnounced, u.vrps, u.known, u.memory(site.Name)
	return c
}

// heldFile is where a speaker keeps, in its data_dir, what it announces.
const heldFile = "held.json"

// memory is what this node announced before, and may be silent about by the guard's leave only.
func (u *unit) memory(site string) *bgp.Memory {
	m, err := bgp.OpenMemory(filepath.Join(u.cfg.Node.DataDir, heldFile), site)
	if err != nil {
		u.log.Warn("bgp: what was announced before is not known; a prefix deleted since is silent", "err", err)
	}
	return m
}

// keepalive is a third of the hold time (RFC 4271, 4.4).
func keepalive(hold time.Duration) time.Duration { return (hold / 3).Truncate(time.Second) }

// listening tells why a prefix must not be announced yet: a cluster on it was
// never looked at. What was seen failing is the ladder's business.
func (u *unit) listening(p netip.Prefix) error {
	snap := u.current.Load()
	if snap == nil {
		return errors.New("no snapshot yet")
	}
	prefix := snap.Inventory.Prefix(p)
	if prefix == nil {
		return nil
	}
	for _, name := range prefix.Clusters {
		id := placement.ClusterID{Site: u.cfg.Node.Site, Name: name}
		if c := snap.Inventory.Cluster(id); c == nil {
			continue
		}
		if v := snap.Verdict(id); v.Own == placement.Unknown {
			return fmt.Errorf("%s was not checked yet", id)
		}
	}
	return nil
}

// inUse tells whether clients' sessions are served on an address of a service.
// The kernel is asked: the sessions are other processes'.
func (u *unit) inUse(a netip.Addr) bool {
	vips := slices.DeleteFunc(u.vips(func(*placement.Service) bool { return true }), func(v netip.AddrPort) bool { return v.Addr() != a })
	if len(vips) == 0 {
		return false
	}
	counts, err := forward.Sessions(vips)
	if err != nil {
		u.log.Warn("bgp: sessions are not counted; the address stays", "address", a, "err", err)
		return true
	}
	for _, n := range counts {
		if n > 0 {
			return true
		}
	}
	return false
}

// routeEvent says in a line what a speaker did, or what it was kept from.
func routeEvent(e bgp.Event) placement.Event {
	text := fmt.Sprintf("%s: %s → %s", e.Prefix, e.From, e.To)
	if e.Rule != "" {
		text = fmt.Sprintf("%s stays at %s: rule %s", e.Prefix, e.From, e.Rule)
	}
	if e.Cause != "" {
		text += ": " + e.Cause
	}
	if e.Observed {
		text += " (observed only)"
	}
	return placement.Event{At: e.At, Kind: "bgp", Text: text, Snapshot: e.Snapshot}
}

// announcer publishes what this node announces.
type announcer struct{ u *unit }

// SetAnnounced publishes a step.
func (a announcer) SetAnnounced(s placement.Announced) { a.u.session.SetAnnounced(s) }

// LeaveNode drops this node's announcement while another node of the site stays.
func (a announcer) LeaveNode(ctx context.Context, own placement.Announced, _ []placement.Announced) error {
	a.u.session.DropAnnounced(own.Prefix)
	return a.u.store.LeaveNode(ctx, own.Prefix, own.Node, own.Site)
}

// held tells whether the store shows a slot of this site; while it is away, all that
// was granted holds.
func (a announcer) held(prefix netip.Prefix) bool {
	v := a.u.views.view()
	return !v.Connected || slices.ContainsFunc(v.Slots, func(s placement.Slot) bool {
		return s.Prefix == prefix && s.Site == a.u.cfg.Node.Site
	})
}

// FreeSlot gives this site's slot of a prefix back, if it holds one.
func (a announcer) FreeSlot(ctx context.Context, prefix netip.Prefix, site string) error {
	slots := a.u.views.view().Slots
	i := slices.IndexFunc(slots, func(s placement.Slot) bool { return s.Prefix == prefix && s.Site == site })
	if i < 0 {
		return nil
	}
	err := a.u.store.FreeSlot(ctx, prefix, slots[i].Number, site, "announced again")
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}
