package forward

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

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
	complainGap  = 10 * time.Second
	largestInput = 64 << 10 // no IP packet and no datagram is larger
)

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
	mu       sync.Mutex // guards the tables, claimed and the marked fields of peerState
	owners   *owners    // of TCP
	udp      *owners    // of QUIC
	arrivals arrivals
	// claimed are flows whose claim the other sites are to be told, claiming that there are some.
	claimed  []Flow
	claiming chan struct{}
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
	c = c.withDefaults()
	if err := c.check(); err != nil {
		return nil, err
	}
	f := &Forwarder{identity: identity{site: c.Site, id: idOf(c.Site), local: c.Local, mtu: c.PathMTU, idle: c.QUICIdle},
		now: c.Now, onForeign: c.OnForeign, onHeld: c.OnHeld, keptFor: c.KeptFor, metrics: newMetrics(),
		targets: targets{renewNow: make(chan struct{}, 1)}, tables: tables{arrivals: newArrivals(), claiming: make(chan struct{}, 1)},
		roundabout: roundabout{at: c.At, rate: float64(max(0, c.RelayRate)), onRelay: c.OnRelay, woken: make(chan struct{}, 1), news: make(chan news, 256)}}
	f.log.Logger = c.Logger
	f.quic.Store(&QUIC{})
	f.owners, f.udp = f.newTable(protoTCP, c.Pair, c.Shadowed), f.newTable(protoUDP, c.Pair, func(Flow) bool { return false })
	f.owners.first = c.First
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
	group.Go(func() error { return f.herald(inner) })
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
