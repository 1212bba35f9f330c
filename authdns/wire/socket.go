package wire

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	inSize = 4096
	// controlSize is room for an IPV6_PKTINFO, and for what else a socket that was
	// handed in may be set to tell: stamps of time, credentials.
	controlSize = 256
)

// Batch holds datagrams that came in one call of the kernel, and the replies
// that leave in one. It is for one worker and one socket, and allocates nothing
// once it is made. Replies leave from the address that was asked.
type Batch struct {
	recv, send []mmsghdr
	vectors    []unix.Iovec // in, then out
	from       []unix.RawSockaddrInet6
	control    [][controlSize]byte // each begins on a multiple of 8 octets
	in, out    []byte
	replies    int
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   uint32
}

// InSize is the room for one datagram; a longer one is cut off.
const InSize = inSize

// NewBatch makes room for n datagrams.
func NewBatch(n int) *Batch { return NewBatchOver(make([]byte, n*inSize)) }

// NewBatchOver makes a Batch that receives into given memory, InSize octets for
// each datagram in order. It may lie outside of the heap, and must outlive the Batch.
func NewBatchOver(in []byte) *Batch {
	n := len(in) / inSize
	b := &Batch{
		recv: make([]mmsghdr, n), send: make([]mmsghdr, n), vectors: make([]unix.Iovec, 2*n),
		from: make([]unix.RawSockaddrInet6, n), control: make([][controlSize]byte, n),
		in: in, out: make([]byte, n*MaxUDP),
	}
	for i := range n {
		in, out := &b.vectors[i], &b.vectors[n+i]
		in.Base = &b.in[i*inSize]
		in.SetLen(inSize)
		out.Base = &b.out[i*MaxUDP]
		h := &b.recv[i].hdr
		h.Name = (*byte)(unsafe.Pointer(&b.from[i]))
		h.Iov = in
		h.SetIovlen(1)
		h.Control = &b.control[i][0]
	}
	return b
}

// Receive takes what the socket holds now, and returns how many datagrams there
// are; 0 when there are none. It does not wait.
func (b *Batch) Receive(fd uintptr) (int, error) {
	for i := range b.recv {
		h := &b.recv[i].hdr
		h.Namelen = uint32(unsafe.Sizeof(b.from[0]))
		h.SetControllen(controlSize)
	}
	b.replies = 0
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.recv[0])), uintptr(len(b.recv)), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EAGAIN:
			return 0, nil
		case unix.EINTR: // the poller wakes us no more for what already lies there
			continue
		}
		return 0, errno
	}
}

// Query returns a datagram; nil for one that was cut off.
func (b *Batch) Query(i int) []byte {
	if b.recv[i].hdr.Flags&unix.MSG_TRUNC != 0 {
		return nil
	}
	return b.in[i*inSize : i*inSize+int(b.recv[i].len)]
}

// Source returns who sent a datagram, an IPv4 client as such.
func (b *Batch) Source(i int) netip.AddrPort {
	a := &b.from[i]
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&a.Port))[:])
	if a.Family == unix.AF_INET {
		a4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(a))
		return netip.AddrPortFrom(netip.AddrFrom4(a4.Addr), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), port)
}

// Out is where the reply to a datagram is written, MaxUDP octets.
func (b *Batch) Out(i int) []byte { return b.out[i*MaxUDP : (i+1)*MaxUDP] }

// Reply puts the first n octets of Out(i) among those to be sent.
func (b *Batch) Reply(i, n int) {
	v := &b.vectors[len(b.recv)+i]
	v.SetLen(n)
	in := &b.recv[i].hdr
	out := &b.send[b.replies].hdr
	*out = unix.Msghdr{Name: in.Name, Namelen: in.Namelen, Iov: v, Iovlen: 1}
	if info := asked(b.control[i][:in.Controllen]); info != nil {
		out.Control = &info[0]
		out.SetControllen(len(info))
	}
	b.replies++
}

// asked makes of the control data of a request that of its reply, nil where they
// do not tell the address asked; that one stays. The interface is left to routing,
// since with anycast the way back is often another one; link-local addresses keep
// theirs. Whatever else a request came with, a reply cannot be sent with.
func asked(control []byte) []byte {
	for len(control) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
		size := int(h.Len)
		if size < unix.SizeofCmsghdr || size > len(control) {
			return nil
		}
		data := control[unix.CmsgLen(0):size]
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			(*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0])).Ifindex = 0
			return control[:size]
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			info := (*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0]))
			if !netip.AddrFrom16(info.Addr).IsLinkLocalUnicast() {
				info.Ifindex = 0
			}
			return control[:size]
		}
		control = control[min(unix.CmsgSpace(size-unix.SizeofCmsghdr), len(control)):]
	}
	return nil
}

// Replies is how many wait to be sent.
func (b *Batch) Replies() int { return b.replies }

// Send lets the replies go and returns how many the kernel refused, each of
// which is lost. An error other than of a single reply ends it. More may follow to what
// was received last.
func (b *Batch) Send(fd uintptr) (lost int, err error) {
	for at := 0; at < b.replies; {
		n, _, errno := syscall.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&b.send[at])), uintptr(b.replies-at), unix.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == 0:
			at += int(n)
		case errno == unix.EINTR:
		case errors.Is(errno, unix.EBADF):
			return lost, errno
		default: // the first of them cannot be sent
			at++
			lost++
		}
	}
	b.replies = 0
	return lost, nil
}
