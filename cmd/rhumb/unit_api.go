package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"rhumb/internal/api"
	"rhumb/internal/config"
	"rhumb/internal/dash"
	"rhumb/placement"
	"rhumb/placement/store"
)

// addAPI serves this unit's API on its unix socket, on the node's HTTP address
// if this unit is the one that has it, and on any listener handed in.
func addAPI(u *unit, lab bool, more ...net.Listener) error {
	guard, err := guardOf(u.cfg, u.log)
	if err != nil {
		return fmt.Errorf("%s: %w", u.name, err)
	}
	srv, err := api.New(api.Config{State: u.apiState, Past: u.past, Delegation: u.delegation, Ops: newOps(u), Events: eventLog{u}, Gatherer: u.gatherer(), Registerer: u.metrics, Tokens: guard.tokens,
		Assets: assets(), Identity: api.Identity{Node: u.cfg.Node.Name, Unit: u.name, Version: version, Lab: lab}, Logger: u.log})
	if err != nil {
		return fmt.Errorf("%s: %w", u.name, err)
	}
	path := u.socket(u.name + ".sock")
	sock, err := u.estate.listen("api "+path, func() (net.Listener, error) { return api.ListenUnix(path) })
	if err != nil {
		return fmt.Errorf("%s: %w", u.name, err)
	}
	listeners := append([]net.Listener{sock}, more...)
	if u.cfg.Listen.HTTP != "" && u.servesHTTP() {
		l, err := u.estate.listen("http "+u.cfg.Listen.HTTP, func() (net.Listener, error) { return net.Listen("tcp", u.cfg.Listen.HTTP) })
		if err != nil {
			return fmt.Errorf("%s: %w", u.name, err)
		}
		if guard.tls != nil {
			l = tls.NewListener(l, guard.tls)
		}
		listeners = append(listeners, l)
	}
	u.add("api", func(ctx context.Context) error { return srv.Serve(ctx, listeners...) })
	views := u.views.subscribe()
	u.add("api-notify", func(ctx context.Context) error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-views:
				srv.Notify()
			}
		}
	})
	return nil
}

// servesHTTP tells whether this unit has the node's HTTP address: of the units of
// a node exactly one does, the one with the first of its roles.
func (u *unit) servesHTTP() bool {
	for _, r := range config.Roles() {
		if u.cfg.Has(r) {
			return slices.Contains(u.roles, r)
		}
	}
	return false
}

// apiState is what the views are drawn from.
func (u *unit) apiState() api.State {
	v := u.views.view()
	s := api.State{Snapshot: u.current.Load(), Nodes: v.Nodes, Slots: v.Slots, Announced: v.Announced, Loads: v.Loads, Demand: v.Demand,
		Plan: v.Plan, Inventory: v.Inventory, Connected: v.Connected, Heartbeat: v.Heartbeat, Now: time.Now()}
	if u.loop != nil {
		s.Alarms = u.loop.Alarms()
	}
	s.Twin = u.twin.status()
	s.Nodes = u.withLooks(s.Nodes)
	s.Looks, s.Looked = u.desk.seen()
	if len(s.Nodes) == 0 { // a role alone: this unit is all there is
		s.Nodes = append(s.Nodes, u.record(s.Now))
	}
	return s
}

// withLooks puts all looks of this unit in place of the few that its record holds.
func (u *unit) withLooks(nodes []placement.Node) []placement.Node {
	if u.looks == nil {
		return nodes
	}
	all := u.looks()
	i := slices.IndexFunc(nodes, func(n placement.Node) bool { return n.Name == u.cfg.Node.Name && n.Unit == u.name })
	if i < 0 || all == nil {
		return nodes
	}
	nodes = slices.Clone(nodes)
	nodes[i].Health = all
	return nodes
}

// eventLog reads the fleet's log.
type eventLog struct{ u *unit }

// Events returns what happened since an event.
func (l eventLog) Events(ctx context.Context, since int64, limit int) (events []placementEvent, err error) {
	events, err = l.u.store.Events(ctx, since, limit)
	return events, storeError(err)
}

// errorMap says as which of the API's errors an error of a part is told.
type errorMap struct{ from, as error }

// storeError turns the store's errors into those of the API, which wrap them.
func storeError(err error) error {
	// In this order: a write that was refused and then timed out was refused.
	for _, m := range []errorMap{{store.ErrConflict, api.ErrConflict}, {store.ErrNotFound, api.ErrNotFound},
		{context.DeadlineExceeded, api.ErrUnavailable}} {
		if errors.Is(err, m.from) {
			return fmt.Errorf("%w: %w", m.as, err)
		}
	}
	return err
}

// assets serves the pages.
func assets() http.Handler { return dash.Handler() }
