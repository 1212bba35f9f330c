package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"
)

// Member is one of the named nodes which carry the embedded cluster. What is said of
// it as http:// is spoken in clear or encrypted, as MemberTLS has it.
type Member struct {
	Name       string
	PeerURL    string
	ClientURLs []string
}

// EmbeddedConfig describes this node's member of the embedded cluster.
type EmbeddedConfig struct {
	Name string
	Dir  string
	// Members are all of one, three or five, this one among them.
	Members []Member
	// ListenPeer and ListenClient default to the member's own URLs.
	ListenPeer, ListenClient []string
	TLS                      *MemberTLS // nil: in clear, as etcd itself listens
	// Heartbeat and Election default to 100 ms and 1 s; far apart members need more.
	Heartbeat, Election time.Duration
	// Quota bounds the data on disk in bytes; 0 means 2 GiB.
	Quota      int64
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Embedded is a member of the cluster inside this process.
type Embedded struct {
	server  *embed.Etcd
	members []Member
	name    string
	hangUp  context.CancelFunc // ends the streams of all clients
	gate    *gate              // nil: in clear, since it
	lacks   error
}

// StartEmbedded starts this node's member. It returns once the member listens,
// and does not wait for the others: a node must start while they are away.
// A data directory with a member in it joins its cluster again.
func StartEmbedded(ctx context.Context, c EmbeddedConfig) (*Embedded, error) {
	e, err := startEmbedded(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("store: embedded etcd %s: %w", c.Name, err)
	}
	return e, nil
}

func startEmbedded(ctx context.Context, c EmbeddedConfig) (*Embedded, error) {
	cfg, err := embedConfig(c)
	if err != nil {
		return nil, err
	}
	gate, err := newGate(ctx, c, cfg)
	if err != nil {
		return nil, err
	}
	serving, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	cfg.GRPCAdditionalServerOptions = []grpc.ServerOption{grpc.ChainStreamInterceptor(endWith(serving))}
	started := make(chan error, 1)
	e := &Embedded{members: c.Members, name: c.Name, hangUp: hangUp, gate: gate, lacks: errors.New("store.etcd.tls is off")}
	if c.TLS != nil && c.TLS.Lacks != nil {
		e.lacks = c.TLS.Lacks
	}
	go func() {
		var err error
		e.server, err = embed.StartEtcd(cfg)
		started <- err
	}()
	select {
	case err = <-started:
	case <-ctx.Done():
		// The start itself cannot be called off; what comes of it is closed.
		go func() {
			if <-started == nil {
				e.Close()
			} else {
				gate.close()
			}
		}()
		hangUp()
		return nil, ctx.Err()
	}
	if err != nil {
		hangUp()
		return nil, errors.Join(err, gate.close())
	}
	if gate != nil {
		gate.run(e.server.Server)
	}
	if err = e.register(c.Registerer); err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

// endWith ends streams with a context. A stopping server waits for its clients
// to finish, and a watch never does: without this each stop takes seven seconds.
func endWith(serving context.Context) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
		ctx, cancel := context.WithCancel(stream.Context())
		defer cancel()
		defer context.AfterFunc(serving, cancel)()
		return handle(srv, &endedStream{stream, ctx})
	}
}

// endedStream is a stream under a context of ours.
type endedStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context returns the context that ends with the member.
func (s *endedStream) Context() context.Context { return s.ctx }

func embedConfig(c EmbeddedConfig) (*embed.Config, error) {
	if n := len(c.Members); n != 1 && n != 3 && n != 5 {
		return nil, fmt.Errorf("%d members: want one, three or five", n)
	}
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = c.Name, c.Dir
	cfg.InitialClusterToken = "rhumb"
	cfg.TickMs, cfg.ElectionMs = millis(c.Heartbeat, 100), millis(c.Election, 1000)
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = "periodic", "1h"
	if cfg.QuotaBackendBytes = c.Quota; c.Quota == 0 {
		cfg.QuotaBackendBytes = 2 << 30
	}
	cfg.GRPCKeepAliveMinTime = time.Second // our clients ask soon whether a member is still there
	cfg.StrictReconfigCheck = true
	log := c.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zapTo(log.With("member", c.Name), slog.LevelWarn))
	return cfg, setMembers(cfg, c)
}

