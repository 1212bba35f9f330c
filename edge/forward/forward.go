package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"rhumb/placement"
)

// Mode says what is done with the strays of a VIP.
type Mode uint8

const (
	// Observe counts strays and names their owner; the kernel resets them
	// as if the forwarder weren't there.
	Observe Mode = iota
	// Act tunnels strays to their owner.
	Act
)

// String returns the word used in configuration.
func (m Mode) String() string {
	if m == Act {
		return "act"
	}
	return "observe"
}

const (
	// askRate bounds the searches for an owner, a second and at once: each
	// costs every peer a look-up, and a scan of the VIP is nothing but
	// strays.
	askRate = 2000
	// leastWait is how long packets wait, at least, while a site that was asked
	// is silent. Silence is no word: a site under load answers late, and a packet
	// given back too soon resets a living session (seen after 1 s at a load of 30
	// on 2 processors), while one that waits costs the client of a dead one two
	// seconds. When all have answered nothing waits.
	leastWait = 2 * time.Second
	mostWait  = 4 * time.Second

	// tickEvery is the grain of repeated and ended questions.
	tickEvery  = 20 * time.Millisecond
	sweepEvery = time.Second
	// complainGap keeps an error that comes with each packet from filling
	// the log.
	complainGap = 10 * time.Second
	// defaultMTU is that of Ethernet, and so of most paths between sites.
	defaultMTU   = 1500
	largestInput = 64 << 10 // no IP packet and no datagram is larger
)

