package hold

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// The messages of the kernel's queues (linux/netfilter/nfnetlink_queue.h).
const (
	subsystem  = 3 // NFNL_SUBSYS_QUEUE
	msgPacket  = 0
	msgVerdict = 1
	msgConfig  = 2

	cfgCommand = 1
	cfgParams  = 2
	cfgMost    = 3
	cfgMask    = 4
	cfgFlags   = 5

	commandBind = 1
	copyPacket  = 2
	flagGSO     = 4 // large segments come whole, and leave so

	attrHeader  = 1
	attrVerdict = 2
	attrPayload = 10

	netlinkHead = 16 // struct nlmsghdr, and
	genericHead = 4  // struct nfgenmsg
)

// Bounds of the queue.
const (
	headerCopy = 100   // octets of a segment: both headers up to the acknowledgement
	queueMost  = 16384 // segments that wait in the kernel
	readPause  = 100 * time.Millisecond
	queueRoom  = 4 << 20
)

// verdict is what becomes of a segment.
type verdict uint32

const (
	drop   verdict = 0
	accept verdict = 1
)

// queue is one queue of the kernel. Verdicts may come from any goroutine, receive
// is one's.
type queue struct {
	fd  int
	num uint16
	buf []byte
}

// bind opens a queue of this network namespace. There is one reader of a number.
func bind(num uint16) (*queue, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	q := &queue{fd: fd, num: num, buf: make([]byte, 64<<10)}
	if err := q.configure(); err != nil {
		return nil, errors.Join(fmt.Errorf("bind queue %d: %w", num, err), q.close())
	}
	return q, nil
}

func (q *queue) configure() error {
	pause := unix.NsecToTimeval(readPause.Nanoseconds())
	if err := unix.SetsockoptTimeval(q.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &pause); err != nil {
		return err
	}
	// Refused in a user namespace; there the host's bound holds.
	_ = unix.SetsockoptInt(q.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, queueRoom)
	// What does not fit is dropped by the kernel and acknowledged again later.
	_ = unix.SetsockoptInt(q.fd, unix.SOL_NETLINK, unix.NETLINK_NO_ENOBUFS, 1)
	be := binary.BigEndian
	for _, attrs := range [][]byte{
		attribute(nil, cfgCommand, []byte{commandBind, 0, 0, 0}),
		attribute(nil, cfgParams, append(be.AppendUint32(nil, headerCopy), copyPacket)),
		attribute(nil, cfgMost, be.AppendUint32(nil, queueMost)),
		attribute(attribute(nil, cfgMask, be.AppendUint32(nil, flagGSO)), cfgFlags, be.AppendUint32(nil, flagGSO)),
	} {
		if err := q.ask(attrs); err != nil {
			return err
		}
	}
	return nil
}

// attribute appends a netlink attribute.
func attribute(b []byte, kind uint16, data []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(data)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), data...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func (q *queue) message(kind, flags uint16, attrs []byte) []byte {
	b := make([]byte, netlinkHead+genericHead, netlinkHead+genericHead+len(attrs))
	ne := binary.NativeEndian
	ne.PutUint32(b, uint32(cap(b)))
	ne.PutUint16(b[4:], subsystem<<8|kind)
	ne.PutUint16(b[6:], unix.NLM_F_REQUEST|flags)
	binary.BigEndian.PutUint16(b[netlinkHead+2:], q.num)
	return append(b, attrs...)
}

// ask sends a setting and awaits the kernel's word on it. Segments that come in
// between belong to a reader before; they are dropped with their queue.
func (q *queue) ask(attrs []byte) error {
	if err := q.send(q.message(msgConfig, unix.NLM_F_ACK, attrs)); err != nil {
		return err
	}
	for range 64 {
		n, _, err := unix.Recvfrom(q.fd, q.buf, 0)
		if err != nil {
			return err
		}
		if n < netlinkHead+4 || binary.NativeEndian.Uint16(q.buf[4:]) != unix.NLMSG_ERROR {
			continue
		}
		if errno := -int32(binary.NativeEndian.Uint32(q.buf[netlinkHead:])); errno != 0 {
			return unix.Errno(errno)
		}
		return nil
	}
	return errors.New("the kernel does not answer")
}

func (q *queue) send(b []byte) error {
	return unix.Sendto(q.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// decide says what becomes of segments. One that is gone by now is no error.
func (q *queue) decide(v verdict, ids ...uint32) error {
	var b []byte
	for i, id := range ids {
		be := binary.BigEndian
		b = append(b, q.message(msgVerdict, 0, attribute(nil, attrVerdict, be.AppendUint32(be.AppendUint32(nil, uint32(v)), id)))...)
		if i == len(ids)-1 || len(b) > 16<<10 {
			if err := q.send(b); err != nil {
				return fmt.Errorf("hold: verdict on %d segments: %w", len(ids), err)
			}
			b = b[:0]
		}
	}
	return nil
}

// receive hands each segment that has come to take, with its number and its first
// octets, which are valid until take returns. It waits for readPause at most.
func (q *queue) receive(take func(id uint32, packet []byte)) error {
	n, _, err := unix.Recvfrom(q.fd, q.buf, 0)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOBUFS):
		return nil
	case err != nil:
		return fmt.Errorf("hold: read queue %d: %w", q.num, err)
	}
	for b := q.buf[:n]; len(b) >= netlinkHead+genericHead; {
		size := int(binary.NativeEndian.Uint32(b))
		if size < netlinkHead+genericHead || size > len(b) {
			break
		}
		if binary.NativeEndian.Uint16(b[4:]) == subsystem<<8|msgPacket {
			if id, packet, ok := parsePacket(b[netlinkHead+genericHead : size]); ok {
				take(id, packet)
			}
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return nil
}

// parsePacket reads the attributes of a packet message.
func parsePacket(b []byte) (id uint32, packet []byte, ok bool) {
	for len(b) >= 4 {
		size, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])&0x3fff
		if size < 4 || size > len(b) {
			return 0, nil, false
		}
		switch data := b[4:size]; {
		case kind == attrHeader && len(data) >= 4:
			id, ok = binary.BigEndian.Uint32(data), true
		case kind == attrPayload:
			packet = data
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return id, packet, ok
}

func (q *queue) close() error { return unix.Close(q.fd) }