func millis(d time.Duration, def uint) uint {
	if d == 0 {
		return def
	}
	return uint(d.Milliseconds())
}

func setMembers(cfg *embed.Config, c EmbeddedConfig) error {
	var self *Member
	var all []string
	for i, m := range c.Members {
		all = append(all, m.Name+"="+m.PeerURL)
		if m.Name == c.Name {
			self = &c.Members[i]
		}
	}
	if self == nil {
		return errors.New("this node is not among the members")
	}
	cfg.InitialCluster = strings.Join(all, ",")
	listenPeer, listenClient := c.ListenPeer, c.ListenClient
	if len(listenPeer) == 0 {
		listenPeer = []string{self.PeerURL}
	}
	if len(listenClient) == 0 {
		listenClient = self.ClientURLs
	}
	var err [4]error
	cfg.AdvertisePeerUrls, err[0] = urls([]string{self.PeerURL})
	cfg.AdvertiseClientUrls, err[1] = urls(self.ClientURLs)
	cfg.ListenPeerUrls, err[2] = urls(listenPeer)
	cfg.ListenClientUrls, err[3] = urls(listenClient)
	return errors.Join(err[:]...)
}

func urls(all []string) ([]url.URL, error) {
	var out []url.URL
	for _, s := range all {
		u, err := url.Parse(s)
		if err != nil {
			return nil, err
		}
		out = append(out, *u)
	}
	return out, nil
}

// register shows the member's state. etcd's own metrics go to the process-wide
// default registry when its packages are loaded; nothing of ours serves that one.
func (e *Embedded) register(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f)
	}
	is := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	s := e.server.Server
	return errors.Join(
		e.gate.register(r),
		r.Register(gauge("rhumb_etcd_clear_members", "Members of the embedded cluster that others reach in clear from other machines.",
			func() float64 { return float64(countExposed(membersOf(s))) })),
		r.Register(gauge("rhumb_etcd_has_leader", "1 while the embedded member knows a leader.",
			func() float64 { return is(s.Leader() != 0) })),
		r.Register(gauge("rhumb_etcd_is_leader", "1 while the embedded member leads.",
			func() float64 { return is(s.Leader() == s.MemberID()) })),
		r.Register(gauge("rhumb_etcd_data_bytes", "Size of the embedded member's data on disk.",
			func() float64 { return float64(s.Backend().Size()) })),
	)
}

// Ready waits until the member takes part in the cluster.
func (e *Embedded) Ready(ctx context.Context) error {
	select {
	case <-e.server.Server.ReadyNotify():
		return nil
	case <-e.server.Server.StopNotify():
		return fmt.Errorf("store: embedded etcd %s stopped", e.name)
	case <-ctx.Done():
		return fmt.Errorf("store: embedded etcd %s: %w", e.name, ctx.Err())
	}
}

// Endpoints returns the client URLs of all members, this one's first.
func (e *Embedded) Endpoints() []string {
	var own, others []string
	for _, m := range e.members {
		if m.Name == e.name {
			own = append(own, m.ClientURLs...)
		} else {
			others = append(others, m.ClientURLs...)
		}
	}
	return append(own, others...)
}

// Leading tells whether this member leads the cluster.
func (e *Embedded) Leading() bool {
	return e.server.Server.Leader() == e.server.Server.MemberID()
}

// Failed reports the error that stopped the member; it closes with it.
func (e *Embedded) Failed() <-chan error { return e.server.Err() }

// Link tells how the members know each other.
func (e *Embedded) Link() MemberLink {
	if e.gate != nil {
		return e.gate.memberLink()
	}
	all := membersOf(e.server.Server)
	return MemberLink{Members: len(all), Clear: countClear(all), Exposed: countExposed(all), Missing: "its member listens in clear: " + e.lacks.Error()}
}

// Close stops the member; a leader hands over first, through its ports. Its data stay.
func (e *Embedded) Close() {
	e.gate.halt()
	e.hangUp()
	e.server.Close()
	e.gate.close()
}
