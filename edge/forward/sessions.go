package forward

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
)

// Sessions counts the live connections, QUIC among them, which clients have to servers of this
// host, on each of the addresses and ports: when all are 0, a draining site may go.
// Connections from the host itself are left out: health checks are no clients, and
// no route takes them away; nor does it matter whether their address is still here.
// Left out, too, is a handshake that was not finished.
func Sessions(vips []netip.AddrPort) (map[netip.AddrPort]int, error) {
	own, err := ownAddresses()
	if err != nil {
		return nil, err
	}
	counts := make(map[netip.AddrPort]int, len(vips))
	for _, vip := range vips {
		counts[vip] = 0
	}
	isClient := func(f Flow) bool { return !own[f.Client.Addr()] && f.Client.Addr() != f.VIP.Addr() }
	err = eachSession(vips, begunStates, func(flow Flow) {
		if isClient(flow) {
			counts[flow.VIP]++
		}
	})
	if err != nil {
		return nil, err
	}
	return counts, eachQUIC(func(flow Flow) {
		if _, wanted := counts[flow.VIP]; wanted && isClient(flow) {
			counts[flow.VIP]++
		}
	})
}

// Established lists the connections to the addresses and ports that are in
// ESTABLISHED, those of the host itself left out.
func Established(vips []netip.AddrPort) ([]Flow, error) {
	own, err := ownAddresses()
	if err != nil {
		return nil, err
	}
	var out []Flow
	err = eachSession(vips, 1<<tcpEstablished, func(f Flow) {
		if !own[f.Client.Addr()] {
			out = append(out, f)
		}
	})
	return out, err
}

// eachSession visits the connections to the addresses and ports in one of the states.
func eachSession(vips []netip.AddrPort, states uint32, visit func(Flow)) error {
	d, err := openDiag()
	if err != nil {
		return err
	}
	defer d.close()
	wanted, ports := make(map[netip.AddrPort]bool, len(vips)), make(map[uint16]bool)
	for _, vip := range vips {
		wanted[vip], ports[vip.Port()] = true, true
	}
	ours := func(flow Flow) {
		if wanted[flow.VIP] {
			visit(flow)
		}
	}
	for _, port := range slices.Sorted(maps.Keys(ports)) {
		for _, family := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
			if err := d.dump(port, family, states, ours); err != nil {
				return err
			}
		}
	}
	return nil
}

// ownAddresses are those of this host.
func ownAddresses() (map[netip.Addr]bool, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("forward: addresses of this host: %w", err)
	}
	own := make(map[netip.Addr]bool, len(list))
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				own[ip.Unmap()] = true
			}
		}
	}
	return own, nil
}
