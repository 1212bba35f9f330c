package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver"
)

const (
	// gatePace is how often a member looks at the membership, in its own memory.
	gatePace = 500 * time.Millisecond
	// pauseLooks are how many looks there are between a move that failed and the next.
	pauseLooks = 60
	// sweepEvery is how often standing connections are judged again.
	sweepEvery = 5 * time.Second
	// markerName is a file beside etcd's data: the members know each other by TLS.
	markerName = "tls-only"
)

// MemberLink is how the members of a cluster know each other, as one of them sees it.
type MemberLink struct {
	// Members of the cluster, and those whose stored address says clear.
	Members, Clear int
	// Exposed are those of them that are dialled from other machines.
	Exposed int
	// Reaches tells that this member has just reached every other one by TLS, or that
	// all the cluster's traffic is TLS.
	Reaches bool
	// Missing is what keeps members from going over; empty where nothing does.
	Missing string
}

// gate keeps a member's two ports, and takes the cluster from clear to TLS. What is
// asked of whom is written in one place that all members share: the peer URLs in the
// membership. A member takes clear connections from other members as long as its own
// URL says http, and from clients as long as any does.
type gate struct {
	c       MemberTLS
	members []Member // as configured: names and client ports
	marker  string
	dir     *os.File  // of the sockets; nil where their paths are short enough
	fronts  [2]*front // peers, clients
	log     *slog.Logger
	link    atomic.Pointer[MemberLink]

	seen course // owned by run
	stop context.CancelFunc
	wg   sync.WaitGroup
}

// course is what a gate remembers from one look to the next.
type course struct {
	reached    time.Time // when every other member was last reached by TLS
	readySince time.Time
	swept      time.Time
	failed     error // of the last move, which is tried again at
	again      time.Time
}

// newGate opens the ports of a member, and has etcd listen behind them. It is nil
// for a member in clear. It must be closed.
func newGate(ctx context.Context, c EmbeddedConfig, cfg *embed.Config) (*gate, error) {
	marker := filepath.Join(c.Dir, markerName)
	_, err := os.Stat(marker)
	marked := err == nil
	entries, _ := os.ReadDir(filepath.Join(c.Dir, "member", "wal"))
	old := len(entries) > 0
	lacks := c.TLS.lacks()
	switch {
	case lacks != nil && c.TLS != nil && c.TLS.Mode == TLSRequire:
		return nil, lacks
	case lacks != nil && marked && old:
		return nil, fmt.Errorf("the members know each other by TLS, and this one cannot: %w", lacks)
	case lacks != nil && c.TLS != nil && !old && !errors.Is(lacks, fs.ErrNotExist):
		return nil, fmt.Errorf("a mistake, with which a new member does not begin in clear: %w", lacks)
	case lacks != nil:
		return nil, mark(marker, false) // left over from data that are gone
	case c.TLS.Mode == TLSRequire && old && !marked:
		return nil, errors.New("the members know each other in clear, and TLS is required here: say auto at every member first, and wait until none does")
	}
	g := &gate{c: *c.TLS, members: c.Members, marker: marker, log: c.Logger}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	g.c.Settle, g.c.pace = cmp.Or(g.c.Settle, settleTime), cmp.Or(g.c.pace, gatePace)
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, err
	}
	only := g.c.Mode != TLSAllow && marked
	if !old {
		clear, err := g.join(ctx, c.Name)
		if err == nil {
			only, err = !clear, mark(marker, !clear)
		}
		if err != nil {
			return nil, err
		}
	}
	info := g.dialInfo()
	info.ClientCertAuth = true
	cfg.PeerTLSInfo, cfg.TlsMinVersion = info, "TLS1.3"
	if only {
		cfg.InitialCluster = strings.ReplaceAll(cfg.InitialCluster, "=http:", "=https:")
		withScheme(cfg.AdvertisePeerUrls, "https")
		withScheme(cfg.AdvertiseClientUrls, "https")
	}
	return g, g.listen(ctx, c.Dir, cfg, !only)
}

