package bgp

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"rhumb/placement"
)

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
	c.NodeGShut = cmp.Or(c.NodeGShut, defaultNodeGShut)
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
