package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"rhumb/authdns"
	"rhumb/placement"
)

// addDNS adds the role authdns: a server whose zones follow the inventory and
// whose answers follow the snapshot. Its sockets are open when this returns. What
// it is asked by class is told to the fleet.
func addDNS(u *unit) error {
	c, err := dnsConfig(u)
	if err != nil {
		return fmt.Errorf("%s: %w", u.name, err)
	}
	x, err := newTransfers(u)
	if err != nil {
		return err
	}
	c.Transfers = x.desk
	if err := x.listenTLS(u, &c); err != nil {
		return fmt.Errorf("%s: %w", u.name, err)
	}
	c.Held, c.Settled = u.estate.forDNS()
	srv, err := authdns.New(c)
	if err != nil {
		return fmt.Errorf("%s: %w", u.name, err)
	}
	if f := srv.CrashOutput(); f != nil {
		if err := debug.SetCrashOutput(f, debug.CrashOptions{}); err != nil {
			u.log.Warn("a crash will look like a kill", "err", err)
		}
	}
	if u.twin != nil {
		u.twin.harmed(srv.Crashed(), time.Now())
	}
	first := make(chan struct{})
	z := &zoneKeeper{zones: srv, blob: u.store.Blob, copies: u.twin.delay(x.in, x.tell), changed: x.changed, log: u.log, keys: keyDir{dir: u.cfg.DNSSEC.Keys}, wanted: newBox[*placement.Inventory](), ready: sync.OnceFunc(func() { close(first) })}
	z.loaded = sync.OnceFunc(func() {
		if err := shedProgram(); err != nil {
			u.log.Info("the pages of the program that starting took stay resident", "err", err)
		}
	})
	if err := z.catalogs.register(u.metrics, x.in.Held); err != nil {
		return fmt.Errorf("%s: %w", u.name, err)
	}
	u.appliers = append(u.appliers, z)
	u.reports = append(u.reports, func(n *placement.Node) {
		st := srv.Status()
		x.report(st.Zones)
		st.Zones = z.catalogs.report(st.Zones)
		n.DNS = &st
		n.Alarms = append(slices.Clip(n.Alarms), overloadAlarms(n.Name, srv.Overload())...)
		n.Alarms = append(n.Alarms, aliasAlarms(n.Name, srv.StaleAliases())...)
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
	if u.estate != nil {
		u.estate.own(srv.Sockets())
		u.add("estate", func(ctx context.Context) error { return u.estate.succeed(ctx, first, srv.Sockets()) })
	}
	u.add("zones", z.run)
	if !u.alone() {
		u.add("demand", newDemandKeeper(srv.Demand, u.session.SetDemand, u.metrics).run)
	}
	u.add("notify", x.notifier.Run)
	u.add("secondaries", x.in.Run)
	if file := u.cfg.DNS.Cookies; file != "" {
		u.add("cookies", func(ctx context.Context) error {
			return followSecrets(ctx, "cookie secrets", file, readSecrets, c.Secrets, srv.SetSecrets, u.log)
		})
	}
	return nil
}

// zoneServer is what a zoneKeeper feeds: the name server.
type zoneServer interface {
	SetZones([]authdns.Source) []error
	Apply(context.Context, *placement.Snapshot)
}

// zoneKeeper gives the server the zones that the inventory names. Zones come by
// digest, from the cache on disk if they are there, so that a start needs no
// store. A zone that cannot be had keeps its last version and is tried again; it
// keeps no other zone waiting.
type zoneKeeper struct {
	zones zoneServer
	blob  func(ctx context.Context, sha string) ([]byte, error)
	// copies holds the zones that come from primaries; nil: there are none.
	copies copies
	// changed tells of a copy which is new, or may no longer be served.
	changed <-chan struct{}
	log     *slog.Logger
	// wanted is the newest inventory; Apply puts it, run takes it.
	wanted box[*placement.Inventory]
	// held are the sources in the server, by name of zone; owned by run.
	held map[string]authdns.Source
	// made is what the sources in the server were made from; owned by run.
	made madeFrom
	keys keyDir
	// catalogs say which zones there are beside those of the inventory.
	catalogs catalogs
	// ready is called each time that the server has all zones it shall have; may be nil.
	ready func()
	// loaded is called after each load, once its garbage is collected; may be nil.
	loaded func()
}

// madeFrom are zones, copies as they were held, and steered names.
type madeFrom struct {
	zones   []placement.Zone
	steered []string
}

// Apply passes a snapshot on; zones follow on their own, since fetching one may
// take seconds and answers must not wait.
func (z *zoneKeeper) Apply(ctx context.Context, s *placement.Snapshot) {
	z.zones.Apply(ctx, s)
	z.wanted.put(s.Inventory)
}

// How soon a zone that could not be had is tried again, and how long one round
// of fetching may take; what is in the cache needs no time.
const (
	zoneRetry   = 2 * time.Second
	zoneTimeout = 15 * time.Second
)

func (z *zoneKeeper) run(ctx context.Context) error {
	// given is the inventory, inv the same with the zones that its catalogs list.
	var given, inv *placement.Inventory
	var retry <-chan time.Time
	look := time.NewTicker(keyEvery)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case given = <-z.wanted:
			inv = z.follow(given)
		case <-z.changed:
			if inv == nil {
				continue
			}
			inv = z.follow(given)
		case <-look.C:
			if inv == nil || !signs(inv) || !z.keys.changed() {
				continue
			}
			z.made.zones = nil
		case <-retry:
		}
		retry = nil
		if z.serves(inv) {
			z.tellReady()
			continue
		}
		if err := z.renew(ctx, inv); err != nil && ctx.Err() == nil {
			z.log.Error("zones: the last good version serves on", "err", err)
			retry = time.After(zoneRetry)
		}
	}
}

