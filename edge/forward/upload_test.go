//go:build e2e

package forward

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// TestUploadForwarded forwards nearly every octet of an upload: over a path that
// carries the packets whole, over one known to need parts, and over one that
// turns out to carry less than was said.
func TestUploadForwarded(t *testing.T) {
	for _, path := range []struct{ said, real int }{{1500, 1500}, {1400, 1500}, {1500, 1400}} {
		t.Run(fmt.Sprintf("path %d, said %d", path.real, path.said), func(t *testing.T) {
			families(t, func(t *testing.T, vip string) { uploadOver(t, vip, path.said, path.real) })
		})
	}
}

func uploadOver(t *testing.T, vip string, said, real int) {
	l := newLabWith(t, smallSize)
	l.pathMTU = said
	l.router.must(t, func() error {
		link, err := netlink.LinkByName("to-a")
		if err != nil {
			return err
		}
		return netlink.LinkSetMTU(link, real)
	})
	l.startAgents(t, true)
	u := l.startUpload(t, vip, 64<<10)
	u.reached(t, 64<<10)
	key := netip.AddrPortFrom(netip.MustParseAddr(vip), 80).String()
	l.await(t, func() bool { return l.a.agent.tell(t, "stats").Owned[key] == 1 }, "A has the upload")
	l.routeTo(t, l.b)
	start := time.Now()
	u.open(l.size)
	if err := u.wait(); err != nil {
		t.Fatalf("%v; B: %v", err, l.b.agent.tell(t, "stats").Metrics)
	}
	s, o := l.b.agent.tell(t, "stats"), l.a.agent.tell(t, "stats")
	octets := s.Metrics["tunnel_bytes_total a"]
	t.Logf("%.0f packets, %.1f MB/s, CPU s per GB %.2f + %.2f", s.Metrics["forwarded_packets_total a"],
		octets/1e6/time.Since(start).Seconds(), s.CPU.Seconds()*1e9/octets, o.CPU.Seconds()*1e9/octets)
	if octets < float64(l.size)*3/4 {
		t.Errorf("%.0f octets were forwarded: the test proves nothing", octets)
	}
	for name, n := range o.Metrics {
		if strings.HasPrefix(name, "tunnel_refused") && n > 0 {
			t.Errorf("the owner refused: %s %v", name, n)
		}
	}
}

// TestUploadUnderFlips sends data by both ways in turn, so that it also
// overtakes itself.
func TestUploadUnderFlips(t *testing.T) {
	families(t, func(t *testing.T, vip string) {
		l := newLabWith(t, smallSize)
		l.startAgents(t, true)
		before := l.client.counter(t, "snmp", "Tcp", "EstabResets")
		u := l.startUpload(t, vip, 1)
		l.flipUnder(t, 24, []*gate{u})
		if err := u.wait(); err != nil {
			t.Error(err)
		}
		s := l.b.agent.tell(t, "stats")
		if n := l.client.counter(t, "snmp", "Tcp", "EstabResets") - before; n != 0 {
			t.Errorf("the client saw %d resets; B: %v", n, s.Metrics)
		}
		if s.Metrics["forwarded_packets_total a"] < 100 {
			t.Errorf("hardly anything was forwarded, the test proves nothing: %v", s.Metrics)
		}
	})
}
