//go:build e2e

package forward

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/quic"
)

// quicEnv names the site of a QUIC server's process. A second word, if any, is
// the server id in its connection ids.
const quicEnv = "RHUMB_FORWARD_TEST_QUIC"

// serveQUIC answers requests on the VIPs until it is killed. Servers
// of all sites share their reset key, as those of an anycast service do: one that
// gets a foreign connection's packet ends the connection at once.
func serveQUIC(words string) error {
	site, id, _ := strings.Cut(words, " ")
	if id != "" {
		rand.Reader = &routable{from: rand.Reader, id: []byte(id)}
	}
	cert, err := selfSigned()
	if err != nil {
		return err
	}
	config := &quic.Config{StatelessResetKey: [32]byte{1, 2, 3}, MaxIdleTimeout: time.Minute,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"test"}, MinVersion: tls.VersionTLS13}}
	// On a wildcard address the library would answer from the uplink's.
	done := make(chan error)
	for _, vip := range []string{vip4, vip6} {
		e, err := quic.Listen("udp", netip.AddrPortFrom(netip.MustParseAddr(vip), 443).String(), config)
		if err != nil {
			return err
		}
		go func() { done <- acceptQUIC(site, e) }()
	}
	fmt.Println("ready")
	return <-done
}

// acceptQUIC serves the connections of an endpoint.
func acceptQUIC(site string, e *quic.Endpoint) error {
	for {
		conn, err := e.Accept(context.Background())
		if err != nil {
			return err
		}
		go func() {
			for {
				s, err := conn.AcceptStream(context.Background())
				if err != nil {
					return
				}
				go func() { _ = answerQUIC(site, s) }()
			}
		}()
	}
}

// routable makes random numbers, and in those of 8 octets, which the library
// takes for connection ids, it writes the server's id.
type routable struct {
	from io.Reader
	id   []byte
}

func (r *routable) Read(b []byte) (int, error) {
	n, err := io.ReadFull(r.from, b)
	if len(b) == 8 {
		b[0] &= 0x1f // configuration 0
		copy(b[1:], r.id)
	}
	return n, err
}

func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"www.rhumb.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}, &x509.Certificate{SerialNumber: big.NewInt(1)}, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// answerQUIC reads a request, the size of the wanted response and a body, and
// writes the site, the body's sum and so many octets.
func answerQUIC(site string, s *quic.Stream) error {
	request, err := io.ReadAll(s)
	if err != nil || len(request) < 8 {
		return errors.Join(err, errShort)
	}
	sum := sha256.Sum256(request[8:])
	response := append([]byte(site), sum[:]...)
	response = append(response, make([]byte, binary.BigEndian.Uint64(request))...)
	if _, err := s.Write(response); err != nil {
		return err
	}
	return s.Close()
}

// startQUIC runs a QUIC server at a site; id is empty for random ones.
func (l *lab) startQUIC(t *testing.T, s *site, id string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), quicEnv+"="+strings.TrimSpace(s.letter+" "+id))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.start(t, cmd)
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("QUIC server of site %s: %q, %v", s.letter, line, err)
	}
}

// quicClient is a connection from the lab's client.
type quicClient struct{ *quic.Conn }

func (l *lab) dialQUIC(t *testing.T, vip string) quicClient {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	var conn *quic.Conn
	var e *quic.Endpoint
	l.client.must(t, func() (err error) {
		if e, err = quic.Listen("udp", ":0", nil); err != nil {
			return err
		}
		conn, err = e.Dial(ctx, "udp", netip.AddrPortFrom(netip.MustParseAddr(vip), 443).String(), &quic.Config{MaxIdleTimeout: time.Minute,
			TLSConfig: &tls.Config{InsecureSkipVerify: true, ServerName: "www.rhumb.test", NextProtos: []string{"test"}, MinVersion: tls.VersionTLS13}})
		return err
	})
	t.Cleanup(func() {
		ctx, stop := context.WithTimeout(context.Background(), time.Second)
		defer stop()
		conn.Abort(nil)
		_ = e.Close(ctx)
	})
	return quicClient{conn}
}

// ask makes a request of up octets for a response of down octets, and returns
// the site that served it.
func (c quicClient) ask(up, down int) (string, error) { return c.askWithin(patience, up, down) }

