package main

import (
	"cmp"
	"context"
	"time"

	"rhumb/placement"
)

// The pace of a unit's own report: looked at each second, written when it
// changed, and every few seconds all the same, so that its age can be seen.
const (
	reportEvery = time.Second
	reportFresh = 3 * time.Second
)

// record is this unit's Node record as it is now.
func (u *unit) record(now time.Time) placement.Node {
	n := placement.Node{Name: u.cfg.Node.Name, Site: u.cfg.Node.Site, Unit: u.name, Roles: u.roles, Version: version,
		Algorithms: []int{placement.Algorithm}, Started: u.started, At: now.UTC()}
	if s := u.current.Load(); s != nil {
		n.Snapshot, n.Digest = s.Name.String(), s.Digest
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

// reportLoop writes the record to the store.
func (u *unit) reportLoop(ctx context.Context) error {
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		u.session.SetNode(u.record(time.Now()))
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// event tells the fleet's log; without a store it stands in this unit's own log only.
func (u *unit) event(e placement.Event) {
	e.Node, e.Site = u.cfg.Node.Name, cmp.Or(e.Site, u.cfg.Node.Site)
	if u.cfg.Store.File != "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	go func() {
		defer cancel()
		if err := u.store.AddEvent(ctx, e); err != nil {
			u.log.Debug("an event did not reach the store", "text", e.Text, "err", err)
		}
	}()
}
