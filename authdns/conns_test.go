package authdns

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// piped serves one end of a pipe, as long as the peer function plays the other
// one, and returns how long it took until the server let go. Time is a bubble's.
func piped(t *testing.T, c *conn, conf *tls.Config, client net.Conn, peer func(net.Conn)) (took time.Duration) {
	t.Helper()
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	s.SetZones(sources())
	began, done := time.Now(), make(chan struct{})
	go func() {
		s.serveConn(c, newConns(&Limits{}), conf, s.tallies.worker())
		close(done)
	}()
	var playing sync.WaitGroup
	playing.Go(func() { peer(client) })
	<-done
	took = time.Since(began)
	client.Close()
	playing.Wait()
	return took
}

// TestSlowPeers are rows 79 and 80: a connection which says nothing, says it an
// octet at a time, or does not read, ends when its time is over and not before.
func TestSlowPeers(t *testing.T) {
	query := framed(ask(t, "www.demo.test. A"))
	drip := func(b []byte) func(net.Conn) {
		return func(c net.Conn) {
			for _, o := range b {
				if _, err := c.Write([]byte{o}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}
	}
	for _, c := range []struct {
		name    string
		proxied bool
		conf    *tls.Config
		peer    func(net.Conn)
		want    time.Duration
	}{
		{"silent", false, nil, func(net.Conn) {}, defaultIdle},
		{"half a message", false, nil, func(c net.Conn) { c.Write([]byte{0, 40, 1}) }, defaultIdle},
		{"slowloris", false, nil, drip(query), defaultIdle},
		{"slowloris behind a query", false, nil, func(c net.Conn) {
			time.Sleep(9 * time.Second)
			c.Write(query)
			go io.Copy(io.Discard, c)
			drip(query)(c)
		}, 9*time.Second + defaultIdle},
		{"a TLS handshake that does not go on", false, &tls.Config{}, drip(make([]byte, 60)), 0},
		{"no TLS handshake", false, &tls.Config{}, func(net.Conn) {}, defaultIdle},
		{"no PROXY header", true, nil, func(net.Conn) {}, defaultIdle},
		{"a PROXY header by octets", true, nil, drip(proxyHead("198.51.100.5:1")), defaultIdle},
		{"one that does not read", false, nil, func(c net.Conn) { c.Write(query) }, writeTimeout},
		{"one that reads an octet and no more", false, nil, func(c net.Conn) {
			c.Write(query)
			c.Read(make([]byte, 1))
		}, writeTimeout},
		{"one that reads an octet a second", false, nil, func(c net.Conn) {
			c.Write(query)
			for {
				if _, err := c.Read(make([]byte, 1)); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}, writeTimeout},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := net.Pipe()
				conn := newConn(server, asker{tcp: true})
				conn.proxied = c.proxied
				took := piped(t, conn, c.conf, client, c.peer)
				if c.want > 0 && took != c.want || took > defaultIdle+9*time.Second {
					t.Errorf("let go after %v, want %v", took, c.want)
				}
			})
		})
	}
}

// TestBurst is row 75: what was sent together is answered together, in few writes,
// large replies among small ones.
func TestBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all []byte
		const n = 300
		for i := range n {
			q := framed(ask(t, []string{"www.demo.test. A", "many.demo.test. A"}[i%2]))
			q[2], q[3] = byte(i>>8), byte(i)
			all = append(all, q...)
		}
		client, server := net.Pipe()
		writes := &counted{Conn: server}
		var ids []uint16
		piped(t, newConn(writes, asker{tcp: true, level: top}), nil, client, func(c net.Conn) {
			go func() {
				c.Write(all[:5]) // a query cut in two
				c.Write(all[5:])
			}()
			for range n {
				size, err := readLength(c)
				b := make([]byte, size)
				if err == nil {
					_, err = io.ReadFull(c, b)
				}
				m := new(dns.Msg)
				if err != nil || m.Unpack(b) != nil || len(m.Answer) != []int{1, 90}[len(ids)%2] {
					t.Errorf("reply %d: %v, %d records", len(ids), err, len(m.Answer))
					break
				}
				ids = append(ids, m.Id)
			}
			c.Close()
		})
		for i, id := range ids {
			if int(id) != i {
				t.Fatalf("reply %d is to query %d", i, id)
			}
		}
		if len(ids) != n || writes.writes > n/5 {
			t.Errorf("%d replies in %d writes", len(ids), writes.writes)
		}
	})
}

// counted counts writes.
type counted struct {
	net.Conn
	writes int
}

func (c *counted) Write(b []byte) (int, error) {
	c.writes++
	return c.Conn.Write(b)
}

// TestBurstEnds is row 78: what came before garbage is answered, then it is over.
func TestBurstEnds(t *testing.T) {
	good := framed(ask(t, "www.demo.test. A"))
	for name, bad := range map[string][]byte{"zero length": {0, 0}, "garbage": {0, 3, 1, 2, 3}, "a reply": framed(raw(ask(t, "www.demo.test. A"), flags(0x8000)))} {
		t.Run(name, func(t *testing.T) {
			c, _ := dialTCP(t)
			if _, err := c.Write(bytes.Join([][]byte{good, good, bad, good}, nil)); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if got := show(readTCP(t, c)); got != "NOERROR aa | "+wwwA {
					t.Error(got)
				}
			}
			if n, err := c.Read(make([]byte, 1)); n > 0 {
				t.Errorf("answered what came after it: %v", err)
			}
		})
	}
}

// TestConnectionTable is row 80: a client has its share of the table, and when
// all is full the longest idle goes.
func TestConnectionTable(t *testing.T) {
	table := newConns(&Limits{})
	open := func(addr string, at int64) (*conn, bool) {
		a, b := net.Pipe()
		t.Cleanup(func() { a.Close(); b.Close() })
		c := newConn(a, asker{addr: netip.AddrPortFrom(netip.MustParseAddr(addr), 1)})
		return c, table.add(c, time.Unix(at, 0))
	}
	first, _ := open("192.0.2.1", 1)
	for range defaultPerClient - 1 {
		open("192.0.2.1", 2)
	}
	if _, ok := open("192.0.2.1", 3); ok {
		t.Errorf("a client got more than %d connections", defaultPerClient)
	}
	table.touch(first, time.Unix(9, 0))
	for i := range defaultConnections - defaultPerClient {
		open(fmt.Sprintf("198.51.%d.%d", i/250, i%250), 5)
	}
	if _, ok := open("203.0.113.1", 10); !ok || len(table.all) != defaultConnections {
		t.Fatalf("full table: taken %t, %d connections", ok, len(table.all))
	}
	if _, ok := table.all[first]; !ok {
		t.Error("the one just used was evicted")
	}
	if n := table.of[client{netip.MustParseAddr("192.0.2.1")}]; n != defaultPerClient-1 {
		t.Errorf("the idle client has %d connections, want one fewer than %d", n, defaultPerClient)
	}
	if a, _ := open("2001:db8::1", 11); a.client != (client{netip.MustParseAddr("2001:db8::")}) {
		t.Errorf("a client with IPv6 is counted as %v", a.client)
	}
	table.remove(first)
	table.remove(first)
	if n := table.of[client{netip.MustParseAddr("192.0.2.1")}]; n != defaultPerClient-3 {
		t.Errorf("removed twice counts twice: %d", n)
	}
}
