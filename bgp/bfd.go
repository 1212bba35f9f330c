package bgp

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/bgp/bfd"
)

// PeerBFD is how a peer is watched; the zero value is not at all.
type PeerBFD struct {
	// Interval of beats in both directions, once the session is Up.
	Interval time.Duration
	// Multiplier is how many may be missed; 0 is 3.
	Multiplier uint8
	// Port is 3784 (0 is that too), or 4784 for a router which takes a session
	// with TTL security for a multihop one, as FRR does.
	Port uint16
}

// The defaults of a watched peer: its death is noticed in 900 ms, ours by it too.
const (
	DefaultBFDInterval   = bfd.DefaultInterval
	DefaultBFDMultiplier = bfd.DefaultMultiplier
)

// check holds a timing to what the protocol can say.
func (t PeerBFD) check() error {
	if t == (PeerBFD{}) {
		return nil
	}
	if t.Port != 0 && t.Port != bfd.SingleHop && t.Port != bfd.MultiHop {
		return fmt.Errorf("bfd port %d: want %d (RFC 5881) or %d (RFC 5883)", t.Port, bfd.SingleHop, bfd.MultiHop)
	}
	return bfd.Timing{Interval: t.Interval, Multiplier: t.Multiplier}.Or().Check()
}

// Resetter ends a session with a peer, telling it why; one which is not
// established is left alone.
type Resetter interface {
	ResetPeer(ctx context.Context, peer netip.Addr, why string) error
}

// BFDConfig is what a BFD is made of.
type BFDConfig struct {
	Peers  []Peer // those with a BFD timing are watched
	Engine Resetter
	// Events is called for each change of a session, from Run; it must not block. Nil:
	// nobody is told.
	Events     func(BFDEvent)
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// BFDEvent is a change of a BFD session, with the states of RFC 5880.
type BFDEvent struct {
	At       time.Time
	Peer     netip.Addr
	From, To string
	// Diag is the reason which this side or the other gives.
	Diag string
	// Failed is set where a session which was up has failed, and BGP is reset.
	Failed bool
}

// BFD couples the BFD sessions with those of BGP: a session which was Up and
// fails resets the BGP session to the same peer (RFC 5882 section 10). It
// decides on nothing else: a peer which does no BFD keeps its BGP session, and
// what is announced does not depend on it.
//
// The methods may be called from anywhere, and on a nil BFD, which watches
// nobody.
type BFD struct {
	engine  Resetter
	told    func(BFDEvent)
	log     *slog.Logger
	watcher *bfd.Watcher
	metrics *bfdMetrics

	mu    sync.Mutex
	queue []bfd.Change // not handled yet
	wake  chan struct{}
}

// NewBFD returns the coupling for those peers which want it; nil when none does.
func NewBFD(c BFDConfig) (*BFD, error) {
	var targets []bfd.Target
	for i := range c.Peers {
		if p := &c.Peers[i]; p.BFD.Interval > 0 {
			targets = append(targets, bfd.Target{Address: p.Address, Local: p.Local,
				Timing: bfd.Timing{Interval: p.BFD.Interval, Multiplier: p.BFD.Multiplier}, Port: p.BFD.Port})
		}
	}
	if len(targets) == 0 {
		return nil, nil
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Events == nil {
		c.Events = func(BFDEvent) {}
	}
	b := &BFD{engine: c.Engine, told: c.Events, log: c.Logger, wake: make(chan struct{}, 1), metrics: newBFDMetrics()}
	var err error
	b.watcher, err = bfd.New(bfd.Config{Targets: targets, Changed: b.changed, Trouble: b.trouble,
		Sent: func(late time.Duration) { b.metrics.lateness.Observe(late.Seconds()) }})
	if err != nil {
		return nil, fmt.Errorf("bgp: %w", err)
	}
	if c.Registerer != nil {
		b.metrics.register(c.Registerer, b.watcher)
	}
	for _, s := range b.watcher.Status() {
		b.metrics.enter(s.Peer, s.State)
	}
	return b, nil
}

// Run watches until the context ends.
func (b *BFD) Run(ctx context.Context) error {
	if b == nil {
		<-ctx.Done()
		return nil
	}
	ended := make(chan error, 1)
	go func() { ended <- b.watcher.Run(ctx) }()
	for {
		select {
		case err := <-ended:
			return err
		case <-b.wake:
			for _, c := range b.take() {
				b.handle(ctx, c)
			}
		}
	}
}

// Alive promises that the loop which keeps the announcements runs, and is back
// before the time has passed. Without it no beat goes out, and our routers drop
// our routes as if we were dead. It is the promise of this process about itself:
// a rule of the guard could not be asked, since whoever hangs asks nobody.
func (b *BFD) Alive(within time.Duration) {
	if b != nil {
		b.watcher.Alive(within)
	}
}

// leaveWait bounds how long the word that we go may take.
const leaveWait = 200 * time.Millisecond

// Leave tells the peers that we go on purpose, so that none takes the silence
// which follows for a failure.
func (b *BFD) Leave() {
	if b == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaveWait)
	defer cancel()
	b.watcher.Leave(ctx)
}

// State returns the state of a peer's session; empty for one which is not watched.
func (b *BFD) State(peer netip.Addr) string {
	if b == nil {
		return ""
	}
	for _, s := range b.watcher.Status() {
		if s.Peer == peer {
			return s.State.String()
		}
	}
	return ""
}

// changed keeps a change for Run. It is called by the watcher's thread.
func (b *BFD) changed(c bfd.Change) {
	b.mu.Lock()
	b.queue = append(b.queue, c)
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// take returns what happened since the last call.
func (b *BFD) take() []bfd.Change {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.queue
	b.queue = nil
	return out
}

// handle tells of a change, and resets the BGP session after a failure.
func (b *BFD) handle(ctx context.Context, c bfd.Change) {
	b.metrics.enter(c.Peer, c.To)
	b.metrics.transitions.WithLabelValues(c.Peer.String(), c.Diag.String()).Inc()
	level := slog.LevelInfo
	if c.Failure() {
		level = slog.LevelWarn
	}
	b.log.LogAttrs(ctx, level, "bgp: bfd", slog.String("peer", c.Peer.String()), slog.String("from", c.From.String()),
		slog.String("to", c.To.String()), slog.String("diag", c.Diag.String()), slog.String("remote", c.Remote.String()),
		slog.Uint64("run", c.Ups))
	failed := c.Failure() && !b.outdated(c)
	b.told(BFDEvent{At: time.Now(), Peer: c.Peer, From: c.From.String(), To: c.To.String(), Diag: c.Diag.String(), Failed: failed})
	if !c.Failure() {
		return
	}
	if !failed {
		b.log.Info("bgp: bfd failure is outdated; the session is kept", "peer", c.Peer, "run", c.Ups)
		return
	}
	// RFC 9384 has a subcode of Cease for this; the library sends
	// Administrative Reset, so the words say it (RFC 9003).
	if err := b.engine.ResetPeer(ctx, c.Peer, "BFD down: "+c.Diag.String()); err != nil {
		b.log.Error("bgp: reset after bfd failure", "peer", c.Peer, "err", err)
	}
}

// outdated tells whether the peer was there again since a failure: what it says
// of an older run must not end the BGP session of a newer one.
func (b *BFD) outdated(c bfd.Change) bool {
	for _, s := range b.watcher.Status() {
		if s.Peer == c.Peer {
			return s.Ups != c.Ups
		}
	}
	return true
}

// trouble tells why a peer cannot be watched. It is called by the watcher's thread.
func (b *BFD) trouble(peer netip.Addr, err error) {
	if err != nil {
		b.log.Warn("bgp: bfd does not watch the peer", "peer", peer, "err", err)
		return
	}
	b.log.Debug("bgp: bfd watches the peer", "peer", peer)
}

// bfdMetrics are the BFD's; they work unregistered too.
type bfdMetrics struct {
	state       *prometheus.GaugeVec
	transitions *prometheus.CounterVec
	lateness    prometheus.Histogram
}

func newBFDMetrics() *bfdMetrics {
	return &bfdMetrics{
		state:       prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "rhumb_bfd_state", Help: "1 for the state in which the peer's BFD session is."}, []string{"peer", "state"}),
		transitions: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rhumb_bfd_transitions_total", Help: "Changes of state, by the diagnostic."}, []string{"peer", "diag"}),
		lateness: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "rhumb_bfd_lateness_seconds",
			Help: "How late a due beat was sent.", Buckets: prometheus.ExponentialBuckets(0.0001, 4, 8)}),
	}
}

