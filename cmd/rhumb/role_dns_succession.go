package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"rhumb/authdns"
	"rhumb/internal/api"
)

// successionWithin is how long a successor may take to load what it serves.
const successionWithin = time.Minute

// upgradeSocket is where a name server is asked to let a new process take its place. Its
// path is no longer than that of the API's socket: what has room for one has for both.
func upgradeSocket(admin string) string { return filepath.Join(admin, "rhumb-dns.next") }

// succession lets a new process take the place of this one: it starts it, leaves it
// all sockets, and ends this one once the other answers. While both read from the same
// sockets each query is answered by one of them, so that there is no gap.
type succession struct {
	u      *unit
	estate *estate
	// end ends this unit with a cause.
	end context.CancelCauseFunc
	// program is what is started, as this process was.
	program string
	args    []string
	mu      sync.Mutex // held while a successor is on its way
}

// newSuccession prepares it. The program is found now and by its name, as whoever
// started this one has done: behind that name stands the new version later.
func newSuccession(u *unit, end context.CancelCauseFunc) (*succession, error) {
	program, err := programOf(os.Args[0])
	if err != nil {
		return nil, fmt.Errorf("%s: find %s: %w", u.name, os.Args[0], err)
	}
	return &succession{u: u, estate: u.estate, end: end, program: program, args: os.Args[1:]}, nil
}

// programOf is the path of the program that was started by a name. Whoever gives a
// process a name of his own choice, as the lab does, means the file that it runs.
func programOf(name string) (string, error) {
	program, err := exec.LookPath(name)
	if err != nil {
		return os.Executable()
	}
	return filepath.Abs(program)
}

// run answers those who ask for an upgrade until the context ends.
func (s *succession) run(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var asking sync.WaitGroup
	defer asking.Wait()
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
			if c != nil {
				c.Close()
			}
			return nil
		}
		if err != nil {
			s.u.log.Warn("who asks for an upgrade cannot be heard", "err", err)
			pauseOr(ctx, time.Second)
			continue
		}
		asking.Go(func() {
			defer c.Close()
			s.serve(ctx, c)
		})
	}
}

func pauseOr(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// serve hears one request and says how it went: "ok" or "error", and why.
func (s *succession) serve(ctx context.Context, c net.Conn) {
	c.SetDeadline(time.Now().Add(successionWithin + 10*time.Second))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil || line != "upgrade\n" {
		fmt.Fprintln(c, "error what is asked for is unknown")
		return
	}
	pid, err := s.upgrade(ctx)
	if err != nil {
		s.u.log.Error("the upgrade failed; this process goes on", "err", err)
		fmt.Fprintln(c, "error", err)
		return
	}
	fmt.Fprintln(c, "ok", pid)
	// Last, so that whoever asked has been told.
	s.end(authdns.ErrSucceeded)
}

var errUpgrading = errors.New("an upgrade is under way already")

// upgrade starts a successor and waits until it answers. On error this process is what
// it was before, and the other one is gone.
func (s *succession) upgrade(ctx context.Context) (pid int, err error) {
	if !s.mu.TryLock() {
		return 0, errUpgrading
	}
	defer s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, successionWithin)
	defer cancel()
	conn, child, err := s.start()
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	s.u.log.Info("successor started", "pid", child.Process.Pid, "program", s.program)
	if err := s.handOver(conn, child.Process.Pid); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("it did not answer within %s", successionWithin)
		}
		child.Process.Kill()
		return 0, fmt.Errorf("successor %d: %w", child.Process.Pid, errors.Join(err, <-ended))
	}
	return child.Process.Pid, nil
}

// start starts the successor with one end of a pair of sockets.
func (s *succession) start() (*net.UnixConn, *exec.Cmd, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "successor"), os.NewFile(uintptr(pair[1]), "predecessor")
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, nil, err
	}
	child := exec.Command(s.program, s.args...)
	child.Env, child.ExtraFiles = childEnv(), []*os.File{theirs}
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	if err := child.Start(); err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn.(*net.UnixConn), child, nil
}

// handOver sends the sockets, waits for the successor's word, and gives up the unit.
func (s *succession) handOver(conn *net.UnixConn, pid int) error {
	if err := s.estate.bequeath(conn); err != nil {
		return err
	}
	word, _, err := hear(conn)
	if err != nil {
		return fmt.Errorf("it ended before it answered: %w", err)
	}
	if !word.Serving {
		return errors.New("it speaks another language")
	}
	for _, h := range s.estate.ours {
		if l, ok := h.conn.(*net.UnixListener); ok {
			l.SetUnlinkOnClose(false) // the path is the successor's now
		}
	}
	s.u.log.Info("the successor answers; this process ends when those who are connected are done", "pid", pid)
	// The service manager takes words of the main process alone, in order of arrival.
	s.u.notify(fmt.Sprintf("MAINPID=%d", pid))
	return say(conn, estateWord{Yours: true})
}

// addSuccession lets the unit be replaced. A process which runs other roles as well
// cannot: their sockets and sessions would end.
func addSuccession(u *unit, end context.CancelCauseFunc) error {
	s, err := newSuccession(u, end)
	if err != nil {
		return err
	}
	path := upgradeSocket(u.cfg.Listen.Admin)
	l, err := u.estate.listen("upgrade "+path, func() (net.Listener, error) { return api.ListenUnix(path) })
	if err != nil {
		return fmt.Errorf("%s: %w", u.name, err)
	}
	u.add("succession", func(ctx context.Context) error { return s.run(ctx, l) })
	return nil
}