// listen opens both ports and moves etcd's own listeners behind them.
func (g *gate) listen(ctx context.Context, dir string, cfg *embed.Config, clear bool) error {
	if len(cfg.ListenPeerUrls) != 1 || len(cfg.ListenClientUrls) != 1 {
		return errors.New("with TLS, want one address for members and one for clients")
	}
	// Members speak HTTP/1.1 among themselves, clients gRPC.
	for i, p := range []struct {
		name string
		at   *url.URL
	}{{name: "peer", at: &cfg.ListenPeerUrls[0]}, {name: "client", at: &cfg.ListenClientUrls[0]}} {
		back, err := g.socketPath(dir, p.name)
		if err != nil {
			return errors.Join(err, g.close())
		}
		conf, protos := g.c.Peers, []string{"http/1.1"}
		if i == 1 {
			conf, protos = g.c.Clients, []string{"h2"}
		}
		if g.fronts[i], err = listenFront(ctx, p.name, p.at.Host, back, conf, protos, g.log); err != nil {
			return errors.Join(err, g.close())
		}
		g.fronts[i].clear = clear
		*p.at = url.URL{Scheme: "unix", Host: back}
	}
	return nil
}

// socketPath is where etcd listens behind a port: in its own directory, which is its
// user's alone. The path of a socket is at most 107 bytes long (unix(7)); a longer one
// goes by a descriptor of the directory, which lasts as long as the gate.
func (g *gate) socketPath(dir, name string) (string, error) {
	path := filepath.Join(dir, name+".sock")
	if len(path) <= 107 {
		return path, nil
	}
	if g.dir == nil {
		var err error
		if g.dir, err = os.Open(dir); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s.sock", g.dir.Fd(), name), nil
}

func withScheme(urls []url.URL, scheme string) {
	for i := range urls {
		urls[i].Scheme = scheme
	}
}

// dialInfo is how etcd dials the other members.
func (g *gate) dialInfo() transport.TLSInfo {
	f := g.c.Dial
	return transport.TLSInfo{CertFile: f.Cert, KeyFile: f.Key, TrustedCAFile: f.CA, ServerName: f.Name}
}

// run serves the ports and follows the membership until close.
func (g *gate) run(s *etcdserver.EtcdServer) {
	ctx, stop := context.WithCancel(context.Background())
	g.stop = stop
	for _, f := range g.fronts {
		f.serve()
	}
	g.wg.Go(func() {
		select {
		case <-s.ReadyNotify(): // before, the membership is that of some time in the past
		case <-ctx.Done():
			return
		}
		tick := time.NewTicker(g.c.pace)
		defer tick.Stop()
		for {
			g.look(ctx, s)
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
}

// look takes over what the membership says, and if this member leads, changes it.
func (g *gate) look(ctx context.Context, s *etcdserver.EtcdServer) {
	now := time.Now()
	all := membersOf(s)
	clear := countClear(all)
	g.apply(all, clear)
	if now.Sub(g.seen.swept) >= sweepEvery {
		g.seen.swept = now
		for _, f := range g.fronts {
			f.sweep()
		}
	}
	next := nextMove(all, g.c.Mode != TLSAllow)
	link := &MemberLink{Members: len(all), Clear: clear, Exposed: countExposed(all), Reaches: clear == 0}
	if next != nil {
		link.Reaches, link.Missing = g.ready(ctx, all, now)
	}
	g.link.Store(link)
	if next == nil || link.Missing != "" || s.Leader() != s.MemberID() {
		return
	}
	err := g.move(ctx, s, *next)
	switch {
	case err == nil, ctx.Err() != nil:
	case errors.Is(err, errAway): // nothing was changed: at the next look it is tried again
		away := *link
		away.Missing = errAway.Error()
		g.link.Store(&away)
		g.log.Debug("a member of the store does not go over yet", "member", next.name, "err", err)
	default:
		g.seen.readySince, g.seen.again = time.Time{}, time.Now().Add(pauseLooks*g.c.pace)
		g.seen.failed = fmt.Errorf("%s did not go over: %w", next.name, err)
		g.log.Error("a member of the store did not go over", "member", next.name, "to", flipped(next.urls), "err", err)
	}
}

// apply opens or closes the ports to clear connections.
func (g *gate) apply(all []peer, clear int) {
	self := slices.ContainsFunc(all, func(p peer) bool { return p.self && p.clear() })
	allow := g.c.Mode == TLSAllow
	g.fronts[0].setClear(allow || g.c.Mode == TLSAuto && self)
	g.fronts[1].setClear(allow || g.c.Mode == TLSAuto && clear > 0)
	if err := mark(g.marker, clear == 0); err != nil {
		g.log.Error("the store's directory cannot be written", "err", err)
	}
}

// ready tells whether this member reaches the others, and what keeps the next one from
// going over. To go back, nobody need be reached.
func (g *gate) ready(ctx context.Context, all []peer, now time.Time) (reaches bool, missing string) {
	toTLS := g.c.Mode != TLSAllow
	if toTLS && now.Sub(g.seen.reached) >= sweepEvery {
		if err := g.reach(ctx, all); err != nil {
			g.seen.readySince = time.Time{}
			return false, err.Error()
		}
		g.seen.reached = now
	}
	if g.seen.failed != nil && now.Before(g.seen.again) {
		return toTLS, g.seen.failed.Error()
	}
	if g.c.Ready != nil {
		if ok, missing := g.c.Ready(toTLS); !ok {
			g.seen.readySince = time.Time{}
			return toTLS, missing
		}
	}
	if g.seen.readySince.IsZero() {
		g.seen.readySince = now
	}
	if left := g.c.Settle - now.Sub(g.seen.readySince); toTLS && left > 0 {
		// In whole minutes: each other text would be a write to the store.
		return true, fmt.Sprintf("all are ready; the members go over within %d min", int(left.Minutes())+1)
	}
	return toTLS, ""
}

// memberLink returns what the gate saw last.
func (g *gate) memberLink() MemberLink {
	if l := g.link.Load(); l != nil {
		return *l
	}
	return MemberLink{Missing: "the member is not ready yet"}
}

// halt ends the goroutine that follows the membership, while etcd still runs.
func (g *gate) halt() {
	if g != nil && g.stop != nil {
		g.stop()
		g.wg.Wait()
	}
}

// close ends the ports; etcd has ended before, and handed over through them.
func (g *gate) close() error {
	if g == nil {
		return nil
	}
	for _, f := range g.fronts {
		if f != nil {
			f.close()
		}
	}
	if g.dir != nil {
		return g.dir.Close()
	}
	return nil
}

// hostOf returns the address in a member's URL.
func hostOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	if _, _, err := net.SplitHostPort(u.Host); err != nil {
		return ""
	}
	return u.Host
}

// register shows what comes through the ports.
func (g *gate) register(r prometheus.Registerer) error {
	if g == nil {
		return nil
	}
	var errs []error
	for _, f := range g.fronts {
		for _, tls := range []bool{true, false} {
			link := map[bool]string{true: "tls", false: "clear"}[tls]
			errs = append(errs, r.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "rhumb_etcd_connections",
				Help:        "Open connections to the ports of the embedded member.",
				ConstLabels: prometheus.Labels{"port": f.name, "link": link}},
				func() float64 {
					secure, clear := f.count()
					if tls {
						return float64(secure)
					}
					return float64(clear)
				})))
		}
		for _, reason := range []string{reasonClear, reasonCertificate} {
			errs = append(errs, r.Register(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "rhumb_etcd_refused_total",
				Help:        "Connections that the ports of the embedded member refused.",
				ConstLabels: prometheus.Labels{"port": f.name, "reason": reason}},
				func() float64 { return float64(f.turnedAway(reason)) })))
		}
	}
	return errors.Join(errs...)
}
