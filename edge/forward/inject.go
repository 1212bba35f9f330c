package forward

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// straysDevice is where the rules copy strays to, and where packets that
	// came by tunnel enter this host.
	straysDevice = "rhumb0"
	// giveBackDevice is where packets enter which the kernel shall judge by
	// itself.
	giveBackDevice = "rhumb1"

	// deviceMTU lets packets of a path with jumbo frames through uncut.
	deviceMTU = 9216
	// deviceQueue bounds, in packets, what waits for us to read.
	deviceQueue = 4096
	// receiveBuffer bounds, in octets, what a packet socket holds for us.
	receiveBuffer = 16 << 20

	etherSize = 14
)

// port is our end of a device: what we write enters the host as if it had
// come by that device, what the host sends to it we read. Reads are one
// goroutine's; writes are safe for concurrent use.
type port struct {
	file  *os.File
	index uint32
	veth  bool
	// frame is the Ethernet header for what we write, without its type.
	frame [12]byte
}

// rim is the forwarder's edge to the host's IP stack.
type rim struct {
	strays, giveBack *port
	v6               bool
}

// openRim makes both devices, as TUN where this process may open it. Where
// only the host's root may (in a user namespace), a pair of virtual Ethernet
// devices and a packet socket stand in for each.
func openRim() (*rim, error) {
	open := openTUN
	if fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0); err == nil {
		_ = unix.Close(fd)
	} else {
		open = openVeth
	}
	strays, err := open(straysDevice)
	if err != nil {
		return nil, fmt.Errorf("forward: make device %s: %w", straysDevice, err)
	}
	giveBack, err := open(giveBackDevice)
	if err != nil {
		strays.close(straysDevice)
		return nil, fmt.Errorf("forward: make device %s: %w", giveBackDevice, err)
	}
	r := &rim{strays: strays, giveBack: giveBack, v6: hasIPv6()}
	if err := r.prepare(); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// prepare sets what both kinds of device need before packets may flow.
func (r *rim) prepare() error {
	for _, name := range []string{straysDevice, giveBackDevice} {
		// The route back to a client never points to these devices. The
		// larger of "all" and the device's value counts, so 2 (loose,
		// RFC 3704 section 2.4) is loose whatever the host set.
		if err := setConf("ipv4", name, "rp_filter", "2"); err != nil {
			return err
		}
		if !r.v6 {
			continue
		}
		if err := setConf("ipv6", name, "accept_ra", "0"); err != nil {
			return err
		}
	}
	// Without a route for dup's next hop, IPv4 would look for the VIP
	// itself as a neighbour, and IPv6 would find no way at all.
	gateways := []netip.Addr{dupGateway4()}
	if r.v6 {
		gateways = append(gateways, dupGateway6())
	}
	for _, gateway := range gateways {
		dst := netlink.NewIPNet(net.IP(gateway.AsSlice()))
		err := netlink.RouteReplace(&netlink.Route{LinkIndex: int(r.strays.index), Dst: dst, Scope: netlink.SCOPE_LINK})
		if err != nil {
			return fmt.Errorf("forward: route to device %s: %w", straysDevice, err)
		}
	}
	return nil
}

// close removes both devices.
func (r *rim) close() {
	r.strays.close(straysDevice)
	r.giveBack.close(giveBackDevice)
}

// drain hands on each IP packet, in buf, until reading fails. Whenever there is none for
// now it calls rest, before it waits for one.
func (p *port) drain(buf []byte, packet func([]byte), rest func()) error {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	var n int
	var failed error
	read := func(fd uintptr) bool {
		for {
			if n, failed = unix.Read(int(fd), buf); failed != unix.EINTR {
				break
			}
		}
		if failed == unix.EAGAIN {
			rest()
			return false
		}
		return true
	}
	for {
		err := raw.Read(read)
		switch {
		case err != nil:
			return err
		case failed != nil:
			return failed
		case n == 0:
			return io.EOF
		case p.veth:
			packet(buf[min(n, etherSize):n])
		default:
			packet(buf[:n])
		}
	}
}

// write lets an IP packet enter the host.
func (p *port) write(packet []byte) error {
	if !p.veth {
		_, err := p.file.Write(packet)
		return err
	}
	frame := make([]byte, 0, etherSize+len(packet))
	frame = append(frame, p.frame[:]...)
	if packet[0]>>4 == 6 {
		frame = append(frame, 0x86, 0xdd)
	} else {
		frame = append(frame, 0x08, 0x00)
	}
	_, err := p.file.Write(append(frame, packet...))
	return err
}

// close ends reads in progress and removes the device.
func (p *port) close(name string) {
	_ = p.file.Close()
	_ = deleteDevice(name)
}

// openTUN makes a TUN device, or takes the one that an earlier forwarder left. It outlives
// its file: for a process that dies the kernel would take tens of milliseconds to remove
// it, and only then tell whoever starts the next.
func openTUN(name string) (*port, error) {
	fd, err := attachTUN(name)
	if err != nil {
		// Of another kind, perhaps.
		if err := deleteDevice(name); err != nil {
			return nil, err
		}
		if fd, err = attachTUN(name); err != nil {
			return nil, err
		}
	}
	file := os.NewFile(uintptr(fd), name)
	link, err := raise(name)
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return &port{file: file, index: uint32(link.Attrs().Index)}, nil
}

