package bgp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	api "github.com/osrg/gobgp/v3/api"
	"github.com/osrg/gobgp/v3/pkg/server"

	"rhumb/placement"
)

// NoListener as a port makes the speaker dial only.
const NoListener = -1

// ownASLimit is how often our AS may stand in a learned path. Sites share one
// AS, and the routes of another site, which are our witness, carry it once for
// eBGP and once more for each prepend.
const ownASLimit = 10

// GoBGPConfig is what our own speaker needs.
type GoBGPConfig struct {
	ASN      uint32
	RouterID netip.Addr
	// Port to listen on; 0 is 179, NoListener opens none.
	Port   int
	Listen []netip.Addr // empty means all addresses
	Peers  []Peer
	Logger *slog.Logger
	// Transit makes a router of it: everything learned is accepted, the best
	// routes are passed on and reported by WatchBest. An announcer accepts
	// nothing and passes on nothing but what it originates itself. A Transit
	// sends no peer a route with that peer's AS in it (the library's own loop
	// check), so sites of one AS see no witness through it; those with an AS
	// each do (RFC 6382).
	Transit bool
}

// GoBGP is the engine of our own BGP speaker. The library keeps global state
// and one management channel, so a process starts one, once, and never again.
type GoBGP struct {
	server *server.BgpServer
	log    *slog.Logger
	peers  []Peer
	asn    uint32
	// toward holds which peers, by number, hear less than the others; the
	// speaker's loop owns it.
	toward map[int]placement.Step

	watches sync.WaitGroup
	stop    context.CancelFunc // ends every watch
	stopped context.Context
}

var (
	_ Engine   = (*GoBGP)(nil)
	_ Resetter = (*GoBGP)(nil)
	_ Toward   = (*GoBGP)(nil)
)

