package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"rhumb/edge/content"
	"rhumb/edge/feed"
	"rhumb/edge/frame"
	"rhumb/edge/upload"
)

// Agent is the edge of one site: its content services and their sessions.
// All exported methods are safe for concurrent use.
type Agent struct {
	cfg    Config // as given; Peers and Services are those of the start
	limits Limits
	moves  Moves
	log    *slog.Logger
	m      *metrics
	cache  *content.Cache
	strays Strays
	quiet  hush
	bufs   *buffers
	kept   sockets
	exchange
	desk
	wg sync.WaitGroup // sessions and hand-offs
}

// exchange is what the hand-offs of an Agent share.
type exchange struct {
	links  *links
	giving *mailbox
	taking *mailbox
	lanes  *lanes
	// patience is how long an offer may wait for Ready.
	patience time.Duration
	bucket   *bucket
	pulls    *pulls
	growth   growth
	// revival has the sessions of lost sites and processes that are being
	// brought back.
	revival *revival
	// prep makes ready what the sessions of suspected sites would need.
	prep *preparation
}

// desk is the Agent's knowledge: what is served, by whom, and by which
// sessions.
type desk struct {
	view    atomic.Pointer[view]
	drain   atomic.Pointer[drain]
	changed chan struct{} // view was replaced
	drained chan struct{} // drain was replaced
	mu      sync.Mutex    // serializes changes of view
	tab     *table
	ledger  *ledger // nil: none
	replica *replica
	events  *events
	keepers *feed.Keepers
	guests  *guests
	uploads *uploads
}

// view is one configuration. Immutable.
type view struct {
	services []*service
	vips     map[netip.AddrPort]*service
	guests   map[netip.AddrPort]*Service // of kind handoff
	peers    []Peer
	byName   map[string]Peer
	own      Reserve
}

func (v *view) peer(name string) (Peer, bool) {
	p, ok := v.byName[name]
	return p, ok
}

// New checks the configuration and opens the services' directories. Nothing
// is listened on before Run.
func New(cfg Config) (*Agent, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	log := cfg.Log
	if log == nil {
		log = slog.Default()
	}
	m, err := newMetrics(cfg.Site, cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("edge: metrics: %w", err)
	}
	a := &Agent{cfg: cfg, limits: cfg.Limits.withDefaults(), moves: cfg.Moves.withDefaults(),
		log: log.With("site", cfg.Site), m: m, strays: cfg.Strays, bufs: &buffers{}}
	if a.strays == nil {
		a.strays = noStrays{}
	}
	a.cache = content.NewCache(a.limits.Cache)
	a.desk = desk{changed: make(chan struct{}, 1), drained: make(chan struct{}, 1), tab: newTable(), events: newEvents()}
	a.view.Store(&view{own: cfg.Reserve})
	a.exchange = exchange{giving: newMailbox(), taking: newMailbox(), lanes: newLanes(), patience: readyLimit,
		bucket: newBucket(a.moves.RestoreRate), pulls: newPulls()}
	a.links = newLinks(cfg, a.log, func(name string) (Peer, bool) { return a.view.Load().peer(name) }, nil)
	a.replica = newReplica(a)
	a.keepers, err = feed.NewKeepers(feed.KeepersConfig{Site: cfg.Site, Links: tokenLinks{a.links}, Secrets: cfg.Tokens, Since: time.Now(), Room: a.limits.Records})
	if err != nil {
		return nil, err
	}
	a.revival = newRevival(a)
	a.uploads = newUploads(a)
	a.prep = newPreparation(a)
	a.guests = newGuests(a)
	if err := a.SetPeers(cfg.Peers); err != nil {
		return nil, err
	}
	return a, a.SetServices(cfg.Services)
}

// noStrays stands where nothing holds packets; lost ones are sent again by
// the client.
type noStrays struct{}

func (noStrays) Hold(frame.Key)           {}
func (noStrays) Claim(frame.Key)          {}
func (noStrays) Release(frame.Key)        {}
func (noStrays) Moved(frame.Key, string)  {}
func (noStrays) Stayed(frame.Key, string) {}