func attachTUN(name string) (int, error) {
	// Non-blocking, so that the runtime's poller can end a read.
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err == nil {
		err = unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("attach to /dev/net/tun: %w", err)
	}
	return fd, nil
}

// openVeth makes a pair of virtual Ethernet devices, name and name+"p", and a
// packet socket on the latter.
func openVeth(name string) (*port, error) {
	if err := deleteDevice(name); err != nil {
		return nil, err
	}
	peer := name + "p"
	err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peer})
	if err != nil {
		return nil, fmt.Errorf("make veth pair: %w", err)
	}
	p, err := joinVeth(name, peer)
	if err != nil {
		_ = deleteDevice(name)
		return nil, err
	}
	return p, nil
}

// joinVeth sets up a new pair. The far end is raised first: the near end has
// no carrier before that.
func joinVeth(name, peer string) (*port, error) {
	// Checksums are filled in, and bundles of segments cut, before we read.
	if err := checksumInSoftware(name); err != nil {
		return nil, err
	}
	far, err := raise(peer)
	if err != nil {
		return nil, err
	}
	near, err := raise(name)
	if err != nil {
		return nil, err
	}
	if err := addNeighbours(near.Attrs().Index); err != nil {
		return nil, err
	}
	file, err := packetSocket(peer, far.Attrs().Index)
	if err != nil {
		return nil, err
	}
	p := &port{file: file, index: uint32(near.Attrs().Index), veth: true}
	copy(p.frame[:6], near.Attrs().HardwareAddr)
	copy(p.frame[6:], far.Attrs().HardwareAddr)
	return p, nil
}

// addNeighbours gives dup's next hops an Ethernet address which is not that of
// the pair's far end. So the host itself takes what arrives there for somebody
// else's and drops it; only our packet socket sees it.
func addNeighbours(index int) error {
	nobody := net.HardwareAddr{0x02, 0, 0, 0, 0, 0x02}
	gateways := []netip.Addr{dupGateway4()}
	if hasIPv6() {
		gateways = append(gateways, dupGateway6())
	}
	for _, gateway := range gateways {
		err := netlink.NeighSet(&netlink.Neigh{LinkIndex: index, State: netlink.NUD_PERMANENT,
			IP: net.IP(gateway.AsSlice()), HardwareAddr: nobody})
		if err != nil {
			return fmt.Errorf("add neighbour %s: %w", gateway, err)
		}
	}
	return nil
}

// packetSocket opens a socket that reads what arrives at a device and writes
// what leaves by it (packet(7)).
func packetSocket(name string, index int) (*os.File, error) {
	// In network byte order, as the kernel wants it.
	proto := uint16(unix.ETH_P_ALL)<<8 | uint16(unix.ETH_P_ALL)>>8
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	// The larger buffer may be refused in a user namespace; then it is the
	// host's limit.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	// What we write ourselves isn't for us to read.
	err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: index})
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("bind packet socket to %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// ownAddr is the IPv4 address of our devices (RFC 2544). Nobody uses it, but
// without one the kernel refuses what enters by a device, however loose its
// reverse path filter.
func ownAddr() netip.Addr { return netip.AddrFrom4([4]byte{198, 18, 0, 1}) }

// raise sets a device up, quiet: no IPv6 address of its own.
func raise(name string) (netlink.Link, error) {
	if hasIPv6() {
		if err := setConf("ipv6", name, "addr_gen_mode", "1"); err != nil {
			return nil, err
		}
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find device: %w", err)
	}
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: netlink.NewIPNet(net.IP(ownAddr().AsSlice())), Scope: int(netlink.SCOPE_LINK)}); err != nil {
		return nil, fmt.Errorf("add address: %w", err)
	}
	if err := netlink.LinkSetMTU(link, deviceMTU); err != nil {
		return nil, fmt.Errorf("set MTU: %w", err)
	}
	if err := netlink.LinkSetTxQLen(link, deviceQueue); err != nil {
		return nil, fmt.Errorf("set queue length: %w", err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("set up: %w", err)
	}
	return link, nil
}

// deleteDevice removes what an earlier forwarder left behind.
func deleteDevice(name string) error {
	link, err := netlink.LinkByName(name)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil {
		return fmt.Errorf("delete device left behind: %w", err)
	}
	return nil
}

// checksumInSoftware turns checksum offload off (ethtool's "tx off"), and with
// it segmentation offload, which depends on it.
func checksumInSoftware(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket for ethtool: %w", err)
	}
	defer unix.Close(fd)
	if err := ethtoolSet(fd, name, unix.ETHTOOL_STXCSUM, 0); err != nil {
		return fmt.Errorf("turn checksum offload of %s off: %w", name, err)
	}
	return nil
}

// hasIPv6 tells whether the host routes IPv6 at all.
func hasIPv6() bool {
	b, err := os.ReadFile("/proc/sys/net/ipv6/conf/all/disable_ipv6")
	return err == nil && strings.TrimSpace(string(b)) == "0"
}

// setConf writes a setting of one device, unless it is so already.
func setConf(family, device, key, value string) error {
	path := filepath.Join("/proc/sys/net", family, "conf", device, key)
	if b, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(b)) == value {
		return nil
	}
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		return fmt.Errorf("forward: set %s of %s to %s: %w", key, device, value, err)
	}
	return nil
}
