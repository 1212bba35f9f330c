package vip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// addressLife is how long the kernel keeps an address unless it is renewed: for the
	// process that dies, or that stands still just when somebody flushes the rules. It
	// comes in whole seconds, so it is the coarse fence behind the fine one.
	addressLife  = 3 * time.Second
	renewAddress = time.Second
)

// addresses are those of a lease on its device.
type addresses struct {
	device string
	addrs  []netip.Addr
	on     bool
	due    time.Duration // when to renew them
}

// hold puts the addresses on the device, or renews them there when it is time.
func (a *addresses) hold(now time.Duration) error {
	if a.on && now < a.due {
		return nil
	}
	// What was begun may be there in part, so drop has something to do.
	a.on = true
	if err := a.each("hold", netlink.AddrReplace); err != nil {
		return err
	}
	a.due = now + renewAddress
	return nil
}

// drop takes them off the device.
func (a *addresses) drop() error {
	if !a.on {
		return nil
	}
	err := a.each("drop", func(l netlink.Link, addr *netlink.Addr) error {
		if err := netlink.AddrDel(l, addr); !errors.Is(err, unix.EADDRNOTAVAIL) {
			return err
		}
		return nil // its time was over
	})
	if err == nil {
		a.on = false
	}
	return err
}

// each does something with every address, up to the first that fails. The device is looked up
// each time: it may have been made anew, with another index.
func (a *addresses) each(what string, do func(netlink.Link, *netlink.Addr) error) error {
	link, err := netlink.LinkByName(a.device)
	if err != nil {
		return fmt.Errorf("vip: %s addresses on %s: %w", what, a.device, err)
	}
	for _, ip := range a.addrs {
		if err := do(link, lasting(ip)); err != nil {
			return fmt.Errorf("vip: %s %s on %s: %w", what, ip, a.device, err)
		}
	}
	return nil
}

// lasting is an address for addressLife. It is deprecated from the start, so that no
// connection of the host's own takes it as its source (RFC 4862 section 5.5.4).
func lasting(ip netip.Addr) *netlink.Addr {
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(ip.BitLen(), ip.BitLen())},
		ValidLft: int(addressLife.Seconds())}
	if ip.Is6() {
		// The lease has found out that nobody else has it.
		addr.Flags = unix.IFA_F_NODAD
	}
	return addr
}

// carrier tells whether a device is up and has a link. An owner whose cable is out
// reaches no client, but may reach the other members by another network, and would keep
// the lease for good.
func carrier(device string) bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	req, err := unix.NewIfreq(device)
	if err != nil || unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req) != nil {
		return false
	}
	const both = unix.IFF_UP | unix.IFF_RUNNING
	return req.Uint16()&both == both
}
