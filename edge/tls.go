package edge

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"rhumb/edge/seal"
	"rhumb/edge/tcprepair"
)

// How far the traffic secrets of a service's sessions may go.
const (
	ExportNone  = "none"  // nowhere: crypto/tls keeps them, HTTP/2 is spoken, sessions stay
	ExportSite  = "site"  // to this site's machines
	ExportGroup = "group" // to the sites which take a session over
)

// terminator is the TLS of one service. Safe for concurrent use.
type terminator struct {
	export  string
	certs   *certificates
	config  *tls.Config
	web     *web
	buffers *seal.Buffers
	limits  Limits
	m       *tlsMetrics
}

// newTerminator reads the service's certificate. svc has its source already.
func newTerminator(svc *service, m *tlsMetrics, log *slog.Logger) (*terminator, error) {
	certs, err := newCertificates(svc.Name, svc.Cert, svc.Key, m, log)
	if err != nil {
		return nil, err
	}
	t := &terminator{export: or(svc.Export, ExportNone), certs: certs, buffers: &seal.Buffers{}, limits: svc.limits, m: m}
	t.config = &tls.Config{GetCertificate: certs.get, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	if t.ours() {
		// A ticket would be a record of ours, number 0, and 0-RTT is not to be had without.
		// HTTP/2 is framing with a state, and no function of the object.
		t.config.SessionTicketsDisabled, t.config.NextProtos = true, []string{"http/1.1"}
		if err := undumpable(); err != nil {
			return nil, err
		}
	}
	t.web = newWeb(svc, t.config, log)
	return t, nil
}

// ours tells whether sessions get our record layer.
func (t *terminator) ours() bool { return t.export != ExportNone }

// undumpable keeps the secrets of this process out of core files and from other
// processes of its user (prctl(2), PR_SET_DUMPABLE). There is no way back: what
// was in memory once may still be.
func undumpable() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("edge: keep secrets out of core files: %w", err)
	}
	return nil
}

// Run keeps the certificate fresh and serves what crypto/tls serves.
func (t *terminator) Run(ctx context.Context) error {
	served := make(chan struct{})
	go func() {
		t.web.serve()
		close(served)
	}()
	t.certs.run(ctx)
	t.web.stop()
	<-served
	return nil
}

// greet enters a new connection of a service with TLS. The handshake has an
// entry of its own, pinned, which the session replaces: what other goroutines
// read of a session never changes.
func (a *Agent) greet(ctx context.Context, s *session) {
	t := idleTurn(s.svc.id)
	t.rec.Flags |= pinned
	s.turn.Store(t)
	s.state.Store(int32(s.resting()))
	if !a.tab.add(s, a.limits.Sessions) {
		refuse(s.conn)
		return
	}
	a.m.sessions.Inc()
	read := a.uploads.approach(s)
	a.wg.Go(func() {
		stop := context.AfterFunc(ctx, func() { s.conn.Close() })
		next, err := a.shake(ctx, s, read)
		stop()
		if err == nil {
			err = a.attend(ctx, next)
		}
		a.end(next, err)
	})
}

