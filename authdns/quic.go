package authdns

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

// DNS over QUIC (RFC 9250): a query has a stream of its own, so that none waits for
// another. QUIC comes from the library; connections are counted with those of TCP and
// bounded alike. Nothing is taken from 0-RTT data (section 4.5): whoever records it could
// send it again, and learn from what comes of it what was asked, while an authoritative
// server's clients come back too seldom to gain by it. A resumed session saves the
// certificate all the same.

const (
	// alpnDoQ is the protocol's ALPN token (RFC 9250 section 4.1).
	alpnDoQ = "doq"
	// streamWindow is what a client may send on a stream before we read: any one query.
	streamWindow = 2 + maxTCP
	// connWindow is the same of all streams of a connection.
	connWindow = 2 * streamWindow
	// handshakeWithin bounds how long a client may be silent in a handshake.
	handshakeWithin = 5 * time.Second
	// idleSlack is how much later than we the library ends what idles: it would not say so.
	idleSlack = 5 * time.Second
	// From so many handshakes under way on a listener on, a client first has to prove its
	// address, by a Retry (RFC 9250 section 5.3, RFC 9000 section 8.1.2). A handshake
	// costs us a signature, and may come from anywhere.
	handshakesTrusted = 64
	// handshakesMost are under way at once; further ones are refused.
	handshakesMost = 1024
)

// quicListener is a listener for DNS over QUIC.
type quicListener struct {
	server     *Server
	socket     socket
	conns      *conns
	tally      *tally
	line       *quicLine
	handshakes handshakes
}

// serveQUIC answers on a listener until ctx ends, and then those who are connected, until
// conns says so.
func (s *Server) serveQUIC(ctx context.Context, k socket, conns *conns) error {
	defer k.close()
	if s.settled != nil {
		select {
		case <-s.settled:
		case <-ctx.Done():
			return nil
		}
	}
	line, err := newQUICLine(k.packet)
	if err != nil {
		return err
	}
	defer line.wait()
	l := &quicListener{server: s, socket: k, conns: conns, tally: s.tallies.worker(), line: line}
	tr := &quic.Transport{Conn: line, ConnContext: l.begin, VerifySourceAddress: l.unproven}
	defer tr.Close()
	conf := k.tls.Clone()
	conf.NextProtos = []string{alpnDoQ}
	ln, err := tr.Listen(conf, &quic.Config{
		HandshakeIdleTimeout: min(handshakeWithin, conns.idle), MaxIdleTimeout: conns.idle + idleSlack,
		InitialStreamReceiveWindow: streamWindow, MaxStreamReceiveWindow: streamWindow,
		InitialConnectionReceiveWindow: connWindow, MaxConnectionReceiveWindow: connWindow,
		MaxIncomingStreams: maxStreams, MaxIncomingUniStreams: -1,
	})
	if err != nil {
		return err
	}
	var group sync.WaitGroup
	defer group.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // where the socket fails before
	group.Go(func() {
		<-ctx.Done()
		if errors.Is(context.Cause(ctx), ErrSucceeded) {
			line.handOver()
			l.handshakes.settle(handshakeWithin)
		}
		ln.Close() // those under way are refused, and come back
	})
	return l.accept(ctx, ln, &group)
}

// accept takes connections until the listener is closed.
func (l *quicListener) accept(ctx context.Context, ln *quic.Listener, group *sync.WaitGroup) error {
	for {
		qc, err := ln.Accept(context.WithoutCancel(ctx))
		switch {
		case err == nil:
			if p, ok := qc.Context().Value(quicPeerKey{}).(*quicPeer); ok {
				p.proven(qc.LocalAddr())
			}
			group.Go(func() { l.serve(qc) })
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed) || errors.Is(err, quic.ErrServerClosed):
			return nil
		default:
			return err
		}
	}
}

// quicPeerKey finds the quicPeer of a connection.
type quicPeerKey struct{}

var errHandshakes = errors.New("too many handshakes")

// begin takes a connection in whose handshake begins.
func (l *quicListener) begin(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	if !l.handshakes.begin() {
		l.server.metrics.dropped.WithLabelValues("tcp_limit").Inc()
		return nil, errHandshakes
	}
	done := sync.OnceFunc(l.handshakes.end)
	p := &quicPeer{remote: info.RemoteAddr, local: l.socket.addr(), shaken: done}
	l.line.add(ctx, p)
	context.AfterFunc(ctx, done)
	return context.WithValue(ctx, quicPeerKey{}, p), nil
}

// unproven tells whether a client has to prove its address before its handshake.
func (l *quicListener) unproven(net.Addr) bool {
	if l.handshakes.underWay() < handshakesTrusted {
		return false
	}
	l.server.metrics.retries.Inc()
	return true
}

// handshakes counts those under way.
type handshakes struct {
	mu sync.Mutex
	n  int
	// none is closed when there are none left; nil: nobody waits for that.
	none chan struct{}
}

func (h *handshakes) begin() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.n >= handshakesMost {
		return false
	}
	h.n++
	return true
}

func (h *handshakes) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.n--; h.n == 0 && h.none != nil {
		close(h.none)
		h.none = nil
	}
}

func (h *handshakes) underWay() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.n
}

// settle waits until none is under way, or for so long.
func (h *handshakes) settle(within time.Duration) {
	h.mu.Lock()
	none := make(chan struct{})
	if h.n == 0 {
		close(none)
	} else {
		h.none = none
	}
	h.mu.Unlock()
	limit := time.NewTimer(within)
	defer limit.Stop()
	select {
	case <-none:
	case <-limit.C:
	}
}