// renew loads the zones, tells that they are there, and only then collects the garbage.
func (z *zoneKeeper) renew(ctx context.Context, inv *placement.Inventory) error {
	after := collectLess()
	defer func() { debug.SetGCPercent(after) }()
	if err := z.load(ctx, inv); err != nil {
		return err
	}
	z.tellReady()
	// Making the replies left several times their own size behind, and serving them
	// leaves so little that the collector might not come round for hours.
	debug.FreeOSMemory()
	after = collectServing(after)
	if z.loaded != nil {
		z.loaded()
	}
	return nil
}

func (z *zoneKeeper) tellReady() {
	if z.ready != nil {
		z.ready()
	}
}

// serves tells whether the server has what the inventory wants. The steered names
// count as well: a name that only a service has must not be denied.
func (z *zoneKeeper) serves(inv *placement.Inventory) bool {
	return z.held != nil && reflect.DeepEqual(z.made.zones, z.asHeld(inv.Zones)) && slices.Equal(z.made.steered, steeredNames(inv))
}

// load fetches every zone by its digest and hands all over. The error names the
// zones that could not be had.
func (z *zoneKeeper) load(ctx context.Context, inv *placement.Inventory) error {
	ctx, cancel := context.WithTimeout(ctx, zoneTimeout)
	defer cancel()
	steered := steeredNames(inv)
	held := make(map[string]authdns.Source)
	var sources []authdns.Source
	var errs []error
	zones := z.asHeld(inv.Zones)
	for i, zone := range inv.Zones {
		if zone.Secondary != nil {
			src := z.copySource(zones[i])
			src.Steered = steered
			src.Keys, src.NoKeys = z.keys.load(zone, z.log)
			sources, held[zone.Name] = append(sources, src), src
			continue
		}
		src := authdns.Source{Zone: zone}
		data, err := z.text(ctx, zone)
		if err == nil {
			src.Data = data
			src.Keys, src.NoKeys = z.keys.load(zone, z.log)
		} else {
			errs = append(errs, fmt.Errorf("zone %s: %w", zone.Name, err))
			last, ok := z.held[zone.Name]
			if !ok {
				continue // never served: REFUSED until it is here, never an empty zone
			}
			src = last
		}
		src.Steered = steered
		sources, held[zone.Name] = append(sources, src), src
	}
	for _, err := range z.zones.SetZones(sources) {
		// Told, but not tried again: the same bytes stay wrong.
		z.log.Error("zone: wrong, its last version serves on", "err", err)
	}
	z.held = held
	if len(errs) > 0 {
		z.made.zones = nil
		return errors.Join(errs...)
	}
	z.made = madeFrom{zones, steered}
	return nil
}

// text is a zone's master file: made here, or from the store.
func (z *zoneKeeper) text(ctx context.Context, meta placement.Zone) ([]byte, error) {
	if made, ok := z.catalogs.made[meta.Name]; ok {
		return made.text, nil
	}
	return z.blob(ctx, meta.SHA256)
}

// steeredNames are the names that services answer for, in order of service.
func steeredNames(inv *placement.Inventory) []string {
	var out []string
	for _, s := range inv.Services {
		out = append(out, s.Names...)
	}
	return out
}
