package bgp

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/bgp/guard"
	"rhumb/bgp/rpki"
	"rhumb/placement"
)

// Config is what a Speaker is made of.
type Config struct {
	Site       string
	SiteNumber uint16 // marks our routes: large community ASN:1:SiteNumber
	Node       string
	ASN        uint32
	// MarkerASN administers the markers; 0 is ASN. It is set where each site has
	// an AS of its own, as RFC 6382 recommends for anycast.
	MarkerASN uint32
	RouterID  netip.Addr
	Peers     []Peer
	Port      int          // 0 is 179, NoListener dials only
	Listen    []netip.Addr // empty means all
	// Mode Observe keeps this node from acting whatever the fleet says.
	Mode placement.Mode
	// Engine, when nil, is a GoBGP which Run starts and closes, or with Kernel
	// the kernel's routes, with a GoBGP which only listens to Peers if there are any.
	Engine Engine
	Kernel *KernelConfig
	// Slots and Announcer reach the store; nil where there is none, and then
	// only a witness can stand for a Slot.
	Slots     Slots
	Announcer Announcer
	// NextHop4 and NextHop6 are announced as next hops; zero means the
	// session's own address, which fits only routes of the session's family.
	NextHop4, NextHop6 netip.Addr
	// Addresses are the addresses to bind besides those of the site's clusters
	// and VIPs; each belongs to the prefix which contains it.
	Addresses []netip.Addr
	// Host binds addresses; nil leaves them to others and checks none.
	Host Host
	// Listening tells why nobody answers on a prefix's address, or nil. It is
	// asked each second from the loop, so it must answer from memory.
	Listening func(netip.Prefix) error
	Timing    guard.Timing
	// InUse tells whether clients' sessions on an address are still served here;
	// their packets come by other ways once the route is withdrawn. It is asked
	// each second, from the loop, while an address waits to leave lo. Nil: never.
	InUse func(netip.Addr) bool
	// Look looks once through a peer which has a Probe; nil is the function Look.
	Look func(context.Context, Probe) error
	// FIBWait is how long routers may need to forget a withdrawn route (2 s).
	FIBWait time.Duration
	// Renewed tells when the store last renewed what this node announces: for a while
	// after it, others may count on us. Nil: nobody counts.
	Renewed func() time.Time
	// Held tells whether the store, as far as it is seen, shows a Slot of this site for
	// the prefix; true where nothing is seen. Nil: what was granted is believed.
	Held func(netip.Prefix) bool
	// RPKI judges our origins before they are announced for the first time, and Known
	// remembers which were; nil judges nothing, and remembers nothing.
	RPKI  *rpki.Source
	Known *rpki.Known
	// Memory keeps over a restart what is announced; nil forgets it.
	Memory *Memory
	// Twin marks what is announced as an input-delayed twin's, whom others do not count.
	Twin bool
	// MaxAnnounced is the ceiling of announced prefixes; 0 is none.
	MaxAnnounced int
	// Events is called for each transition from the loop; it must not block.
	Events func(Event)
	// BFDEvents is called for each change of a BFD session; it must not block. Nil: nobody is told.
	BFDEvents  func(BFDEvent)
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Slots grants the right to be silent.
type Slots interface {
	// TakeSlot returns the Slot of this site for the prefix, the one it already
	// holds included, if the announcements seen are unchanged. An error which
	// is a *placement.Refusal means no; any other means that the store is away.
	TakeSlot(ctx context.Context, prefix placement.Prefix, site, cause string, seen []placement.Announced) (placement.Slot, error)
}

// Announcer tells the fleet what this node announces.
type Announcer interface {
	// SetAnnounced publishes a step; it does not block, and repeats until the
	// store has it.
	SetAnnounced(placement.Announced)
	// LeaveNode drops this node's key on condition that another node's of the
	// same site, as seen, still stands.
	LeaveNode(ctx context.Context, own placement.Announced, seen []placement.Announced) error
	// FreeSlot gives a site's Slot back; holding none is no error.
	FreeSlot(ctx context.Context, prefix netip.Prefix, site string) error
}

// Speaker keeps one node's announcements where they are wanted and permitted.
// Apply and Status may be called from anywhere; all else belongs to Run.
type Speaker struct {
	cfg     Config
	log     *slog.Logger
	engine  Engine
	input   atomic.Pointer[input]
	wake    chan struct{}
	answers chan answer
	looks   chan looked
	status  atomic.Pointer[placement.BGPStatus]
	metrics *metrics
	// prepared closes when the first snapshot was followed once.
	prepared chan struct{}
	bfd      *BFD // nil where no peer is watched
	loop     loop
}

// loop is the state which only Run touches.
type loop struct {
	now     *input
	told    bool     // prepared is closed
	changed bool     // what is held has not been memorized yet
	routes  []*route // in order of prefix
	peers   []PeerState
	markers markers
	// upstreams are the peers whose paths are looked at, in order of configuration.
	upstreams []*upstream
	// errs remembers the last error told of each object, so that a lasting one
	// is logged once.
	errs map[string]string
}

// input is one Apply.
type input struct {
	snapshot *placement.Snapshot
	live     []placement.Announced
	at       time.Time
}

// route is one prefix at this node.
type route struct {
	prefix placement.Prefix
	want   placement.Announcement
	mode   placement.Mode
	ladder guard.Ladder
	// told is the step which the engine was last given; in mode observe the
	// ladder moves and told does not.
	told    placement.Step
	claim   claim
	refusal *placement.Refusal
	// missing says why nobody can be served here now.
	missing string
	// settled is set once the wish was reached since the start.
	settled bool
	// unbind is when the addresses leave lo; zero when nothing is due.
	unbind time.Time
	// expected is set once the addresses were bound ahead of the announcement.
	expected bool
	// gone is set while no snapshot names the prefix for this site any more.
	gone bool
	// held is set from the announcement until the guard permits silence, through a
	// restart; served are the addresses when a snapshot last named the prefix.
	held   bool
	served []netip.Addr
	// origin is what the RPKI last said, and published what the fleet was last told.
	origin    rpki.Finding
	published placement.Announced
}

// New returns a Speaker; Run starts it.
func New(c Config) *Speaker {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.FIBWait == 0 {
		c.FIBWait = 2 * time.Second
	}
	if c.Events == nil {
		c.Events = func(Event) {}
	}
	if c.Look == nil {
		c.Look = Look
	}
	if c.InUse == nil {
		c.InUse = func(netip.Addr) bool { return false }
	}
	c.MarkerASN = cmp.Or(c.MarkerASN, c.ASN)
	c.Timing = c.Timing.Or()
	s := &Speaker{cfg: c, log: c.Logger, engine: c.Engine,
		wake: make(chan struct{}, 1), prepared: make(chan struct{}), answers: make(chan answer), looks: make(chan looked),
		metrics: newMetrics(c.Registerer, c.Site), loop: loop{errs: make(map[string]string), upstreams: newUpstreams(c.Peers)}}
	s.status.Store(&placement.BGPStatus{})
	return s
}

// Apply hands over the newest Snapshot and what other nodes announce. It
// returns at once; only the newest counts. The values are not to be changed.
func (s *Speaker) Apply(_ context.Context, snapshot *placement.Snapshot, live []placement.Announced) {
	if snapshot == nil || snapshot.Inventory == nil {
		return
	}
	s.input.Store(&input{snapshot, live, time.Now()})
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Status returns peers and routes as the loop last left them.
func (s *Speaker) Status() placement.BGPStatus { return *s.status.Load() }

// Run speaks until the context ends; then it withdraws what it announced, waits
// for the routers, and closes the engine it started.
func (s *Speaker) Run(ctx context.Context) error {
	if s.engine == nil {
		end, err := s.startEngine(ctx)
		if err != nil {
			return err
		}
		defer end()
	}
	s.recall(time.Now())
	if err := s.inherit(ctx, time.Now()); err != nil {
		return err
	}
	if m := s.cfg.Memory; m != nil {
		go m.write(s.log)
		defer m.end()
	}
	unfollow, err := s.followPeers(ctx)
	if err != nil {
		return err
	}
	defer unfollow()
	changes, watched := make(chan Change), make(chan error, 1)
	watching, unwatch := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		watched <- s.engine.Watch(watching, sift(s.cfg.MarkerASN, func(c Change) {
			select {
			case changes <- c:
			case <-watching.Done():
			}
		}))
	}()
	looking, unlook := context.WithCancel(ctx)
	looked := make(chan struct{})
	go func() { s.watchPaths(looking); close(looked) }()
	err = s.serve(ctx, changes, watched)
	unlook()
	<-looked
	s.leave()
	s.bfd.Leave() // before the Cease, so that the routers see a will and not a failure
	unwatch()
	if err == nil {
		<-watched
	}
	return err
}

// startEngine starts what the configuration asks for, and returns how it ends.
func (s *Speaker) startEngine(ctx context.Context) (end func(), err error) {
	if s.cfg.Kernel != nil {
		return s.startBeside(ctx, *s.cfg.Kernel)
	}
	own, err := s.startSpeaker(ctx, s.cfg.Port, s.cfg.Peers)
	if err != nil {
		return nil, err
	}
	s.engine = own
	return func() { s.closeEngine(own) }, nil
}

// startSpeaker starts the process's GoBGP.
func (s *Speaker) startSpeaker(ctx context.Context, port int, peers []Peer) (*GoBGP, error) {
	return StartGoBGP(ctx, GoBGPConfig{ASN: s.cfg.ASN, RouterID: s.cfg.RouterID,
		Port: port, Listen: s.cfg.Listen, Peers: peers, Logger: s.log})
}

// startBeside starts the kernel's routes. Where peers are named, a GoBGP without
// a port dials them and is given no route: it reads markers.
func (s *Speaker) startBeside(ctx context.Context, c KernelConfig) (func(), error) {
	hangUp := func() {}
	if len(s.cfg.Peers) > 0 {
		peers := slices.Clone(s.cfg.Peers)
		for i := range peers {
			peers[i].AllPaths, peers[i].OwnFamily = true, false
		}
		reader, err := s.startSpeaker(ctx, NoListener, peers)
		if err != nil {
			return nil, err
		}
		c.Reader, hangUp = reader, func() { s.closeEngine(reader) }
	}
	k, err := StartKernel(c)
	if err != nil {
		hangUp()
		return nil, err
	}
	s.engine = k
	return func() { s.failed("pulse", k.Close()); hangUp() }, nil
}

// closeEngine ends the sessions; the routes are withdrawn by then.
func (s *Speaker) closeEngine(own *GoBGP) {
	if err := own.Close(context.Background()); err != nil {
		s.log.Warn("bgp: close", "err", err)
	}
}

// inherit begins the ladders where an engine's routes stand: a predecessor's
// announcements go on, and come down, if they must, by the same rules.
func (s *Speaker) inherit(ctx context.Context, now time.Time) error {
	if !outlives(s.engine) {
		return nil
	}
	st, err := s.engine.PeerState(ctx)
	if err != nil {
		return err
	}
	for _, have := range st.Routes {
		r := s.route(have.Prefix, now)
		r.told, r.mode = have.Step, placement.Act
		r.ladder = guard.Ladder{At: have.Step, Since: now, Settled: now}
		s.log.Info("bgp: goes on with a route which stands", "prefix", have.Prefix, "step", have.Step)
	}
	return nil
}

// auditEvery is how often the engine's routes are compared with what it was told.
const auditEvery = time.Second

// serve is the loop: something happened, the newest input is taken, every route
// moves as far as it may, the outcome is published.
func (s *Speaker) serve(ctx context.Context, changes <-chan Change, watched <-chan error) error {
	audit := time.NewTicker(auditEvery)
	defer audit.Stop()
	due := time.NewTimer(time.Hour)
	defer due.Stop()
	alive := time.NewTicker(aliveEvery)
	defer alive.Stop()
	for {
		s.bfd.Alive(aliveFor)
		select {
		case <-alive.C:
			continue
		case <-ctx.Done():
			return nil
		case err := <-watched:
			return cmp.Or(err, errors.New("bgp: the engine ended its watch"))
		case <-s.wake:
		case <-due.C:
		case c := <-changes:
			s.heard(c)
		case a := <-s.answers:
			s.answered(a)
		case l := <-s.looks:
			s.sawPath(l)
		case <-audit.C:
			s.audit(ctx)
		}
		s.take()
		due.Reset(s.advance(ctx, time.Now()))
		s.steer(ctx)
		s.publish()
	}
}

// take adopts the newest input. A snapshot without any announcement, after one
// with some that nobody has retired, is a filter gone wrong: nothing was ever meant by it.
func (s *Speaker) take() {
	in := s.input.Load()
	if in == nil || in == s.loop.now {
		return
	}
	if old := s.loop.now; old != nil && in.empties(old) {
		s.complain("snapshot", &placement.Refusal{Rule: placement.RuleEmptySelector, Object: in.snapshot.Name.String(),
			Have: "no announcements", Limit: "an empty set matches nothing"})
		return
	}
	delete(s.loop.errs, "snapshot")
	left := s.retiredAddresses(in.snapshot)
	s.loop.now = in
	s.adopt(in.snapshot, time.Now())
	s.unbindLeft(left)
}

// adopt brings the routes in line with a snapshot: own announcements are the
// wishes, and a prefix which is not named any more is to go, by the same rules.
func (s *Speaker) adopt(snap *placement.Snapshot, now time.Time) {
	for _, r := range s.loop.routes {
		r.gone = true
		r.want = placement.Announcement{Prefix: r.prefix.Prefix, Site: s.cfg.Site, Intent: true, Mode: r.mode}
		r.want.Want, r.want.Cause = s.loop.now.leaving(r.prefix.Prefix, s.cfg.Site)
	}
	for _, a := range snap.Announcements {
		if a.Site == s.cfg.Site {
			r := s.route(a.Prefix, now)
			r.want, r.gone = a, false
		}
	}
	s.loop.changed = true
	for _, r := range s.loop.routes {
		if p := snap.Inventory.Prefix(r.prefix.Prefix); p != nil {
			r.prefix = *p
		}
		s.setMode(r, s.modeOf(&r.want, snap), now)
		if !r.gone {
			r.served = s.addresses(r)
		}
		if r.mode != placement.Act && r.told == placement.Withdrawn {
			r.held = false // who only observes after a restart has left it to others
		}
		s.acknowledge(r)
		s.expect(r)
	}
}

// route returns the route of a prefix, making it where it is new.
func (s *Speaker) route(p netip.Prefix, now time.Time) *route {
	i, ok := slices.BinarySearchFunc(s.loop.routes, p, func(r *route, p netip.Prefix) int {
		return comparePrefix(r.prefix.Prefix, p)
	})
	if !ok {
		r := &route{prefix: placement.Prefix{Prefix: p}, ladder: guard.Start(now), told: placement.Withdrawn,
			claim: claim{owed: true}}
		s.loop.routes = slices.Insert(s.loop.routes, i, r)
	}
	return s.loop.routes[i]
}

// modeOf returns the mode of a route: this node's if it observes, else the
// announcement's, else the role's.
func (s *Speaker) modeOf(a *placement.Announcement, snap *placement.Snapshot) placement.Mode {
	if s.cfg.Mode == placement.Observe {
		return placement.Observe
	}
	return a.Mode.Or(snap.Inventory.RoleMode("bgp"))
}

// setMode starts the ladder again from what the routers really have when a
// route begins to act.
func (s *Speaker) setMode(r *route, m placement.Mode, now time.Time) {
	if r.mode != m && m == placement.Act {
		r.ladder = guard.Ladder{At: r.told, Since: now, Settled: now}
		r.claim, r.settled = claim{owed: true}, false
	}
	r.mode = m
}

// Prepared closes when the first snapshot was followed once: what is to be
// announced has its addresses on lo.
func (s *Speaker) Prepared() <-chan struct{} { return s.prepared }

// publish makes the loop's state readable.
func (s *Speaker) publish() {
	st := &placement.BGPStatus{}
	for _, p := range s.loop.peers {
		st.Peers = append(st.Peers, placement.PeerStatus{Address: p.Address, ASN: p.ASN, State: p.State, Since: p.Since,
			BFD: s.bfd.State(p.Address), Error: s.advice(p.Address)})
	}
	for _, r := range s.loop.routes {
		rs := placement.RouteStatus{Prefix: r.prefix.Prefix, Want: r.want.Want, Announced: r.told, Cause: r.want.Cause,
			Since: r.ladder.Since, Refusal: r.refusal, Mode: r.mode, Anchor: s.anchor(r)}
		if r.claim.slot != nil {
			rs.Slot = r.claim.slot.Number
		}
		if r.told < placement.Withdrawn {
			rs.MED = s.attrs(r, r.told).MED
		}
		if s.cfg.RPKI != nil {
			rs.Origin, rs.OriginText = r.origin.Word(), r.origin.Text
		}
		st.Routes = append(st.Routes, rs)
	}
	s.status.Store(st)
	s.metrics.observe(s)
	s.memorize()
	if s.loop.now != nil && !s.loop.told {
		s.loop.told = true
		close(s.prepared)
	}
}

// anchor tells whether this site is named to keep the prefix announced.
func (s *Speaker) anchor(r *route) bool {
	return slices.Contains(s.loop.now.anchors(r), s.cfg.Site)
}

// anchors returns the named sites; none before the first snapshot.
func (in *input) anchors(r *route) []string {
	if in == nil {
		return nil
	}
	return in.snapshot.AnchorSites(r.prefix.Prefix)
}
