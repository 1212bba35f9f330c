package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// openTime bounds what comes before etcd sees a connection: first byte, handshake.
	openTime = 10 * time.Second
	// stuckTime is how long the other side may take nothing: etcd's own limit between
	// members, which it cannot hold behind a socket of ours.
	stuckTime = 5 * time.Second
	// tellEvery is how often a port tells of connections of one address that it refused,
	// and tellMost of how many addresses.
	tellEvery = time.Minute
	tellMost  = 64
)

// front is one port of a member. It tells TLS from clear by the first byte (22 begins
// a handshake record, RFC 8446, 5.1; nothing that etcd speaks), so that both live on
// one port for as long as a cluster needs to go over, and clear ends while it runs.
// etcd itself listens on a socket behind it that nobody but its user can open.
type front struct {
	name string // peer or client
	l    net.Listener
	back string
	tls  *tls.Config
	log  *slog.Logger

	mu      sync.Mutex
	clear   bool // clear connections are let in
	closed  bool
	conns   map[*fronted]struct{}
	refused map[string]int       // by reason, since start
	told    map[string]time.Time // when an address was last logged
	wg      sync.WaitGroup
}

// fronted is a connection of a port. Its front's lock guards in.
type fronted struct {
	net.Conn // raw, or the TLS above it
	raw      net.Conn
	tls      *tls.Conn // nil: in clear
	in       bool      // let in
}

// listenFront opens the port; nothing is accepted before serve.
func listenFront(ctx context.Context, name, addr, back string, c *tls.Config, protos []string, log *slog.Logger) (*front, error) {
	lc := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3},
		Control: waitBriefly}
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	f := &front{name: name, l: l, back: back, tls: c.Clone(), log: log, conns: make(map[*fronted]struct{}), refused: make(map[string]int),
		told: make(map[string]time.Time)}
	f.tls.NextProtos = protos
	return f, nil
}

// waitBriefly has the kernel give up what nobody acknowledges (RFC 5482); accepted
// connections inherit it.
func waitBriefly(_, _ string, c syscall.RawConn) error {
	var set error
	err := c.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int((2 * stuckTime).Milliseconds()))
	})
	return errors.Join(err, set)
}

// serve accepts until close.
func (f *front) serve() {
	f.wg.Go(func() {
		for {
			c, err := f.l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				time.Sleep(10 * time.Millisecond) // out of files: others must close some first
				continue
			}
			f.wg.Go(func() { f.handle(c) })
		}
	})
}

func (f *front) handle(raw net.Conn) {
	c := &fronted{Conn: raw, raw: raw}
	defer f.leave(c)
	err := f.arrive(c)
	if err == nil {
		err = f.open(c)
	}
	if err == nil {
		err = f.enter(c)
	}
	if err != nil {
		f.tell(raw, err)
		return
	}
	behind, err := net.Dial("unix", f.back)
	if err != nil {
		return // etcd goes, or has not come yet: the other side tries again
	}
	defer behind.Close()
	f.splice(c, behind)
}

var (
	errClear = errors.New("it speaks in clear, and this member takes TLS alone")
	errGone  = errors.New("the port closes")
)

// open finds out what a connection speaks, within a time that counts from the start,
// so that idle ones do not pile up.
func (f *front) open(c *fronted) error {
	c.raw.SetDeadline(time.Now().Add(openTime))
	var first [1]byte
	if _, err := io.ReadFull(c.raw, first[:]); err != nil {
		return fmt.Errorf("%w before its first byte: %w", errGone, err)
	}
	c.Conn = &prefixed{Conn: c.raw, first: first[:]}
	if first[0] == 22 {
		c.tls = tls.Server(c.Conn, f.tls)
		c.Conn = c.tls
		if err := c.tls.Handshake(); err != nil {
			return err
		}
	}
	return c.raw.SetDeadline(time.Time{})
}

// arrive makes a connection known, so that close ends it however far it is.
func (f *front) arrive(c *fronted) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errGone
	}
	f.conns[c] = struct{}{}
	return nil
}

// enter lets a connection in.
func (f *front) enter(c *fronted) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.closed:
		return errGone
	case c.tls == nil && !f.clear:
		return errClear
	}
	c.in = true
	return nil
}

// leave forgets a connection and ends it, without a word that could be waited for.
func (f *front) leave(c *fronted) {
	f.mu.Lock()
	delete(f.conns, c)
	f.mu.Unlock()
	c.raw.Close()
}

