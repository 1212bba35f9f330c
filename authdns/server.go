package authdns

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"rhumb/authdns/tap"
	"rhumb/authdns/transfer"
	"rhumb/placement"
)

// Listener is an address on which queries are answered, and at which level.
type Listener struct {
	Level placement.Level
	// Addr is opened for UDP and TCP, unless sockets are handed in.
	Addr netip.AddrPort
	// Packet and Stream are open sockets to use instead (socket activation, the
	// lab); either may be nil. Run closes them.
	Packet net.PacketConn
	Stream net.Listener
	// TLS makes it a listener for DNS over TLS (RFC 7858), of TCP alone; nil: in clear.
	TLS *tls.Config
	// QUIC makes a listener with TLS one for DNS over QUIC (RFC 9250), of UDP alone.
	QUIC bool
	// HTTP is the path at which a listener with TLS answers DNS over HTTPS (RFC 8484);
	// empty: it speaks DNS over TLS.
	HTTP string
}

// Config is what a Server is made of. Zero values mean: no Snapshot yet, act as
// the Inventory says, one worker per core, discard logs, no metrics.
type Config struct {
	Site, Node, Version string
	Listeners           []Listener
	// Held are sockets which are taken instead of opened ones, where their address is
	// that of a listener; nil: there are none. New closes the others.
	Held *Held
	// Current holds the Snapshot to begin with, as read from disk.
	Current *placement.Current
	// Mode Observe keeps every name on its static set, whatever the Inventory says.
	Mode       placement.Mode
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	// HideIdentity switches NSID and the CHAOS names off.
	HideIdentity bool
	// Transfers lets zones leave and come; nil: it is refused.
	Transfers *transfer.Desk
	Workers   int
	Now       func() time.Time
	// Limits bound what a client may have of the server.
	Limits Limits
	// Crashes is a directory in which a query that ends the process outlives it, so
	// that it does not end the next one, too, and the networks that are known, so that
	// an overload which begins with a restart finds them known; empty: none.
	Crashes string
	// Proxies are networks whose TCP connections begin with a PROXY v2 header.
	Proxies []netip.Prefix
	// Resolvers are recursive servers that are asked for targets of aliases which are
	// names of others; none: these are not answered.
	Resolvers []netip.AddrPort
	// Secrets make server cookies, see SetSecrets; none: one of this process alone.
	Secrets []Secret
	// SignBudget is how many RRsets of names that do not exist are signed in a second,
	// for each transport; 0 means 4000.
	SignBudget int
	// Overload is what is done when more is asked for than can be answered.
	Overload OverloadPolicy
	// Tap tells a collector what is asked and answered; nil: nobody. Run runs it.
	Tap *tap.Tap
	// Settled is closed once the process before reads no more from the sockets that it
	// left us; nil: there was none. Datagrams of its connections over QUIC are no others'.
	Settled <-chan struct{}
}

// Server answers queries. Its methods are safe for concurrent use.
type Server struct {
	self    identity
	log     *slog.Logger
	now     func() time.Time
	workers int
	sockets []socket
	settled <-chan struct{}
	metrics *metrics
	tallies *tallies
	buffers sync.Pool // of *tcpBuffer

	// tap tells a collector; nil tells nobody. streams is the ring of all but UDP.
	tap     *tap.Tap
	streams *tap.Ring

	current atomic.Pointer[state]
	shield  shield

	// loading is held while zones are read and signed, which may take seconds; what
	// answers depend on is changed under mu alone.
	loading sync.Mutex
	signs   *signatures

	workersMu  sync.Mutex
	udpWorkers []*worker

	mu    sync.Mutex // guards what the next state is made of
	zones map[string]*loaded
	snap  *placement.Snapshot

	copies copies
}

// shield is what stands between a Server and those who would misuse it.
type shield struct {
	jar     atomic.Pointer[jar]
	limiter *limiter // nil limits nothing
	// overload is nil where no classes of askers are told apart.
	overload *overload
	limits   Limits
	proxies  []netip.Prefix

	quarantine quarantine
	// crashes is the directory for what is left of a crash; empty: none is kept.
	crashes     string
	words       *os.File   // what this process says at its end
	crashed     time.Time  // when one before it last said something; zero: never
	remembering sync.Mutex // held while the file of suspects is rewritten
	tcp         *blackbox
}

