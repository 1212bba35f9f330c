package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"rhumb/authdns"
)

// estate is what one process of a name server leaves to the next: its sockets. They
// come from the process before (an upgrade), or from the service manager which held
// them while there was none (a restart, a crash).
type estate struct {
	log *slog.Logger
	// held are the sockets for DNS that came to us; authdns takes them by address.
	held *authdns.Held
	// given are listeners of the API that came to us, by name.
	given map[string]net.Listener
	// ours are all that we pass on.
	ours []heir
	// before is the process whose successor we are to be; nil: nobody's. settled is
	// closed once we are it, or were from the beginning.
	before  *net.UnixConn
	settled chan struct{}
}

// heir is a socket of ours under the name that the next process knows it by.
type heir struct {
	name string
	conn syscall.Conn
	dns  bool
}

// The words that pass between a process and its successor, in packets of one word
// each; sockets ride on them. A field is added, never changed: either side may be the
// older binary.
type estateWord struct {
	// Names are those of the sockets with this word, in order; DNS ones are empty.
	Names []string `json:"names,omitempty"`
	// Last ends the sockets. Serving is the successor's word that it answers; Yours
	// the answer to it, after which the successor is the unit.
	Last    bool `json:"last,omitempty"`
	Serving bool `json:"serving,omitempty"`
	Yours   bool `json:"yours,omitempty"`
}

// envSucceed holds the number of the descriptor by which a process speaks to the one
// that it is to succeed.
const envSucceed = "RHUMB_SUCCEED_FD"

// socketsPerWord is how many sockets ride on a packet; the kernel takes 253 (SCM_MAX_FD).
const socketsPerWord = 128

// inherit collects what this process is left by others.
func inherit(log *slog.Logger) (*estate, error) {
	e := &estate{log: log, given: make(map[string]net.Listener), settled: make(chan struct{})}
	if os.Getenv(envSucceed) == "" {
		var err error
		if e.held, err = authdns.Hold(activation.Files(true)); err != nil {
			log.Warn("sockets from the service manager", "err", err)
		}
		close(e.settled)
		return e, nil
	}
	if err := e.inheritFrom(os.Getenv(envSucceed)); err != nil {
		return nil, fmt.Errorf("take over from the process before: %w", err)
	}
	return e, nil
}

// inheritFrom takes over the sockets of the process before.
func (e *estate) inheritFrom(number string) error {
	var fd uintptr
	if _, err := fmt.Sscan(number, &fd); err != nil {
		return fmt.Errorf("%s=%q: %w", envSucceed, number, err)
	}
	os.Unsetenv(envSucceed) // not for what this process starts in its turn
	f := os.NewFile(fd, "predecessor")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return err
	}
	e.before = c.(*net.UnixConn)
	var dns []*os.File
	for last := false; !last; {
		word, files, err := hear(e.before)
		if err != nil {
			return err
		}
		for i, f := range files {
			if i >= len(word.Names) || word.Names[i] == "" {
				dns = append(dns, f)
				continue
			}
			if l, err := net.FileListener(f); err == nil {
				e.given[word.Names[i]] = l
			}
			f.Close()
		}
		last = word.Last
	}
	e.held, err = authdns.Hold(dns)
	return err
}

// listen returns the listener of a name as it came to us, or opens it, and passes it
// on. A name tells all that matters of a listener: one of another address is another.
func (e *estate) listen(name string, open func() (net.Listener, error)) (net.Listener, error) {
	if e == nil {
		return open()
	}
	l, inherited := e.given[name]
	if !inherited {
		var err error
		if l, err = open(); err != nil {
			return nil, err
		}
	}
	delete(e.given, name)
	if c, ok := l.(syscall.Conn); ok {
		e.ours = append(e.ours, heir{name: name, conn: c})
	}
	if inherited {
		l = &shared{Listener: l, ours: e.settled, closed: make(chan struct{})}
	}
	return l, nil
}

// shared is a listener from which the process before takes who comes, until it has
// given the unit up: a successor that fails must not have been asked anything.
type shared struct {
	net.Listener
	ours   <-chan struct{}
	once   sync.Once
	closed chan struct{}
}