// StartGoBGP opens the listener and begins to dial the peers.
//
// It refuses to run where the Go runtime would open multipath TCP listeners:
// TCP-MD5 and GTSM fail on those with no more than a log line, and a peer
// without the password reaches Established.
func StartGoBGP(ctx context.Context, c GoBGPConfig) (*GoBGP, error) {
	if new(net.ListenConfig).MultipathTCP() {
		return nil, errors.New("bgp: multipath TCP is on, which lets peers in without their password; run without GODEBUG=multipathtcp")
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	g := &GoBGP{log: c.Logger, peers: c.Peers, asn: c.ASN, toward: make(map[int]placement.Step)}
	g.stopped, g.stop = context.WithCancel(context.Background())
	g.server = server.NewBgpServer(server.LoggerOption(&logAdapter{c.Logger}))
	go g.server.Serve() // the library has no way to end it; it lives as long as the process
	if err := g.start(ctx, c); err != nil {
		return nil, errors.Join(err, g.Close(ctx))
	}
	return g, nil
}

// check refuses settings under which the speaker would not do what it promises.
func (c *GoBGPConfig) check() error {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.ASN == 0 || !c.RouterID.Is4() {
		return fmt.Errorf("bgp: AS %d and router id %s: want an AS and an IPv4 address", c.ASN, c.RouterID)
	}
	for i := range c.Peers {
		if err := c.Peers[i].Check(c.ASN); err != nil {
			return err
		}
	}
	return nil
}

// start brings the server up: global settings, policies, and only then peers.
func (g *GoBGP) start(ctx context.Context, c GoBGPConfig) error {
	err := g.server.StartBgp(ctx, &api.StartBgpRequest{Global: &api.Global{
		Asn: c.ASN, RouterId: c.RouterID.String(), ListenPort: int32(c.Port),
		ListenAddresses:  addressStrings(c.Listen),
		UseMultiplePaths: c.Transit,
	}})
	if err != nil {
		return fmt.Errorf("bgp: start: %w", err)
	}
	policies := g.announcerPolicies
	if c.Transit {
		policies = g.transitPolicies
	}
	if err := policies(ctx); err != nil { // before the first peer, lest one route slip through
		return fmt.Errorf("bgp: policies: %w", err)
	}
	for i := range c.Peers {
		if err := g.server.AddPeer(ctx, &api.AddPeerRequest{Peer: peerConfig(&c.Peers[i])}); err != nil {
			return fmt.Errorf("bgp: peer %s: %w", c.Peers[i].Address, err)
		}
	}
	return nil
}

// peerConfig puts a peer in the library's words. What is not set there has a
// default of the library, so everything that matters is set.
func peerConfig(p *Peer) *api.Peer {
	hold, keepalive := p.timers()
	out := &api.Peer{
		Conf: &api.PeerConf{NeighborAddress: p.Address.String(), PeerAsn: p.ASN, AuthPassword: p.Password,
			AllowOwnAsn: ownASLimit},
		// The library's own defaults are 120 s and 30 s: too slow to come back.
		Timers: &api.Timers{Config: &api.TimersConfig{ConnectRetry: 1, IdleHoldTimeAfterReset: 1,
			HoldTime: uint64(hold / time.Second), KeepaliveInterval: uint64(keepalive / time.Second)}},
		Transport:       &api.Transport{PassiveMode: p.Passive, RemotePort: uint32(cmp.Or(p.Port, 179))},
		GracefulRestart: &api.GracefulRestart{Enabled: false},
	}
	if p.Local.IsValid() {
		out.Transport.LocalAddress = p.Local.String()
	}
	if p.GTSM {
		out.TtlSecurity = &api.TtlSecurity{Enabled: true, TtlMin: 255}
	}
	if p.Multihop > 0 {
		out.EbgpMultihop = &api.EbgpMultihop{Enabled: true, MultihopTtl: uint32(p.Multihop)}
	}
	for _, f := range families() {
		if p.OwnFamily && p.Address.Is4() != (f.Afi == api.Family_AFI_IP) {
			continue
		}
		af := &api.AfiSafi{Config: &api.AfiSafiConfig{Family: f, Enabled: true}}
		if p.AllPaths {
			af.AddPaths = &api.AddPaths{Config: &api.AddPathsConfig{Receive: true}}
		}
		if p.MaxPrefixes > 0 {
			af.PrefixLimits = &api.PrefixLimit{Family: f, MaxPrefixes: p.MaxPrefixes}
		}
		out.AfiSafis = append(out.AfiSafis, af)
	}
	return out
}

// families returns the two we speak; one session carries both (RFC 4760).
func families() []*api.Family {
	return []*api.Family{
		{Afi: api.Family_AFI_IP, Safi: api.Family_SAFI_UNICAST},
		{Afi: api.Family_AFI_IP6, Safi: api.Family_SAFI_UNICAST},
	}
}

// Announce originates a route, or replaces the one of the same prefix.
func (g *GoBGP) Announce(ctx context.Context, r Route) error {
	r.Attrs.LargeCommunities = slices.Concat(r.Attrs.LargeCommunities, g.towardMarks())
	path, err := toPath(r, g.asn, false)
	if err == nil {
		_, err = g.server.AddPath(ctx, &api.AddPathRequest{TableType: api.TableType_GLOBAL, Path: path})
	}
	if err != nil {
		return fmt.Errorf("bgp: announce %s: %w", r.Prefix, err)
	}
	return nil
}

// SetAttrs replaces the attributes of a route; on the wire it is one UPDATE.
func (g *GoBGP) SetAttrs(ctx context.Context, r Route) error { return g.Announce(ctx, r) }

// Withdraw takes a route back.
func (g *GoBGP) Withdraw(ctx context.Context, prefix netip.Prefix) error {
	path, err := toPath(Route{Prefix: prefix}, g.asn, true)
	if err == nil {
		err = g.server.DeletePath(ctx, &api.DeletePathRequest{TableType: api.TableType_GLOBAL, Path: path})
	}
	if err != nil {
		return fmt.Errorf("bgp: withdraw %s: %w", prefix, err)
	}
	return nil
}

// ResetPeer ends an established session with a Cease which says why (RFC 9003);
// the peer is dialled again after a second. A session which is not established
// is left alone: what would be sent could only end the next one.
func (g *GoBGP) ResetPeer(ctx context.Context, peer netip.Addr, why string) error {
	up := false
	err := g.server.ListPeer(ctx, &api.ListPeerRequest{Address: peer.String()}, func(p *api.Peer) { up = peerState(p).Established })
	if err == nil && up {
		err = g.server.ResetPeer(ctx, &api.ResetPeerRequest{Address: peer.String(), Communication: why})
	}
	if err != nil {
		return fmt.Errorf("bgp: reset %s: %w", peer, err)
	}
	return nil
}

// closeWait bounds the library's shutdown, which has been seen to hang while a
// watch was running (osrg/gobgp issue 3366). The process is about to end, and
// the kernel closes what is left.
const closeWait = 500 * time.Millisecond

// Close ends the watches, then the sessions with a Cease, then the listener.
// Routes should be withdrawn before.
func (g *GoBGP) Close(ctx context.Context) error {
	g.stop()
	g.watches.Wait()
	done := make(chan error, 1)
	go func() { done <- g.server.StopBgp(ctx, &api.StopBgpRequest{}) }()
	select {
	case err := <-done:
		return err
	case <-time.After(closeWait):
		return errors.New("bgp: close: sessions did not end in time")
	}
}

// addressStrings is for the library, which takes addresses as text.
func addressStrings(list []netip.Addr) []string {
	out := make([]string, 0, len(list))
	for _, a := range list {
		out = append(out, a.String())
	}
	return out
}
