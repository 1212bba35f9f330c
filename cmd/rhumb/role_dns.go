package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"rhumb/authdns"
	"rhumb/placement"
)

// addDNS adds the role authdns: a server whose zones follow the inventory and
// whose answers follow the snapshot.
func addDNS(u *unit) error {
	c := authdns.Config{Site: u.cfg.Node.Site, Node: u.cfg.Node.Name, Version: version, Current: u.current,
		Mode: u.cfg.Mode, Logger: u.log, Registerer: u.metrics}
	for _, a := range u.cfg.Listen.Top {
		c.Listeners = append(c.Listeners, authdns.Listener{Level: placement.TopLevel, Addr: a})
	}
	for _, a := range u.cfg.Listen.Low {
		c.Listeners = append(c.Listeners, authdns.Listener{Level: placement.LowLevel, Addr: a})
	}
	srv, err := authdns.New(c)
	if err != nil {
		return fmt.Errorf("%s: %w", u.name, err)
	}
	first := make(chan struct{})
	z := &zoneKeeper{unit: u, server: srv, wanted: make(chan *placement.Inventory, 1), ready: sync.OnceFunc(func() { close(first) })}
	u.appliers = append(u.appliers, z)
	u.reports = append(u.reports, func(n *placement.Node) {
		st := srv.Status()
		n.DNS = &st
	})
	u.add("authdns", func(ctx context.Context) error {
		// Before its zones are loaded a server would refuse what it is there for,
		// and resolvers would take it for lame; silence sends them on to the next.
		select {
		case <-first:
		case <-ctx.Done():
		}
		return srv.Run(ctx)
	})
	u.add("zones", z.run)
	return nil
}

// zoneKeeper gives the server the zones that the inventory names, and then the
// snapshot. A zone that cannot be had keeps its last version and is tried again.
type zoneKeeper struct {
	unit   *unit
	server *authdns.Server
	wanted chan *placement.Inventory
	// loaded are the zones in the server; owned by run.
	loaded []placement.Zone
	// ready is called each time that the server has all zones it shall have.
	ready func()
}

// Apply passes a snapshot on; zones follow on their own, and after it.
func (z *zoneKeeper) Apply(ctx context.Context, s *placement.Snapshot) {
	z.server.Apply(ctx, s)
	select {
	case <-z.wanted:
	default:
	}
	z.wanted <- s.Inventory
}

const zoneRetry = 2 * time.Second

func (z *zoneKeeper) run(ctx context.Context) error {
	var inv *placement.Inventory
	var retry <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case inv = <-z.wanted:
		case <-retry:
		}
		retry = nil
		if slices.Equal(z.loaded, inv.Zones) {
			z.ready()
			continue
		}
		if err := z.load(ctx, inv); err != nil {
			z.unit.log.Error("zones: the last good version serves on", "err", err)
			retry = time.After(zoneRetry)
			continue
		}
		z.ready()
	}
}

// load fetches every zone by its digest and hands them over.
func (z *zoneKeeper) load(ctx context.Context, inv *placement.Inventory) error {
	var sources []authdns.Source
	var errs []error
	for _, zone := range inv.Zones {
		data, err := z.unit.store.Blob(ctx, zone.SHA256)
		if err != nil {
			errs = append(errs, fmt.Errorf("zone %s: %w", zone.Name, err))
			continue
		}
		sources = append(sources, authdns.Source{Zone: zone, Data: data, Steered: steeredNames(inv)})
	}
	if len(errs) > 0 {
		return errors.Join(errs...) // all or none: a missing zone must not end one that serves
	}
	if bad := z.server.SetZones(sources); len(bad) > 0 {
		z.unit.log.Error("zones: wrong ones keep their last version", "err", errors.Join(bad...))
	}
	z.loaded = slices.Clone(inv.Zones)
	return nil
}

func steeredNames(inv *placement.Inventory) []string {
	var out []string
	for _, s := range inv.Services {
		out = append(out, s.Names...)
	}
	return out
}
