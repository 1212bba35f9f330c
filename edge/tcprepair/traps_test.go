//go:build e2e

package tcprepair

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The tests below show each fact of the kernel that the order of Dump and
// Restore rests on, once as it goes wrong and once as it is done here. A new
// kernel is judged by them in seconds.

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// on runs f with c's descriptor.
func on(t *testing.T, c *net.TCPConn, f func(s sock) error) {
	t.Helper()
	must(t, control(c, f))
}

// TestTrapInput: repair mode does not stop input, the filter does.
func TestTrapInput(t *testing.T) {
	for _, f := range families {
		for name, filter := range map[string]bool{"repair alone": false, "filter first": true} {
			t.Run(f.name+"/"+name, func(t *testing.T) {
				w := newWorld(t)
				c, s := w.pair(w.listen("a", f.network), f.vip)
				var before, after uint32
				on(t, s, func(s sock) (err error) {
					if filter {
						must(t, s.deafen())
					}
					must(t, s.repair(unix.TCP_REPAIR_ON))
					before, err = queueSeq(s, recvQueue)
					must(t, s.queue(noQueue))
					return err
				})
				c.Write(stream(20000))
				look := func() { on(t, s, func(s sock) (err error) { after, err = queueSeq(s, recvQueue); return err }) }
				if filter {
					time.Sleep(100 * time.Millisecond) // nothing must happen in it
					look()
				} else {
					for end := time.Now().Add(patience); after == before && time.Now().Before(end); time.Sleep(time.Millisecond) {
						look()
					}
				}
				if grew := after != before; grew == filter {
					t.Errorf("rcv_nxt grew by %d", after-before)
				}
			})
		}
	}
}

// TestTrapUnsent: after filter and repair mode the kernel goes on sending
// what small queues still hold back; with the window closed it does not.
func TestTrapUnsent(t *testing.T) {
	moved := map[bool]int{}
	w := newWorld(t)
	l := w.listen("a", "tcp4")
	dumps := 0
	// How often it is seen is the machine's affair: until it is, there are more.
	for ; dumps < 10 || moved[false] == 0 && dumps < 100; dumps++ {
		for _, closed := range []bool{false, true} {
			c, s := w.pair(l, vip4)
			r := readAll(c, 0)
			writeUntil(s, stream(16<<20), 20*time.Millisecond)
			var first, later uint32
			on(t, s, func(s sock) (err error) {
				must(t, s.deafen())
				must(t, s.repair(unix.TCP_REPAIR_ON))
				if closed {
					win, err := s.window()
					must(t, err)
					must(t, mute(s, win))
				}
				first, err = s.ioctl(unix.SIOCOUTQNSD, "SIOCOUTQNSD")
				return err
			})
			time.Sleep(20 * time.Millisecond)
			on(t, s, func(s sock) (err error) { later, err = s.ioctl(unix.SIOCOUTQNSD, "SIOCOUTQNSD"); return err })
			if first != later {
				moved[closed]++
			}
			s.Close()
			c.Close()
			<-r.done
		}
	}
	t.Logf("unsent data left in %d of %d dumps with the window open, %d with it closed", moved[false], dumps, moved[true])
	if moved[true] != 0 {
		t.Error("data leaves through a closed window")
	}
	if moved[false] == 0 {
		t.Error("this kernel does not show the trap any more: look whether closing the window is still needed")
	}
}

// TestTrapFill: with a send queue that ends below snd_nxt the peer's
// acknowledgements are ignored, and next to nothing gets through. (TestMove
// shows the same with the fill.)
func TestTrapFill(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			c, s := w.pair(w.listen("a", f.network), f.vip)
			c.SetReadBuffer(64 << 10)
			data := stream(8 << 20)
			n := writeUntil(s, data, 100*time.Millisecond) // nobody reads: the window fills
			// Pretend that less had been sent than was: more than a fresh
			// congestion window less.
			const less = 50000
			for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
				if waits, err := Unacked(s); err != nil || n-waits >= less {
					must(t, err)
					break
				}
			}
			d, err := Dump(s)
			must(t, err)
			st := d.State
			una := n - int(st.WriteSeq-st.SndUna)
			if una < less {
				t.Fatalf("only %d bytes were acknowledged", una)
			}
			st.SndUna -= less
			st.SndNxt = st.SndUna
			w.route("b")
			var r *Restored
			w.do("b", func() { r, err = Restore(st, nil, 0) })
			must(t, err)
			d.Close()
			moved, err := r.Activate()
			must(t, err)
			defer moved.Close()
			rd := readAll(c, 0)
			rest := data[una-less : una+less]
			took := writeUntil(moved, rest, 2*time.Second)
			var left uint32
			on(t, moved, func(s sock) (err error) { left, err = s.ioctl(unix.SIOCOUTQ, "SIOCOUTQ"); return err })
			if through := took - int(left); through > less/2 {
				t.Errorf("%d bytes got through in 2 s", through)
			} else {
				t.Logf("%d bytes got through in 2 s", through)
			}
			c.Close()
			<-rd.done
		})
	}
}