func (c quicClient) askWithin(limit time.Duration, up, down int) (string, error) {
	ctx, stop := context.WithTimeout(context.Background(), limit)
	defer stop()
	s, err := c.NewStream(ctx)
	if err != nil {
		return "", err
	}
	s.SetReadContext(ctx)
	s.SetWriteContext(ctx)
	body := bytes.Repeat([]byte("rhumb "), up/6)
	if _, err := s.Write(append(binary.BigEndian.AppendUint64(nil, uint64(down)), body...)); err != nil {
		return "", err
	}
	s.CloseWrite()
	response, err := io.ReadAll(s)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(body)
	if len(response) != 1+len(sum)+down || !bytes.Equal(response[1:1+len(sum)], sum[:]) {
		return "", fmt.Errorf("a response of %d octets, want %d and the sum of the request", len(response), 1+len(sum)+down)
	}
	return string(response[:1]), nil
}

// from fails the test unless a site serves the connection.
func (c quicClient) from(t *testing.T, want string, up, down int) {
	t.Helper()
	if got, err := c.ask(up, down); err != nil || got != want {
		t.Fatalf("%d octets up, %d down: served by %q, %v; want %s", up, down, got, err, want)
	}
}

// newQUICLab has a QUIC server at both sites and forwarders that have learnt all
// flows.
func newQUICLab(t *testing.T, vip string, owner QUICOwner) *lab {
	t.Helper()
	l := newLab(t)
	at := netip.AddrPortFrom(netip.MustParseAddr(vip), 443)
	l.quic = QUIC{VIPs: map[netip.AddrPort]QUICVIP{at: {Mode: Act, Owner: owner}}}
	ids := map[*site]string{l.a: "", l.b: ""}
	if owner == ByConnectionID {
		ids = map[*site]string{l.a: "A1", l.b: "B1"}
		l.quic.ServerIDs = map[string][]byte{"a": []byte("A1"), "b": []byte("B1")}
	}
	for s, id := range ids {
		l.startQUIC(t, s, id)
	}
	l.startAgents(t, true)
	for _, s := range []*site{l.a, l.b} {
		l.learnt(t, s)
	}
	return l
}

// learnt ends a site's time of learning, which is as long as an idle connection
// lives.
func (l *lab) learnt(t *testing.T, s *site) {
	t.Helper()
	for _, family := range []string{"ip", "ip6"} {
		if out, err := s.run("nft", "flush", "set", family, tableName, "learn"); err != nil {
			t.Fatalf("nft: %v %s", err, out)
		}
	}
}

// TestQUICWithoutRulesEnds shows that the lab can fail.
func TestQUICWithoutRulesEnds(t *testing.T) {
	families(t, func(t *testing.T, vip string) {
		l := newLab(t)
		l.startQUIC(t, l.a, "")
		l.startQUIC(t, l.b, "")
		c := l.dialQUIC(t, vip)
		c.from(t, "a", 100, 100)
		l.routeTo(t, l.b)
		if got, err := c.askWithin(2*time.Second, 100, 100); err == nil {
			t.Errorf("after the flip, without forwarding, served by %q", got)
		}
	})
}

// TestQUICForwarded moves the route under a connection to and fro, in the
// middle of transfers too, and leaves it at B.
func TestQUICForwarded(t *testing.T) {
	families(t, func(t *testing.T, vip string) {
		l := newQUICLab(t, vip, ByFlow)
		c := l.dialQUIC(t, vip)
		c.from(t, "a", 100, 100)
		for _, s := range []*site{l.b, l.a, l.b, l.a, l.b} {
			l.routeTo(t, s)
			c.from(t, "a", 100<<10, 100<<10)
		}
		fresh := l.dialQUIC(t, vip)
		fresh.from(t, "b", 100, 100)
		l.routeTo(t, l.a)
		c.from(t, "a", 100, 100)
		fresh.from(t, "b", 100, 100)

		a, b := l.a.agent.tell(t, "stats"), l.b.agent.tell(t, "stats")
		key := netip.AddrPortFrom(netip.MustParseAddr(vip), 443).String()
		if a.Owned[key] != 1 || b.Owned[key] != 1 {
			t.Errorf("A owns %d connections, B %d; want 1 each", a.Owned[key], b.Owned[key])
		}
		if b.Metrics["forwarded_packets_total a"] < 100 || a.Metrics["forwarded_packets_total b"] == 0 || a.Metrics["arrived_packets_total b"] < 100 {
			t.Errorf("hardly anything was forwarded, the test proves nothing: A %v, B %v", a.Metrics, b.Metrics)
		}
		if len(b.Flows) != 1 || !b.Flows[0].QUIC || b.Flows[0].Owner != "a" {
			t.Errorf("B lists %+v", b.Flows)
		}
		if b.Foreign != 0 {
			t.Errorf("B was told of %d foreign sessions to move", b.Foreign)
		}
	})
}

