package main

import (
	"context"
	"reflect"
	"time"

	"rhumb/placement"
	"rhumb/placement/node"
)

// The pace of a unit's own report: looked at each second, written at once when
// something changed that others act upon or an operator waits for, and else only
// so often that its age can be seen. Every write wakes every node of the fleet.
const (
	reportEvery = time.Second
	reportFresh = 3 * time.Second
)

// record is this unit's Node record as it is now.
func (u *unit) record(now time.Time) placement.Node {
	n := placement.Node{Name: u.cfg.Node.Name, Site: u.cfg.Node.Site, Unit: u.name, Roles: u.roles, Version: version,
		Algorithms: placement.Algorithms(), Started: u.started, At: now.UTC()}
	if s := u.current.Load(); s != nil {
		n.Snapshot, n.Digest, n.Listed = s.Name.String(), s.Digest, s.Listed
		if s.Classes != nil {
			n.ClassTable = s.Classes.Digest
		}
	}
	if u.loop != nil {
		n.Alarms = u.loop.Alarms()
	}
	for _, add := range u.reports {
		add(&n)
	}
	return n
}

// reportLoop writes the record to the store, and tells the log of alarms.
func (u *unit) reportLoop(ctx context.Context) error {
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	var written placement.Node
	var alarms alarmWatch
	for {
		now := time.Now()
		n := u.record(now)
		if worthWriting(&written, &n, now.Sub(written.At)) {
			u.session.SetNode(n)
			written = n
		}
		u.notify(alive(&n))
		for _, e := range alarms.look(told(n.Alarms)) {
			e.Snapshot = n.Snapshot
			u.event(e)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// told leaves out what every fleet begins with.
func told(alarms []placement.Alarm) []placement.Alarm {
	var out []placement.Alarm
	for _, a := range alarms {
		if a.Kind != node.AlarmNoPlan {
			out = append(out, a)
		}
	}
	return out
}

// worthWriting tells whether a record must replace the one written an age ago.
// Figures that never stand still (rates, counters, the record's own time, the
// seconds in an alarm's text) are worth no write of their own; states, names,
// routes, zones, alarms and the hand-offs under way are. Sessions count only as
// some or none: a drain waits for the last one.
func worthWriting(old, next *placement.Node, age time.Duration) bool {
	return old.At.IsZero() || age >= reportFresh || !reflect.DeepEqual(still(old), still(next))
}

// still is a record without what never stands still.
func still(n *placement.Node) placement.Node {
	out := *n
	out.At = time.Time{}
	out.Alarms, out.Health = nil, nil // what matters of looks is in the votes
	for _, a := range n.Alarms {
		out.Alarms = append(out.Alarms, placement.Alarm{Kind: a.Kind, Object: a.Object})
	}
	if n.DNS != nil {
		out.DNS = &placement.DNSStatus{Zones: n.DNS.Zones, Crashed: n.DNS.Crashed, Confined: n.DNS.Confined}
	}
	if n.Twin != nil {
		out.Twin = &placement.TwinStatus{Held: n.Twin.Held, Waits: n.Twin.Waits}
	}
	if n.Edge != nil {
		out.Edge = &placement.EdgeStats{Sessions: min(n.Edge.Sessions, 1), Foreign: min(n.Edge.Foreign, 1),
			Away: min(n.Edge.Away, 1), Moving: n.Edge.Moving, Failed: n.Edge.Failed}
		for _, r := range n.Edge.Relays {
			out.Edge.Relays = append(out.Edge.Relays, placement.EdgeRelay{To: r.To, Via: r.Via})
		}
		for _, h := range n.Edge.Handoffs {
			out.Edge.Handoffs = append(out.Edge.Handoffs, placement.EdgeHandoff{Service: h.Service, Servers: min(h.Servers, 1)})
		}
		if r := n.Edge.Reserve; r != nil {
			out.Edge.Reserve = &placement.EdgeReserve{Capacity: r.Capacity, Bare: min(r.Bare, 1)}
		}
		for _, p := range n.Edge.Prepared {
			out.Edge.Prepared = append(out.Edge.Prepared, placement.EdgePrepared{Site: p.Site, Since: p.Since})
		}
	}
	return out
}