// shake does the handshake, and tells how much of it was read. What crypto/tls is to serve it
// serves, and returns io.EOF; else the result is the session with our record layer, entered.
func (a *Agent) shake(ctx context.Context, s *session, read func(octets int)) (*session, error) {
	t := s.svc.tls
	keys := &keyLog{}
	defer keys.wipe()
	raw := &watched{Conn: s.conn, done: make(chan struct{})}
	conn, cfg := net.Conn(raw), t.config
	if t.ours() {
		conn, cfg = &oneRecord{Conn: raw, told: read}, t.config.Clone()
		cfg.KeyLogWriter = keys
	}
	c := tls.Server(conn, cfg)
	s.conn.SetDeadline(time.Now().Add(t.limits.Header))
	if err := c.HandshakeContext(ctx); err != nil {
		t.m.handshakes.WithLabelValues(s.svc.Name, shakeFailed).Inc()
		return s, fmt.Errorf("edge: %s: handshake: %w", s.svc.Name, err)
	}
	s.conn.SetDeadline(time.Time{})
	suite, ok := seal.SuiteOf(c.ConnectionState().CipherSuite)
	if !t.ours() || !ok { // a client of TLS 1.2 is served, and stays
		t.m.handshakes.WithLabelValues(s.svc.Name, shakeKept).Inc()
		s.unhold() // it stays
		t.web.take(c, raw.done)
		return s, io.EOF
	}
	t.m.handshakes.WithLabelValues(s.svc.Name, shakeSealed).Inc()
	// From here on c is not touched again: its close would be a record of ours.
	next, err := a.undercover(s, keys, suite)
	if err != nil {
		return s, err
	}
	a.tab.replace(s, next)
	if next.changed != nil {
		next.changed(next)
	}
	return next, nil
}

// undercover makes the session whose record layer is ours.
func (a *Agent) undercover(s *session, keys *keyLog, suite seal.Suite) (*session, error) {
	c, err := newCover(s.svc.tls, suite, keys.server, keys.client)
	if err != nil {
		return nil, err
	}
	next := &session{key: s.key, conn: s.conn, started: s.started, epoch: s.epoch, svc: s.svc, local: s.local, cover: c}
	next.done = s.done
	t := idleTurn(s.svc.id)
	if a.moves.Backups && c.moves && !s.local && s.svc.shadows() {
		if next.reg, err = tcprepair.Register(s.conn); err != nil {
			a.log.Warn("session goes without a backup", "err", err)
		} else {
			next.regAt = time.Now()
			t.base, t.rcv = next.reg.Write, next.reg.RcvNxt
			t.seat.known = true // at the client's record 0: crypto/tls read up to its Finished
			a.protect(next)
		}
	}
	if err := c.wrap(t); err != nil {
		return nil, err
	}
	if next.changed == nil {
		s.unhold()
	}
	next.hold, s.hold = s.hold, nil
	next.turn.Store(t)
	next.state.Store(int32(next.resting()))
	return next, nil
}

// oneRecord returns to crypto/tls at most the rest of one record a Read. What
// the client sends behind its Finished, which may be in the same segment, thus
// stays in the kernel for our record layer.
type oneRecord struct {
	net.Conn
	head [5]byte
	have int              // of head
	left int              // of the record's rest
	told func(octets int) // of what was read; nil: nobody
}

func (c *oneRecord) Read(b []byte) (int, error) {
	if c.left > 0 {
		n, err := c.Conn.Read(b[:min(len(b), c.left)])
		c.tell(n)
		c.left -= n
		return n, err
	}
	n, err := c.Conn.Read(b[:min(len(b), len(c.head)-c.have)])
	c.tell(n)
	c.have += copy(c.head[c.have:], b[:n])
	if c.have == len(c.head) {
		c.have, c.left = 0, int(binary.BigEndian.Uint16(c.head[3:]))
	}
	return n, err
}

func (c *oneRecord) tell(octets int) {
	if c.told != nil {
		c.told(octets)
	}
}

// keyLog takes the two secrets off the key log of one handshake, in memory.
type keyLog struct{ client, server []byte }

// Write takes one line: label, client random, secret (RFC 9850 section 2).
func (k *keyLog) Write(line []byte) (int, error) {
	var label, random, secret string
	if n, _ := fmt.Sscan(string(line), &label, &random, &secret); n != 3 {
		return 0, errors.New("key log line is not three words")
	}
	into := &k.client
	switch label {
	case "SERVER_TRAFFIC_SECRET_0":
		into = &k.server
	case "CLIENT_TRAFFIC_SECRET_0":
	default:
		return len(line), nil
	}
	b, err := hex.DecodeString(secret)
	*into = b
	return len(line), err
}

func (k *keyLog) wipe() {
	clear(k.client)
	clear(k.server)
}
