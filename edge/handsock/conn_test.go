package handsock

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// agent is the other end, as a test plays it.
type agent struct {
	t    *testing.T
	ln   *net.UnixListener
	path string
}

func newAgent(t *testing.T, path string) *agent {
	t.Helper()
	ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return &agent{t, ln, path}
}

// accept takes the next connection.
func (a *agent) accept() *Conn {
	a.t.Helper()
	a.ln.SetDeadline(time.Now().Add(time.Minute))
	c, err := a.ln.AcceptUnix()
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { c.Close() })
	return NewConn(c, 0)
}

// greeted takes the next server.
func (a *agent) greeted() *Conn {
	a.t.Helper()
	c := a.accept()
	if m, _ := a.next(c); m.Type != Ready || m.ID != 0 || m.Text != "stream" {
		a.t.Fatalf("greeted by %+v", m)
	}
	a.say(c, Message{Type: Ready, Text: "stream"}, nil)
	return c
}

func (a *agent) next(c *Conn) (Message, *os.File) {
	a.t.Helper()
	c.c.SetReadDeadline(time.Now().Add(time.Minute))
	m, f, err := c.Receive()
	if err != nil {
		a.t.Fatal(err)
	}
	if f != nil {
		a.t.Cleanup(func() { f.Close() })
	}
	return m, f
}

func (a *agent) say(c *Conn, m Message, with syscall.Conn) {
	a.t.Helper()
	if err := c.Send(m, with); err != nil {
		a.t.Fatal(err)
	}
}

func pair(t *testing.T) (here, there *Conn) {
	t.Helper()
	a := newAgent(t, filepath.Join(t.TempDir(), "s"))
	here, err := Dial(a.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { here.Close() })
	return here, a.accept()
}

// TestCommitBeforeReset: an agent that dies with a message of ours unread resets the
// connection, and the kernel tells so before the commit that it had sent. Who took
// that for the end would go on with a session that is another's.
func TestCommitBeforeReset(t *testing.T) {
	here, there := pair(t)
	if err := here.Send(Message{Type: Abort, ID: 1}, nil); err != nil {
		t.Fatal(err)
	}
	if err := there.Send(Message{Type: Commit, ID: 2}, nil); err != nil {
		t.Fatal(err)
	}
	there.Close()
	m, _, err := here.Receive()
	if err != nil || m.Type != Commit {
		t.Fatalf("%+v, %v, want the commit", m, err)
	}
	if _, _, err := here.Receive(); !errors.Is(err, io.EOF) {
		t.Fatalf("%v, want the end", err)
	}
}

// TestDescriptors: one goes with an offer, and nothing stays open of what is refused.
func TestDescriptors(t *testing.T) {
	here, there := pair(t)
	ln := listener(t)
	if err := here.Send(Message{Type: Offer, ID: 1, Key: key4(), Record: []byte("r")}, ln); err != nil {
		t.Fatal(err)
	}
	m, f, err := there.Receive()
	if err != nil || f == nil || !m.Attached || string(m.Record) != "r" {
		t.Fatalf("%+v, %v, %v", m, f, err)
	}
	f.Close()
	before := descriptorCount(t)
	raw := func(b []byte, fds ...int) error {
		_, _, err := here.c.WriteMsgUnix(b, unix.UnixRights(fds...), nil)
		return err
	}
	fd := func() (n int) {
		rc, _ := ln.SyscallConn()
		rc.Control(func(p uintptr) { n = int(p) })
		return n
	}()
	offer, _ := Append(nil, Message{Type: Offer, ID: 1, Key: key4(), Attached: true})
	bare, _ := Append(nil, Message{Type: Offer, ID: 1, Key: key4()})
	for name, send := range map[string]func() error{
		"two":                 func() error { return raw(offer, fd, fd) },
		"one unannounced":     func() error { return raw(bare, fd) },
		"one in what is none": func() error { return raw([]byte{9, 9}, fd) },
		"too long":            func() error { return raw(append(offer, make([]byte, MaxMessage)...), fd) },
	} {
		if err := send(); err != nil {
			t.Fatal(err)
		}
		if m, f, err := there.Receive(); err == nil || f != nil {
			t.Errorf("%s: %+v, %v", name, m, f)
		}
	}
	if err := here.Send(Message{Type: Commit, ID: 1}, nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := there.Receive(); err != nil {
		t.Errorf("after what was refused: %v", err)
	}
	if _, _, err := here.c.WriteMsgUnix(offer, nil, nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := there.Receive(); !errors.Is(err, ErrDescriptor) {
		t.Errorf("announced and missing: %v", err)
	}
	if after := descriptorCount(t); after != before {
		t.Errorf("%d descriptors open, %d before", after, before)
	}
}

func TestPeer(t *testing.T) {
	_, there := pair(t)
	p, err := there.Peer()
	if err != nil || p.PID != int32(os.Getpid()) || p.UID != uint32(os.Getuid()) || p.GID != uint32(os.Getgid()) {
		t.Errorf("%+v, %v", p, err)
	}
	groups, _ := os.Getgroups()
	if len(groups) != len(p.Groups) {
		t.Errorf("groups %v, want %v", p.Groups, groups)
	}
}

func listener(t *testing.T) *net.TCPListener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln.(*net.TCPListener)
}

func descriptorCount(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// notes is a Handler that tells what it was called for.
type notes struct {
	calls chan string
	conn  syscall.Conn
	fails atomic.Bool
}

func (n *notes) Give(k Key) (syscall.Conn, []byte, error) {
	n.calls <- "give"
	return n.conn, []byte("r"), n.err()
}
func (n *notes) Resume(Key) { n.calls <- "resume" }
func (n *notes) Leave(Key)  { n.calls <- "leave" }
func (n *notes) Take(_ Key, r []byte) error {
	n.calls <- "take " + string(r)
	return n.err()
}
func (n *notes) err() error {
	if n.fails.Load() {
		return errors.New(strings.Repeat("no ", 200))
	}
	return nil
}
func (n *notes) Start(_ Key, c *net.TCPConn) {
	c.Close()
	n.calls <- "start"
}
func (n *notes) Discard(Key) { n.calls <- "discard" }

// serve runs Serve against an agent.
func serve(t *testing.T) (*agent, *notes, context.CancelFunc) {
	t.Helper()
	a := newAgent(t, filepath.Join(t.TempDir(), "s"))
	ln := listener(t)
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	n := &notes{calls: make(chan string, 100), conn: c.(*net.TCPConn)}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, a.path, "stream", n) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, ErrRefused) {
			t.Error(err)
		}
	})
	return a, n, cancel
}

