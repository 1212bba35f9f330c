package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/quic-go/quic-go"
)

// TestUpgradeOverQUIC: who is connected over QUIC when another process takes over goes on
// with the one that it knows, and who comes anew meets the next; neither loses a query. At a
// restart who is connected is told, and who comes anew in between waits and is answered.
func TestUpgradeOverQUIC(t *testing.T) {
	m := newManager(t)
	host := netip.MustParseAddrPort(m.addr).Addr().String()
	addr := host + ":5853"
	writePair(t, m.dir, 1)
	m.replace("node.yaml", `low: ["`+m.addr+`"]`, fmt.Sprintf(`low: ["%s"], doq: {low: ["%s"], cert: dot.crt, key: dot.key}`, m.addr, addr))
	m.start()
	eventually(t, "the server answers", func() bool { return m.ask() == "192.0.2.10" })
	c := newQUICCrowd(t, addr)
	c.more(t, 50)
	for v := 2; v <= 3; v++ {
		before := m.pid()
		m.install(fmt.Sprint(v))
		if code, out, errs := cli(t.Context(), "upgrade", "dns", "--config", filepath.Join(m.dir, "node.yaml")); code != exitOK {
			t.Fatalf("upgrade: exit %d, %q, %q", code, out, errs)
		}
		eventually(t, "the service manager hears of another main process", func() bool { return m.pid() != before })
		c.more(t, 50) // of the processes before as well
	}
	c.end()
	if c.lost.Load() != 0 || c.fresh.Load() == 0 {
		t.Errorf("two upgrades: %d queries lost, the first for %v; %d answered on connections that stood, %d on new ones", c.lost.Load(), c.why.Load(), c.stood.Load(), c.fresh.Load())
	}
	eventually(t, "the sockets are kept outside", func() bool { return m.sockets() > m.open() }) // that of QUIC beside those

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := quicTo(ctx, addr)
	if err == nil {
		err = c.ask(conn) // so that it is taken in
	}
	if err != nil {
		t.Fatal(err)
	}
	m.stop(syscall.SIGTERM)
	select {
	case <-conn.Context().Done():
		if !goodbye(conn) {
			t.Errorf("at a restart: %v, want DOQ_NO_ERROR", context.Cause(conn.Context()))
		}
	case <-ctx.Done():
		t.Error("at a restart nobody says goodbye")
	}
	waiting := make(chan error, 1)
	go func() {
		c, err := quicTo(ctx, addr)
		if err == nil {
			c.CloseWithError(0, "")
		}
		waiting <- err
	}()
	m.start()
	if err := <-waiting; err != nil {
		t.Errorf("who came during the restart: %v", err)
	}
}

func quicTo(ctx context.Context, addr string) (*quic.Conn, error) {
	return quic.DialAddr(ctx, addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"doq"}}, nil)
}

// quicCrowd asks all the time over connections that stand, and over a new one each time.
type quicCrowd struct {
	stop               context.CancelFunc
	lanes              sync.WaitGroup
	stood, fresh, lost atomic.Int64
	why                atomic.Value // of the first that was lost
}

func newQUICCrowd(t *testing.T, addr string) *quicCrowd {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	c := &quicCrowd{stop: stop}
	for range lanes {
		conn, err := quicTo(t.Context(), addr)
		if err != nil {
			t.Fatal(err)
		}
		c.lanes.Go(func() {
			defer conn.CloseWithError(0, "")
			for ctx.Err() == nil {
				err := c.ask(conn)
				switch {
				case err == nil:
					c.stood.Add(1)
				case !goodbye(conn):
					c.lose(err)
					return
				default: // its process ends at last, long after the upgrade
					if conn, err = quicTo(context.Background(), addr); err != nil {
						c.lose(err)
						return
					}
				}
				time.Sleep(5 * time.Millisecond) // the rate is not what is tested
			}
		})
	}
	c.lanes.Go(func() {
		for ctx.Err() == nil {
			within, cancel := context.WithTimeout(context.Background(), patience)
			conn, err := quicTo(within, addr)
			if err == nil {
				err = c.ask(conn)
				conn.CloseWithError(0, "")
			}
			cancel()
			if err != nil {
				c.lose(err)
				continue
			}
			c.fresh.Add(1)
		}
	})
	t.Cleanup(c.end)
	return c
}

// goodbye tells whether the server has ended a connection in order.
func goodbye(conn *quic.Conn) bool {
	err := context.Cause(conn.Context())
	return err != nil && strings.Contains(err.Error(), "0x0 (remote)")
}

func (c *quicCrowd) ask(conn *quic.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	m := new(dns.Msg).SetQuestion("www.demo.test.", dns.TypeA)
	m.Id = 0
	query, err := m.Pack()
	if err != nil {
		return err
	}
	b, err := overStream(ctx, conn, query)
	if err != nil {
		return err
	}
	reply, err := onlyMessage(b)
	if err == nil && len(reply.Answer) != 1 {
		err = fmt.Errorf("odd reply %v", reply)
	}
	return err
}

func (c *quicCrowd) lose(err error) {
	c.lost.Add(1)
	c.why.CompareAndSwap(nil, err.Error())
}

// more waits until so many queries more are answered, of either kind.
func (c *quicCrowd) more(t *testing.T, n int64) {
	t.Helper()
	stood, fresh := c.stood.Load()+n, c.fresh.Load()+n/10
	eventually(t, fmt.Sprintf("%d queries more are answered over QUIC, and %d new connections", n, n/10), func() bool {
		return c.stood.Load() >= stood && c.fresh.Load() >= fresh
	})
}

// end stops asking; it may be called twice.
func (c *quicCrowd) end() {
	c.stop()
	c.lanes.Wait()
}
