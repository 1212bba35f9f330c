//go:build e2e

package forward

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// TestSessionsAreClients: what a site waits for before it goes are clients, and not what a
// health check leaves behind when the address goes, nor the SYN of somebody who has gone.
func TestSessionsAreClients(t *testing.T) {
	host, away := newSpace(t, "host"), newSpace(t, "away")
	join(t, host, away, []string{"198.51.100.1/24"}, []string{"198.51.100.2/24"})
	vip := netip.MustParseAddrPort("192.0.2.9:8080")
	if err := away.route("192.0.2.0/24", "198.51.100.1"); err != nil {
		t.Fatal(err)
	}
	var lo netlink.Link
	var ln net.Listener
	host.must(t, func() (err error) {
		if lo, err = netlink.LinkByName("lo"); err != nil {
			return err
		}
		if err := addAddress(lo, "192.0.2.9/32"); err != nil {
			return err
		}
		ln, err = net.Listen("tcp4", vip.String())
		return err
	})
	defer ln.Close()
	dial := func(s *space) {
		t.Helper()
		c, err := s.dial(vip)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
	counted := func(when string, want int) {
		t.Helper()
		host.must(t, func() error {
			counts, err := Sessions([]netip.AddrPort{vip})
			if counts[vip] != want {
				t.Errorf("%s: %d sessions, want %d", when, counts[vip], want)
			}
			return err
		})
	}
	dial(host)
	counted("a health check", 0)
	dial(away)
	counted("a client", 1)

	// The answer to a SYN gets lost, and nobody asks again.
	if out, err := away.run("nft", "table inet fw { chain in { type filter hook input priority 0; tcp flags & (syn | ack) == syn | ack drop; }; }"); err != nil {
		t.Fatalf("nft: %v %s", err, out)
	}
	var late net.Error
	err := away.do(func() error {
		_, err := net.DialTimeout("tcp4", vip.String(), 200*time.Millisecond)
		return err
	})
	if !errors.As(err, &late) || !late.Timeout() {
		t.Fatalf("dial without an answer: %v, want a timeout", err)
	}
	host.must(t, func() error {
		half := 0
		if err := eachSession([]netip.AddrPort{vip}, 1<<tcpSynRecv, func(Flow) { half++ }); err != nil || half != 1 {
			t.Errorf("%d half-open connections, %v; want 1", half, err)
		}
		return nil
	})
	counted("a client, and a SYN", 1)

	host.must(t, func() error {
		return netlink.AddrDel(lo, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP("192.0.2.9").To4(), Mask: net.CIDRMask(32, 32)}})
	})
	counted("without the address", 1)
}