// SetPeers replaces the group's other members. Links to sites that left it
// are closed.
func (a *Agent) SetPeers(peers []Peer) error {
	if err := checkPeers(a.cfg.Site, peers); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	next := *a.view.Load()
	next.peers, next.byName = slices.Clone(peers), map[string]Peer{}
	names := make([]string, len(peers))
	for i, p := range peers {
		next.byName[p.Name], names[i] = p, p.Name
	}
	a.publish(&next)
	a.links.prune()
	a.keepers.SetSites(names)
	return nil
}

// SetServices replaces the services. Sessions of a service that stays the
// same go on untouched, those of one that changed or went are served to their
// end by the old one. After an error everything is as before.
func (a *Agent) SetServices(services []Service) error {
	if err := checkServices(services); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	old := a.view.Load()
	next := *old
	next.services, next.vips, next.guests = nil, map[netip.AddrPort]*service{}, guestVIPs(services)
	for _, s := range services {
		if s.Kind != KindContent {
			continue
		}
		svc, err := a.service(old, s)
		if err != nil {
			return err
		}
		next.services = append(next.services, svc)
		for _, v := range s.VIPs {
			next.vips[v] = svc
		}
	}
	a.publish(&next)
	a.guests.lobby.countAll(next.guests)
	return nil
}

// service returns the running service of the same settings, or a new one.
func (a *Agent) service(old *view, s Service) (*service, error) {
	for _, have := range old.services {
		same := have.Service
		same.VIPs = s.VIPs
		if equal(same, s) {
			n := *have
			n.VIPs = slices.Clone(s.VIPs)
			return &n, nil
		}
	}
	svc := &service{Service: s, id: serviceID(s.Name), limits: a.limits, uploads: a.uploads, buffers: a.bufs}
	var err error
	if s.Root != "" {
		svc.source, err = a.library(s)
	} else {
		svc.source, err = content.NewOrigin(s.Origin, s.Spool, a.cache, a.log.With("service", s.Name))
	}
	if err == nil && a.cfg.Met != nil {
		svc.source = &metered{svc.source, func(ok bool) { a.cfg.Met(s.Name, ok) }}
	}
	if err == nil && s.Events.Path != "" {
		svc.feeds, err = a.newFeeds(svc)
	}
	if err == nil && s.Uploads.Dir != "" {
		svc.store, err = upload.NewStore(s.Uploads.Dir, a.cfg.Site, s.Uploads.limits())
	}
	if err == nil && s.Cert != "" {
		svc.tls, err = newTerminator(svc, a.m.tls, a.log.With("service", s.Name))
	}
	return svc, err
}

// glance is for how long a look at a file is good.
const glance = time.Millisecond

// library opens a service's directory. Where clients write, each request looks: what was
// published must be found.
func (a *Agent) library(s Service) (source, error) {
	l, err := content.NewLibrary(s.Root, a.cache, upload.Hidden, a.log.With("service", s.Name))
	if err != nil {
		return nil, err
	}
	if s.Uploads.Dir == "" {
		l.Glance(glance)
	}
	return l, nil
}

func equal(a, b Service) bool {
	return a.Name == b.Name && a.Kind == b.Kind && a.Mode == b.Mode && a.Root == b.Root &&
		a.Origin == b.Origin && a.Spool == b.Spool && a.Cert == b.Cert && a.Key == b.Key && a.Export == b.Export && a.Revival == b.Revival && a.Freshness == b.Freshness && a.Events == b.Events && a.Uploads == b.Uploads
}

// publish swaps the view and wakes Run. The caller holds a.mu.
func (a *Agent) publish(v *view) {
	a.view.Store(v)
	a.wake()
	a.revival.wake()
	a.uploads.wake()
}