// Config is what New needs. Only Site and Local must be set.
type Config struct {
	// Site is this site's name, the same which its peers know it by.
	Site string
	// Local is where the tunnel listens: a unicast address of this site.
	Local netip.AddrPort
	Peers []Peer
	// VIPs are the anycast addresses and ports whose servers run here, all
	// with Mode; SetVIPs gives each its own.
	VIPs []netip.AddrPort
	Mode Mode

	// QUICIdle is how long a QUIC flow whose client sends nothing is known: as
	// long as the servers keep a connection, or longer. 0 means 90 s.
	QUICIdle time.Duration
	// PathMTU is that of the paths between sites; 0 means 1,500.
	PathMTU int
	// OnForeign is told while strays of a flow owned elsewhere arrive here,
	// every 250 ms at most for each, with the time of the first. It is
	// called by the goroutine that reads strays and must not block.
	OnForeign func(f Flow, owner string, since time.Time)
	// OnHeld is told of each packet of a claimed flow, whether it is kept or
	// not. It must neither block nor keep the packet.
	OnHeld func(f Flow, packet []byte)
	// Shadowed tells whether the session of a flow could be revived here. Its
	// packets then wait when no site answers for it: who does not may have
	// been its owner. It must not block.
	Shadowed func(f Flow) bool
	// KeptFor names the site whose session of a flow would be revived here, or "".
	// Sites that ask for the flow's owner are told. It must not block.
	KeptFor func(f Flow) string
	// Pair names the site which likely has this client's sessions, as the
	// previous routing had it, or "". It must not block.
	Pair func(client netip.Addr) string

	// At is where this site stands; zero: not known.
	At placement.Position
	// RelayRate is what this site passes on for others round broken paths, octets a
	// second; 0 means 100 Mbit/s, less than 0 nothing.
	RelayRate int64
	// OnRelay is told when what is for a peer goes another way. It must not block.
	OnRelay func(RelayChange)

	Logger     *slog.Logger
	Registerer prometheus.Registerer
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Forwarder is this site's half of all tunnels. Its methods are safe for
// concurrent use.
type Forwarder struct {
	identity
	log       journal
	now       func() time.Time
	onForeign func(Flow, string, time.Time)
	onHeld    func(Flow, []byte)
	keptFor   func(Flow) string
	metrics   *metrics
	peers     atomic.Pointer[peerSet]
	targets
	roundabout
	ends atomic.Pointer[ends]

	// passing is held while a packet that came by tunnel is on its way from its
	// judgement to the kernel. It is taken before mu.
	passing sync.Mutex

	tables
}

// tables are what is believed of flows.
type tables struct {
	mu       sync.Mutex // guards the tables and the marked fields of peerState
	owners   *owners    // of TCP
	udp      *owners    // of QUIC
	arrivals arrivals
}

// targets are the addresses and ports whose packets we judge.
type targets struct {
	vips     atomic.Pointer[map[netip.AddrPort]Mode]
	quic     atomic.Pointer[QUIC]
	renewNow chan struct{} // the rules' sets are out of date
}

// identity is what this site is to its peers; it never changes.
type identity struct {
	site  string
	id    siteID
	local netip.AddrPort
	mtu   int // of the paths to peers
	idle  time.Duration
}

// ends are the sockets and devices that exist while Run does.
type ends struct {
	rim    *rim
	tunnel *tunnelSocket
	diag   *diag
	flows  *flowSet
}

// New checks the configuration. Nothing is opened before Run.
func New(c Config) (*Forwarder, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.PathMTU == 0 {
		c.PathMTU = defaultMTU
	}
	if c.QUICIdle == 0 {
		c.QUICIdle = quicIdle
	}
	if c.RelayRate == 0 {
		c.RelayRate = relayRate
	}
	if c.Pair == nil {
		c.Pair = func(netip.Addr) string { return "" }
	}
	if c.Shadowed == nil {
		c.Shadowed = func(Flow) bool { return false }
	}
	if c.KeptFor == nil {
		c.KeptFor = func(Flow) string { return "" }
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	f := &Forwarder{identity: identity{site: c.Site, id: idOf(c.Site), local: c.Local, mtu: c.PathMTU, idle: c.QUICIdle},
		now: c.Now, onForeign: c.OnForeign, onHeld: c.OnHeld, keptFor: c.KeptFor, metrics: newMetrics(),
		targets: targets{renewNow: make(chan struct{}, 1)}, tables: tables{arrivals: newArrivals()},
		roundabout: roundabout{at: c.At, rate: float64(max(0, c.RelayRate)), onRelay: c.OnRelay, woken: make(chan struct{}, 1), news: make(chan news, 256)}}
	f.log.Logger = c.Logger
	f.quic.Store(&QUIC{})
	f.owners, f.udp = f.newTable(protoTCP, c.Pair, c.Shadowed), f.newTable(protoUDP, c.Pair, func(Flow) bool { return false })
	vips := make(map[netip.AddrPort]Mode)
	for _, vip := range c.VIPs {
		vips[vip] = c.Mode
	}
	if err := f.SetVIPs(vips); err != nil {
		return nil, err
	}
	if err := f.SetPeers(c.Peers); err != nil {
		return nil, err
	}
	return f, f.metrics.register(c.Registerer, f.heldPackets)
}

// newTable makes the table for the foreign flows of a protocol. Each has its own
// budget of questions, so that a flood of one doesn't end the other.
func (f *Forwarder) newTable(proto byte, pair func(netip.Addr) string, shadowed func(Flow) bool) *owners {
	return newOwners(proto, hooks{peers: f.sites, neighbours: f.neighbours, pair: pair, shadowed: shadowed, count: f.countStrays,
		announced: func(flow Flow) string { return f.announcedBy(session{proto, flow}) },
		retire:    func(site string, flow Flow) { f.retire(site, session{proto, flow}) }}, askRate, leastWait)
}

// check refuses what can't work.
func (c *Config) check() error {
	if c.Site == "" || strings.ContainsRune(c.Site, 0) || !c.Local.IsValid() || c.Local.Port() == 0 {
		return fmt.Errorf("forward: site %q at %s: a name, an address and a port are needed", c.Site, c.Local)
	}
	if c.PathMTU < smallMTU {
		return fmt.Errorf("forward: path MTU %d: at least %d is needed", c.PathMTU, smallMTU)
	}
	return nil
}

// SetPeers replaces the list of peers. If it is wrong the old one stays.
func (f *Forwarder) SetPeers(list []Peer) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	set, err := f.newPeerSet(list, f.peers.Load())
	if err != nil {
		return err
	}
	f.peers.Store(set)
	return nil
}

// SetVIPs replaces the set of VIPs, each with its mode. A VIP that leaves the
// set is the kernel's alone, and what is tunnelled to it is refused.
func (f *Forwarder) SetVIPs(vips map[netip.AddrPort]Mode) error {
	set := make(map[netip.AddrPort]Mode, len(vips))
	for vip, mode := range vips {
		if !vip.IsValid() || vip.Port() == 0 || vip.Addr().Zone() != "" {
			return fmt.Errorf("forward: VIP %s: an address and a port are needed", vip)
		}
		set[netip.AddrPortFrom(vip.Addr().Unmap(), vip.Port())] = mode
	}
	f.vips.Store(&set)
	f.renewSoon()
	return nil
}

// renewSoon lets the rules learn of new targets.
func (t *targets) renewSoon() {
	select {
	case t.renewNow <- struct{}{}:
	default: // one is due already
	}
}

// Run opens devices, rules and tunnel, forwards until ctx ends, and removes
// them. It returns nil when ctx ended it.
func (f *Forwarder) Run(ctx context.Context) (err error) {
	e, err := f.open()
	if err != nil {
		return err
	}
	defer e.close()
	rules, err := loadRules(e.rim.strays.index, e.rim.v6, f.idle)
	if err != nil {
		return err
	}
	defer func() {
		if gone := rules.remove(); err == nil {
			err = gone
		}
	}()
	if err := rules.renew(f.now(), f.wanted(false)); err != nil {
		return err
	}
	f.ends.Store(e)
	defer f.ends.Store(nil)
	f.log.Info("forwarding", "site", f.site, "local", f.local, "vips", len(*f.vips.Load()), "tun", !e.rim.strays.veth)

	group, inner := errgroup.WithContext(ctx)
	group.Go(func() error { return f.readStrays(inner, e) })
	group.Go(func() error { return f.readTunnel(inner, e) })
	group.Go(func() error { return f.renewVIPs(inner, rules) })
	group.Go(func() error { return f.tick(inner) })
	group.Go(func() error { return f.findWays(inner) })
	group.Go(func() error {
		<-inner.Done()
		e.interrupt()
		return nil
	})
	if err := group.Wait(); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// open makes what Run needs, all or nothing.
func (f *Forwarder) open() (*ends, error) {
	diag, err := openDiag()
	if err != nil {
		return nil, err
	}
	tunnel, err := listenTunnel(f.local)
	if err != nil {
		diag.close()
		return nil, err
	}
	flows, err := openFlowSet()
	if err != nil {
		diag.close()
		tunnel.close()
		return nil, err
	}
	rim, err := openRim()
	if err != nil {
		diag.close()
		tunnel.close()
		flows.close()
		return nil, err
	}
	return &ends{rim: rim, tunnel: tunnel, diag: diag, flows: flows}, nil
}

// interrupt ends reads in progress, so that Run's loops see the end of ctx.
// The device for giving back stays until close: others may be writing to it.
func (e *ends) interrupt() {
	e.tunnel.close()
	_ = e.rim.strays.file.Close()
}

// close removes devices and closes sockets, after all readers have ended.
func (e *ends) close() {
	e.tunnel.close()
	e.rim.close()
	e.diag.close()
	e.flows.close()
}

// renewVIPs keeps the rules alive. A failure is logged and tried again: until
// then the kernel answers by itself.
func (f *Forwarder) renewVIPs(ctx context.Context, rules *rules) error {
	ticker := time.NewTicker(renewEvery)
	defer ticker.Stop()
	var cookies cookieWatch
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-f.renewNow:
		}
		now := f.now()
		again, err := rules.keep(now, f.wanted(cookies.sent(now)))
		if err != nil {
			f.complain(err)
		} else if again {
			f.log.Warn("somebody removed our nftables rules; they are back", "site", f.site)
		}
	}
}

