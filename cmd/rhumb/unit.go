package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"rhumb/bgp/rpki"
	"rhumb/internal/config"
	"rhumb/placement"
	"rhumb/placement/geo"
	"rhumb/placement/node"
	"rhumb/placement/store"
)

// unit is one process of a node: some of its roles around one store, one node
// loop and one Snapshot.
type unit struct {
	cfg     *config.Node
	roles   []string
	name    string // rhumb-dns …; rhumb when it runs several units' roles
	log     *slog.Logger
	metrics *prometheus.Registry
	started time.Time

	identity *config.Identity // nil in a fleet of one
	store    *store.Store
	session  *store.Session
	views    *hub
	classes  *classes
	current  *placement.Current
	loop     *node.Node
	events   *eventQueue // made with the store it writes to

	// appliers act upon snapshots, reports fill this unit's Node record, and
	// tasks run until the unit ends; roles add theirs while the unit is built.
	appliers []node.Applier
	reports  []func(*placement.Node)
	tasks    []task
	// looks are all that this process's role health found; nil without that role.
	looks func() *placement.HealthStats
	// desk has the vantages look when a person asks.
	desk *lookDesk
	// estate is what passes from one process of a name server to the next; nil in
	// processes which nobody succeeds.
	estate *estate
	// notify tells the service manager; a no-op where there is none.
	notify func(state string)
	// present closes when the first snapshot is in force.
	present chan struct{}
	// bound closes when the speaker has put its addresses on lo; nil without role bgp.
	bound chan struct{}
	// twin delays the inputs; nil where they are taken at once.
	twin *twin
	// vrps judge our origins and known remembers them; nil without bgp.rpki.
	vrps  *rpki.Source
	known *rpki.Known
}

// task is a long-lived part of a unit; its end is the unit's end.
type task struct {
	name string
	run  func(context.Context) error
}

func (u *unit) add(name string, run func(context.Context) error) {
	u.tasks = append(u.tasks, task{name, run})
}

func (u *unit) has(role string) bool { return slices.Contains(u.roles, role) }

// unitName names the process after the roles it runs.
func unitName(roles []string) string {
	units := map[string]string{config.RoleBGP: "rhumb-bgp", config.RoleHealth: "rhumb-bgp", config.RoleAuthDNS: "rhumb-dns",
		config.RoleEdge: "rhumb-edge", config.RolePlacement: "rhumb-director", config.RoleConsole: "rhumb-console"}
	name := ""
	for _, r := range roles {
		if name != "" && name != units[r] {
			return "rhumb"
		}
		name = units[r]
	}
	return name
}

// socket is the path of a unit's socket of some kind in the admin directory.
func (u *unit) socket(kind string) string { return filepath.Join(u.cfg.Listen.Admin, kind) }

// newUnit builds everything that all units have, in the order in which one part
// needs the other.
func newUnit(ctx context.Context, cfg *config.Node, roles []string, log *slog.Logger) (*unit, error) {
	u := &unit{cfg: cfg, roles: roles, name: unitName(roles), metrics: prometheus.NewRegistry(), started: time.Now().UTC(),
		views: &hub{}, current: &placement.Current{}, present: make(chan struct{}), notify: func(string) {}}
	u.metrics.MustRegister(newStateMetrics(u.seen))
	u.log = log.With("unit", u.name, "site", cfg.Node.Site)
	u.desk = newLookDesk(u)
	u.add("looks", u.desk.run)
	for _, dir := range []string{cfg.Node.DataDir, cfg.Listen.Admin} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("%s: %w", u.name, err)
		}
	}
	if cfg.Identity != "" {
		id, err := config.LoadIdentity(cfg.Identity)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", u.name, err)
		}
		if id.Site != cfg.Node.Site {
			return nil, fmt.Errorf("%s: the identity in %s is that of site %s, this node is of %s", u.name, cfg.Identity, id.Site, cfg.Node.Site)
		}
		id.Revoked = u.revoked
		u.identity = id
	}
	geoOptions := geo.SourceOptions{Paths: cfg.Geo.Databases, Routes: cfg.Geo.Routes, Log: u.log}
	if cfg.Twin.On() {
		geoOptions.After = cfg.Twin.Delay.D()
	}
	source, err := geo.NewSource(geoOptions)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", u.name, err)
	}
	u.classes = &classes{source: source}
	u.add("geo", source.Run)
	if err := u.openStore(ctx); err != nil || !cfg.Twin.On() {
		return u, err
	}
	u.twin, err = newTwin(u)
	return u, err
}

