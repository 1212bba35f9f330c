package fdstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Times of a Client.
const (
	// keepEvery gathers new sockets, which are given away when they have waited for one
	// such time: a session that ends before costs nothing.
	keepEvery = 100 * time.Millisecond
	startGap  = time.Second            // between two starts of a store
	talkLimit = 500 * time.Millisecond // for a store that takes nothing
	// atOnce is how many are given away while sessions that end wait for it.
	atOnce = 128
)

// Config says where the store is.
type Config struct {
	// Socket is the path of its socket; empty: there is no store.
	Socket string
	// Command makes the process that runs Serve upon descriptor 3.
	Command func() *exec.Cmd
}

// Client gives a store the sockets of sessions. The zero value is of no store.
type Client struct {
	cfg   Config
	woken chan struct{}

	mu   sync.Mutex
	conn *net.UnixConn // nil: no store
	// wish are new, due have waited for one look, kept has the store.
	wish, due, kept map[Flow]syscall.RawConn
	dropped         []Flow // to be told
	more            bool   // of due, to be given away at once
}

// Open connects to the store that an earlier process left, if there is one, and returns what
// that keeps; the descriptors are the caller's. Nothing is started before Run.
func Open(cfg Config) (*Client, map[Flow]int, error) {
	c := &Client{cfg: cfg, woken: make(chan struct{}, 1), wish: map[Flow]syscall.RawConn{}, due: map[Flow]syscall.RawConn{}, kept: map[Flow]syscall.RawConn{}}
	if cfg.Socket == "" {
		return c, nil, nil
	}
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: cfg.Socket, Net: "unixpacket"})
	if err != nil {
		return c, nil, nil // nobody has left anything
	}
	found, err := inherit(conn)
	if err != nil {
		_ = conn.Close()
		return c, nil, fmt.Errorf("fdstore: take what is kept: %w", err)
	}
	c.conn = conn
	return c, found, nil
}

// inherit reads what is kept.
func inherit(conn *net.UnixConn) (map[Flow]int, error) {
	found := map[Flow]int{}
	buf, oob := make([]byte, largest), make([]byte, unix.CmsgSpace(most*4))
	fail := func(err error) (map[Flow]int, error) {
		for _, fd := range found {
			_ = unix.Close(fd)
		}
		return nil, err
	}
	for {
		if err := conn.SetReadDeadline(time.Now().Add(sendLimit)); err != nil {
			return fail(err)
		}
		n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
		if err != nil {
			return fail(err)
		}
		fds := rights(oob[:oobn])
		kind, flows, err := parseMessage(buf[:n])
		if err == nil && len(fds) != len(flows) {
			err = errMessage
		}
		if err != nil {
			closeAll(fds)
			return fail(err)
		}
		if kind == kindDone {
			return found, conn.SetReadDeadline(time.Time{})
		}
		for i, f := range flows {
			found[f] = fds[i]
		}
	}
}

// Keep gives the store a socket, soon. Who has it calls Drop when it ends.
func (c *Client) Keep(f Flow, conn syscall.Conn) {
	if c == nil || c.cfg.Socket == "" {
		return
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return // it has ended
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.due[f] == nil && c.kept[f] == nil {
		c.wish[f] = raw
	}
}

// Adopt notes that a socket which the store keeps already is served here.
func (c *Client) Adopt(f Flow, conn syscall.Conn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept[f] = raw
}

// Drop has the store close its descriptor, and reports whether it may have one: then the
// connection does not end with that of the caller.
func (c *Client) Drop(f Flow) bool {
	if c == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.wish, f)
	delete(c.due, f)
	if c.kept[f] == nil {
		return false
	}
	delete(c.kept, f)
	c.drop(f)
	return true
}

// Forget is Drop of a flow that an earlier process left and nobody serves here.
func (c *Client) Forget(f Flow) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(f)
}

// drop tells the store, soon. The caller holds mu.
func (c *Client) drop(f Flow) {
	c.dropped = append(c.dropped, f)
	c.wake()
}

func (c *Client) wake() {
	select {
	case c.woken <- struct{}{}:
	default:
	}
}

// Len counts the sockets that the store keeps.
func (c *Client) Len() int {
	if c == nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.kept)
}

