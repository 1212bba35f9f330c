package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/user"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"rhumb/edge/frame"
	"rhumb/edge/handsock"
)

// Handoff is the socket at which other servers give connections away and take them.
type Handoff struct {
	// Socket is its path; empty: there is none.
	Socket string
	// Group may connect besides root and our own user; empty: nobody else.
	Group string
	// Patience is how long a server may take for an answer before commit. Zero is 200 ms.
	Patience time.Duration
}

const (
	serverPatience = 200 * time.Millisecond
	greetLimit     = 2 * time.Second
	// maxCallers bounds the servers that are connected.
	maxCallers = 256
	// wordsKept bounds what a server says of one hand-off: there are four messages.
	wordsKept = 8
	// maxJudged bounds what is found out at once of connections that one server asks
	// about after its connection to us, or one of our processes, was gone. What it says
	// beyond that waits in its socket.
	maxJudged = 4096
)

// word is what a server said, with the descriptor that came with it.
type word struct {
	handsock.Message
	file *os.File
}

// caller is one server that is connected.
type caller struct {
	conn    *handsock.Conn
	service string
	pid     int32
	gone    chan struct{} // closed when the server says nothing more
	judged  chan struct{} // holds one for each of its questions that is being answered

	mu    sync.Mutex
	open  map[uint64]chan word
	ended bool
	busy  sync.WaitGroup // hand-offs that may still tell it something
}

// begin opens a box for what the server says of a hand-off; whoever calls it calls
// end exactly once, unless it is nil: the server is gone.
func (c *caller) begin(id uint64) <-chan word {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return nil
	}
	box := make(chan word, wordsKept)
	c.open[id] = box
	c.busy.Add(1)
	return box
}

// end closes the box. Descriptors that nobody took are closed, and their offers called
// off.
func (c *caller) end(id uint64) {
	c.mu.Lock()
	box := c.open[id]
	delete(c.open, id)
	c.mu.Unlock()
	close(box)
	for w := range box {
		c.late(w)
	}
	c.busy.Done()
}

// has reports whether a hand-off is under way over this connection.
func (c *caller) has(id uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open[id] != nil
}

// late answers what nobody waits for any more: an offer was given up.
func (c *caller) late(w word) {
	if w.file != nil {
		w.file.Close()
		_ = c.tell(handsock.Abort, w.ID, "too late") // a dead server needs no word
	}
}

func (c *caller) put(w word) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if box := c.open[w.ID]; box != nil && len(box) < cap(box) {
		box <- w
		return
	}
	c.late(w)
}

// tell sends a message; an error means that the server is gone or stuck.
func (c *caller) tell(t handsock.Type, id uint64, text string) error {
	return c.send(handsock.Message{Type: t, ID: id, Text: text[:min(len(text), handsock.MaxText)]}, nil)
}

// send sends a message. A server that takes none is cut off, so that it does not wait
// for what was not sent.
func (c *caller) send(m handsock.Message, with syscall.Conn) error {
	err := c.conn.Send(m, with)
	if err != nil {
		c.conn.Close()
	}
	return err
}

// finish ends it: no new hand-offs, and those under way bring theirs to an end.
func (c *caller) finish() {
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	close(c.gone)
	c.busy.Wait() // aborts and actives still go out
}

// lobby knows the servers that are connected. Safe for concurrent use.
type lobby struct {
	a    *Agent
	cfg  Handoff
	gid  uint32
	next atomic.Uint64 // numbers of hand-offs
	turn atomic.Uint64

	mu sync.Mutex
	by map[string][]*caller // by service, the newest last
}

func newLobby(a *Agent, cfg Handoff) *lobby {
	b := &lobby{a: a, cfg: cfg, by: map[string][]*caller{}}
	b.cfg.Patience = or(cfg.Patience, serverPatience)
	// Not from 1: a server may still hold numbers of an earlier process.
	b.next.Store(rand.Uint64() >> 1)
	return b
}

// callers lists the servers of a service, the newest first.
func (b *lobby) callers(service string) []*caller {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := slices.Clone(b.by[service])
	slices.Reverse(out)
	return out
}

// pick chooses a server of a service by turns, or nil.
func (b *lobby) pick(service string) *caller {
	all := b.callers(service)
	if len(all) == 0 {
		return nil
	}
	return all[b.turn.Add(1)%uint64(len(all))]
}