// New opens the sockets and makes a Server, which answers once Run is called.
// Until zones are set it refuses everything.
func New(c Config) (*Server, error) {
	s := &Server{
		self: identity{Site: c.Site, Node: c.Node, Version: c.Version, Hide: c.HideIdentity, Mode: c.Mode, Idle: c.Limits.idle()},
		log:  c.Logger, now: c.Now, workers: c.Workers,
		copies: copies{desk: c.Transfers}, tap: c.Tap, streams: c.Tap.Ring(), settled: c.Settled,
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.workers == 0 {
		s.workers = runtime.GOMAXPROCS(0)
	}
	s.self.outside = newOutside(slices.Clone(c.Resolvers), s.now, s.log, below(c.Crashes, outsideFile))
	if s.self.outside != nil {
		s.self.outside.heard = s.letGo
	}
	s.signs = newSignatures(c.SignBudget, s.now)
	s.setHour()
	s.shield.overload = newOverload(c.Overload, c.Mode, s.signs.rate, s.now())
	m, err := newMetrics(c.Registerer, s.fold, slices.Concat(s.signs.metrics.all(), s.shield.overload.metrics(s.now), s.self.outside.metrics())...)
	if err != nil {
		return nil, fmt.Errorf("authdns: register metrics: %w", err)
	}
	if err := newTapMetrics(c.Registerer, c.Tap); err != nil {
		return nil, fmt.Errorf("authdns: register metrics: %w", err)
	}
	if err := newTransferMetrics(c.Registerer, c.Transfers); err != nil {
		return nil, fmt.Errorf("authdns: register metrics: %w", err)
	}
	s.metrics, s.tallies = m, newTallies(s.now(), s.fold)
	s.SetSecrets(c.Secrets)
	s.shield.limiter, s.shield.limits, s.shield.proxies = newLimiter(&c.Limits, s.now()), c.Limits, slices.Clone(c.Proxies)
	if c.Current != nil {
		s.snap = c.Current.Load()
	}
	s.salvage(c.Crashes)
	s.publish(s.snap)
	if s.sockets, err = open(c.Listeners, s.workers, c.Held); err != nil {
		return nil, fmt.Errorf("authdns: %w", err)
	}
	if c.Held.Close(); len(c.Held.Left()) > 0 {
		s.log.Info("sockets of the process before are not wanted any more", "sockets", c.Held.Left())
	}
	s.makeRoom()
	return s, nil
}

// Apply compiles a Snapshot with the zones and puts both in force at once.
func (s *Server) Apply(_ context.Context, snap *placement.Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.publish(snap)
}

// publishZones puts zones in force; loading is held. What takes long is made before
// mu is taken: a vote must not wait for the replies of a large zone.
func (s *Server) publishZones(zones map[string]*loaded) {
	s.mu.Lock()
	snap := s.snap
	s.mu.Unlock()
	ahead := compile(s.self, zones, snap, s.current.Load())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.zones = zones
	s.publishAfter(s.snap, ahead)
	s.metrics.setZones(zones)
	s.signs.metrics.setZones(zones)
}

// SetSecrets puts other secrets of cookies in force, from the next query on. With
// none, one is drawn: cookies of this process are then its own, which is right for
// a server that no other answers beside.
func (s *Server) SetSecrets(secrets []Secret) {
	if len(secrets) == 0 {
		var own Secret
		rand.Read(own[:]) // never fails (crypto/rand)
		secrets = []Secret{own}
	}
	s.shield.jar.Store(&jar{slices.Clone(secrets)})
}

// publish makes the next state; mu is held, or nobody else has the Server yet.
func (s *Server) publish(snap *placement.Snapshot) { s.publishAfter(snap, s.current.Load()) }

// publishAfter is publish with a state to take over from, which need not have been in force.
func (s *Server) publishAfter(snap *placement.Snapshot, like *state) {
	next := compile(s.self, s.zones, snap, like)
	for _, name := range sortedKeys(next.faults) {
		if before := s.current.Load(); before == nil || before.faults[name] != next.faults[name] {
			s.log.Warn("zone cannot be served as meant", "zone", name, "snapshot", next.snapshotName(), "err", next.faults[name])
		}
	}
	s.snap = snap
	s.current.Store(next)
	s.self.outside.want(next.abroad())
	s.renew()
	s.leave(next)
}

// below is a file of a directory, or nothing where there is none.
func below(dir, file string) string {
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, file)
}