// Run keeps a store there until the context ends, and then ends it: who ends a process in
// order closes its connections in order. complain is told why there is none.
func (c *Client) Run(ctx context.Context, complain func(error)) error {
	if c.cfg.Socket == "" {
		return nil
	}
	var own sync.WaitGroup // the store that was started here
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	var started time.Time
	lost := c.watch(&own)
	for {
		if lost == nil && ctx.Err() == nil && time.Since(started) >= startGap {
			started = time.Now()
			if err := c.start(&own); err != nil {
				complain(err)
			}
			lost = c.watch(&own)
		}
		select {
		case <-ctx.Done():
			c.End()
			own.Wait()
			return nil
		case <-lost:
			c.forsake()
			lost = nil
			complain(errors.New("fdstore: the store ended"))
		case <-c.woken:
			c.tell(false)
		case <-tick.C:
			c.tell(true)
		}
	}
}

// watch returns what is closed when the store is gone; nil if there is none.
func (c *Client) watch(own *sync.WaitGroup) <-chan struct{} {
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	if conn == nil {
		return nil
	}
	lost := make(chan struct{})
	own.Go(func() {
		defer close(lost)
		_, _ = conn.Read(make([]byte, 1)) // it says nothing any more
	})
	return lost
}

// start begins a store and connects to it.
func (c *Client) start(own *sync.WaitGroup) error {
	if err := os.Remove(c.cfg.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("fdstore: %w", err)
	}
	ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: c.cfg.Socket, Net: "unixpacket"})
	if err != nil {
		return fmt.Errorf("fdstore: %w", err)
	}
	ln.SetUnlinkOnClose(false)
	defer ln.Close()
	if err := os.Chmod(c.cfg.Socket, 0o600); err != nil {
		return fmt.Errorf("fdstore: %w", err)
	}
	f, err := ln.File()
	if err != nil {
		return fmt.Errorf("fdstore: %w", err)
	}
	defer f.Close()
	cmd := c.cfg.Command()
	cmd.ExtraFiles = []*os.File{f}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a terminal's signals are not for it
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("fdstore: start: %w", err)
	}
	own.Go(func() { _ = cmd.Wait() })
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: c.cfg.Socket, Net: "unixpacket"})
	if err == nil {
		_, err = inherit(conn)
	}
	if err != nil {
		return fmt.Errorf("fdstore: connect to a new store: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn = conn
	return nil
}

// forsake forgets a store that is gone. All sockets wait for the next.
func (c *Client) forsake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		_ = c.conn.Close()
	}
	c.conn, c.dropped = nil, nil
	maps.Copy(c.wish, c.kept)
	clear(c.kept)
}

// End has the store end, and with it all that it keeps. Run does so at its end.
func (c *Client) End() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		return
	}
	_ = c.conn.SetWriteDeadline(time.Now().Add(talkLimit))
	_, _ = c.conn.Write([]byte{kindEnd})
	_ = c.conn.Close() // without that word it ends a little later
	c.conn = nil
	_ = os.Remove(c.cfg.Socket)
}

// tell says what ended, and at a look what has waited for one.
func (c *Client) tell(look bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		c.dropped = nil
		return
	}
	_ = c.conn.SetWriteDeadline(time.Now().Add(talkLimit))
	err := c.tellDropped()
	if err == nil && (look || c.more) {
		err = c.tellKept()
	}
	if look && len(c.due) == 0 {
		c.due, c.wish = c.wish, c.due
	}
	if err != nil {
		_ = c.conn.Close() // Run hears of it, and begins another
	}
}

func (c *Client) tellDropped() error {
	for len(c.dropped) > 0 {
		n := min(len(c.dropped), most)
		if _, err := c.conn.Write(appendMessage(nil, kindDrop, c.dropped[:n])); err != nil {
			return err
		}
		c.dropped = c.dropped[n:]
	}
	c.dropped = nil
	return nil
}

// tellKept gives each its descriptor in a message of its own: a descriptor is held open only
// in a call, and many at once would be many calls within each other.
func (c *Client) tellKept() error {
	c.more = false
	n := 0
	for f, raw := range c.due {
		if n++; n > atOnce {
			c.more = true
			c.wake()
			break
		}
		sent := error(nil)
		msg := appendMessage(nil, kindKeep, []Flow{f})
		err := raw.Control(func(fd uintptr) {
			_, _, sent = c.conn.WriteMsgUnix(msg, unix.UnixRights(int(fd)), nil)
		})
		if sent != nil {
			return sent
		}
		delete(c.due, f)
		if err == nil { // else it has ended, and is about to be dropped
			c.kept[f] = raw
		}
	}
	return nil
}
