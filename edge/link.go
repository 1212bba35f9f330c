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
	// linkBuffer in octets is filled before they leave.
	linkBuffer = 64 << 10
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
	// more reports whether further frames are here already, owed that an acknowledgement
	// waits for them; reader's only. nil: none.
	more func() bool
	owed bool
	naming
	// greeted is kept when the other side's Hello was read, which says what it takes.
	greeted *pledge
	guests  atomic.Bool
	uploads atomic.Bool
	pieces  atomic.Bool
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

	whole *pledge // which this one is a part of; or
	mu    sync.Mutex
	parts [tierCount]*pledge
	open  int // parts not kept; -1: it was not divided
}

func newPledge() *pledge { return &pledge{done: make(chan struct{}), open: -1} }

func (p *pledge) keep() {
	p.once.Do(func() {
		close(p.done)
		if p.whole != nil {
			p.whole.partKept()
		}
	})
}

// waive keeps a pledge, if there is one, that nobody else will.
func (p *pledge) waive() {
	if p != nil {
		p.keep()
	}
}

// partKept keeps the whole with the last of its parts.
func (p *pledge) partKept() {
	p.mu.Lock()
	p.open--
	all := p.open == 0
	p.mu.Unlock()
	if all {
		p.keep()
	}
}

// divide returns the parts of a pledge, the first time made for the tiers that are wanted.
// Of nil there are none.
func (p *pledge) divide(wanted [tierCount][]Peer) (none [tierCount]*pledge) {
	if p == nil {
		return none
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open >= 0 {
		return p.parts
	}
	p.open = 0
	for i, peers := range wanted {
		if len(peers) > 0 {
			p.parts[i] = newPledge()
			p.parts[i].whole = p
			p.open++
		}
	}
	return p.parts
}

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
	b, err := l.number(nil, f, kept)
	if err != nil {
		return err
	}
	return l.queue(b)
}

// number encodes f behind b under the next number.
func (l *link) number(b []byte, f frame.Frame, kept *pledge) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f.Seq = l.window.Next()
	b, err := frame.Append(b, f)
	if err == nil && kept != nil {
		l.waits = append(l.waits, wait{f.Seq, kept})
	}
	return b, err
}

// ack acknowledges what was received, unless the queue is full: the next one tells the
// same and more. Were the reader to wait, two sites that send much to each other could
// wait for ever.
func (l *link) ack(seq uint64) {
	if l.owed = l.more != nil && l.more(); l.owed {
		return // one tells of all that came together
	}
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
	w := bufio.NewWriterSize(l.conn, linkBuffer)
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
	if err := l.send(frame.Frame{Type: frame.Hello, Generation: frame.ReadsNames | frame.TakesGuests | frame.ReadsUploads | frame.ReadsPieces, Payload: []byte(ls.site)}); err != nil {
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

// met notes what the other side's hello says of it.
func (l *link) met(hello frame.Frame) {
	l.reads.Store(hello.Generation&frame.ReadsNames != 0)
	l.guests.Store(hello.Generation&frame.TakesGuests != 0)
	l.uploads.Store(hello.Generation&frame.ReadsUploads != 0)
	l.pieces.Store(hello.Generation&frame.ReadsPieces != 0)
	l.greeted.keep()
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
