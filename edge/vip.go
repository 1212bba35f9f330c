package edge

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// addresses keeps VIPs on lo: there before the first packet for them can be
// answered, gone after the last session. It takes away only what it put, so
// an address that the host's own configuration has stays. One owner.
type addresses struct {
	put map[netip.Addr]bool
}

// add puts the missing ones of want on lo.
func (a *addresses) add(want []netip.Addr) error {
	var errs []error
	for _, ip := range want {
		if a.put[ip] {
			continue
		}
		switch err := onLo(ip, netlink.AddrAdd); {
		case err == nil:
			a.put[ip] = true
		case !errors.Is(err, unix.EEXIST):
			errs = append(errs, fmt.Errorf("edge: add %s to lo: %w", ip, err))
		}
	}
	return errors.Join(errs...)
}

// keep takes away those of ours that are not in want.
func (a *addresses) keep(want []netip.Addr) error {
	wanted := map[netip.Addr]bool{}
	for _, ip := range want {
		wanted[ip] = true
	}
	var errs []error
	for ip := range a.put {
		if wanted[ip] {
			continue
		}
		delete(a.put, ip)
		if err := onLo(ip, netlink.AddrDel); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			errs = append(errs, fmt.Errorf("edge: remove %s from lo: %w", ip, err))
		}
	}
	return errors.Join(errs...)
}

func onLo(ip netip.Addr, do func(netlink.Link, *netlink.Addr) error) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	bits := net.CIDRMask(ip.BitLen(), ip.BitLen())
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: ip.AsSlice(), Mask: bits}}
	if ip.Is6() {
		addr.Flags = unix.IFA_F_NODAD // anycast: another host answers for it, and rightly
	}
	return do(lo, addr)
}
