//go:build e2e

package tcprepair

import (
	"bytes"
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// timing is what the kernel says of a connection's patience.
func timing(t *testing.T, c *net.TCPConn) (rtt, rto time.Duration, unacked uint32) {
	t.Helper()
	on(t, c, func(s sock) error {
		i, err := unix.GetsockoptTCPInfo(int(s), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err == nil {
			rtt, rto, unacked = time.Duration(i.Rtt)*time.Microsecond, time.Duration(i.Rto)*time.Microsecond, i.Unacked
		}
		return err
	})
	return rtt, rto, unacked
}

// knows restores the connection of st at b, which is told a round trip or not. Nothing
// is in flight, or what flight holds.
func (w *world) knows(st State, flight []byte, wire *Wire) *net.TCPConn {
	w.t.Helper()
	var c *net.TCPConn
	var err error
	w.do("b", func() {
		var r *Restored
		if r, err = Restore(st, bytes.NewReader(flight), 0); err != nil {
			return
		}
		if err = r.Learn(wire); err == nil {
			c, err = r.Activate()
		}
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return c
}

func (w *world) wire(n string) *Wire {
	w.t.Helper()
	var wire *Wire
	var err error
	w.do(n, func() { wire, err = OpenWire() })
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { wire.Close() })
	return wire
}

// TestTrapRoundTrip: a restored connection has no round trip and waits a second for
// the first repetition; told one, it repeats itself soon after that. The client gets
// every byte either way, the one that the lesson is about not again.
func TestTrapRoundTrip(t *testing.T) {
	const rtt = 80 * time.Millisecond
	for _, f := range families {
		for name, told := range map[string]bool{"untold": false, "told": true} {
			for _, flying := range []int{0, 30000} {
				t.Run(f.name+"/"+name, func(t *testing.T) {
					w := newWorld(t)
					c, s := w.pair(w.listen("a", f.network), f.vip)
					w.listen("b", f.network) // without one, what comes between the routes and Activate is answered by a reset
					data := stream(60000)
					if n := writeUntil(s, data[:20000], patience); n != 20000 {
						t.Fatalf("wrote %d", n)
					}
					got := make([]byte, len(data))
					if _, err := readFull(c, got[:20000]); err != nil {
						t.Fatal(err)
					}
					w.unacked(s, 0)
					if flying > 0 {
						w.cut()
						writeUntil(s, data[20000:20000+flying], patience)
					}
					d, err := Dump(s)
					must(t, err)
					st := d.State
					sent := 20000 + int(st.SndNxt-st.SndUna)
					st.RTT = rtt
					w.route("b")
					must(t, d.Close())
					var wire *Wire
					if told {
						wire = w.wire("b")
					}
					moved := w.knows(st, data[20000:sent], wire)
					srtt, rto, _ := timing(t, moved)
					t.Logf("%d in flight: rtt %v rto %v", sent-20000, srtt, rto)
					if told && (srtt < rtt || srtt > rtt+20*time.Millisecond || rto > 2*rtt+100*time.Millisecond || rto < rtt) {
						t.Errorf("rtt %v rto %v, want about %v and a little more", srtt, rto, rtt)
					}
					if !told && (srtt != 0 || rto < 900*time.Millisecond) {
						t.Errorf("rtt %v rto %v: the kernel knows a round trip by itself now", srtt, rto)
					}
					if n, err := Unacked(moved); err != nil || n != sent-20000 {
						t.Errorf("%d unacknowledged, %v, want %d", n, err, sent-20000)
					}
					if flying > 0 {
						w.in("r", "ip link set c0 up")
					}
					rd := readAll(c, 0)
					if n := writeUntil(moved, data[sent:], patience); n != len(data)-sent {
						t.Fatalf("wrote %d of %d", n, len(data)-sent)
					}
					moved.CloseWrite()
					rd.check(t, data[20000:])
					must(t, Calm(moved))
					on(t, moved, func(s sock) error {
						v, err := s.int(tcpRTOMin, "TCP_RTO_MIN_US")
						if errors.Is(err, unix.ENOPROTOOPT) {
							return nil
						}
						if v != 200_000 {
							t.Errorf("least time of repetition %d us", v)
						}
						return err
					})
				})
			}
		}
	}
}

// cut takes the client's link away. Its kernel forgets then who its neighbours are, which on a quick machine
// it might not do before the link is back; and the router must have its address again when it is
// asked anew: in IPv6 that would go with the link, and the client wait for ever.
func (w *world) cut() {
	w.t.Helper()
	w.in("r", "sysctl -qw net.ipv6.conf.c0.keep_addr_on_down=1")
	w.in("r", "ip link set c0 down")
	w.in("c", "ip neigh flush dev e0")
}

func readFull(c *net.TCPConn, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = c.Read(b[n:])
		n += m
	}
	return n, err
}

// unacked waits until the peer has acknowledged all but so many.
func (w *world) unacked(c *net.TCPConn, want int) {
	w.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		n, err := Unacked(c)
		if err != nil {
			w.t.Fatal(err)
		}
		if n <= want {
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("%d bytes are not acknowledged", n)
		}
	}
}

// TestLessonIsDropped: a firewall that lets no such segment in costs a moment, and
// after some none. The connection goes on as if nothing had been told.
func TestLessonIsDropped(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			w.in("b", "nft add table inet firewall")
			w.in("b", "nft add chain inet firewall in { type filter hook input priority 0 ; }")
			w.in("b", "nft add rule inet firewall in iif lo drop")
			l, wire := w.listen("a", f.network), w.wire("b")
			w.listen("b", f.network)
			for i := range lessonsMost + 1 {
				w.route("a")
				c, s := w.pair(l, f.vip)
				data := stream(30000)
				writeUntil(s, data[:10000], patience)
				got := make([]byte, 10000)
				if _, err := readFull(c, got); err != nil {
					t.Fatal(err)
				}
				w.unacked(s, 0)
				d, err := Dump(s)
				must(t, err)
				st := d.State
				st.RTT = 40 * time.Millisecond
				w.route("b")
				must(t, d.Close())
				moved := w.knows(st, nil, wire)
				if rtt, _, unacked := timing(t, moved); rtt != 0 || unacked != 0 {
					t.Errorf("rtt %v, %d unacknowledged, want none", rtt, unacked)
				}
				if got, want := wire.lessons.missed.Load(), int32(min(i+1, lessonsMost)); got != want {
					t.Errorf("connection %d: %d lessons were lost, want %d", i, got, want)
				}
				rd := readAll(c, 0)
				writeUntil(moved, data[10000:], patience)
				moved.CloseWrite()
				rd.check(t, data[10000:])
			}
		})
	}
}

