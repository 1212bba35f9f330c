package authdns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrSucceeded is the cause with which the context of Run ends when another process
// reads from the same sockets: then no query waits for us any more, and those who are
// connected are served until they are done.
var ErrSucceeded = errors.New("another process has taken over")

// Held are sockets that were open before this process: the one before it has handed
// them over, or somebody keeps them meanwhile. What came in the meantime lies in them.
// They are found by their addresses, since which of them was for what may have changed.
type Held struct {
	packets []net.PacketConn
	streams []net.Listener
	left    []string
}

// Hold takes sockets from files, which it closes. The error names those that are no
// sockets for DNS; all others are held all the same.
func Hold(files []*os.File) (*Held, error) {
	h := &Held{}
	var errs []error
	for _, f := range files {
		if err := h.add(f); err != nil {
			errs = append(errs, fmt.Errorf("authdns: held socket %s: %w", f.Name(), err))
		}
		f.Close()
	}
	return h, errors.Join(errs...)
}

func (h *Held) add(f *os.File) error {
	p, err := net.FilePacketConn(f)
	if err == nil {
		if _, ok := p.(*net.UDPConn); !ok {
			p.Close()
			return fmt.Errorf("a %T is not a UDP socket", p)
		}
		h.packets = append(h.packets, p)
		return nil
	}
	s, err := net.FileListener(f)
	if err != nil {
		return err
	}
	h.streams = append(h.streams, s)
	return nil
}

// takePackets returns the sockets of an address, and holds them no more. There are as
// many as the process that opened them had workers. The kernel goes on spreading
// clients over all of them, so that each has to be read.
func (h *Held) takePackets(addr netip.AddrPort) (out []net.PacketConn) {
	if h == nil {
		return nil
	}
	h.packets = slices.DeleteFunc(h.packets, func(p net.PacketConn) bool {
		mine := addrPort(p.LocalAddr()) == addr
		if mine {
			out = append(out, p)
		}
		return mine
	})
	return out
}

// takeStream returns the listening socket of an address; nil where none is held.
func (h *Held) takeStream(addr netip.AddrPort) net.Listener {
	if h == nil {
		return nil
	}
	i := slices.IndexFunc(h.streams, func(s net.Listener) bool { return addrPort(s.Addr()) == addr })
	if i < 0 {
		return nil
	}
	s := h.streams[i]
	h.streams = slices.Delete(h.streams, i, i+1)
	return s
}

// Close closes what nobody has taken.
func (h *Held) Close() {
	if h == nil {
		return
	}
	for _, p := range h.packets {
		h.left = append(h.left, socketName("udp", addrPort(p.LocalAddr())))
		p.Close()
	}
	for _, s := range h.streams {
		h.left = append(h.left, socketName("tcp", addrPort(s.Addr())))
		s.Close()
	}
	h.packets, h.streams = nil, nil
	slices.Sort(h.left)
	h.left = slices.Compact(h.left)
}

// Left names what Close has closed: sockets of addresses that the configuration does
// not have any more.
func (h *Held) Left() []string {
	if h == nil {
		return nil
	}
	return h.left
}

// Socket is an open socket that may be passed on to the next process.
type Socket struct {
	// Name is that of all sockets of one address and transport. It has none of the
	// characters that systemd does not take (FDNAME of sd_pid_notify_with_fds(3)).
	Name string
	Conn syscall.Conn
}

// Sockets returns every socket once: those that workers share too.
func (s *Server) Sockets() (out []Socket) {
	for _, k := range s.sockets {
		switch c := k.conn().(type) {
		case syscall.Conn:
			if !k.shared {
				out = append(out, Socket{k.name(), c})
			}
		}
	}
	return out
}

func (k *socket) conn() any {
	if k.packet != nil {
		return k.packet
	}
	return k.stream
}

func (k *socket) name() string {
	if k.packet != nil {
		return socketName("udp", k.addr())
	}
	return socketName("tcp", k.addr())
}

// socketName is the name of the sockets of an address: "udp-192.0.2.1-53", with
// underscores in place of the colons of IPv6.
func socketName(network string, a netip.AddrPort) string {
	return fmt.Sprintf("%s-%s-%d", network, strings.ReplaceAll(a.Addr().String(), ":", "_"), a.Port())
}

// What comes during a restart waits in the UDP sockets: as much as the kernel counts
// for 80,000 queries and more, some 770 octets each, in all of them together, and no less
// than some thousands in each. It takes memory only while it is in use.
const (
	roomInAll = 128 << 20
	roomLeast = 4 << 20
)

// receiveRoom is how many octets each of some sockets is to hold.
func receiveRoom(sockets int) int { return max(roomInAll/max(sockets, 1), roomLeast) }

// makeRoom asks for that room, past the limit of the machine (net.core.rmem_max) where
// the process may (CAP_NET_ADMIN), and returns what the kernel has granted.
func makeRoom(c syscall.RawConn, wanted int) (room int, err error) {
	cerr := c.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, wanted) != nil {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, wanted)
		}
		if err == nil {
			room, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
		}
	})
	return room / 2, errors.Join(cerr, err) // the kernel doubles what was asked for (socket(7))
}

// makeRoom gives all UDP sockets room, and tells once where there is too little: a
// server without it answers as well as ever, but loses more in a restart.
func (s *Server) makeRoom() {
	datagrams := 0
	for _, k := range s.sockets {
		if k.packet != nil {
			datagrams++
		}
	}
	wanted := receiveRoom(datagrams)
	least := wanted
	for _, k := range s.sockets {
		c, ok := k.packet.(syscall.Conn)
		if !ok {
			continue
		}
		raw, err := c.SyscallConn()
		if err != nil {
			continue // closed: whoever reads from it says so
		}
		room, err := makeRoom(raw, wanted)
		if err != nil {
			s.log.Warn("receive buffer keeps its size", "socket", k.name(), "err", err)
			continue
		}
		least = min(least, room)
	}
	if least < wanted {
		s.log.Info("receive buffers are small for a restart: raise the sysctl net.core.rmem_max", "octets", least, "wanted", wanted)
	}
}
