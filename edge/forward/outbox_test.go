package forward

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// bodies opens what a site got of the relay of a test until nothing more is there. So
// many are waited for.
func (c *carrying) bodies(t *testing.T, site string, wanted int) (all [][]byte) {
	t.Helper()
	conn := c.a
	if site == "b" {
		conn = c.b
	}
	open := testSealOf(t, map[string][32]byte{"a": {1}, "b": {2}}[site], "r", site)
	for {
		d := got(t, conn, len(all) < wanted)
		if d == nil {
			return all
		}
		body, err := open.open(d)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, append([]byte{d[0] & 15}, body...))
	}
}

// TestOutboxGathers: whatever is gathered arrives whole, each in a datagram of its own,
// and in order, for each site.
func TestOutboxGathers(t *testing.T) {
	now := time.Unix(1e9, 0)
	for name, sizes := range map[string][]int{
		"one":                     {100},
		"of one size":             {1300, 1300, 1300, 1300},
		"the last is shorter":     {1300, 1300, 40},
		"more behind a shorter":   {1300, 40, 40, 1300, 1300, 1200},
		"growing":                 {40, 41, 42},
		"more than fit in a call": slices.Repeat([]int{52}, 3*maxGathered+5),
		"more than fit in octets": slices.Repeat([]int{1400}, 100),
		"one that goes in parts":  {1300, 1300, 1600, 1300, 52},
		"all as large as can be":  slices.Repeat([]int{1500 - 28 - overhead}, 50),
		"many, of all small sizes": func() (all []int) {
			for i := range 200 {
				all = append(all, 40+i*7%60)
			}
			return all
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			c := newCarrying(t, 0)
			o := newOutbox(c.Forwarder)
			var want [][]byte
			for i, n := range sizes {
				packet := bytes.Repeat([]byte{byte(i)}, n)
				o.tunnel(now, "a", packet)
				o.tunnel(now, "gone", packet)
				want = append(want, packet)
			}
			o.flush(now)
			o.flush(now) // of nothing
			var have [][]byte
			var parts joiner
			for _, b := range c.bodies(t, "a", len(sizes)) {
				packet := b[1:]
				if kind(b[0]) == kindPart {
					var err error
					if packet, err = parts.add(now, packet); err != nil {
						t.Fatal(err)
					}
				}
				if packet != nil {
					have = append(have, bytes.Clone(packet))
				}
			}
			if !slices.EqualFunc(have, want, bytes.Equal) {
				t.Errorf("%d packets arrived, want %d, as they were and in order", len(have), len(want))
			}
			p := c.peers.Load().find("a")
			octets := 0
			for _, n := range sizes {
				octets += n
			}
			if value(t, p.packets) != float64(len(sizes)) || value(t, p.octets) != float64(octets) {
				t.Errorf("counted %v packets and %v octets, want %d and %d", value(t, p.packets), value(t, p.octets), len(sizes), octets)
			}
		})
	}
}

// TestOutboxSites: a packet for another site, or by another way, sends what was gathered
// before.
func TestOutboxSites(t *testing.T) {
	now := time.Unix(1e9, 0)
	c := newCarrying(t, 0)
	o := newOutbox(c.Forwarder)
	for i := range 6 {
		o.tunnel(now, []string{"a", "b"}[i/2%2], []byte{byte(i)})
	}
	o.flush(now)
	for site, want := range map[string]string{"a": "\x00\x01\x04\x05", "b": "\x02\x03"} {
		have := ""
		for _, b := range c.bodies(t, site, len(want)) {
			have += string(b[1:])
		}
		if have != want {
			t.Errorf("site %s got %q, want %q", site, have, want)
		}
	}
	c.peers.Load().find("a").route.Store(&route{via: "b", since: now, detoured: &detoured{}})
	o.tunnel(now, "b", []byte("direct"))
	o.tunnel(now, "a", []byte("by relay"))
	if all := c.bodies(t, "b", 2); len(all) != 2 || kind(all[0][0]) != kindPacket || kind(all[1][0]) != kindRelay {
		t.Errorf("site b got %q, want a packet and then what it shall pass on", all)
	}
}

// TestOutboxApart: what the kernel does not take together goes one by one; only where it
// cannot cut at all nothing is gathered any more.
func TestOutboxApart(t *testing.T) {
	now := time.Unix(1e9, 0)
	for err, alone := range map[error]bool{unix.EMSGSIZE: false, unix.EINVAL: false, unix.EIO: true, unix.EOPNOTSUPP: true} {
		t.Run(err.Error(), func(t *testing.T) {
			c := newCarrying(t, 0)
			o := newOutbox(c.Forwarder)
			for _, s := range []string{"first", "other", "last"} {
				o.tunnel(now, "a", []byte(s))
			}
			o.apart(now, fmt.Errorf("sendmsg: %w", err))
			o.sealed, o.n = o.sealed[:0], 0
			o.tunnel(now, "a", []byte("next"))
			if o.alone != alone || o.n != map[bool]int{true: 0, false: 1}[alone] {
				t.Errorf("alone %t with %d gathered, want %t", o.alone, o.n, alone)
			}
			o.flush(now)
			have := ""
			for _, b := range c.bodies(t, "a", 4) {
				have += string(b[1:]) + " "
			}
			if have != "first other last next " {
				t.Errorf("arrived: %q", have)
			}
		})
	}
}

