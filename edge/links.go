package edge

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"rhumb/edge/frame"
)

// dialLimit is how long a dial may take.
const dialLimit = time.Second

// links knows the live links to every peer. Safe for concurrent use.
type links struct {
	site   string
	tls    *tls.Config
	log    *slog.Logger
	peer   func(name string) (Peer, bool) // members of the group
	handle func(*link, frame.Frame)       // called in order, per link; must not block for long

	patience time.Duration // of a dial; who answers one has twice that

	mu    sync.Mutex
	byOf  map[string][]*link
	dials map[string]*dial
	ended bool
	wg    sync.WaitGroup
}

// dial is one attempt that several callers wait for.
type dial struct {
	done chan struct{}
	link *link
	err  error
}

func newLinks(cfg Config, log *slog.Logger, peer func(string) (Peer, bool), handle func(*link, frame.Frame)) *links {
	t := cfg.TLS.Clone()
	t.MinVersion, t.ClientAuth = tls.VersionTLS13, tls.RequireAndVerifyClientCert
	return &links{site: cfg.Site, tls: t, log: log, peer: peer, handle: handle,
		patience: dialLimit, byOf: map[string][]*link{}, dials: map[string]*dial{}}
}

// have returns a live link to a peer, or nil.
func (ls *links) have(name string) *link {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if have := ls.byOf[name]; len(have) > 0 {
		return have[0]
	}
	return nil
}