// revoked are the serials that the inventory in force revokes.
func (u *unit) revoked() []string {
	if s := u.current.Load(); s != nil {
		return s.Inventory.Revoked
	}
	return nil
}

// openStore opens the fleet's store and follows it.
func (u *unit) openStore(ctx context.Context) error {
	c := store.Config{BlobCache: filepath.Join(u.cfg.Node.DataDir, "zones"), Logger: u.log, Registerer: u.metrics}
	if u.cfg.Store.File != "" {
		c.File = u.cfg.Store.File
	} else {
		c.Etcd = &store.Etcd{Endpoints: endpoints(u.cfg), Group: u.storeClient()}
	}
	st, err := store.Open(ctx, c)
	if err != nil {
		return fmt.Errorf("%s: %w", u.name, err)
	}
	u.store = st
	u.session = st.Session(u.cfg.Node.Name, 0)
	u.events = newEventQueue(st.AddEvent, u.log, u.metrics)
	if !u.alone() {
		u.add("session", u.session.Run)
		u.add("store-tls", u.learnTLS)
	}
	u.add("views", func(ctx context.Context) error {
		for v := range st.Follow(ctx) {
			u.views.publish(v)
		}
		return nil
	})
	return nil
}

// buildLoop makes the node loop; every role has added its appliers before.
func (u *unit) buildLoop() {
	views := newBox[node.View]()
	feed := u.views.subscribe()
	heard := newBox[[]placement.Vote]()
	stream := node.NewStream(u.socket("votes.sock"), u.cfg.Node.Site, u.log)
	u.add("votes", func(ctx context.Context) error { return stream.Run(ctx, heard) })
	if u.twin != nil {
		heard = u.twin.add(u, feed, heard, views)
	} else {
		u.add("loop-views", func(ctx context.Context) error {
			return pump(ctx, feed, views, nodeView)
		})
	}
	u.loop = node.New(node.Config{Node: u.cfg.Node.Name, Site: u.cfg.Node.Site, Views: views, Heard: heard,
		Classes: u.classes.of, PlanAt: u.store.PlanAt, Disk: diskOf(u.cfg.Node.DataDir), Current: u.current,
		Appliers: append([]node.Applier{&firstSnapshot{present: u.present}}, u.appliers...), Log: u.log, Metrics: u.metrics})
	u.add("loop", u.loop.Run)
}

// run runs every task until the context ends or one of them fails. Events are
// written until the last task has ended, since their ends are events too.
func (u *unit) run(ctx context.Context) error {
	ectx, stop := context.WithCancel(context.WithoutCancel(ctx))
	var writer sync.WaitGroup
	writer.Go(func() { u.events.run(ectx) })
	g, ctx := errgroup.WithContext(ctx)
	for _, t := range u.tasks {
		g.Go(func() error {
			if err := t.run(ctx); err != nil && !errors.Is(err, context.Canceled) {
				return fmt.Errorf("%s: %s: %w", u.name, t.name, err)
			}
			return nil
		})
	}
	err := g.Wait()
	stop()
	writer.Wait()
	return errors.Join(err, u.store.Close())
}

// lookAgain is how often a role looks whether the fleet has come to name its site.
const lookAgain = time.Second

// awaitSnapshot waits for a snapshot whose inventory names this node's site: what
// a role must know of it (number, addresses, services) stands there. A role is
// built from it once; a changed number or address of the own site takes a restart.
func (u *unit) awaitSnapshot(ctx context.Context) (*placement.Snapshot, *placement.Site, error) {
	select {
	case <-u.present:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for told := false; ; {
		snap := u.current.Load()
		if site := snap.Inventory.Site(u.cfg.Node.Site); site != nil {
			return snap, site, nil
		}
		if !told {
			u.log.Warn("the fleet does not name this site; the role waits until it does", "snapshot", snap.Name.String())
			told = true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
}

// firstSnapshot is the applier that tells that there is one. The loop puts a
// snapshot in force before it hands it on, so that current is set by then.
type firstSnapshot struct {
	present chan struct{}
	told    bool // owned by the goroutine that applies
}

// Apply closes the channel once.
func (f *firstSnapshot) Apply(context.Context, *placement.Snapshot) {
	if !f.told {
		f.told = true
		close(f.present)
	}
}

// endpoints are the client URLs of the store's members.
func endpoints(cfg *config.Node) []string {
	e := cfg.Store.Etcd
	if len(e.Endpoints) > 0 {
		return e.Endpoints
	}
	var out []string
	for _, m := range members(e) {
		out = append(out, m.ClientURLs...)
	}
	return out
}