// register adds the metrics, and the counters which the watcher keeps itself.
func (m *bfdMetrics) register(reg prometheus.Registerer, w *bfd.Watcher) {
	reg.MustRegister(m.state, m.transitions, m.lateness)
	for _, why := range bfd.Drops() {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "rhumb_bfd_rx_dropped_total",
			Help: "BFD packets thrown away, by reason.", ConstLabels: prometheus.Labels{"reason": why.String()}},
			func() float64 { return float64(w.Dropped(why)) }))
	}
}

// enter sets the gauge of a peer's state.
func (m *bfdMetrics) enter(peer netip.Addr, now bfd.State) {
	m.state.DeletePartialMatch(prometheus.Labels{"peer": peer.String()})
	m.state.WithLabelValues(peer.String(), now.String()).Set(1)
}

// The loop promises each time it comes round that it will again within a
// second, and comes round at least four times in it.
const (
	aliveFor   = time.Second
	aliveEvery = aliveFor / 4
)

// followPeers watches the peers of an engine which can be told of a failure,
// until the returned function is called: longer than the loop runs, because on
// the way out the routers must not take us for dead before we have left.
func (s *Speaker) followPeers(ctx context.Context) (func(), error) {
	engine, ok := s.engine.(Resetter)
	if !ok {
		return func() {}, nil
	}
	var err error
	s.bfd, err = NewBFD(BFDConfig{Peers: s.cfg.Peers, Engine: engine, Events: s.cfg.BFDEvents, Logger: s.log, Registerer: s.cfg.Registerer})
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.bfd.Run(ctx); err != nil {
			s.log.Error("bgp: bfd ended: peers are not watched, and take us for dead", "err", err)
		}
	}()
	return func() { stop(); <-done }, nil
}