// list returns the connections that were let in.
func (f *front) list() []*fronted {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []*fronted
	for c := range f.conns {
		if c.in {
			out = append(out, c)
		}
	}
	return out
}

// splice passes bytes both ways until either side ends.
func (f *front) splice(c *fronted, behind net.Conn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(behind, c)
		behind.Close()
		c.raw.Close()
	}()
	io.Copy(&patient{c}, behind)
	behind.Close()
	c.raw.Close()
	<-done
}

// patient writes, and gives up on a side that takes nothing.
type patient struct{ c *fronted }

func (p *patient) Write(b []byte) (int, error) {
	p.c.SetWriteDeadline(time.Now().Add(stuckTime))
	return p.c.Write(b)
}

// prefixed is a connection whose first bytes were read already. One goroutine reads.
type prefixed struct {
	net.Conn
	first []byte
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.first) == 0 {
		return p.Conn.Read(b)
	}
	n := copy(b, p.first)
	p.first = p.first[n:]
	return n, nil
}

// setClear opens or closes the port to clear connections; those that stand end.
func (f *front) setClear(on bool) {
	f.mu.Lock()
	f.clear = on
	f.mu.Unlock()
	if on {
		return
	}
	for _, c := range f.list() {
		if c.tls == nil {
			c.raw.Close()
		}
	}
}

// sweep ends connections that would not be let in any more: what was revoked since.
func (f *front) sweep() {
	for _, c := range f.list() {
		if c.tls == nil || f.tls.VerifyConnection == nil {
			continue
		}
		if err := f.tls.VerifyConnection(c.tls.ConnectionState()); err != nil {
			f.tell(c.raw, err)
			c.raw.Close()
		}
	}
}

// count returns open connections.
func (f *front) count() (tls, clear int) {
	all := f.list()
	for _, c := range all {
		if c.tls == nil {
			clear++
		}
	}
	return len(all) - clear, clear
}

// turnedAway returns how many connections were refused for a reason.
func (f *front) turnedAway(reason string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.refused[reason]
}

// The reasons of refusals.
const (
	reasonClear       = "clear"
	reasonCertificate = "certificate"
)

// reasonOf tells what a connection is refused for; empty: it went away by itself.
func reasonOf(err error) string {
	var op *net.OpError
	switch {
	case errors.Is(err, errClear):
		return reasonClear
	case errors.As(err, &op) && op.Op == "remote error": // an alert: it refuses us
		return reasonCertificate
	case errors.Is(err, errGone), errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), op != nil:
		return ""
	}
	return reasonCertificate
}

// tell counts a refusal, and logs one a minute of each address: whoever is refused
// comes again, and must not hide another one.
func (f *front) tell(c net.Conn, err error) {
	reason := reasonOf(err)
	if reason == "" {
		return
	}
	now, from := time.Now(), hostPart(c.RemoteAddr().String())
	f.mu.Lock()
	f.refused[reason]++
	maps.DeleteFunc(f.told, func(_ string, at time.Time) bool { return now.Sub(at) >= tellEvery })
	_, told := f.told[from]
	quiet := f.closed || told || len(f.told) >= tellMost
	if !quiet {
		f.told[from] = now
	}
	f.mu.Unlock()
	if quiet {
		return
	}
	args := []any{"port", f.name, "peer", from, "err", err}
	var wrong *tls.CertificateVerificationError
	var op *net.OpError
	switch {
	case errors.As(err, &wrong) && len(wrong.UnverifiedCertificates) > 0:
		leaf := wrong.UnverifiedCertificates[0]
		args = append(args, "certificate", fmt.Sprintf("%s, serial %x, until %s", leaf.Subject.CommonName, leaf.SerialNumber, leaf.NotAfter.UTC().Format(time.RFC3339)))
	case errors.As(err, &op):
		f.log.Warn("a connection to the store was given up by the other side: it refuses this member's certificate", args...)
		return
	}
	f.log.Warn("a connection to the store was refused", args...)
}

func hostPart(addr string) string {
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return addr
}

// close ends the port and all its connections.
func (f *front) close() {
	f.l.Close()
	f.mu.Lock()
	f.closed = true
	for c := range f.conns {
		c.raw.Close()
	}
	f.mu.Unlock()
	f.wg.Wait()
}