// to returns a live link to a peer, dialling if there is none. Once serve ends there is
// none any more: a dial begun then would be one that nobody waits for.
func (ls *links) to(ctx context.Context, name string) (*link, error) {
	ls.mu.Lock()
	if ls.ended {
		ls.mu.Unlock()
		return nil, errLink
	}
	if have := ls.byOf[name]; len(have) > 0 {
		defer ls.mu.Unlock()
		return have[0], nil
	}
	d := ls.dials[name]
	if d == nil {
		d = &dial{done: make(chan struct{})}
		ls.dials[name] = d
		ls.wg.Go(func() { ls.dial(name, d) })
	}
	ls.mu.Unlock()
	select {
	case <-d.done:
		return d.link, d.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (ls *links) dial(name string, d *dial) {
	d.link, d.err = ls.connect(name)
	ls.mu.Lock()
	delete(ls.dials, name)
	ls.mu.Unlock()
	close(d.done)
}

func (ls *links) connect(name string) (*link, error) {
	p, ok := ls.peer(name)
	if !ok {
		return nil, fmt.Errorf("edge: dial %s: not a member", name)
	}
	cfg := ls.tls.Clone()
	cfg.ServerName = p.site()
	ctx, cancel := context.WithTimeout(context.Background(), ls.patience)
	defer cancel()
	c, err := (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", p.Control.String())
	if err != nil {
		return nil, fmt.Errorf("edge: dial %s: %w", name, err)
	}
	return ls.start(c.(*tls.Conn), name, bufio.NewReaderSize(c, linkBuffer), nil)
}

// accept serves one incoming connection until it ends.
func (ls *links) accept(ctx context.Context, c net.Conn) {
	t := tls.Server(c, ls.tls)
	hctx, cancel := context.WithTimeout(ctx, 2*ls.patience)
	defer cancel()
	if err := t.HandshakeContext(hctx); err != nil {
		ls.log.Warn("control handshake", "peer", c.RemoteAddr(), "err", err)
		t.Close()
		return
	}
	// Verified by the handshake; a certificate of the group names one site.
	names := t.ConnectionState().PeerCertificates[0].DNSNames
	if len(names) != 1 {
		ls.log.Warn("control certificate names not one site", "peer", c.RemoteAddr())
		t.Close()
		return
	}
	in, h, err := greeting(t, 2*ls.patience)
	if err != nil {
		ls.log.Warn("control link opens with something else than hello", "peer", names[0], "err", err)
		t.Close()
		return
	}
	// Which of a site's nodes it is, it says itself: they share the certificate.
	if p, ok := ls.peer(string(h.Payload)); !ok || p.site() != names[0] {
		ls.log.Warn("control certificate of no member", "peer", names[0])
		t.Close()
		return
	}
	if _, err := ls.start(t, string(h.Payload), in, &h); err != nil {
		ls.log.Warn("control link", "peer", names[0], "err", err)
	}
}

// greeting reads the first frame of a link, which says who speaks.
func greeting(c net.Conn, patience time.Duration) (*bufio.Reader, frame.Frame, error) {
	_ = c.SetReadDeadline(time.Now().Add(patience)) // a closed connection fails the read
	in := bufio.NewReaderSize(c, linkBuffer)
	f, err := frame.Read(in)
	if err == nil && f.Type != frame.Hello {
		err = fmt.Errorf("edge: %s instead of hello", f.Type)
	}
	return in, f, errors.Join(err, c.SetReadDeadline(time.Time{}))
}

// start makes a link of an authenticated connection. heard is the other side's hello, if
// it was read.
func (ls *links) start(c *tls.Conn, peer string, in *bufio.Reader, heard *frame.Frame) (*link, error) {
	l := &link{peer: peer, conn: c, out: make(chan []byte, linkQueue), done: make(chan struct{}), greeted: newPledge()}
	if err := l.send(frame.Frame{Type: frame.Hello, Generation: frame.ReadsNames | frame.TakesGuests | frame.ReadsUploads | frame.ReadsSealed | frame.ReadsPieces | frame.TakesDeposits, Payload: []byte(ls.site)}); err != nil {
		c.Close()
		return nil, err
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.ended {
		l.close()
		return nil, errLink
	}
	ls.byOf[peer] = append(ls.byOf[peer], l)
	ls.wg.Go(l.write)
	if heard != nil {
		l.met(*heard)
	}
	ls.wg.Go(func() { ls.read(l, in, heard == nil) })
	return l, nil
}

// read hands each frame on. The first must say who speaks, and say the same
// as the certificate.
func (ls *links) read(l *link, r *bufio.Reader, first bool) {
	defer ls.drop(l)
	l.more = func() bool { return r.Buffered() > 0 }
	for ; ; first = false {
		f, err := frame.Read(r)
		if err != nil {
			return
		}
		if first && (f.Type != frame.Hello || string(f.Payload) != l.peer) {
			ls.log.Warn("control link opens with something else than hello", "peer", l.peer)
			return
		}
		if first {
			l.met(f)
		} else {
			ls.handle(l, f)
		}
		if l.owed && !l.more() {
			l.ack(l.receipt.Last())
		}
	}
}

func (ls *links) drop(l *link) {
	l.close()
	ls.mu.Lock()
	defer ls.mu.Unlock()
	have := ls.byOf[l.peer]
	for i := range have {
		if have[i] == l {
			// A new slice: the old may be read by nobody, but stays cheap.
			ls.byOf[l.peer] = append(append([]*link(nil), have[:i]...), have[i+1:]...)
			break
		}
	}
}

// prune closes the links of sites that are no members any more.
func (ls *links) prune() {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for name, have := range ls.byOf {
		if _, ok := ls.peer(name); !ok {
			for _, l := range have {
				l.close()
			}
		}
	}
}

// serve accepts links until the context ends, then closes all.
func (ls *links) serve(ctx context.Context, ln net.Listener) error {
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	for {
		c, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			break
		}
		if err != nil { // out of descriptors, say: no reason to end a site's sessions
			ls.log.Warn("control listener", "err", err)
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		ls.wg.Go(func() { ls.accept(ctx, c) })
	}
	ls.mu.Lock()
	ls.ended = true
	for _, have := range ls.byOf {
		for _, l := range have {
			l.close()
		}
	}
	ls.mu.Unlock()
	ls.wg.Wait()
	return nil
}