func (n *notes) want(t *testing.T, what string) {
	t.Helper()
	select {
	case got := <-n.calls:
		if got != what {
			t.Fatalf("called for %q, want %q", got, what)
		}
	case <-time.After(time.Minute):
		t.Fatalf("never called for %q", what)
	}
}

// TestServe plays each way a hand-off may end for a server.
func TestServe(t *testing.T) {
	wish := Message{Type: Offer, ID: 7, Key: key4()}
	given := func(t *testing.T, a *agent, n *notes) *Conn {
		c := a.greeted()
		a.say(c, wish, nil)
		n.want(t, "give")
		if m, f := a.next(c); m.Type != Offer || m.ID != 7 || f == nil || m.Key != wish.Key || string(m.Record) != "r" {
			t.Fatalf("offered %+v, %v", m, f)
		}
		return c
	}
	t.Run("given", func(t *testing.T) {
		a, n, _ := serve(t)
		c := given(t, a, n)
		a.say(c, wish, nil) // twice at once
		if m, _ := a.next(c); m.Type != Abort {
			t.Errorf("a second wish is answered by %+v", m)
		}
		a.say(c, Message{Type: Commit, ID: 7}, nil)
		a.say(c, Message{Type: Active, ID: 7}, nil)
		n.want(t, "leave")
	})
	t.Run("called off", func(t *testing.T) {
		a, n, _ := serve(t)
		c := given(t, a, n)
		a.say(c, Message{Type: Commit, ID: 7}, nil)
		a.say(c, Message{Type: Abort, ID: 7}, nil)
		n.want(t, "resume")
	})
	t.Run("agent dies after commit", func(t *testing.T) {
		a, n, _ := serve(t)
		c := given(t, a, n)
		a.say(c, Message{Type: Commit, ID: 7}, nil)
		c.Close()
		n.want(t, "leave")
		a.greeted()
	})
	t.Run("agent dies after a ticket, the taker has it", func(t *testing.T) {
		a, n, _ := serve(t)
		c := given(t, a, n)
		a.say(c, Message{Type: Commit, ID: 7, Text: "ticket"}, nil)
		for range 2 { // the second agent dies, too
			c.Close()
			c = a.greeted()
			if m, f := a.next(c); m.Type != Commit || m.ID != 7 || m.Text != "ticket" || f != nil {
				t.Fatalf("the next agent hears %+v, %v", m, f)
			}
		}
		a.say(c, Message{Type: Active, ID: 7}, nil)
		n.want(t, "leave")
	})
	t.Run("agent dies after a ticket, nobody has it", func(t *testing.T) {
		a, n, _ := serve(t)
		c := given(t, a, n)
		a.say(c, Message{Type: Commit, ID: 7, Text: "ticket"}, nil)
		c.Close()
		c = a.greeted()
		a.next(c)
		a.say(c, Message{Type: Abort, ID: 7}, nil) // means nothing yet: it is silent
		a.say(c, Message{Type: Again, ID: 7}, nil)
		if m, f := a.next(c); m.Type != Abort || m.ID != 7 || f == nil {
			t.Fatalf("it comes back as %+v, %v", m, f)
		}
		a.say(c, Message{Type: Abort, ID: 7}, nil)
		n.want(t, "resume")
	})
	for name, end := range map[string]struct {
		m    Message
		want string
	}{"speaks": {Message{Type: Commit, ID: 9}, "start"}, "never will": {Message{Type: Abort, ID: 9}, "discard"}} {
		t.Run("agent of the taker dies, it "+name, func(t *testing.T) {
			a, n, _ := serve(t)
			c := a.greeted()
			a.say(c, Message{Type: Offer, ID: 9, Key: key4(), Record: []byte("x")}, n.conn)
			n.want(t, "take x")
			a.next(c)
			c.Close()
			c = a.greeted()
			if m, f := a.next(c); m.Type != Ready || m.ID != 9 || f != nil {
				t.Fatalf("the next agent hears %+v, %v", m, f)
			}
			a.say(c, end.m, nil)
			n.want(t, end.want)
		})
	}
	t.Run("agent dies before commit", func(t *testing.T) {
		a, n, _ := serve(t)
		given(t, a, n).Close()
		c := a.greeted()
		if m, f := a.next(c); m.Type != Abort || m.ID != 7 || f == nil {
			t.Fatalf("the next agent hears %+v, %v", m, f)
		}
		a.say(c, Message{Type: Abort, ID: 7}, nil)
		n.want(t, "resume")
	})
	t.Run("refused", func(t *testing.T) {
		a, n, _ := serve(t)
		n.fails.Store(true)
		c := a.greeted()
		a.say(c, wish, nil)
		if m, f := a.next(c); m.Type != Abort || f != nil || len(m.Text) != MaxText {
			t.Fatalf("%+v, %v", m, f)
		}
		a.say(c, Message{Type: Offer, ID: 8, Key: key4()}, n.conn)
		n.want(t, "give")
		n.want(t, "take ")
		if m, _ := a.next(c); m.Type != Abort || m.ID != 8 {
			t.Fatalf("%+v", m)
		}
	})
	for name, end := range map[string]struct {
		m    Message
		want string
	}{"taken": {Message{Type: Commit, ID: 9}, "start"}, "not taken": {Message{Type: Abort, ID: 9}, "discard"}} {
		t.Run(name, func(t *testing.T) {
			a, n, _ := serve(t)
			c := a.greeted()
			a.say(c, Message{Type: Offer, ID: 9, Key: key4(), Record: []byte("x")}, n.conn)
			n.want(t, "take x")
			if m, _ := a.next(c); m.Type != Ready || m.ID != 9 {
				t.Fatalf("%+v", m)
			}
			a.say(c, end.m, nil)
			n.want(t, end.want)
			if end.want == "start" {
				if m, _ := a.next(c); m.Type != Active || m.ID != 9 {
					t.Fatalf("%+v", m)
				}
			}
		})
	}
	t.Run("the server ends", func(t *testing.T) {
		a, n, cancel := serve(t)
		c := given(t, a, n)
		cancel()
		c.c.SetReadDeadline(time.Now().Add(time.Minute))
		if _, _, err := c.Receive(); !errors.Is(err, io.EOF) {
			t.Fatalf("%v, want the end of what it says", err)
		}
		a.say(c, Message{Type: Abort, ID: 7}, nil) // it still listens
		n.want(t, "resume")
		c.Close()
	})
	t.Run("the agent refuses", func(t *testing.T) {
		a := newAgent(t, filepath.Join(t.TempDir(), "s"))
		ended := make(chan error, 1)
		go func() { ended <- Serve(context.Background(), a.path, "other", &notes{}) }()
		c := a.accept()
		a.next(c)
		a.say(c, Message{Type: Abort, Text: "no such service"}, nil)
		if err := <-ended; !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "no such service") {
			t.Errorf("%v", err)
		}
	})
}

