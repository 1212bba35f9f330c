package handsock

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is one end of a connection between a server and its agent.
type Conn struct {
	c     *net.UnixConn
	limit time.Duration // of a Send; 0: none
}

// Dial connects to an agent.
func Dial(path string) (*Conn, error) {
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("handsock: %w", err)
	}
	return NewConn(c, 0), nil
}

// NewConn wraps an accepted connection (network "unixpacket"). A Send that waits
// for longer than limit fails; 0 is no limit.
func NewConn(c *net.UnixConn, limit time.Duration) *Conn { return &Conn{c: c, limit: limit} }

// Close ends the connection. What the other side sent and nobody received is lost:
// a giver calls Finish and receives until the end first.
func (c *Conn) Close() error { return c.c.Close() }

// Finish tells the other side that no more is sent here.
func (c *Conn) Finish() error { return c.c.CloseWrite() }

// StopReceiving ends what Receive waits for; messages can still be sent.
func (c *Conn) StopReceiving() error { return c.c.CloseRead() }

// Send sends one message, with the descriptor of a socket if there is one.
func (c *Conn) Send(m Message, with syscall.Conn) error {
	m.Attached = with != nil
	b, err := Append(nil, m)
	if err != nil {
		return err
	}
	if c.limit > 0 {
		if err := c.c.SetWriteDeadline(time.Now().Add(c.limit)); err != nil {
			return fmt.Errorf("handsock: send %s: %w", m.Type, err)
		}
	}
	if with == nil {
		_, _, err = c.c.WriteMsgUnix(b, nil, nil)
	} else {
		err = c.sendWith(b, with)
	}
	if err != nil {
		return fmt.Errorf("handsock: send %s: %w", m.Type, err)
	}
	return nil
}

func (c *Conn) sendWith(b []byte, with syscall.Conn) error {
	raw, err := with.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) { _, _, inner = c.c.WriteMsgUnix(b, unix.UnixRights(int(fd)), nil) })
	return errors.Join(err, inner)
}

// Receive waits for a message; io.EOF is the end, with nothing left unread. The
// descriptor, if one came, is the caller's.
func (c *Conn) Receive() (Message, *os.File, error) {
	var b [MaxMessage + 1]byte
	oob := make([]byte, unix.CmsgSpace(4*maxDescriptors))
	n, oobn, flags, _, err := c.c.ReadMsgUnix(b[:], oob)
	if errors.Is(err, unix.ECONNRESET) {
		// The other side ended with messages of ours unread. The kernel tells that once,
		// before the messages that it had sent us: a commit may be among them.
		return c.Receive()
	}
	if err != nil {
		return Message{}, nil, err
	}
	fds, err := descriptors(oob[:oobn])
	var m Message
	if err == nil {
		m, err = Decode(b[:n])
	}
	switch {
	case err != nil:
	case flags&unix.MSG_TRUNC != 0 || n > MaxMessage:
		err = fmt.Errorf("handsock: %s is longer than %d octets", m.Type, MaxMessage)
	case flags&unix.MSG_CTRUNC != 0 || m.Attached && len(fds) == 0:
		err = fmt.Errorf("handsock: %s: %w", m.Type, ErrDescriptor)
	case m.Attached != (len(fds) == 1):
		err = fmt.Errorf("handsock: %s with %d descriptors", m.Type, len(fds))
	case m.Attached:
		return m, os.NewFile(uintptr(fds[0]), "handed"), nil
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
	return m, nil, err
}

// ErrDescriptor: a descriptor was sent and did not arrive, since this process may have
// no more. The message is returned with it.
var ErrDescriptor = errors.New("the descriptor did not arrive: too many open files")

// maxDescriptors is what may come by mistake with one message and is closed.
const maxDescriptors = 253 // SCM_MAX_FD

func descriptors(oob []byte) (fds []int, err error) {
	all, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("handsock: control data: %w", err)
	}
	for i := range all {
		if got, err := unix.ParseUnixRights(&all[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	return fds, nil
}

// Peer is who stands at the other end of a connection (unix(7), SO_PEERCRED and
// SO_PEERGROUPS), by the time of its connect.
type Peer struct {
	PID      int32
	UID, GID uint32
	Groups   []uint32 // supplementary
}

// Peer asks the kernel.
func (c *Conn) Peer() (Peer, error) {
	raw, err := c.c.SyscallConn()
	if err != nil {
		return Peer{}, fmt.Errorf("handsock: %w", err)
	}
	var p Peer
	var inner error
	err = raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); inner == nil {
			p = Peer{PID: cred.Pid, UID: cred.Uid, GID: cred.Gid}
			p.Groups, inner = peerGroups(int(fd))
		}
	})
	if err = errors.Join(err, inner); err != nil {
		return Peer{}, fmt.Errorf("handsock: credentials: %w", err)
	}
	return p, nil
}
