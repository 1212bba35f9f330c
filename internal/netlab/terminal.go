package netlab

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// argTTY asks exec to make its first file the controlling terminal.
const argTTY = "tty"

// ExecIn runs a program in a node of the lab at socket with the given stdin,
// stdout and stderr, in this process's directory and environment. Signals from
// the channel are forwarded.
func ExecIn(ctx context.Context, socket, node string, argv []string, stdio [3]*os.File, signals <-chan os.Signal) (int, error) {
	req, err := execRequest(node, argv)
	if err != nil {
		return -1, err
	}
	req.Files = stdio[:]
	return Ask(ctx, socket, req, nil, signals)
}

// execRequest asks for a program to run as if it were started here.
func execRequest(node string, argv []string) (Request, error) {
	dir, err := os.Getwd()
	if err != nil {
		return Request{}, fmt.Errorf("netlab: exec in %s: %w", node, err)
	}
	return Request{Verb: "exec", Node: node, Argv: argv, Env: os.Environ(), Dir: dir}, nil
}

// ShellIn runs an interactive program in a node. It gets a terminal of its own,
// made here, so that job control, Ctrl-C and full-screen programs work; what
// passes is relayed to and from the terminal given, which is raw meanwhile. A
// signal SIGWINCH from the channel carries its size over.
func ShellIn(ctx context.Context, socket, node string, argv []string, terminal *os.File, signals <-chan os.Signal) (code int, err error) {
	req, err := execRequest(node, argv)
	if err != nil {
		return -1, err
	}
	r := relay{user: int(terminal.Fd()), winch: signals, done: make(chan struct{})}
	slave, err := r.open()
	if err != nil {
		return -1, fmt.Errorf("netlab: shell in %s: %w", node, err)
	}
	defer r.close()
	req.Files = []*os.File{slave, slave, slave}
	req.Args = map[string]string{argTTY: strconv.FormatBool(true)}
	go r.resize()
	go r.run()
	code, err = Ask(ctx, socket, req, nil, nil)
	slave.Close()
	return code, err
}

// relay joins the user's terminal to the master side of a new one.
type relay struct {
	user, master int
	bell         int // rung when the program has ended
	before       *unix.Termios
	winch        <-chan os.Signal
	done         chan struct{} // closed when run has ended
}

// open makes the new terminal, the user's size and settings on it, and sets the
// user's own to raw.
func (r *relay) open() (slave *os.File, err error) {
	if r.before, err = unix.IoctlGetTermios(r.user, unix.TCGETS); err != nil {
		return nil, fmt.Errorf("not a terminal: %w", err)
	}
	r.master, err = unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/ptmx: %w", err)
	}
	r.bell, err = unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		unix.Close(r.master)
		return nil, err
	}
	if slave, err = r.openSlave(); err != nil {
		unix.Close(r.master)
		unix.Close(r.bell)
	}
	return slave, err
}

// openSlave opens the program's side, with the user's settings as they were, and
// only then takes those away from the user.
func (r *relay) openSlave() (*os.File, error) {
	if err := unix.IoctlSetPointerInt(r.master, unix.TIOCSPTLCK, 0); err != nil {
		return nil, fmt.Errorf("unlock terminal: %w", err)
	}
	n, err := unix.IoctlGetUint32(r.master, unix.TIOCGPTN)
	if err != nil {
		return nil, fmt.Errorf("number of terminal: %w", err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.IoctlSetTermios(int(slave.Fd()), unix.TCSETS, r.before); err != nil {
		slave.Close()
		return nil, fmt.Errorf("set terminal: %w", err)
	}
	r.copySize()
	raw := rawMode(*r.before)
	if err := unix.IoctlSetTermios(r.user, unix.TCSETS, &raw); err != nil {
		slave.Close()
		return nil, fmt.Errorf("set terminal raw: %w", err)
	}
	return slave, nil
}

// rawMode hands every key through, as cfmakeraw(3) does.
func rawMode(t unix.Termios) unix.Termios {
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return t
}

// copySize gives the new terminal the user's size; the kernel tells the program.
func (r *relay) copySize() {
	if size, err := unix.IoctlGetWinsize(r.user, unix.TIOCGWINSZ); err == nil {
		_ = unix.IoctlSetWinsize(r.master, unix.TIOCSWINSZ, size) // only looks suffer
	}
}

// resize follows the size of the user's terminal while the relay runs.
func (r *relay) resize() {
	for {
		select {
		case <-r.winch:
			r.copySize()
		case <-r.done:
			return
		}
	}
}

// close waits for the last words of the program and restores the terminal.
func (r *relay) close() {
	_, _ = unix.Write(r.bell, binary.NativeEndian.AppendUint64(nil, 1))
	<-r.done
	_ = unix.IoctlSetTermios(r.user, unix.TCSETS, r.before)
	unix.Close(r.master)
	unix.Close(r.bell)
}

// run carries bytes both ways until the program's side is closed, or the bell
// has rung and nothing is left to show.
func (r *relay) run() {
	defer close(r.done)
	poll := []unix.PollFd{
		{Fd: int32(r.master), Events: unix.POLLIN},
		{Fd: int32(r.bell), Events: unix.POLLIN},
		{Fd: int32(r.user), Events: unix.POLLIN},
	}
	buf := make([]byte, 4096)
	for {
		if _, err := unix.Poll(poll, -1); err != nil && err != unix.EINTR {
			return
		}
		switch {
		case poll[0].Revents != 0:
			if !carry(r.user, r.master, buf) {
				return
			}
		case poll[1].Revents != 0:
			return
		case poll[2].Revents != 0 && !carry(r.master, r.user, buf):
			poll[2].Fd = -1 // the user hung up; the program will see to its own end
		}
	}
}

// carry copies what waits on one descriptor to the other.
func carry(to, from int, buf []byte) bool {
	n, err := unix.Read(from, buf)
	if err == unix.EINTR || err == unix.EAGAIN {
		return true
	}
	if err != nil || n == 0 {
		return false
	}
	for rest := buf[:n]; len(rest) > 0; {
		n, err := unix.Write(to, rest)
		if err != nil {
			return false
		}
		rest = rest[n:]
	}
	return true
}