// TestQUICAnnounced drains: the flows are told ahead, and nobody is asked.
func TestQUICAnnounced(t *testing.T) {
	families(t, func(t *testing.T, vip string) {
		l := newQUICLab(t, vip, ByFlow)
		var clients []quicClient
		for range 4 {
			clients = append(clients, l.dialQUIC(t, vip))
		}
		l.await(t, func() bool {
			return l.a.agent.tell(t, "announce").Foreign == 4 && l.b.agent.tell(t, "stats").Known == 4
		}, "B knows A's 4 connections")
		l.routeTo(t, l.b)
		for _, c := range clients {
			c.from(t, "a", 100, 10<<10)
		}
		if m := l.b.agent.tell(t, "stats").Metrics; m["strays_total announced"] < 4 || m["strays_total group"]+m["strays_total pair"] > 0 {
			t.Errorf("after the announcement owners were still searched: %v", m)
		}
	})
}

// TestQUICLearns restarts the forwarder of the owner: the connections go on, and
// are known again once they have sent something.
func TestQUICLearns(t *testing.T) {
	families(t, func(t *testing.T, vip string) {
		l := newQUICLab(t, vip, ByFlow)
		c := l.dialQUIC(t, vip)
		c.from(t, "a", 100, 100)
		if err := l.a.agent.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = l.a.agent.cmd.Wait()
		c.from(t, "a", 100, 100)
		l.a.agent = l.startAgent(t, l.a, l.b, true)
		c.from(t, "a", 100, 100)
		l.learnt(t, l.a)
		l.routeTo(t, l.b)
		c.from(t, "a", 100, 100)
		if s := l.b.agent.tell(t, "stats"); s.Metrics["forwarded_packets_total a"] == 0 {
			t.Errorf("nothing was forwarded, the test proves nothing: %v", s.Metrics)
		}
	})
}

// TestQUICByConnectionID has servers whose connection ids name their site:
// nobody is asked, and a client whose address has changed is found as well.
func TestQUICByConnectionID(t *testing.T) {
	families(t, func(t *testing.T, vip string) {
		l := newQUICLab(t, vip, ByConnectionID)
		c := l.dialQUIC(t, vip)
		c.from(t, "a", 100, 100)
		for _, s := range []*site{l.b, l.a, l.b} {
			l.routeTo(t, s)
			c.from(t, "a", 50<<10, 50<<10)
		}
		fresh := l.dialQUIC(t, vip)
		fresh.from(t, "b", 100, 100)
		b := l.b.agent.tell(t, "stats")
		if b.Metrics["strays_total cid"] < 50 || b.Metrics["strays_total group"]+b.Metrics["strays_total pair"]+b.Metrics["strays_total nobody"] > 0 {
			t.Errorf("owners were searched: %v", b.Metrics)
		}

		// A short header from another port: A's server gets it, and can't know
		// its sender. The library accepts no client that moves.
		before := l.a.agent.tell(t, "stats").Metrics["arrived_packets_total b"]
		var conn net.Conn
		l.client.must(t, func() (err error) {
			conn, err = net.Dial("udp", netip.AddrPortFrom(netip.MustParseAddr(vip), 443).String())
			return err
		})
		defer conn.Close()
		if _, err := conn.Write(append([]byte{0x41, 0x07, 'A', '1', 5, 5, 5, 5, 5}, make([]byte, 40)...)); err != nil {
			t.Fatal(err)
		}
		l.await(t, func() bool { return l.a.agent.tell(t, "stats").Metrics["arrived_packets_total b"] > before }, "A gets the packet of a client that moved")
	})
}
