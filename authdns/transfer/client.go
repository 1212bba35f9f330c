package transfer

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

// Limits of a transfer which is received. A primary that stalls is given up, so
// that the next one is asked.
const (
	dialTimeout     = 10 * time.Second
	readTimeout     = 30 * time.Second
	transferTimeout = 15 * time.Minute
)

// primary is a server which is asked for a zone.
type primary struct {
	addr netip.AddrPort
	key  *Key // nil: unsigned
	// tls is set where the transfer goes over TLS (RFC 9103).
	tls *tls.Config
	// source is the address to speak from; any where it is not valid.
	source  netip.Addr
	now     func() time.Time
	connect Connect
}

// Connect opens a connection from an address, which may be invalid, to another.
type Connect func(ctx context.Context, from netip.Addr, to netip.AddrPort) (net.Conn, error)

// connectTCP is Connect over the network.
func connectTCP(ctx context.Context, from netip.Addr, to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	if from.IsValid() && from.Is4() == to.Addr().Is4() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	return d.DialContext(ctx, "tcp", to.String())
}

// dial opens a connection, which ends with the context.
func (p *primary) dial(ctx context.Context) (net.Conn, error) {
	raw, err := p.connect(ctx, p.source, p.addr)
	if err != nil || p.tls == nil {
		return raw, err
	}
	c := tls.Client(raw, p.tls)
	hello, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if err := c.HandshakeContext(hello); err != nil {
		raw.Close()
		return nil, err
	}
	// RFC 9103 section 7.1: without the protocol named this is not a server for it.
	if got := c.ConnectionState().NegotiatedProtocol; got != "dot" {
		c.Close()
		return nil, fmt.Errorf("the primary speaks %q over TLS, not dot", got)
	}
	return c, nil
}

// fetch brings what leads from a held version to the primary's newest: nothing,
// deltas, or the whole zone. have is nil where nothing is held.
func (p *primary) fetch(ctx context.Context, zone string, have *dns.SOA) (*incoming, error) {
	ctx, cancel := context.WithTimeout(ctx, transferTimeout)
	defer cancel()
	conn, err := p.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if have == nil {
		return p.ask(conn, zone, dns.TypeAXFR, nil)
	}
	in, err := p.ask(conn, zone, dns.TypeSOA, have)
	if err != nil || !later(in.soa.Serial, have.Serial) {
		return in, err
	}
	if in, err = p.ask(conn, zone, dns.TypeIXFR, have); err == nil {
		return in, nil
	}
	return p.whole(ctx, zone, err)
}

// whole asks for the whole zone on a connection of its own: after what went wrong
// on the one before nobody knows what still comes there.
func (p *primary) whole(ctx context.Context, zone string, before error) (*incoming, error) {
	conn, err := p.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	in, err := p.ask(conn, zone, dns.TypeAXFR, nil)
	if err != nil {
		return nil, fmt.Errorf("%w (and incrementally: %w)", err, before)
	}
	return in, nil
}

// ask sends one question and reads its reply, which may be many messages.
func (p *primary) ask(conn net.Conn, zone string, qtype uint16, have *dns.SOA) (*incoming, error) {
	msg, c, err := p.request(zone, qtype, have)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(readTimeout)); err != nil {
		return nil, err
	}
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...)); err != nil {
		return nil, err
	}
	r := &reader{zone: zone, qtype: qtype, id: binary.BigEndian.Uint16(msg), chain: c}
	if have != nil {
		r.in.have, r.in.partial = have.Serial, qtype == dns.TypeIXFR
	}
	buf := make([]byte, 2+dns.MaxMsgSize)
	for {
		if err := conn.SetReadDeadline(time.Now().Add(readTimeout)); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(conn, buf[:2]); err != nil {
			return nil, err
		}
		body := buf[2 : 2+int(binary.BigEndian.Uint16(buf))]
		if _, err := io.ReadFull(conn, body); err != nil {
			return nil, err
		}
		if done, err := r.message(body); done || err != nil {
			return &r.in, err
		}
	}
}

// request makes a question, with what is held in the authority section of an
// incremental one (RFC 1995 section 3).
func (p *primary) request(zone string, qtype uint16, have *dns.SOA) ([]byte, *chain, error) {
	m := new(dns.Msg)
	m.SetQuestion(zone, qtype)
	m.Id, m.RecursionDesired = uint16(rand.Uint32()), false
	if qtype == dns.TypeIXFR {
		m.Ns = []dns.RR{dns.Copy(have)}
	}
	msg, err := m.Pack()
	if err != nil || p.key == nil {
		return msg, nil, err
	}
	c := &chain{key: p.key, now: p.now}
	return c.sign(msg), c, nil
}

// reader takes the messages of a reply.
type reader struct {
	zone  string
	qtype uint16
	id    uint16
	chain *chain
	in    incoming
}

// message takes one message; done tells that it was the last. What is not signed
// as asked, or not what was asked for, is an error: over TCP nobody else sends.
func (r *reader) message(raw []byte) (done bool, err error) {
	if len(raw) < headerLen || raw[2]&0x80 == 0 || binary.BigEndian.Uint16(raw) != r.id {
		return false, errors.New("what came is not a reply to what was asked")
	}
	body, err := r.chain.receive(raw, false)
	rcode := rcodeOf(raw)
	switch {
	case rcode != dns.RcodeSuccess && err != nil:
		return false, fmt.Errorf("the primary says %s (%w)", rcodeName(rcode), err)
	case rcode != dns.RcodeSuccess:
		return false, fmt.Errorf("the primary says %s", rcodeName(rcode))
	case err != nil:
		return false, err
	}
	var m dns.Msg
	if err := m.Unpack(body); err != nil {
		return false, err
	}
	if len(m.Question) > 0 && (dns.CanonicalName(m.Question[0].Name) != r.zone || m.Question[0].Qtype != r.qtype) {
		return false, errors.New("the reply is to another question")
	}
	if r.qtype == dns.TypeSOA {
		return r.soa(&m)
	}
	for _, rr := range m.Answer {
		if err := r.in.add(rr); err != nil {
			return false, err
		}
	}
	if r.in.soa == nil || dns.CanonicalName(r.in.soa.Hdr.Name) != r.zone {
		return false, errors.New("the reply has no SOA of the zone")
	}
	if r.in.single() && r.in.partial && !later(r.in.soa.Serial, r.in.have) {
		return r.last()
	}
	if r.in.done {
		return r.last()
	}
	return false, nil
}

// last ends a reply: its last message must be signed (RFC 8945 section 5.3.1).
func (r *reader) last() (bool, error) {
	if r.chain != nil && r.chain.skipped > 0 {
		return false, errors.New("the last message is not signed")
	}
	return true, nil
}

// soa takes the reply to the question for the SOA.
func (r *reader) soa(m *dns.Msg) (bool, error) {
	for _, rr := range m.Answer {
		if s, ok := rr.(*dns.SOA); ok && dns.CanonicalName(s.Hdr.Name) == r.zone {
			r.in.soa, r.in.count = s, 1
			return r.last()
		}
	}
	return false, errors.New("the primary does not serve the zone: no SOA in its answer")
}
