//go:build e2e

package tcprepair

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// segments are those that a connection has heard.
func segments(t *testing.T, c *net.TCPConn) (n uint32) {
	t.Helper()
	on(t, c, func(s sock) error {
		i, err := unix.GetsockoptTCPInfo(int(s), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err == nil {
			n = i.Segs_in
		}
		return err
	})
	return n
}

// TestHeard: a restored connection asks its peer where it stands, unless that is known; what
// is written is all that the peer hears then.
func TestHeard(t *testing.T) {
	for _, f := range families {
		for heard, want := range map[bool]uint32{false: 2, true: 1} {
			t.Run(fmt.Sprintf("%s, heard %t", f.name, heard), func(t *testing.T) {
				w := newWorld(t)
				c, s := w.pair(w.listen("a", f.network), f.vip)
				w.listen("b", f.network)
				d, err := Dump(s)
				must(t, err)
				before := segments(t, c)
				must(t, d.Close())
				w.route("b")
				moved := w.heard(d.State, heard)
				_, err = moved.Write(stream(500))
				must(t, err)
				c.SetReadDeadline(time.Now().Add(patience))
				_, err = io.ReadFull(c, make([]byte, 500))
				must(t, err)
				if n := segments(t, c) - before; n != want {
					t.Errorf("the peer had %d segments, want %d", n, want)
				}
			})
		}
	}
}

// heard restores a connection at b whose peer has spoken, or has not.
func (w *world) heard(st State, heard bool) (c *net.TCPConn) {
	w.t.Helper()
	var err error
	w.do("b", func() {
		var r *Restored
		if r, err = Restore(st, nil, 0); err != nil {
			return
		}
		if heard {
			r.Heard()
		}
		c, err = r.Activate()
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return c
}