// TestTrapMSS: without TCP_MAXSEG before connect the first segments are small.
func TestTrapMSS(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			_, s := w.pair(w.listen("a", f.network), f.vip)
			d, err := Dump(s)
			must(t, err)
			var right, wrong uint32
			w.do("b", func() {
				r, e := Restore(d.State, nil, 0)
				must(t, e)
				must(t, r.establish())
				right = mss(t, r.fd)
				must(t, r.Close())
				bare := Restored{State: d.State}
				fd, e := unix.Socket(map[string]int{"IPv4": unix.AF_INET, "IPv6": unix.AF_INET6}[f.name], unix.SOCK_STREAM, unix.IPPROTO_TCP)
				must(t, e)
				bare.fd = sock(fd)
				defer bare.Close()
				must(t, bare.fd.repair(unix.TCP_REPAIR_ON))
				must(t, unix.Bind(fd, toSockaddr(d.State.Local)))
				must(t, unix.Connect(fd, toSockaddr(d.State.Peer)))
				must(t, bare.fd.setOptions(d.State.Options))
				wrong = mss(t, bare.fd)
			})
			t.Logf("segments of %d bytes, without TCP_MAXSEG of %d", right, wrong)
			if right < 1400 {
				t.Errorf("segments of %d bytes", right)
			}
			if wrong >= right {
				t.Errorf("the trap is gone: %d bytes without TCP_MAXSEG", wrong)
			}
			must(t, d.Close())
		})
	}
}

func mss(t *testing.T, s sock) uint32 {
	t.Helper()
	i, err := unix.GetsockoptTCPInfo(int(s), unix.IPPROTO_TCP, unix.TCP_INFO)
	must(t, err)
	return i.Snd_mss
}

// TestTrapClock: an odd timestamp makes the clock count microseconds.
func TestTrapClock(t *testing.T) {
	for name, value := range map[string]uint32{"even": 1000, "odd": 1001} {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_TCP)
		must(t, err)
		defer unix.Close(fd)
		s := sock(fd)
		must(t, s.repair(unix.TCP_REPAIR_ON))
		must(t, s.setInt(unix.IPPROTO_TCP, unix.TCP_TIMESTAMP, value, "TCP_TIMESTAMP"))
		time.Sleep(100 * time.Millisecond) // measured
		now, err := s.int(unix.TCP_TIMESTAMP, "TCP_TIMESTAMP")
		must(t, err)
		if micro := now-value > 10000; micro != (name == "odd") {
			t.Errorf("%s: the clock went %d in 100 ms", name, now-value)
		}
	}
}

// TestTrapReuse: leaving repair mode clears SO_REUSEADDR, and the port cannot
// be listened on again while the socket lives.
func TestTrapReuse(t *testing.T) {
	for name, again := range map[string]bool{"left so": false, "set again": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			l := w.listen("a", "tcp4")
			_, s := w.pair(l, vip4)
			on(t, s, func(s sock) error {
				must(t, s.repair(unix.TCP_REPAIR_ON))
				must(t, s.repair(unix.TCP_REPAIR_OFF_NO_WP))
				if again {
					must(t, s.reuse())
				}
				return nil
			})
			l.Close()
			var err error
			w.do("a", func() {
				var l net.Listener
				if l, err = net.Listen("tcp4", ":8080"); err == nil {
					l.Close()
				}
			})
			if (err == nil) != again {
				t.Errorf("listen says %v", err)
			}
		})
	}
}

