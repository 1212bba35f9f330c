package netlab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Host is a Node that was built. Its network and mount namespaces are those of
// one thread, the keeper; they end when it does and nothing else holds them.
// All methods may be called from any goroutine.
type Host struct {
	Node

	keeper *keeper
	nl     *netlink.Handle // a socket opened inside the namespace
	inode  uint64          // of the network namespace: finds the host's processes
	// declared are the names of the interfaces that the topology gives the host;
	// others belong to programs in it. Fixed before anything is built.
	declared map[string]bool
}

// newHost makes the namespaces of n, with lo up and resolv.conf in place.
func newHost(n Node) (*Host, error) {
	h := &Host{Node: n}
	var err error
	h.keeper, err = newKeeper(func() error {
		if err := sysctlAll(nodeSysctls(n.Role)); err != nil {
			return err
		}
		if len(n.Resolvers) > 0 {
			if err := mountResolvConf(resolvConf(n.Resolvers)); err != nil {
				return err
			}
		}
		h.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("netlab: netlink socket: %w", err)
		}
		return h.loopbackUp()
	})
	if err != nil {
		return nil, fmt.Errorf("netlab: build node %s: %w", n.Name, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(h.keeper.net.Fd()), &st); err != nil {
		h.close()
		return nil, fmt.Errorf("netlab: build node %s: %w", n.Name, err)
	}
	h.inode = st.Ino
	return h, nil
}

// loopbackUp brings up lo with the declared addresses. It runs on the keeper, but
// only needs the handle, whose socket is bound to the namespace.
func (h *Host) loopbackUp() error {
	lo, err := h.nl.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("netlab: find lo: %w", err)
	}
	if err := h.nl.LinkSetUp(lo); err != nil {
		return fmt.Errorf("netlab: lo up: %w", err)
	}
	for _, a := range h.Loopback {
		if err := h.addAddress(lo, netip.PrefixFrom(a, a.BitLen())); err != nil {
			return err
		}
	}
	return nil
}

// close ends the host; its processes must be gone before.
func (h *Host) close() {
	h.nl.Close()
	h.keeper.close()
}

// Do runs f on a thread in the host's network namespace. Sockets which f opens
// stay in that namespace for their whole life; goroutines which it starts do not
// run in it. F may block.
func (h *Host) Do(f func() error) error {
	result := make(chan error, 1)
	go onFreshThread(func() {
		if err := unix.Setns(int(h.keeper.net.Fd()), unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("netlab: enter node %s: %w", h.Name, err)
			return
		}
		err := f()
		if unix.Setns(int(h.keeper.outer.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread() // as it was: the thread may serve others again
		}
		result <- err
	})
	return <-result
}

// Listen opens a stream listener in the host; address must be numeric.
func (h *Host) Listen(ctx context.Context, network, address string) (l net.Listener, err error) {
	err = h.Do(func() (err error) {
		var c net.ListenConfig
		l, err = c.Listen(ctx, network, address)
		return err
	})
	return l, err
}

// ListenPacket opens a datagram socket in the host; address must be numeric.
func (h *Host) ListenPacket(ctx context.Context, network, address string) (p net.PacketConn, err error) {
	err = h.Do(func() (err error) {
		var c net.ListenConfig
		p, err = c.ListenPacket(ctx, network, address)
		return err
	})
	return p, err
}

// Dial connects from the host; address must be numeric, since names would be
// looked up by the machine's resolver and not by the host's.
func (h *Host) Dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = h.Do(func() (err error) {
		var d net.Dialer
		c, err = d.DialContext(ctx, network, address)
		return err
	})
	return c, err
}
