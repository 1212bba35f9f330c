package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// announcements is when the neighbours are told after a take-over: at once, three times more
// for what was lost, and then now and then, for a neighbour that was led
// astray since.
func announcements(done int) time.Duration {
	gaps := [...]time.Duration{20 * time.Millisecond, 100 * time.Millisecond, 400 * time.Millisecond, 2 * time.Second}
	if done < len(gaps) {
		return gaps[done]
	}
	return 10 * time.Second
}

// announce tells all neighbours on a device that the addresses are at its hardware address.
// The fence judges what it sends, so what was decided in time and is sent too
// late leads nobody astray.
func announce(device string, addrs []netip.Addr) error {
	dev, err := net.InterfaceByName(device)
	if err != nil {
		return fmt.Errorf("vip: announce on %s: %w", device, err)
	}
	var errs []error
	for _, ip := range addrs {
		tell := tellARP
		if ip.Is6() {
			tell = tellND
		}
		if err := tell(dev, ip); err != nil {
			errs = append(errs, fmt.Errorf("vip: announce %s on %s: %w", ip, device, err))
		}
	}
	return errors.Join(errs...)
}

// tellARP broadcasts an ARP announcement (RFC 5227 section 3), as request and, since some
// hosts heed only one of them, as reply.
func tellARP(dev *net.Interface, ip netip.Addr) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	all := unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16([]byte{unix.ETH_P_ARP >> 8, unix.ETH_P_ARP & 0xff}),
		Ifindex: dev.Index, Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255}}
	for _, op := range [...]byte{1, 2} {
		if err := unix.Sendto(fd, arpPacket(op, dev.HardwareAddr, ip), 0, &all); err != nil {
			return err
		}
	}
	return nil
}

// arpPacket is an ARP packet (RFC 826) whose sender and target are one address.
func arpPacket(op byte, mac net.HardwareAddr, ip netip.Addr) []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, op}
	b = append(append(b, mac...), ip.AsSlice()...)
	target := make(net.HardwareAddr, len(mac))
	if op == 2 {
		target = mac
	}
	return append(append(b, target...), ip.AsSlice()...)
}

// tellND sends an unsolicited neighbour advertisement that overrides what neighbours
// know (RFC 4861 section 7.2.6). The kernel fills in the checksum.
func tellND(dev *net.Interface, ip netip.Addr) error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	// Hop limit 255: no router has passed it on (section 7.1.2).
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, dev.Index); err != nil {
		return err
	}
	all := unix.SockaddrInet6{ZoneId: uint32(dev.Index), Addr: netip.IPv6LinkLocalAllNodes().As16()}
	err = unix.Sendto(fd, advertisement(dev.HardwareAddr, ip), 0, &all)
	if errors.Is(err, unix.EPERM) {
		return nil // the fence has closed meanwhile: too late to tell
	}
	return err
}

// advertisement is a neighbour advertisement (RFC 4861 section 4.4) with the flag
// override, and the option which holds the hardware address.
func advertisement(mac net.HardwareAddr, ip netip.Addr) []byte {
	const override, targetLinkLayer = 0x20, 2
	b := []byte{typeAdvertisement, 0, 0, 0, override, 0, 0, 0}
	b = append(b, ip.AsSlice()...)
	return append(append(b, targetLinkLayer, 1), mac...)
}
