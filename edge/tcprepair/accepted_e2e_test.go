//go:build e2e

package tcprepair

import (
	"context"
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// listenReady is listen of a socket that was made Ready.
func (w *world) listenReady(n, network string) (l net.Listener) {
	w.t.Helper()
	var err error
	w.do(n, func() {
		lc := net.ListenConfig{KeepAlive: -1, Control: func(_, _ string, c syscall.RawConn) error { return Ready(c) }}
		lc.SetMultipathTCP(false)
		l, err = lc.Listen(context.Background(), network, fmt.Sprintf(":%d", port))
	})
	if err != nil {
		w.t.Fatalf("listen at %s: %v", n, err)
	}
	w.t.Cleanup(func() { l.Close() })
	return l
}

// TestRegisterAccepted compares what few calls tell of a new connection with what repair
// mode tells, whatever its client offers, and whether or not that has asked already. A
// connection that was registered can be moved as any other.
func TestRegisterAccepted(t *testing.T) {
	w := newWorld(t)
	for _, f := range families {
		l := w.listenReady("a", f.network)
		for _, offer := range []string{"", "net.ipv4.tcp_timestamps=0", "net.ipv4.tcp_sack=0", "net.ipv4.tcp_window_scaling=0", "mtu 1300", "net.ipv4.tcp_syncookies=2 at a"} {
			t.Run(f.name+"/"+offer, func(t *testing.T) {
				w.offers(t, offer)
				c, s := w.pair(l, f.vip)
				var known bool
				var quick Registration
				on(t, s, func(s sock) (err error) { known, err = quick.accepted(s); return err })
				if cookie := offer == "net.ipv4.tcp_syncookies=2 at a"; known == cookie {
					t.Errorf("the quick way: %v", known)
				}
				if !known {
					return
				}
				whole, err := Register(s)
				must(t, err)
				if at := whole.TSVal - quick.TSVal; whole.Options.Timestamps && at > 60_000 {
					t.Errorf("the clock stands at %d, then at %d", quick.TSVal, whole.TSVal)
				}
				if whole.TSVal = quick.TSVal; quick != whole {
					t.Errorf("the quick way tells %+v, repair mode %+v", quick, whole)
				}
				d, err := Dump(s)
				must(t, err)
				must(t, d.Abort())
				if _, err := c.Write([]byte("x")); err != nil {
					t.Error(err)
				}
				if n, err := s.Read(make([]byte, 2)); n != 1 || err != nil {
					t.Errorf("read %d, %v", n, err)
				}
			})
		}
		l.Close()
	}
}

// offers changes what the next client offers, for the rest of a test.
func (w *world) offers(t *testing.T, what string) {
	set := func(n, line, back string) {
		w.in(n, line)
		t.Cleanup(func() { w.in(n, back) })
	}
	switch what {
	case "":
	case "mtu 1300":
		set("c", "ip link set e0 mtu 1300", "ip link set e0 mtu 1500")
	case "net.ipv4.tcp_syncookies=2 at a":
		w.in("a", "nft flush table inet t") // it takes what answers a cookie for a stray
		set("a", "sysctl -qw net.ipv4.tcp_syncookies=2", "sysctl -qw net.ipv4.tcp_syncookies=1")
	default:
		set("c", "sysctl -qw "+what, "sysctl -qw "+what[:len(what)-1]+"1")
	}
}

// TestRegisterAcceptedLate: what has come before the connection was registered is not read
// yet, so it counts for what is to come.
func TestRegisterAcceptedLate(t *testing.T) {
	w := newWorld(t)
	l := w.listenReady("a", "tcp4")
	c, s := w.pair(l, vip4)
	if _, err := c.Write([]byte("GET / HTTP/1.1\r\n")); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		var unread uint32
		on(t, s, func(s sock) (err error) { unread, err = s.ioctl(unix.SIOCINQ, "SIOCINQ"); return err })
		if unread > 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("nothing comes")
		}
	}
	quick, err := RegisterAccepted(s)
	must(t, err)
	whole, err := Register(s)
	must(t, err)
	if quick.RcvNxt != whole.RcvNxt || quick.Write != whole.Write {
		t.Errorf("the quick way tells %+v, repair mode %+v", quick, whole)
	}
}
