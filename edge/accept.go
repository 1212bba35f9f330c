package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"rhumb/edge/content"
	"rhumb/edge/feed"
	"rhumb/edge/frame"
	"rhumb/edge/tcprepair"
	"rhumb/edge/upload"
)

// service is a Service at work.
type service struct {
	Service
	id      uint32
	source  source
	limits  Limits
	tls     *terminator   // nil: in clear
	feeds   *feed.Server  // nil: no event streams
	store   *upload.Store // nil: no uploads
	uploads *uploads      // of the Agent
	buffers *buffers      // of the Agent
}

// source finds objects by name, and by hash for a session that comes from
// another site; the name then tells where to look.
type source interface {
	Lookup(ctx context.Context, name string) content.Entry
	ByHash(hash [32]byte, name string) (*content.Object, bool)
	// Ahead begins to make an object of a name, for nobody yet. over is closed when it is
	// one or will not be; drop gives up what nobody else has come to want meanwhile.
	Ahead(name string) (over <-chan struct{}, drop func())
	// Coming reports whether the object of a name is on its way here.
	Coming(name string) bool
	Run(ctx context.Context) error
}

// port is where one listener stands: the wildcard of a family. A listener on
// the VIP itself could not be told from a session by the kernel's socket
// match, and no stray would ever be found.
type port struct {
	network string // tcp4 or tcp6
	number  uint16
}

func portOf(v netip.AddrPort) port {
	if v.Addr().Is4() {
		return port{"tcp4", v.Port()}
	}
	return port{"tcp6", v.Port()}
}

func listen(ctx context.Context, p port) (net.Listener, error) {
	lc := net.ListenConfig{KeepAlive: -1, Control: func(_, _ string, c syscall.RawConn) error {
		_ = tcprepair.Ready(c) // without it to register a connection takes longer
		return nil
	}}
	lc.SetMultipathTCP(false) // an MPTCP socket has no repair mode
	ln, err := lc.Listen(ctx, p.network, fmt.Sprintf(":%d", p.number))
	if err != nil {
		return nil, fmt.Errorf("edge: listen %s %d: %w", p.network, p.number, err)
	}
	return ln, nil
}

// accept serves a listener until it is closed.
func (a *Agent) accept(ctx context.Context, ln net.Listener) {
	limitUnsent(ln.(*net.TCPListener), unsentMost) // its connections inherit it
	for {
		c, err := ln.Accept()
		switch {
		case err == nil:
			a.welcome(ctx, c.(*net.TCPConn))
		case errors.Is(err, net.ErrClosed):
			return
		default:
			// Out of descriptors or memory: those who are here go first.
			a.log.Warn("accept", "err", err)
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
				return
			}
		}
	}
}

// welcome makes a session of a new connection, or refuses it.
func (a *Agent) welcome(ctx context.Context, c *net.TCPConn) {
	key := frame.Key{Client: plain(c.RemoteAddr()), VIP: plain(c.LocalAddr())}
	svc := a.view.Load().vips[key.VIP]
	if svc == nil { // the port is served, this address is not
		refuse(c)
		return
	}
	now := time.Now()
	// The time of accept makes epochs rise when a client uses a port again.
	// A connection of this host to its own VIP comes from that VIP: whoever made
	// it cannot be reached from another site.
	s := &session{key: key, conn: c, started: now, epoch: uint64(now.UnixMicro()), svc: svc, local: key.Client.Addr() == key.VIP.Addr()}
	s.done = make(chan struct{})
	if !svc.held() {
		a.uploads.exempt(c, key)
	}
	if svc.tls != nil {
		a.greet(ctx, s)
		return
	}
	s.turn.Store(idleTurn(svc.id))
	if a.moves.Backups && !s.local && svc.shadows() {
		a.shadow(s)
	}
	a.uploads.admit(s)
	s.passes(pointAccepted)
	s.state.Store(int32(s.resting()))
	a.run(ctx, s)
}

// shadow protects a new session.
func (a *Agent) shadow(s *session) {
	g, err := tcprepair.RegisterAccepted(s.conn)
	if err != nil {
		a.log.Warn("session goes without a backup", "err", err)
		return
	}
	t := s.turn.Load()
	s.reg, s.regAt = g, time.Now()
	t.base, t.rcv = g.Write, g.RcvNxt
	a.protect(s)
}

// unsentMost is how much of a response the kernel may hold before it is sent.
// Without a bound its buffer takes megabytes ahead of a slow client: a response is
// then over for us minutes before it is for the client, and a session that is over
// cannot be moved any more.
const unsentMost = 128 << 10

// limitUnsent sets the bound; without it all works, but for such sessions.
func limitUnsent(c syscall.Conn, octets int) {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, octets)
		})
	}
}

// run enters a session and serves it in a goroutine of its own.
func (a *Agent) run(ctx context.Context, s *session) {
	if !a.tab.add(s, a.limits.Sessions) {
		close(s.done)
		s.endReceiving(nil)
		refuse(s.conn)
		return
	}
	a.m.sessions.Inc()
	if s.changed != nil {
		s.changed(s)
	}
	a.wg.Go(func() {
		deepen(0)
		a.end(s, a.attend(ctx, s))
	})
}

// stackOf is what the stack of a session is made to hold: a little more than an answer needs.
const stackOf = 5 << 10

// deepen has the caller's stack grow at once, while little stands on it. In the middle of
// an answer it would be copied twice, frame by frame.
//
//go:noinline
func deepen(i int) byte {
	var room [stackOf]byte
	room[i] = 1
	return room[i/2]
}

// attend serves a session, which is entered, until its connection or the context ends.
func (a *Agent) attend(ctx context.Context, s *session) error {
	if ctx.Err() != nil { // endAll may have come before
		a.hangUp(s)
	}
	return s.serve(ctx)
}

// hangUp closes the connection of a session, whoever serves it.
func (a *Agent) hangUp(s *session) {
	s.unquiet()
	a.kept.end(s)
	s.conn.Close()
}

// endAll ends all sessions.
func (a *Agent) endAll() {
	for _, s := range a.tab.all() {
		a.hangUp(s)
	}
}

func (a *Agent) end(s *session, err error) {
	if errors.Is(err, content.ErrMismatch) {
		a.m.mismatch.Inc()
		a.log.Error("object changed under its hash", "err", err)
	}
	s.unquiet()
	s.endReceiving(err)
	s.putBuffer()
	a.kept.end(s)
	s.conn.Close() // a second time if it was handed off; then without effect
	s.cover.wipe()
	a.tab.remove(s)
	defer close(s.done)
	a.m.sessions.Dec()
	if s.changed != nil {
		a.replica.ended(s)
	}
	if err != nil && !ordinary(err) {
		a.log.Debug("session ended", "err", err)
	}
}

// ordinary ends are the clients' doing and nobody's business.
func ordinary(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, errGone) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// refuse resets a connection.
func refuse(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}

func plain(a net.Addr) netip.AddrPort {
	ap := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}