func (l *shared) Accept() (net.Conn, error) {
	select {
	case <-l.ours:
		return l.Listener.Accept()
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *shared) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// forDNS is what is held for the server, and when nobody else reads it any more; nil where
// nothing can be.
func (e *estate) forDNS() (held *authdns.Held, settled <-chan struct{}) {
	if e == nil {
		return nil, nil
	}
	return e.held, e.settled
}

// own notes the sockets of the server, to be passed on.
func (e *estate) own(sockets []authdns.Socket) {
	for _, s := range sockets {
		e.ours = append(e.ours, heir{name: s.Name, conn: s.Conn, dns: true})
	}
}

// bequeath sends everything to a successor. The sockets stay ours as well.
func (e *estate) bequeath(to *net.UnixConn) error {
	for some := range slices.Chunk(e.ours, socketsPerWord) {
		word := estateWord{}
		var fds []int
		for _, h := range some {
			name := h.name
			if h.dns {
				name = ""
			}
			word.Names = append(word.Names, name)
		}
		err := withFDs(some, &fds, func() error { return say(to, word, fds...) })
		if err != nil {
			return err
		}
	}
	return say(to, estateWord{Last: true})
}

// withFDs calls f while the sockets cannot be closed, with their descriptors in fds.
func withFDs(some []heir, fds *[]int, f func() error) error {
	if len(some) == 0 {
		return f()
	}
	raw, err := some[0].conn.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) {
		*fds = append(*fds, int(fd))
		inner = withFDs(some[1:], fds, f)
	})
	return errors.Join(err, inner)
}

// keep leaves the sockets for DNS with the service manager as well, so that a restart
// and a crash lose no query that waits in them; it drops those not wanted any more.
func (e *estate) keep(sockets []authdns.Socket) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	for _, name := range e.held.Left() {
		if err := tellManager(path, "FDSTOREREMOVE=1\nFDNAME="+name); err != nil {
			e.log.Warn("a socket stays with the service manager", "socket", name, "err", err)
		}
	}
	for _, s := range sockets {
		var fds []int
		err := withFDs([]heir{{conn: s.Conn}}, &fds, func() error { return tellManager(path, "FDSTORE=1\nFDNAME="+s.Name, fds...) })
		if err != nil {
			e.log.Warn("a socket is not kept over a restart", "socket", s.Name, "err", err)
		}
	}
}

// tellManager says something to the service manager with sockets (sd_notify(3)).
func tellManager(path, words string, fds ...int) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	return unix.Sendmsg(fd, []byte(words), rights, &unix.SockaddrUnix{Name: path}, unix.MSG_NOSIGNAL)
}

// say sends one word, with sockets.
func say(to *net.UnixConn, word estateWord, fds ...int) error {
	b, err := json.Marshal(word)
	if err != nil {
		return err
	}
	_, _, err = to.WriteMsgUnix(b, unix.UnixRights(fds...), nil)
	return err
}

// hear receives one word, with the sockets that ride on it.
func hear(from *net.UnixConn) (word estateWord, files []*os.File, err error) {
	data, control := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(4*(socketsPerWord+1)))
	n, cn, flags, _, err := from.ReadMsgUnix(data, control)
	if err != nil {
		return word, nil, err
	}
	if n == 0 { // a connection of packets says its end so
		return word, nil, io.ErrUnexpectedEOF
	}
	messages, err := unix.ParseSocketControlMessage(control[:cn])
	if err != nil {
		return word, nil, err
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "handed over"))
		}
	}
	if flags&(unix.MSG_CTRUNC|unix.MSG_TRUNC) != 0 {
		err = errors.New("sockets were cut off: is LimitNOFILE large enough?")
	} else {
		err = json.Unmarshal(data[:n], &word)
	}
	if err != nil {
		for _, f := range files {
			f.Close()
		}
		return word, nil, err
	}
	return word, files, nil
}

// succeed tells the process before that this one answers, and waits until that has
// given the unit up. Then the service manager takes the sockets from us.
func (e *estate) succeed(ctx context.Context, ready <-chan struct{}, sockets []authdns.Socket) error {
	select {
	case <-ready:
	case <-ctx.Done():
		return nil
	}
	if e.before == nil {
		e.keep(sockets)
		return nil
	}
	defer e.before.Close()
	stop := context.AfterFunc(ctx, func() { e.before.Close() })
	defer stop()
	err := say(e.before, estateWord{Serving: true})
	var word estateWord
	if err == nil {
		word, _, err = hear(e.before)
	}
	if err == nil && !word.Yours {
		err = errors.New("it did not give up")
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("the process before: %w", err)
	}
	e.log.Info("took over from the process before")
	for _, l := range e.given { // of addresses that the node file does not have any more
		l.Close()
	}
	close(e.settled)
	e.keep(sockets)
	notifySystemd(daemon.SdNotifyReady)
	return nil
}

// childEnv is the environment of a successor: that of this process, without what was
// said to this one alone.
func childEnv() []string {
	return append(slices.DeleteFunc(os.Environ(), func(s string) bool {
		return strings.HasPrefix(s, "LISTEN_") || strings.HasPrefix(s, envSucceed+"=")
	}), envSucceed+"=3")
}
