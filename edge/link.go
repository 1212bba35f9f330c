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
	"sync/atomic"
	"time"

	"rhumb/edge/frame"
)

// Times of a link.
const (
	dialLimit = time.Second
	linkQueue = 1024 // frames
)

// link is one connection to another site's agent, over which both sides send
// frames. Its two goroutines end with it.
type link struct {
	peer string // by its certificate
	conn *tls.Conn
	out  chan []byte
	done chan struct{} // closed when the link is dead
	once sync.Once

	// order is held while a numbered frame is queued, mu never: who reads the
	// acknowledgements makes room in the queue.
	order   sync.Mutex
	mu      sync.Mutex
	window  frame.Window  // numbered frames sent
	waits   []wait        // for the acknowledgement of some, in their order
	receipt frame.Receipt // numbered frames received; reader's only
	naming
	// greeted is closed when the other side has said what it reads.
	greeted chan struct{}
	uploads atomic.Bool // it takes uploads
}

// wait is kept when the frame of a number is acknowledged.
type wait struct {
	seq  uint64
	kept *pledge
}

// pledge is a promise that several may keep and any may wait for.
type pledge struct {
	done chan struct{}
	once sync.Once
}

func newPledge() *pledge { return &pledge{done: make(chan struct{})} }

func (p *pledge) keep() { p.once.Do(func() { close(p.done) }) }

var errLink = errors.New("link is down")

// send queues a frame. It blocks while the queue is full and the link lives.
func (l *link) send(f frame.Frame) error {
	b, err := frame.Append(nil, f)
	if err != nil {
		return err
	}
	return l.queue(b)
}

func (l *link) queue(b []byte) error {
	select {
	case <-l.done:
		return errLink
	default:
	}
	select {
	case l.out <- b:
		return nil
	case <-l.done:
		return errLink
	}
}

// sendNumbered gives f the next number; numbers leave in order. kept, if any, is
// kept when the other side has acknowledged it.
func (l *link) sendNumbered(f frame.Frame, kept *pledge) error {
	l.order.Lock()
	defer l.order.Unlock()
	b, err := l.number(f, kept)
	if err != nil {
		return err
	}
	return l.queue(b)
}

func (l *link) number(f frame.Frame, kept *pledge) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f.Seq = l.window.Next()
	b, err := frame.Append(nil, f)
	if err == nil && kept != nil {
		l.waits = append(l.waits, wait{f.Seq, kept})
	}
	return b, err
}

// ack acknowledges what was received, unless the queue is full: the next one tells the
// same and more. Were the reader to wait, two sites that send much to each other could
// wait for ever.
func (l *link) ack(seq uint64) {
	b, err := frame.Append(nil, frame.Frame{Type: frame.Ack, Seq: seq})
	if err != nil {
		return
	}
	select {
	case l.out <- b:
	default:
	}
}

// acked takes a cumulative acknowledgement.
func (l *link) acked(seq uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.window.Ack(seq); err != nil {
		return err
	}
	n := 0
	for ; n < len(l.waits) && l.waits[n].seq <= seq; n++ {
		l.waits[n].kept.keep()
	}
	l.waits = l.waits[n:]
	return nil
}

func (l *link) close() {
	l.once.Do(func() {
		close(l.done)
		l.conn.Close()
	})
}

// write sends what is queued, many frames in one record where they wait.
func (l *link) write() {
	defer l.close()
	w := bufio.NewWriterSize(l.conn, 64<<10)
	for {
		select {
		case b := <-l.out:
			if _, err := w.Write(b); err != nil {
				return
			}
		case <-l.done:
			return
		}
		if len(l.out) == 0 {
			if err := w.Flush(); err != nil {
				return
			}
		}
	}
}

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

// to returns a live link to a peer, dialling if there is none.
func (ls *links) to(ctx context.Context, name string) (*link, error) {
	ls.mu.Lock()
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
	cfg.ServerName = name
	ctx, cancel := context.WithTimeout(context.Background(), ls.patience)
	defer cancel()
	c, err := (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", p.Control.String())
	if err != nil {
		return nil, fmt.Errorf("edge: dial %s: %w", name, err)
	}
	return ls.start(c.(*tls.Conn), name)
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
	if _, ok := ls.peer(names[0]); !ok {
		ls.log.Warn("control certificate of no member", "peer", names[0])
		t.Close()
		return
	}
	if _, err := ls.start(t, names[0]); err != nil {
		ls.log.Warn("control link", "peer", names[0], "err", err)
	}
}

// start makes a link of an authenticated connection.
func (ls *links) start(c *tls.Conn, peer string) (*link, error) {
	l := &link{peer: peer, conn: c, out: make(chan []byte, linkQueue), done: make(chan struct{}), greeted: make(chan struct{})}
	if err := l.send(frame.Frame{Type: frame.Hello, Generation: frame.ReadsNames | frame.ReadsUploads, Payload: []byte(ls.site)}); err != nil {
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
	ls.wg.Go(func() { ls.read(l) })
	return l, nil
}

// read hands each frame on. The first must say who speaks, and say the same
// as the certificate.
func (ls *links) read(l *link) {
	defer ls.drop(l)
	r := bufio.NewReaderSize(l.conn, 64<<10)
	for first := true; ; first = false {
		f, err := frame.Read(r)
		if err != nil {
			return
		}
		if first && (f.Type != frame.Hello || string(f.Payload) != l.peer) {
			ls.log.Warn("control link opens with something else than hello", "peer", l.peer)
			return
		}
		if first {
			l.reads.Store(f.Generation&frame.ReadsNames != 0)
			l.uploads.Store(f.Generation&frame.ReadsUploads != 0)
			close(l.greeted)
		} else {
			ls.handle(l, f)
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
