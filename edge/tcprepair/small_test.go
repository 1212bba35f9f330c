//go:build e2e

package tcprepair

import (
	"context"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// smallRoom is the receive buffer of a client that has room for one segment.
const smallRoom = 2 << 10

// small connects a client with so large a receive buffer; 0: as usual.
func (w *world) small(l net.Listener, vip string, buffer int) (client, server *net.TCPConn) {
	w.t.Helper()
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		if buffer == 0 {
			return nil
		}
		return raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, buffer) })
	}}
	var c net.Conn
	var err error
	w.do("c", func() {
		c, err = d.DialContext(context.Background(), "tcp", netip.AddrPortFrom(netip.MustParseAddr(vip), port).String())
	})
	if err != nil {
		w.t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close(); s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// segmentSize is the size of the segments that a connection sends.
func segmentSize(t *testing.T, c *net.TCPConn) (n uint32) {
	t.Helper()
	on(t, c, func(s sock) error { n = mss(t, s); return nil })
	return n
}

// TestTrapSmallWindow: a restored connection that is told the largest window of its peer sends
// segments of half of it, as the old owner did. One that is told more sends larger ones
// than such a peer offers room for while it reads. One that is told less sends larger
// ones as soon as it hears of more room.
func TestTrapSmallWindow(t *testing.T) {
	for _, f := range families {
		for _, tc := range []struct {
			name   string
			buffer int
			told   uint32 // 0: as it was
			full   bool   // in the end
		}{
			{name: "as it was", buffer: smallRoom},
			{name: "taken for larger", buffer: smallRoom, told: 65535, full: true},
			{name: "taken for smaller", told: 1000, full: true},
		} {
			t.Run(f.name+"/"+tc.name, func(t *testing.T) {
				w := newWorld(t)
				c, s := w.small(w.listen("a", f.network), f.vip, tc.buffer)
				data, first := stream(60000), 1000
				writeUntil(s, data[:first], patience)
				if _, err := readFull(c, make([]byte, first)); err != nil {
					t.Fatal(err)
				}
				w.unacked(s, 0)
				was := segmentSize(t, s)
				d, err := Dump(s)
				must(t, err)
				st := d.State
				if tc.told > 0 {
					st.Window.MaxWindow, st.Window.SndWnd = tc.told, min(st.Window.SndWnd, tc.told)
				}
				w.route("b")
				must(t, d.Close())
				moved := w.knows(st, nil, w.wire("b"))
				begun := segmentSize(t, moved)
				r := readAll(c, time.Millisecond)
				writeUntil(moved, data[first:], patience)
				w.unacked(moved, 1000)
				ended := segmentSize(t, moved)
				t.Logf("window %+v, segments of %d before, %d at first, %d at last", st.Window, was, begun, ended)
				if tc.told == 0 && (begun != was || ended != was) {
					t.Errorf("segments of %d, then of %d; the old owner's were of %d", begun, ended, was)
				}
				if full := ended+clockBytes >= uint32(st.Options.MSS); full != tc.full {
					t.Errorf("segments of %d at last, want such as the peer's limit allows: %t", ended, tc.full)
				}
				moved.CloseWrite()
				r.check(t, data[first:])
			})
		}
	}
}
