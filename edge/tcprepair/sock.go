package tcprepair

import (
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Codes of struct tcp_repair_opt: the option kinds of RFC 9293 and RFC 7323.
const (
	optMSS        = 2
	optWindow     = 3
	optSACK       = 4
	optTimestamps = 8
)

// Queues of TCP_REPAIR_QUEUE.
const (
	noQueue = iota
	recvQueue
	sendQueue
)

// Bits of tcpi_options.
const (
	infoTimestamps = 1 << iota
	infoSACK
	infoScaling
)

// tcpEstablished is the kernel's TCP_ESTABLISHED.
const tcpEstablished = 1

// sock is a socket's descriptor, with the calls of repair mode by name. It
// owns nothing; whoever made the descriptor closes it.
type sock int

// The calls below take the kernel a fraction of a microsecond and wait for nothing, and a
// new connection needs a dozen of them: the scheduler is not told of each.

func (s sock) setInt(level, opt int, v uint32, name string) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(s), uintptr(level), uintptr(opt), uintptr(unsafe.Pointer(&v)), unsafe.Sizeof(v), 0)
	if errno != 0 {
		return fmt.Errorf("set %s to %d: %w", name, int32(v), errno)
	}
	return nil
}

func (s sock) int(opt int, name string) (uint32, error) {
	var v uint32
	n := uint32(unsafe.Sizeof(v))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(s), unix.IPPROTO_TCP, uintptr(opt), uintptr(unsafe.Pointer(&v)), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return 0, fmt.Errorf("get %s: %w", name, errno)
	}
	return v, nil
}

func (s sock) ioctl(req uint, name string) (uint32, error) {
	var v uint32
	if _, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(s), uintptr(req), uintptr(unsafe.Pointer(&v))); errno != 0 {
		return 0, fmt.Errorf("%s: %w", name, errno)
	}
	return v, nil
}

func (s sock) repair(mode int) error {
	return s.setInt(unix.IPPROTO_TCP, unix.TCP_REPAIR, uint32(int32(mode)), "TCP_REPAIR")
}

func (s sock) queue(q uint32) error {
	return s.setInt(unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, q, "TCP_REPAIR_QUEUE")
}

func (s sock) seq() (uint32, error) { return s.int(unix.TCP_QUEUE_SEQ, "TCP_QUEUE_SEQ") }

// setSeq positions one queue; the kernel accepts it before connect only.
func (s sock) setSeq(q, seq uint32) error {
	if err := s.queue(q); err != nil {
		return err
	}
	return s.setInt(unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ, seq, "TCP_QUEUE_SEQ")
}

// reuse sets SO_REUSEADDR. Leaving repair mode clears it, and then the next
// listen on the port fails with EADDRINUSE as long as this socket, or its
// orphan, lives.
func (s sock) reuse() error {
	return s.setInt(unix.SOL_SOCKET, unix.SO_REUSEADDR, 1, "SO_REUSEADDR")
}

// deafen makes the kernel drop every packet for this socket before TCP sees
// it. Repair mode alone does not: input would go on being acknowledged, by
// bytes that nobody will ever read.
func (s sock) deafen() error {
	drop := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0}
	prog := unix.SockFprog{Len: 1, Filter: &drop}
	if err := unix.SetsockoptSockFprog(int(s), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
		return fmt.Errorf("set SO_ATTACH_FILTER: %w", err)
	}
	return nil
}

func (s sock) hear() error {
	return s.setInt(unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0, "SO_DETACH_FILTER")
}

func (s sock) window() (Window, error) {
	var w Window
	n := uint32(unsafe.Sizeof(w))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(s), unix.IPPROTO_TCP, unix.TCP_REPAIR_WINDOW,
		uintptr(unsafe.Pointer(&w)), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return w, fmt.Errorf("get TCP_REPAIR_WINDOW: %w", errno)
	}
	return w, nil
}

func (s sock) setWindow(w Window) error {
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(s), unix.IPPROTO_TCP, unix.TCP_REPAIR_WINDOW,
		uintptr(unsafe.Pointer(&w)), unsafe.Sizeof(w), 0)
	if errno != 0 {
		return fmt.Errorf("set TCP_REPAIR_WINDOW %+v: %w", w, errno)
	}
	return nil
}

// repairOpt is the kernel's struct tcp_repair_opt.
type repairOpt struct{ code, value uint32 }

func (s sock) setOptions(o Options) error {
	opts := []repairOpt{{optMSS, uint32(o.MSS)}}
	if o.SACK {
		opts = append(opts, repairOpt{optSACK, 0})
	}
	if o.Scaling {
		opts = append(opts, repairOpt{optWindow, uint32(o.SndScale) | uint32(o.RcvScale)<<16})
	}
	if o.Timestamps {
		opts = append(opts, repairOpt{optTimestamps, 0})
	}
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(s), unix.IPPROTO_TCP, unix.TCP_REPAIR_OPTIONS,
		uintptr(unsafe.Pointer(&opts[0])), uintptr(len(opts))*unsafe.Sizeof(opts[0]), 0)
	if errno != 0 {
		return fmt.Errorf("set TCP_REPAIR_OPTIONS: %w", errno)
	}
	return nil
}

// info is the part of TCP_INFO that a dump needs.
type info struct {
	options Options
	state   uint8
	rttUsec uint32
	unsent  uint32 // octets that were written and not sent
}

func (s sock) info() (info, error) {
	var t unix.TCPInfo
	if err := s.tcpInfo(&t); err != nil {
		return info{}, err
	}
	// The byte behind tcpi_options is a bit field which the Go struct leaves
	// as padding: send scale in the low half, receive scale in the high.
	scales := (*[8]byte)(unsafe.Pointer(&t))[6]
	return info{state: t.State, rttUsec: t.Rtt, unsent: t.Notsent_bytes, options: Options{
		SndScale: scales & 15, RcvScale: scales >> 4,
		Scaling:    t.Options&infoScaling != 0,
		SACK:       t.Options&infoSACK != 0,
		Timestamps: t.Options&infoTimestamps != 0,
	}}, nil
}

// tcpInfo reads TCP_INFO into what is the caller's: thousands of sessions are looked at a second.
func (s sock) tcpInfo(t *unix.TCPInfo) error {
	n := uint32(unsafe.Sizeof(*t))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(s), unix.IPPROTO_TCP, unix.TCP_INFO,
		uintptr(unsafe.Pointer(t)), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return fmt.Errorf("get TCP_INFO: %w", errno)
	}
	return nil
}

// addrs reads both ends, unmapped: an IPv4 connection accepted by a
// dual-stack listener is restored as a plain IPv4 one.
func (s sock) addrs() (local, peer netip.AddrPort, err error) {
	l, err := unix.Getsockname(int(s))
	if err != nil {
		return local, peer, fmt.Errorf("getsockname: %w", err)
	}
	p, err := unix.Getpeername(int(s))
	if err != nil {
		return local, peer, fmt.Errorf("getpeername: %w: %w", err, ErrNotEstablished)
	}
	return fromSockaddr(l), fromSockaddr(p), nil
}

func fromSockaddr(a unix.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}

func toSockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}
