package main

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/miekg/dns"
	"github.com/quic-go/quic-go"
)

// queryBlock is what lengths of padded queries are multiples of (RFC 8467 section 4.1).
const queryBlock = 128

// askQUIC asks over QUIC (RFC 9250), and trusts whoever answers, as over TLS.
func (q *question) askQUIC(ctx context.Context) (*dns.Msg, time.Duration, error) {
	m := q.message()
	m.Id = 0 // section 4.2.1
	if err := padQuery(m); err != nil {
		return nil, 0, err
	}
	query, err := m.Pack()
	if err != nil {
		return nil, 0, err
	}
	quietQUIC()
	start := time.Now()
	c, err := quic.DialAddr(ctx, q.server, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"doq"}}, nil)
	if err != nil {
		return nil, 0, err
	}
	defer c.CloseWithError(0, "") // DOQ_NO_ERROR
	b, err := overStream(ctx, c, query)
	if err != nil {
		return nil, 0, err
	}
	reply, err := onlyMessage(b)
	return reply, time.Since(start), err
}

// padQuery brings a query up to whole blocks (RFC 9250 section 5.4).
func padQuery(m *dns.Msg) error {
	opt := m.IsEdns0()
	p := &dns.EDNS0_PADDING{}
	for i, o := range opt.Option {
		if o.Option() == dns.EDNS0PADDING {
			opt.Option = append(opt.Option[:i], opt.Option[i+1:]...)
			break
		}
	}
	opt.Option = append(opt.Option, p)
	b, err := m.Pack()
	p.Padding = make([]byte, (queryBlock-len(b)%queryBlock)%queryBlock)
	return err
}

// overStream sends a query on a stream of its own and reads that to its end.
func overStream(ctx context.Context, c *quic.Conn, query []byte) ([]byte, error) {
	st, err := c.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		st.SetDeadline(deadline)
	}
	if _, err := st.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)); err != nil {
		return nil, err
	}
	if err := st.Close(); err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(st, 2+dns.MaxMsgSize+1))
}

// onlyMessage takes the one reply out of what came on a stream (RFC 9250 section 4.2).
func onlyMessage(b []byte) (*dns.Msg, error) {
	if len(b) < 2 {
		return nil, errors.New("the stream ends without a reply")
	}
	if n := int(binary.BigEndian.Uint16(b)); n != len(b)-2 {
		return nil, fmt.Errorf("%d octets for a reply of %d", len(b)-2, n)
	}
	m := new(dns.Msg)
	if err := m.Unpack(b[2:]); err != nil {
		return nil, err
	}
	if m.Id != 0 {
		return nil, fmt.Errorf("a reply with the message ID %d, which over QUIC is 0", m.Id)
	}
	return m, nil
}
