package health

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// A round of echoes.
const (
	echoes    = 3
	echoPause = 100 * time.Millisecond
)

// ProbeICMP passes when one of three echoes comes back. It uses the kernel's
// datagram sockets for echoes, which need no privilege where the group of the
// process lies in net.ipv4.ping_group_range (it rules IPv6 as well); where it does
// not, nothing is known. What comes back proves a path to the host, and nothing of
// the service.
func ProbeICMP(ctx context.Context, t Target) Result {
	watch := startWatch()
	p, err := newPinger(t)
	if err != nil {
		if errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM) {
			return blind("closed", "echo sockets are closed to this group: see net.ipv4.ping_group_range")
		}
		return blind("own", "echo socket: "+reason(err))
	}
	defer p.conn.Close()
	stop := context.AfterFunc(ctx, func() { p.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var last error
	for seq := range echoes {
		if err := p.send(seq); err != nil {
			last = err
		}
		until := time.Now().Add(echoPause)
		if d := deadline(ctx); seq == echoes-1 || d.Before(until) {
			until = d
		}
		n, err := p.await(until)
		if err == nil {
			r := passed(Result{Bytes: n})
			watch.note(func(p *Phases, d time.Duration) { p.First = d })
			return watch.stamp(r)
		}
		if !isTimeout(err) {
			last = err
		}
	}
	cause := fmt.Sprintf("no answer to %d echoes", echoes)
	if last != nil {
		cause += ": " + reason(last)
	}
	return watch.stamp(failed("timeout", cause))
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// pinger sends echoes to one address and knows its own answers by their bytes: the
// kernel gives a socket the answers to its identifier, and anybody may guess that.
type pinger struct {
	conn    *icmp.PacketConn
	to      net.Addr
	nonce   [16]byte
	request icmp.Type
	reply   icmp.Type
	proto   int
}

func newPinger(t Target) (*pinger, error) {
	p := &pinger{to: &net.UDPAddr{IP: t.Address.Addr().AsSlice()}, request: ipv4.ICMPTypeEcho, reply: ipv4.ICMPTypeEchoReply, proto: 1}
	network, local := "udp4", "0.0.0.0"
	if t.Address.Addr().Is6() {
		network, local = "udp6", "::"
		p.request, p.reply, p.proto = ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply, 58
	}
	rand.Read(p.nonce[:])
	var err error
	p.conn, err = icmp.ListenPacket(network, local)
	return p, err
}

func (p *pinger) send(seq int) error {
	m := icmp.Message{Type: p.request, Body: &icmp.Echo{Seq: seq + 1, Data: p.nonce[:]}} // the kernel sets the identifier
	b, err := m.Marshal(nil)
	if err != nil {
		return err
	}
	_, err = p.conn.WriteTo(b, p.to)
	return err
}

// await reads until an answer of ours comes; the size of it is returned.
func (p *pinger) await(until time.Time) (int, error) {
	p.conn.SetReadDeadline(until)
	buf := make([]byte, 512)
	for {
		n, _, err := p.conn.ReadFrom(buf)
		if err != nil {
			return 0, err
		}
		m, err := icmp.ParseMessage(p.proto, buf[:n])
		if err != nil || m.Type != p.reply {
			continue
		}
		if e, ok := m.Body.(*icmp.Echo); ok && bytes.Equal(e.Data, p.nonce[:]) {
			return n, nil
		}
	}
}

// PingAllowed tells whether this process may send echoes, and why not.
func PingAllowed() error {
	c, err := icmp.ListenPacket("udp4", "0.0.0.0")
	if err != nil {
		return fmt.Errorf("health: echo socket: %s", reason(err))
	}
	return c.Close()
}