// wanted is what the rules shall hold now.
func (f *Forwarder) wanted(cookies bool) wanted {
	return wanted{vips: *f.vips.Load(), quic: f.quic.Load(), cookies: cookies, self: f.site}
}

// tick drives what waits for time to pass.
func (f *Forwarder) tick(ctx context.Context) error {
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	var steps []step
	swept := f.now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		now := f.now()
		sweep := now.Sub(swept) >= sweepEvery
		if sweep {
			swept = now
		}
		for _, table := range []*owners{f.owners, f.udp} {
			f.mu.Lock()
			steps = table.tick(now, steps[:0])
			if sweep {
				steps = table.sweep(now, steps)
				f.arrivals.sweep(now)
			}
			f.mu.Unlock()
			f.run(now, table, steps)
		}
	}
}

// Hold keeps the packets of a flow, until Release or 15 s have passed: its
// session is being restored here, or is about to leave. When it returns, none
// that was judged before is still on its way to the kernel: a socket that is
// silenced next has had it.
func (f *Forwarder) Hold(flow Flow) {
	f.passing.Lock()
	defer f.passing.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.owners.hold(f.now(), flow)
}

// Claim is Hold for a session that is revived here: its owner is lost. The other
// sites are told that its packets belong here, and OnHeld sees each of them.
func (f *Forwarder) Claim(flow Flow) {
	f.mu.Lock()
	f.owners.claim(f.now(), flow)
	f.mu.Unlock()
	body := appendSession(nil, session{proto: protoTCP, flow: flow})
	set := f.peers.Load()
	for _, site := range set.sites {
		p := set.bySite[site]
		if err := f.send(p, kindMine, body); err != nil && !errors.Is(err, net.ErrClosed) {
			f.complain(fmt.Errorf("forward: tell %s of a claim: %w", p.Site, err))
		}
	}
}