// StaleAliases says, a line for each, of which targets of aliases nothing new was heard
// for more than an hour. Their last addresses are served for seven days.
func (s *Server) StaleAliases() []string { return s.self.outside.stale() }

// Addrs returns the addresses of the listeners in order, as opened: port 0 of
// the configuration shows as the port it became.
func (s *Server) Addrs() []netip.AddrPort {
	var out []netip.AddrPort
	last := -1
	for _, k := range s.sockets {
		if k.listener != last {
			out, last = append(out, k.addr()), k.listener
		}
	}
	return out
}

// Run answers until the context ends, then closes all sockets. What was read by then
// is answered. Who is connected is served to the end where another process has taken
// over, since that one has what comes anew. It returns an error when a socket fails
// before that.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	conns := newConns(&s.shield.limits)
	group.Go(func() { s.resign(ctx) })
	group.Go(func() { s.watchStrain(ctx) })
	group.Go(func() { s.keepKnown(ctx) })
	group.Go(func() { s.self.outside.run(ctx) })
	if s.tap != nil {
		group.Go(func() { s.tap.Run(ctx) })
	}
	for _, k := range s.sockets {
		group.Go(func() {
			var err error
			if k.quic {
				err = s.serveQUIC(ctx, k, conns)
			} else if k.packet != nil {
				err = s.serveUDP(ctx, k)
			} else if k.http != "" {
				err = s.serveHTTP(ctx, k, conns)
			} else {
				err = s.serveTCP(ctx, k, conns)
			}
			if err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("authdns: listen %s: %w", k.addr(), err))
			}
		})
	}
	<-ctx.Done()
	for _, k := range s.sockets {
		if !k.quic { // connections end on it, and then itself
			k.close()
		}
	}
	succeeded := errors.Is(context.Cause(ctx), ErrSucceeded)
	conns.end(&group, succeeded)
	if err := context.Cause(ctx); !succeeded && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// handle answers one query and counts it. A panic costs this one answer.
func (s *Server) handle(in, out []byte, from asker, t *tally) (n int) {
	start := s.now()
	st := s.current.Load()
	from.jar, from.now = s.shield.jar.Load(), uint32(start.Unix())
	defer func() {
		if p := recover(); p != nil {
			s.metrics.panics.Inc()
			kind, held := s.shield.quarantine.confine(glance(in).kind(in), start)
			s.remember(kind, start)
			s.log.Error("query panicked: its kind is in quarantine", "query", kind.String(), "for", held, "snapshot", st.snapshotName(), "err", fmt.Sprint(p))
			n = servfail(in, out)
		}
	}()
	if s.shield.quarantine.holds(in, start) {
		return s.turnAway(in, out, from)
	}
	if n, ok := s.atDesk(in, out, from, t); ok {
		return n
	}
	n, o := st.answer(in, out, from)
	s.metrics.count(&o, from, n, s.now().Sub(start))
	if o.unsigned {
		s.signs.metrics.refused.Inc()
	}
	t.count(&o)
	n = s.bound(st, in, out, n, &o, from, start)
	if d := o.decision; d != nil && d.observed {
		s.log.Debug("would have answered", "zone", o.zone, "service", d.service,
			"site", d.site, "reason", d.reason, "snapshot", st.snapshotName())
	}
	return n
}

// turnAway refuses a query in quarantine.
func (s *Server) turnAway(in, out []byte, from asker) int {
	n, g := refuse(in, out)
	o := outcome{qtype: g.qtype, rcode: dns.RcodeRefused, silent: n == 0, ecs: ecsNone}
	s.metrics.count(&o, from, n, 0)
	s.metrics.quarantined.Inc()
	return n
}

// servfail answers with the header alone, from nothing but the request's own.
func servfail(in, out []byte) int {
	if len(in) < headerLen {
		return 0
	}
	clear(out[:headerLen])
	copy(out, in[:2])
	out[2] = 0x80 | in[2]&0x79
	out[3] = dns.RcodeServerFailure
	return headerLen
}
