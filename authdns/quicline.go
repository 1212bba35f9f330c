package authdns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/ipv4"
)

// quicLine is the socket of a listener for DNS over QUIC. A connection is known to one
// process alone, and all datagrams of an address come to one socket. When another process
// takes over and reads from that, each connection of ours gets a socket of its own which is
// connected to its client: the kernel gives it what that client sends, and all else to the
// other process. We go on to write to the one socket.
type quicLine struct {
	*net.UDPConn
	batch *ipv4.PacketConn
	// handed is closed when the socket is another process's to read; reading ends when
	// nobody does any more.
	handed  chan struct{}
	reading context.Context
	end     context.CancelFunc
	// own is what came to sockets of single connections.
	own     chan quicDatagram
	readers sync.WaitGroup

	mu    sync.Mutex // guards all below, and readers against new ones
	peers map[*quicPeer]context.Context
}

// quicPeer is the client of a connection.
type quicPeer struct {
	remote net.Addr
	// local is the address that it asks, as far as it is known.
	local netip.AddrPort
	// shaken is called when its handshake has ended.
	shaken func()
	mu     sync.Mutex // guards local
}

// proven notes that the handshake is done, and with which of our addresses.
func (p *quicPeer) proven(local net.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a := addrPort(local); a.IsValid() {
		p.local = a
	}
	p.shaken()
}

func (p *quicPeer) asked() netip.AddrPort {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.local
}

// quicDatagram is one, and whose.
type quicDatagram struct {
	octets []byte
	from   net.Addr
}

// newQUICLine makes a line of an open socket.
func newQUICLine(p net.PacketConn) (*quicLine, error) {
	u, ok := p.(*net.UDPConn)
	if !ok {
		return nil, fmt.Errorf("a %T is not a UDP socket", p)
	}
	l := &quicLine{UDPConn: u, batch: ipv4.NewPacketConn(u), handed: make(chan struct{}),
		own: make(chan quicDatagram, batchSize), peers: make(map[*quicPeer]context.Context)}
	l.reading, l.end = context.WithCancel(context.Background())
	return l, nil
}

// ReadBatch is how the library reads.
func (l *quicLine) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	if !ended(l.handed) {
		n, err := l.batch.ReadBatch(ms, flags)
		if err == nil || !ended(l.handed) {
			return n, err
		}
	}
	select {
	case d := <-l.own:
		ms[0].N, ms[0].NN, ms[0].Addr = copy(ms[0].Buffers[0], d.octets), 0, d.from
		return 1, nil
	case <-l.reading.Done():
		return 0, net.ErrClosed
	}
}

// SetReadDeadline is how the library ends reading.
func (l *quicLine) SetReadDeadline(t time.Time) error {
	if !t.IsZero() {
		l.end()
	}
	return l.UDPConn.SetReadDeadline(t)
}

// wait ends all sockets of single connections; the library reads no more.
func (l *quicLine) wait() {
	l.mu.Lock()
	l.end() // from now on no reader begins
	l.mu.Unlock()
	l.readers.Wait()
}

func ended(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// add notes a connection, which lasts until ctx ends.
func (l *quicLine) add(ctx context.Context, p *quicPeer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.peers[p] = ctx
	context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.peers, p)
	})
	if ended(l.handed) { // its first datagram was read before
		l.follow(ctx, p)
	}
}

// handOver leaves the socket to another process.
func (l *quicLine) handOver() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.handed)
	l.UDPConn.SetReadDeadline(time.Unix(1, 0))
	for p, ctx := range l.peers {
		l.follow(ctx, p)
	}
}

// follow reads from now on what a client sends from a socket of its own; mu is held. Where
// that cannot be had the client hears nothing more, and connects anew.
func (l *quicLine) follow(ctx context.Context, p *quicPeer) {
	if l.reading.Err() != nil {
		return
	}
	local := p.asked()
	d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(local), Control: control}
	c, err := d.DialContext(ctx, family("udp", local), p.remote.String())
	if err != nil {
		return
	}
	over := context.AfterFunc(ctx, func() { c.Close() })
	end := context.AfterFunc(l.reading, func() { c.Close() })
	l.readers.Go(func() {
		l.read(c, p.remote)
		over()
		end()
		c.Close()
	})
}

// read passes on what comes until the socket is closed.
func (l *quicLine) read(c net.Conn, from net.Addr) {
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		if err != nil && transient(err) {
			continue // the network's word on what was sent before
		}
		if err != nil {
			return
		}
		select {
		case l.own <- quicDatagram{append([]byte(nil), buf[:n]...), from}:
		case <-l.reading.Done():
			return
		}
	}
}