// TestTrapRefused: what a client acknowledges that was never sent is thrown away and
// counted; what one says that stands where the socket does, reading or not, is not.
func TestTrapRefused(t *testing.T) {
	for _, f := range families {
		for name, behind := range map[string]uint32{"the same place": 0, "further": 50000} {
			t.Run(f.name+"/"+name, func(t *testing.T) {
				w := newWorld(t)
				c, s := w.pair(w.listen("a", f.network), f.vip)
				w.listen("b", f.network) // a dumped socket's probe timer goes on; without one, what the client answers is answered by a reset
				data := stream(8 << 20)
				got := make([]byte, 100000)
				go writeUntil(s, data, 200*time.Millisecond)
				if _, err := readFull(c, got); err != nil {
					t.Fatal(err)
				}
				for n := -1; ; time.Sleep(10 * time.Millisecond) { // nobody reads: the window fills
					was := n
					var err error
					if n, err = Unacked(s); err != nil || n == was {
						must(t, err)
						break
					}
				}
				d, err := Dump(s)
				must(t, err)
				st := d.State
				una := data[:0]
				if behind > 0 {
					st.SndUna -= behind
					st.SndNxt = st.SndUna
				} else {
					una = make([]byte, st.InFlight())
				}
				w.route("b")
				must(t, d.Close())
				wire := w.wire("b")
				moved := w.knows(st, una, nil)
				was, err := Refused(moved)
				must(t, err)
				heard, _, _, err := Heard(moved)
				must(t, err)
				for range 3 {
					q, err := Question(moved, st)
					must(t, err)
					must(t, wire.Send(q))
				}
				for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
					if now, _, _, err := Heard(moved); err != nil || now >= heard+3 || time.Now().After(end) {
						must(t, err)
						break
					}
				}
				now, err := Refused(moved)
				must(t, err)
				if elsewhere := now != was; elsewhere != (behind > 0) {
					t.Errorf("%d segments of the client were thrown away", now-was)
				}
			})
		}
	}
}