// TestTrapSilent: a connection in repair mode that is established already
// acknowledges what the peer sends; a restored one must not before it is
// activated, or those bytes are lost when the move is called off.
func TestTrapSilent(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			c, s := w.pair(w.listen("a", f.network), f.vip)
			w.listen("b", f.network)
			d, err := Dump(s)
			must(t, err)
			var r *Restored
			w.do("b", func() { r, err = Restore(d.State, nil, 0) })
			must(t, err)
			w.route("b")
			c.Write(stream(5000))
			time.Sleep(100 * time.Millisecond) // nothing must happen in it
			if n, err := Unacked(c); err != nil || n != 5000 {
				t.Errorf("the client has %d bytes unacknowledged, want 5000: %v", n, err)
			}
			must(t, r.Close())
			w.route("a")
			must(t, d.Abort())
			s.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.ReadFull(s, make([]byte, 5000)); err != nil {
				t.Errorf("after the move was called off: %v", err)
			}
		})
	}
}

// TestAutotuning: after a restore with a fill the send buffer grows by itself
// again.
func TestAutotuning(t *testing.T) {
	w := newWorld(t)
	c, s := w.pair(w.listen("a", "tcp4"), vip4)
	rd := readAll(c, 2*time.Millisecond)
	data := stream(8 << 20)
	n := writeUntil(s, data, 50*time.Millisecond)
	d, err := Dump(s)
	must(t, err)
	una, nxt := n-int(d.State.WriteSeq-d.State.SndUna), n-d.State.Unsent()
	var r *Restored
	w.do("b", func() { r, err = Restore(d.State, bytes.NewReader(data[una:nxt]), 0) })
	must(t, err)
	must(t, r.establish())
	lock, err := unix.GetsockoptInt(int(r.fd), unix.SOL_SOCKET, unix.SO_BUF_LOCK)
	must(t, err)
	if lock != 0 {
		t.Errorf("buffers stay locked: %d", lock)
	}
	must(t, r.Close())
	must(t, d.Abort())
	if _, err := s.Write(data[n:]); err != nil {
		t.Fatal(err)
	}
	s.Close()
	rd.check(t, data)
}

// TestTrapPatience: a dump closes the window, and the kernel gives up a connection
// with data in flight and a closed window when it has not heard its peer for twice
// the bound of its retransmission times. With the bound of a session that has a
// Backup that is two seconds, so a dump raises it and an abort puts it back.
func TestTrapPatience(t *testing.T) {
	w := newWorld(t)
	l := w.listen("a", "tcp4")
	w.listen("b", "tcp4")
	var ds [2]*Dumped
	var clients [2]*net.TCPConn
	for i := range ds {
		c, s := w.pair(l, vip4)
		if err := Hasten(s, time.Minute); errors.Is(err, unix.ENOPROTOOPT) {
			t.Log("this kernel has no such bound")
			return
		} else if err != nil {
			t.Fatal(err)
		}
		w.route("b") // no acknowledgement comes back
		s.Write(stream(5000))
		d, err := Dump(s)
		must(t, err)
		ds[i], clients[i] = d, c
		w.route("a")
	}
	impatient := func(s sock) error { return s.setInt(unix.IPPROTO_TCP, tcpRTOMax, rtoMoved, "TCP_RTO_MAX_MS") }
	must(t, control(ds[0].conn, impatient))
	state := func(d *Dumped) (st uint8) {
		must(t, control(d.conn, func(s sock) error {
			inf, err := s.info()
			st = inf.state
			return err
		}))
		return st
	}
	must(t, control(ds[1].conn, func(s sock) error {
		if ms, err := s.int(tcpRTOMax, "TCP_RTO_MAX_MS"); err != nil || ms != rtoOrdinary {
			t.Errorf("while dumped the bound is %d ms, want %d: %v", ms, rtoOrdinary, err)
		}
		return nil
	}))
	// The long form sees what becomes of the other one.
	for end := time.Now().Add(20 * time.Second); os.Getenv("RHUMB_SOAK") == "1" && state(ds[0]) == tcpEstablished; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the kernel has not given up the connection without patience after 20 s: the trap is gone")
		}
	}
	if st := state(ds[1]); st != tcpEstablished {
		t.Fatalf("the patient connection is in state %d, want established", st)
	}
	must(t, ds[1].Abort())
	clients[1].SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(clients[1], make([]byte, 5000)); err != nil {
		t.Errorf("after the abort: %v", err)
	}
	must(t, control(ds[1].conn, func(s sock) error {
		if ms, err := s.int(tcpRTOMax, "TCP_RTO_MAX_MS"); err != nil || ms != rtoMoved {
			t.Errorf("after the abort the bound is %d ms, want %d as before: %v", ms, rtoMoved, err)
		}
		return nil
	}))
}