// TestOutboxIsOneCall: what is gathered crosses the kernel as one, and a tunnel's reader
// gets it as one, with the size of each.
func TestOutboxIsOneCall(t *testing.T) {
	now := time.Unix(1e9, 0)
	c := newCarrying(t, 0)
	reader, err := listenTunnel(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.close()
	o := newOutbox(c.Forwarder)
	c.peers.Load().find("a").Addr = reader.conn.LocalAddr().(*net.UDPAddr).AddrPort()
	for range 9 {
		o.tunnel(now, "a", make([]byte, 1000))
	}
	o.tunnel(now, "a", make([]byte, 10))
	o.flush(now)
	if o.alone {
		t.Error("the kernel does not take many in one call")
	}
	buf, control := make([]byte, largestInput), make([]byte, 64)
	if err := reader.conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, nc, _, _, err := reader.conn.ReadMsgUDPAddrPort(buf, control)
	if size := segmentSize(control[:nc]); err != nil || n != 9*(1000+overhead)+10+overhead || size != 1000+overhead {
		t.Errorf("%d octets in datagrams of %d, error %v; want all at once", n, size, err)
	}
}

// TestOutboxAllocates: neither gathering nor sending does.
func TestOutboxAllocates(t *testing.T) {
	now := time.Unix(1e9, 0)
	c := newCarrying(t, 0)
	o := newOutbox(c.Forwarder)
	packet := make([]byte, 1300)
	n := testing.AllocsPerRun(100, func() {
		for range 10 {
			o.tunnel(now, "a", packet)
		}
		o.flush(now)
	})
	if n > 0 {
		t.Errorf("%v allocations for ten packets", n)
	}
}

// TestReceiveAll: of datagrams that the kernel joined each is judged by itself.
func TestReceiveAll(t *testing.T) {
	now := time.Unix(1e9, 0)
	c := newCarrying(t, 1<<30)
	body := func(n int) []byte {
		return c.wrapped("b", c.inner(t, "a", kindPacket, string(bytes.Repeat([]byte{'x'}, n))))
	}
	first := body(1000)
	forged := body(1000)
	forged[len(forged)-1] ^= 1
	joined := slices.Concat(first, forged, body(1000), body(10))
	c.receiveAll(now, joined, len(first))
	c.receiveAll(now, body(77), 0)
	c.receiveAll(now, nil, 0)
	passed := 0
	for got(t, c.b, passed < 4) != nil {
		passed++
	}
	if passed != 4 {
		t.Errorf("%d datagrams were passed on, want 4", passed)
	}
	for why, want := range map[string]float64{"tag": 1, "form": 1} {
		if n := value(t, c.metrics.refused.WithLabelValues(why)); n != want {
			t.Errorf("%v refused for their %s, want %v", n, why, want)
		}
	}
}

// TestSegmentSize reads what udp(7) says of datagrams that the kernel joined.
func TestSegmentSize(t *testing.T) {
	message := func(level, typ int32, data ...byte) []byte {
		b := make([]byte, unix.CmsgSpace(len(data)))
		binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(len(data))))
		binary.NativeEndian.PutUint32(b[8:], uint32(level))
		binary.NativeEndian.PutUint32(b[12:], uint32(typ))
		copy(b[unix.CmsgLen(0):], data)
		return b
	}
	size := binary.NativeEndian.AppendUint32(nil, 1332)
	for name, c := range map[string]struct {
		control []byte
		want    int
	}{
		"none":             {nil, 0},
		"the size":         {message(unix.SOL_UDP, unix.UDP_GRO, size...), 1332},
		"behind another":   {append(message(unix.SOL_IP, unix.IP_TOS, 1), message(unix.SOL_UDP, unix.UDP_GRO, size...)...), 1332},
		"of another kind":  {message(unix.SOL_UDP, unix.UDP_SEGMENT, size...), 0},
		"too short":        {message(unix.SOL_UDP, unix.UDP_GRO, 1, 2), 0},
		"not whole":        {message(unix.SOL_UDP, unix.UDP_GRO, size...)[:10], 0},
		"longer than that": {message(unix.SOL_UDP, unix.UDP_GRO, size...)[:18], 0},
	} {
		if n := segmentSize(c.control); n != c.want {
			t.Errorf("%s: %d, want %d", name, n, c.want)
		}
	}
}

// TestDrain: packets are handed on in order, and before each wait somebody is told.
func TestDrain(t *testing.T) {
	for _, veth := range []bool{false, true} {
		t.Run(fmt.Sprintf("veth %t", veth), func(t *testing.T) {
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			near, far := os.NewFile(uintptr(fds[0]), "near"), os.NewFile(uintptr(fds[1]), "far")
			defer near.Close()
			head := ""
			if veth {
				head = "an Ethernet he"
			}
			say := func(words ...string) {
				for _, w := range words {
					if _, err := far.WriteString(head + w); err != nil {
						t.Error(err)
					}
				}
			}
			say("1", "2", "3")
			told, rests := "", 0
			p := &port{file: near, veth: veth}
			err = p.drain(make([]byte, 100), func(b []byte) { told += string(b) }, func() {
				told += "|"
				if rests++; rests == 1 {
					say("4", "5")
				} else {
					far.Close()
				}
			})
			if err != io.EOF || told != "123|45|" {
				t.Errorf("%q, error %v, want %q and the end", told, err, "123|45|")
			}
		})
	}
}
