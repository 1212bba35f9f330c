package tcprepair

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MaxOutput bounds the bytes of a send queue that travel with a connection whose
// bytes nobody can make anew.
const MaxOutput = 4 << 20

// ErrOutput: more than MaxOutput bytes are not acknowledged or not sent.
var ErrOutput = errors.New("too much unacknowledged output")

// ErrSpoken: the connection spoke, and then could not go on.
var ErrSpoken = errors.New("ended after it had spoken")

// Queues are what the kernel keeps of a connection whose server is not ours.
type Queues struct {
	Input  []byte // received, acknowledged and not read
	Output []byte // [SndUna, WriteSeq): in flight, and unsent behind it
}

// handle is a socket in somebody's hands; its Close does no more than give up this
// descriptor.
type handle interface {
	syscall.Conn
	Close() error
}

// DumpFile is Dump of a descriptor that another process has too. The flags of the
// open file, O_NONBLOCK for one, are both processes' and stay as they are.
func DumpFile(f *os.File) (*Dumped, error) {
	d := &Dumped{conn: f}
	if err := d.dump(); err != nil {
		return nil, fmt.Errorf("tcprepair: dump: %w", err)
	}
	return d, nil
}

// Output copies the send queue. The send window is closed since the dump, so that
// selecting the queue marks nothing unsent as sent.
func (d *Dumped) Output() ([]byte, error) {
	want := int(d.State.WriteSeq - d.State.SndUna)
	if want == 0 {
		return nil, nil
	}
	if want > MaxOutput {
		return nil, fmt.Errorf("tcprepair: %d bytes: %w", want, ErrOutput)
	}
	// The first segment may begin below SndUna: what is acknowledged of it in part
	// stays until all of it is. One is as long as 64 KB, and some with large ones.
	b := make([]byte, want+maxSegmentRest)
	var n int
	err := control(d.conn, func(s sock) error {
		if err := s.queue(sendQueue); err != nil {
			return err
		}
		var err error
		n, _, err = unix.Recvfrom(int(s), b, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return errors.Join(err, s.queue(noQueue))
	})
	if err != nil {
		return nil, fmt.Errorf("tcprepair: copy send queue of %s: %w", d.State.Peer, err)
	}
	if n < want {
		return nil, fmt.Errorf("tcprepair: copy send queue of %s: %d bytes of %d", d.State.Peer, n, want)
	}
	return b[n-want : n], nil
}

// maxSegmentRest is the largest segment the kernel builds (BIG TCP, 512 KB).
const maxSegmentRest = 512 << 10

// Vanish ends a dumped connection for all who have its descriptor, without a
// packet: whoever forgets to close it keeps nothing alive. The descriptor of this
// side is closed.
func (d *Dumped) Vanish() error {
	return errors.Join(control(d.conn, disconnect), d.conn.Close())
}

// Drop ends a connection that was put back to work and that nobody serves: its peer
// hears a reset.
func (d *Dumped) Drop() error {
	return errors.Join(control(d.conn, disconnect), d.conn.Close())
}

// Wake lets a connection speak again which a process that died had dumped. How
// large its window was is in nobody's memory; the answer to the window probe that
// goes out tells it.
func Wake(f *os.File) error {
	d := Dumped{conn: f}
	if err := control(f, d.wake); err != nil {
		return fmt.Errorf("tcprepair: wake: %w", err)
	}
	return nil
}

// Reset ends a live connection for all who have its descriptor, and tells its peer
// by a RST: a FIN would look like the orderly end of what was cut.
func Reset(c syscall.Conn) error {
	if err := control(c, disconnect); err != nil {
		return fmt.Errorf("tcprepair: reset: %w", err)
	}
	return nil
}

// disconnect dissolves the association (connect(2), AF_UNSPEC). The kernel tells
// the peer by a RST, in repair mode nobody.
func disconnect(s sock) error {
	var none unix.RawSockaddr // AF_UNSPEC is 0
	if _, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(s), uintptr(unsafe.Pointer(&none)), unsafe.Sizeof(none)); errno != 0 {
		return fmt.Errorf("disconnect: %w", errno)
	}
	return nil
}

// RestoreQueues is Restore of a connection with all that its kernel had of it.
// st.RcvNxt is behind the input.
func RestoreQueues(st State, q Queues, elapsed time.Duration) (*Restored, error) {
	if len(q.Output) != int(st.WriteSeq-st.SndUna) {
		return nil, fmt.Errorf("tcprepair: restore %s: %d bytes of output, %d by the positions", st.Peer, len(q.Output), st.WriteSeq-st.SndUna)
	}
	flight := q.Output[:st.InFlight()]
	return restore(st, flight, Queues{Input: q.Input, Output: q.Output[len(flight):]}, elapsed)
}

// File is a descriptor of the silent socket for another process. Until Activate it
// is connected to nobody.
func (r *Restored) File() (*os.File, error) {
	fd, err := unix.FcntlInt(uintptr(r.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("tcprepair: duplicate: %w", err)
	}
	return os.NewFile(uintptr(fd), "tcp"), nil
}

// fillInput puts what was not read back before the reader. In repair mode a write
// to the receive queue is taken for the peer's.
func (r *Restored) fillInput() error {
	if len(r.queues.Input) == 0 {
		return nil
	}
	if err := r.fd.queue(recvQueue); err != nil {
		return err
	}
	if err := writePieces(int(r.fd), r.queues.Input); err != nil {
		return fmt.Errorf("put back %d bytes of input: %w", len(r.queues.Input), err)
	}
	return r.fd.queue(noQueue)
}

// writePieces writes in pieces of a page: a larger one has to be of one span of
// memory.
func writePieces(fd int, b []byte) error {
	for len(b) > 0 {
		n := min(len(b), 4096)
		if err := writeAll(fd, b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// sendUnsent hands the kernel what the old owner's had not sent. The buffer has
// room for it since fill, so this waits only where the host is out of memory for
// TCP; without the bytes the stream would have a hole.
func (r *Restored) sendUnsent() error {
	b := r.queues.Output
	for end := time.Now().Add(unsentLimit); len(b) > 0; {
		n, err := unix.Write(int(r.fd), b)
		switch {
		case err == nil:
			b = b[n:]
		case err == unix.EINTR:
		case err != unix.EAGAIN || time.Now().After(end):
			return fmt.Errorf("send %d bytes: %w", len(b), err)
		default:
			wait := []unix.PollFd{{Fd: int32(r.fd), Events: unix.POLLOUT}}
			_, _ = unix.Poll(wait, 10)
		}
	}
	return nil
}

const unsentLimit = time.Second
