//go:build e2e

package vip

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// answer is one that came: the node gave it at some moment from asked to heard.
type answer struct {
	node         int
	asked, heard time.Duration // since the lab began
	by           string        // the way it was asked
}

// answers are all that came so far.
type answers struct {
	began time.Time
	mu    sync.Mutex
	list  []answer
}

func (a *answers) now() time.Duration { return time.Since(a.began) }

func (a *answers) add(got answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.list = append(a.list, got)
}

// since are those asked from a moment on, by some way; "" for all.
func (a *answers) since(from time.Duration, by string) (out []answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, got := range a.list {
		if got.asked >= from && (by == "" || got.by == by) {
			out = append(out, got)
		}
	}
	return out
}

// The ways of asking as an ordinary client does.
const (
	client4 = "c 198.51.100.10"
	client6 = "c 2001:db8:1::10"
)

const (
	askEvery = 4 * time.Millisecond
	arpEvery = 15 * time.Millisecond
	// together is less than any lease needs to change hands twice.
	together = 60 * time.Millisecond
)

// ask has every client ask at both addresses, until the test ends.
func (l *lab) ask(t testing.TB) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var all sync.WaitGroup
	t.Cleanup(func() { stop(); all.Wait() })
	for _, name := range []string{"c", "d0", "d1", "d2"} {
		for _, vip := range []netip.Addr{vip4(), vip6()} {
			l.askOver(ctx, &all, name, vip)
		}
	}
	l.askARP(ctx, &all)
}

// askOver sends questions with their time to a VIP, and notes who answers.
func (l *lab) askOver(ctx context.Context, all *sync.WaitGroup, name string, vip netip.Addr) {
	var conn *net.UDPConn
	l.do(name, func() (err error) {
		conn, err = net.ListenUDP("udp", nil)
		return err
	})
	all.Go(func() {
		defer conn.Close() // ends the reader
		tick := time.NewTicker(askEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				b := binary.BigEndian.AppendUint64(nil, uint64(l.now()))
				_, _ = conn.WriteToUDPAddrPort(b, netip.AddrPortFrom(vip, echoPort)) // no neighbour yet
			}
		}
	})
	all.Go(func() {
		buf := make([]byte, 100)
		for ctx.Err() == nil {
			if n, _, err := conn.ReadFromUDPAddrPort(buf); err == nil && n == 9 {
				l.add(answer{node: int(buf[8]), asked: time.Duration(binary.BigEndian.Uint64(buf)), heard: l.now(), by: name + " " + vip.String()})
			}
		}
	})
}

// arpSenders are the addresses, each of which asks in turn: a reply goes to who asked,
// and so tells which question it answers, also when it is read late.
const arpSenders = 64

// askARP broadcasts ARP requests for the VIP and notes whose replies come.
func (l *lab) askARP(ctx context.Context, all *sync.WaitGroup) {
	fd, index, mac := -1, 0, l.mac("c")
	l.do("c", func() error {
		dev, err := net.InterfaceByName("e0")
		if err != nil {
			return err
		}
		index = dev.Index
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(arpProtocol()))
		return err
	})
	wait := unix.Timeval{Usec: arpEvery.Microseconds()}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		l.t.Fatal(err)
	}
	sender := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, byte(128 + n%arpSenders)}) }
	to := &unix.SockaddrLinklayer{Protocol: arpProtocol(), Ifindex: index, Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255}}
	all.Go(func() {
		defer unix.Close(fd)
		buf, asked, count := make([]byte, 100), make(map[netip.Addr]time.Duration), 0
		for last := time.Duration(0); ctx.Err() == nil; {
			if l.now()-last >= arpEvery {
				from := sender(count)
				count++
				last = l.now()
				asked[from] = last
				request := arpPacket(1, mac, from)
				copy(request[24:], vip4().AsSlice())
				_ = unix.Sendto(fd, request, 0, to)
			}
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if err != nil || n < 28 || buf[7] != 2 || !bytes.Equal(buf[14:18], vip4().AsSlice()) {
				continue
			}
			at, ours := asked[netip.AddrFrom4([4]byte(buf[24:28]))]
			for i, node := range l.nodes {
				if ours && bytes.Equal(buf[8:14], node.mac) {
					l.add(answer{node: i, asked: at, heard: l.now(), by: "arp"})
				}
			}
		}
	})
}

func arpProtocol() uint16 { return binary.NativeEndian.Uint16([]byte{8, 6}) }

// double finds a moment at which two nodes answered: one of them surely before and after the
// other, so soon that the lease cannot have changed hands twice.
func (a *answers) double() error {
	list := a.since(0, "")
	slices.SortFunc(list, func(x, y answer) int { return int(x.heard - y.heard) })
	for i, mid := range list {
		var before, after []answer
		for j := i - 1; j >= 0 && list[j].heard > mid.asked-together; j-- {
			if list[j].node != mid.node && list[j].heard <= mid.asked {
				before = append(before, list[j])
			}
		}
		if len(before) == 0 {
			continue
		}
		for j := i + 1; j < len(list) && list[j].heard < mid.heard+together; j++ {
			if list[j].node != mid.node && list[j].asked >= mid.heard {
				after = append(after, list[j])
			}
		}
		for _, x := range before {
			for _, y := range after {
				if x.node == y.node && y.heard-x.asked < together {
					return fmt.Errorf("two nodes answer: n%d by %s (%v to %v), n%d by %s (%v to %v), n%d by %s (%v to %v)",
						x.node, x.by, x.asked, x.heard, mid.node, mid.by, mid.asked, mid.heard, y.node, y.by, y.asked, y.heard)
				}
			}
		}
	}
	return nil
}

// await waits until a node other than not answers a client by all of the ways, to
// questions asked from some moment on, and returns it.
func (l *lab) await(from time.Duration, not int, ways ...string) int {
	l.t.Helper()
	seen := ""
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		who := -1
		seen = ""
		for i, way := range ways {
			got := l.since(from, way)
			if len(got) == 0 {
				who = -1
				break
			}
			last := got[len(got)-1].node
			seen += way + " by n" + strconv.Itoa(last) + ", "
			if i > 0 && last != who {
				last = -1
			}
			who = last
		}
		if who >= 0 && who != not {
			return who
		}
	}
	l.t.Fatalf("within %s no node other than n%d answers %v; seen %s\n%s", patience, not, ways, seen, l.logs())
	return -1
}

// gap is the longest time without an answer to a client from a moment on: between the
// asking of the first question that was answered after it, and the last heard before.
func (a *answers) gap(from time.Duration, way string) time.Duration {
	list := a.since(0, way)
	slices.SortFunc(list, func(x, y answer) int { return int(x.heard - y.heard) })
	var worst, last time.Duration
	for _, got := range list {
		if got.heard >= from && last > 0 {
			worst = max(worst, got.heard-max(last, from-askEvery))
		}
		last = got.heard
	}
	return worst
}