// TestNext: what makes no sense changes nothing, and Over stays.
func TestNext(t *testing.T) {
	for e := HeardCommit; e <= Expired; e++ {
		if p, d := Next(Over, e); p != Over || d != Nothing {
			t.Errorf("over, event %d: %d, %d", e, p, d)
		}
	}
	for p := Offered; p <= Over; p++ {
		for e := HeardCommit; e <= Expired; e++ {
			next, deed := Next(p, e)
			if again, d := Next(next, Broken); next.limbo() && (again != next || d != Nothing) {
				t.Errorf("phase %d, event %d: without an agent %d becomes %d, %d", p, e, next, again, d)
			}
			if (next == Over) != (p == Over || deed != Nothing && deed != Return) {
				t.Errorf("phase %d, event %d: %d with deed %d", p, e, next, deed)
			}
		}
		if _, d := Next(p, Expired); p.limbo() && d != Leave && d != Discard {
			t.Errorf("phase %d lasts for ever", p)
		}
	}
	if p, d := Next(Doubtful, HeardAbort); p != Doubtful || d != Nothing {
		t.Errorf("a silent connection is gone on with: %d, %d", p, d)
	}
	for _, e := range []Event{HeardActive, Expired} {
		if p, d := Next(Offered, e); p != Offered || d != Nothing {
			t.Errorf("offered, event %d: %d, %d", e, p, d)
		}
		if p, d := Next(Taken, e); p != Taken || d != Nothing {
			t.Errorf("taken, event %d: %d, %d", e, p, d)
		}
	}
}
