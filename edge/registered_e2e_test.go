//go:build e2e

package edge

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"rhumb/edge/frame"
	"rhumb/edge/tcprepair"
)

// registry is a site that serves on loopback, and what its Backup is told.
type registry struct {
	t    *testing.T
	a    *Agent
	out  *link
	vip  netip.AddrPort
	told map[frame.Key]frame.Record
}

func newRegistry(t *testing.T) *registry {
	g := &registry{t: t, a: testAgent(t), told: map[frame.Key]frame.Record{},
		out: &link{peer: "c", out: make(chan []byte, 4096), done: make(chan struct{})}}
	g.a.SetDown([]string{"a"})
	g.a.links.byOf["c"] = []*link{g.out}
	lc := net.ListenConfig{KeepAlive: -1, Control: func(_, _ string, c syscall.RawConn) error { return tcprepair.Ready(c) }}
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g.vip = plain(ln.Addr())
	root := t.TempDir()
	for _, n := range []int{1 << 10, 10 << 10, 1 << 20} {
		if err := os.WriteFile(filepath.Join(root, strconv.Itoa(n)), make([]byte, n), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.a.SetServices([]Service{{Name: "video", Kind: KindContent, Mode: ModeAct, VIPs: []netip.AddrPort{g.vip}, Root: root, Revival: ModeAct}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go g.a.replica.Run(ctx)
	go g.a.accept(ctx, ln)
	t.Cleanup(func() { ln.Close(); cancel(); g.a.wg.Wait() })
	return g
}

// dial connects from an address that is not the VIP's.
func (g *registry) dial() (*bufio.ReadWriter, frame.Key) {
	g.t.Helper()
	c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).Dial("tcp4", g.vip.String())
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	return bufio.NewReadWriter(bufio.NewReader(c), bufio.NewWriter(c)), frame.Key{Client: plain(c.LocalAddr()), VIP: g.vip}
}

// get asks for an object of n octets, with something behind, and reads it.
func (g *registry) get(c *bufio.ReadWriter, n int, behind string) {
	g.t.Helper()
	fmt.Fprintf(c, "GET /%d HTTP/1.1\r\nHost: x\r\n\r\n%s", n, behind)
	err := c.Flush()
	if err == nil {
		err = skipHeadOf(c.Reader, "HTTP/1.1 200 ")
	}
	if err == nil {
		_, err = io.CopyN(io.Discard, c, int64(n))
	}
	if err != nil {
		g.t.Fatal(err)
	}
}

// hear takes what was told since.
func (g *registry) hear() {
	for len(g.out.out) > 0 {
		for r := bytes.NewReader(<-g.out.out); r.Len() > 0; {
			f, err := frame.Read(r)
			if err != nil {
				g.t.Fatal(err)
			}
			if f.Type != frame.RecordSet {
				continue
			}
			if g.told[f.Key], err = frame.DecodeRecord(f.Payload); err != nil {
				g.t.Fatal(err)
			}
		}
	}
}

// agrees waits until the Backup knows of a resting session what its kernel says.
func (g *registry) agrees(what string, k frame.Key) {
	g.t.Helper()
	var rec frame.Record
	var reg tcprepair.Registration
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		g.hear()
		s := g.a.tab.get(k)
		if rec = g.told[k]; s == nil || rec.Key != k {
			continue
		}
		t := s.turn.Load()
		// The record knows where the response began and what it is; how far it is by now
		// its client tells.
		if reg, err = tcprepair.Register(s.conn); err == nil && rec.Base+uint32(t.off.Load()) == reg.Write &&
			rec.RcvNxt == reg.RcvNxt-uint32(len(s.input)) && rec.Object == t.rec.Object {
			return
		}
	}
	g.t.Errorf("%s: told %+v, the kernel says %+v, %v", what, rec, reg, err)
}

// TestRegistered: whenever a connection rests, its record tells where its kernel stands.
func TestRegistered(t *testing.T) {
	g := newRegistry(t)
	c, k := g.dial()
	g.agrees("before a request", k)
	for range 20 {
		g.get(c, 1<<10, "")
	}
	g.agrees("after many short ones", k)
	g.get(c, 1<<20, "")
	g.agrees("after a long one", k)
	c, k = g.dial()
	g.get(c, 10<<10, "")
	g.agrees("after one short one", k)
	c, k = g.dial()
	g.get(c, 1<<10, "GET /1024 HTT")
	g.agrees("half a request behind it", k)
	c, k = g.dial()
	g.get(c, 1<<20, "")
	g.agrees("after one long one", k)
}