func (a *Agent) wake() {
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// Run serves until the context ends; then all sessions of this site end too.
// An error at the start (a port in use, say) is returned, a later one is
// logged and the last good state goes on.
func (a *Agent) Run(ctx context.Context) error {
	ln, err := net.Listen("tcp", a.cfg.Control.String())
	if err != nil {
		return fmt.Errorf("edge: control listener: %w", err)
	}
	if a.ledger, err = openLedger(a.cfg.Ledger, bootID()); err != nil {
		a.log.Warn("hand-offs are forgotten with this process", "err", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, a.endAll)()
	a.links.handle = func(l *link, f frame.Frame) { a.handle(ctx, l, f) }
	a.prepareStart(ctx)
	left := a.openRevival(ctx, g)
	a.uploads.open(ctx, g)
	g.Go(func() error { return a.links.serve(ctx, ln) })
	g.Go(func() error { return a.floor(ctx) })
	g.Go(func() error { return a.replica.Run(ctx) })
	g.Go(func() error { return a.drains(ctx) })
	g.Go(func() error { return a.asks(ctx) })
	g.Go(func() error { return a.keepers.Run(ctx) })
	g.Go(func() error { return a.revival.Run(ctx, g, left) })
	g.Go(func() error { return a.prep.Run(ctx) })
	g.Go(func() error { return a.guests.Run(ctx) })
	g.Go(func() error { return a.uploads.Run(ctx, g) })
	err = g.Wait()
	a.wg.Wait()
	return errors.Join(err, a.revival.close(), a.ledger.close())
}

// handle takes one frame off a link. What takes time gets a goroutine.
func (a *Agent) handle(ctx context.Context, l *link, f frame.Frame) {
	switch f.Type {
	case frame.Pull:
		a.wg.Go(func() { a.pulled(ctx, l, f) })
	case frame.OfferSession:
		// The box stands before the next frame is read: that may be Abort.
		box, ok := a.taking.open(f.Key)
		if !ok {
			f.Type, f.Payload = frame.Refused, []byte(errClaimed.Error())
			_ = l.send(f) // a dead link has told the giver
			return
		}
		a.wg.Go(func() {
			defer a.taking.close(f.Key, box)
			a.take(ctx, l, f, box)
		})
	case frame.GuestPart:
		a.guests.parts.add(l, f, time.Now())
	case frame.OfferGuest:
		a.guests.offered(ctx, l, f)
	case frame.Ready, frame.Active:
		a.giving.put(f)
	case frame.Refused:
		if f.Generation == 0 {
			a.pulls.refused(f.Key, time.Now())
		} else {
			a.giving.put(f)
		}
	case frame.Abort:
		a.taking.put(f)
	case frame.Commit:
		a.committedTo(l, f)
	case frame.RecordSet, frame.Deposit, frame.Retire, frame.Ack, frame.Full:
		a.replica.handle(l, f)
	case frame.ObjectName:
		a.replica.named(l, f)
	case frame.Uploads:
		a.uploads.handle(l, f)
	case frame.Tokens:
		a.tokens(l, f)
	case frame.Recall:
		a.wg.Go(func() { a.recalledBy(ctx, l) })
	case frame.Recalled:
		a.revival.recalled(ctx, l, f)
	case frame.Claimed:
		a.wg.Go(func() { a.claimedBy(l, f) })
	}
}

// committedTo routes a Commit to its offer, or tells what became of that.
func (a *Agent) committedTo(l *link, f frame.Frame) {
	answer := frame.Frame{Type: frame.Refused, Key: f.Key, Epoch: f.Epoch, Generation: f.Generation}
	switch {
	case a.tab.took(f.Key, f.Epoch, f.Generation):
		answer.Type = frame.Active
	case a.taking.put(f):
		return
	case a.guests.declined.has(f):
		answer.Payload = []byte(errDeclined.Error())
	case a.tab.took(f.Key, f.Epoch, f.Generation) || a.ledger.took(f): // between the two looks
		answer.Type = frame.Active
	case a.ledger.denies(f):
		answer.Payload = []byte(errDeclined.Error())
	default:
		answer.Payload = []byte(errUnknown.Error())
	}
	_ = l.send(answer) // a dead link has told the giver
}