// Lost is told that a site is down: what was believed of the flows there is
// forgotten, so that whoever revives them is found.
func (f *Forwarder) Lost(site string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unlearn(site)
	f.owners.lost(site)
	f.owners.mourn(f.now().Add(reviveLife))
	f.udp.lost(site)
}

// Release gives the packets of a held flow to the kernel, in the order they
// came: to the session restored meanwhile, or to a reset.
func (f *Forwarder) Release(flow Flow) {
	f.mu.Lock()
	steps := f.owners.release(flow, nil)
	f.mu.Unlock()
	f.run(f.now(), f.owners, steps)
}

// Moved records that this site gave a session to another: packets that still
// arrive follow it, and those who ask are sent there. Call it before the
// session's socket closes.
func (f *Forwarder) Moved(flow Flow, to string) {
	now := f.now()
	f.mu.Lock()
	steps := f.owners.move(now, flow, to, nil)
	f.mu.Unlock()
	f.run(now, f.owners, steps)
}

// Stayed records that a session which was held here did not come: its packets are those of
// a site, until that says that it has no such session.
func (f *Forwarder) Stayed(flow Flow, at string) {
	now := f.now()
	f.mu.Lock()
	steps := f.owners.stay(now, flow, at, nil)
	f.mu.Unlock()
	f.run(now, f.owners, steps)
}

// sites lists whom to ask; for the table of owners.
func (f *Forwarder) sites() []string { return f.peers.Load().sites }

// neighbours lists the other edges of this site; for the table of owners.
func (f *Forwarder) neighbours() []string { return f.peers.Load().near }

// countStrays counts for the table of owners, under the lock.
func (f *Forwarder) countStrays(how result, n int) { f.metrics.byResult[how].Add(float64(n)) }

// heldPackets is the gauge of what waits.
func (f *Forwarder) heldPackets() float64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return float64(f.owners.heldNow + f.udp.heldNow)
}

// journal is the log, with a limit for errors that may repeat with each packet.
type journal struct {
	*slog.Logger
	next atomic.Int64 // Unix nanoseconds
}

// complain logs an error, one in complainGap at most.
func (f *Forwarder) complain(err error) {
	now, next := f.now().UnixNano(), f.log.next.Load()
	if now >= next && f.log.next.CompareAndSwap(next, now+int64(complainGap)) {
		f.log.Warn("forwarding is impaired", "site", f.site, "err", err)
	}
}
