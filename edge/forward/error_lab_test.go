//go:build e2e

package forward

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
)

// TestTooBigReachesOwner makes the path to the client smaller in the middle of
// a download, after its route has moved: the router's error comes to B, and only
// A can send smaller packets.
func TestTooBigReachesOwner(t *testing.T) {
	families(t, func(t *testing.T, vip string) {
		l := newLabWith(t, smallSize)
		l.startAgents(t, true)
		d := l.startDownload(t, vip, l.size/4)
		d.reached(t, l.size/10)
		l.routeTo(t, l.b)
		l.router.must(t, func() error {
			link, err := netlink.LinkByName("to-client")
			if err != nil {
				return err
			}
			return netlink.LinkSetMTU(link, 1300)
		})
		d.open(l.size)
		if err := d.wait(); err != nil {
			t.Errorf("%v; B: %v", err, l.b.agent.tell(t, "stats").Metrics)
		}
		tooBig := l.router.counter(t, "snmp", "Ip", "FragFails")
		if vip == vip6 {
			tooBig = l.router.counter(t, "snmp6", "", "Icmp6OutPktTooBigs")
		}
		if tooBig == 0 {
			t.Error("the router never said that a packet was too big: the test proves nothing")
		}
	})
}

// TestErrorAboutQUICReachesOwner sends an ICMP error about a QUIC packet.
func TestErrorAboutQUICReachesOwner(t *testing.T) {
	families(t, func(t *testing.T, vip string) {
		l := newQUICLab(t, vip, ByFlow)
		c := l.dialQUIC(t, vip)
		c.from(t, "a", 100, 100)
		l.routeTo(t, l.b)
		f := Flow{Client: netip.AddrPortFrom(netip.MustParseAddr("198.51.100.2"), c.LocalAddr().Port()), VIP: netip.AddrPortFrom(netip.MustParseAddr(vip), 443)}
		network, kind, head := "ip4:icmp", byte(3), 20
		if f.VIP.Addr().Is6() {
			f.Client = netip.AddrPortFrom(netip.MustParseAddr("2001:db8:1::2"), f.Client.Port())
			network, kind, head = "ip6:ipv6-icmp", 1, 40
		}
		l.client.must(t, func() error {
			conn, err := net.Dial(network, vip)
			if err != nil {
				return fmt.Errorf("raw socket: %w", err)
			}
			defer conn.Close()
			_, err = conn.Write(icmpPacket(f, kind, sentBack(f, protoUDP, 8))[head:])
			return err
		})
		l.await(t, func() bool { return l.a.agent.tell(t, "stats").Metrics["arrived_packets_total b"] > 0 }, "A gets the error")
		c.from(t, "a", 100, 100)
	})
}