// run listens until the context ends.
func (b *lobby) run(ctx context.Context) error {
	if b.cfg.Socket == "" {
		return nil
	}
	ln, err := b.listen()
	if err != nil {
		return fmt.Errorf("edge: hand-off socket: %w", err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	for {
		c, err := ln.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil { // out of descriptors, say
			b.a.log.Warn("hand-off socket", "err", err)
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		wg.Go(func() { b.serve(ctx, handsock.NewConn(c, b.cfg.Patience)) })
	}
}

// listen makes the socket: for root, our own user and the group alone. Who replaces a
// dead process finds its file.
func (b *lobby) listen() (*net.UnixListener, error) {
	mode, owner := os.FileMode(0o600), -1
	if b.cfg.Group != "" {
		gid, err := groupID(b.cfg.Group)
		if err != nil {
			return nil, err
		}
		mode, owner, b.gid = 0o660, int(gid), gid
	}
	if info, err := os.Lstat(b.cfg.Socket); err == nil && info.Mode()&os.ModeSocket != 0 {
		if err := os.Remove(b.cfg.Socket); err != nil {
			return nil, err
		}
	}
	ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: b.cfg.Socket, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	// By then the name may be that of the process which follows this one.
	ln.SetUnlinkOnClose(false)
	// Between the two calls the file has the mode that the umask left; credentials are
	// checked besides.
	if err := errors.Join(os.Chmod(b.cfg.Socket, mode), os.Chown(b.cfg.Socket, -1, owner)); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return ln, nil
}

func groupID(name string) (uint32, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, err
	}
	id, err := strconv.ParseUint(g.Gid, 10, 32)
	return uint32(id), err
}

// admits tells whether a process may connect: whoever takes a service's connections
// reads its clients' bytes.
func (b *lobby) admits(p handsock.Peer) bool {
	if p.UID == 0 || p.UID == uint32(os.Getuid()) {
		return true
	}
	return b.cfg.Group != "" && (p.GID == b.gid || slices.Contains(p.Groups, b.gid))
}

// serve receives from one server until it ends.
func (b *lobby) serve(ctx context.Context, conn *handsock.Conn) {
	defer conn.Close()
	late := time.AfterFunc(greetLimit, func() { conn.Close() })
	c, err := b.greet(conn)
	late.Stop() // one that fired has closed the connection: the server is gone at once
	if err != nil {
		b.a.log.Warn("a server at the hand-off socket is refused", "err", err)
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.StopReceiving() })
	defer stop()
	b.a.log.Info("a server is connected to the hand-off socket", "service", c.service, "pid", c.pid)
	err = c.listen(ctx, b)
	b.leave(c)
	c.finish()
	b.a.log.Info("a server left the hand-off socket", "service", c.service, "pid", c.pid, "err", err)
}

// greet reads who speaks for what.
func (b *lobby) greet(conn *handsock.Conn) (*caller, error) {
	p, err := conn.Peer()
	if err == nil && !b.admits(p) {
		err = fmt.Errorf("user %d, group %d may not connect", p.UID, p.GID)
	}
	var m handsock.Message
	if err == nil {
		m, err = receiveBare(conn)
	}
	switch {
	case err != nil:
	case m.Type != handsock.Ready || m.ID != 0:
		err = fmt.Errorf("greeted by %s", m.Type)
	case !b.a.view.Load().hands(m.Text):
		err = fmt.Errorf("no service %q of kind handoff", m.Text)
	}
	c := &caller{conn: conn, service: m.Text, pid: p.PID, gone: make(chan struct{}), judged: make(chan struct{}, maxJudged), open: map[uint64]chan word{}}
	if err == nil && !b.enter(c) {
		err = fmt.Errorf("more than %d servers", maxCallers)
	}
	if err != nil {
		_ = c.tell(handsock.Abort, 0, err.Error())
		return nil, fmt.Errorf("process %d: %w", p.PID, err)
	}
	if err := conn.Send(handsock.Message{Type: handsock.Ready, Text: c.service}, nil); err != nil {
		b.leave(c)
		return nil, err
	}
	return c, nil
}

func receiveBare(conn *handsock.Conn) (handsock.Message, error) {
	m, f, err := conn.Receive()
	if f != nil {
		f.Close()
	}
	return m, err
}

func (b *lobby) enter(c *caller) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, all := range b.by {
		n += len(all)
	}
	if n >= maxCallers {
		return false
	}
	b.by[c.service] = append(b.by[c.service], c)
	b.count(c.service)
	return true
}

func (b *lobby) leave(c *caller) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.by[c.service] = slices.DeleteFunc(b.by[c.service], func(o *caller) bool { return o == c })
	b.count(c.service)
}

func (b *lobby) count(service string) {
	b.a.m.guests.servers.WithLabelValues(service).Set(float64(len(b.by[service])))
}

// countAll shows the services that have no server too.
func (b *lobby) countAll(services map[netip.AddrPort]*Service) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range services {
		b.count(s.Name)
	}
}

// listen hands each message to its hand-off.
func (c *caller) listen(ctx context.Context, b *lobby) error {
	for {
		m, f, err := c.conn.Receive()
		switch {
		case errors.Is(err, handsock.ErrDescriptor):
			_ = c.tell(handsock.Abort, m.ID, err.Error())
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			_ = c.tell(handsock.Abort, 0, err.Error())
			return err
		case m.Type == handsock.Abort && f != nil:
			b.judge(c, func() { b.wake(c, m, f) })
		case m.Type == handsock.Commit:
			b.judge(c, func() { b.doubt(ctx, c, m) })
		case m.Type == handsock.Ready && !c.has(m.ID):
			b.judge(c, func() { b.unsure(ctx, c, m) })
		default:
			c.put(word{m, f})
		}
	}
}

// judge finds out what a server asked, in a goroutine. It waits while there are too many.
func (b *lobby) judge(c *caller, find func()) {
	c.judged <- struct{}{}
	b.a.wg.Go(func() {
		defer func() { <-c.judged }()
		find()
	})
}

// wakeLimit is more than a hand-off takes.
const wakeLimit = 10 * time.Second

// wake lets a connection speak that an earlier process of ours had silenced and not
// given away. Where only the connection to the server broke, its hand-off here comes
// to an end first: a socket that is on the move must not speak.
func (b *lobby) wake(c *caller, m handsock.Message, f *os.File) {
	defer f.Close()
	local, peer, err := b.a.guests.kernel.examine(f)
	k := frame.Key{Client: peer, VIP: local}
	for end := time.Now().Add(wakeLimit); err == nil && !b.a.guests.claim(k, c.service); {
		time.Sleep(10 * time.Millisecond)
		if time.Now().After(end) {
			err = errClaimed
		}
	}
	if err == nil {
		err = b.a.guests.kernel.wake(f)
		b.a.guests.unclaim(k)
	}
	if err != nil {
		b.a.log.Warn("wake a connection that an earlier process left silent", "service", c.service, "err", err)
	}
	_ = c.tell(handsock.Abort, m.ID, "")
}
