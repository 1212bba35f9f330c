package main

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"sync"

	"github.com/quic-go/quic-go"
)

// streams is a connection on which each query has a stream of its own. Its exchange is
// safe for concurrent use and waits for a stream when there are too many.
type streams struct {
	exchange func(ctx context.Context, query []byte) (reply []byte, err error)
	close    func()
}

// overHTTPS asks over one connection of HTTP/2 (RFC 8484).
func (l *lane) overHTTPS(ctx context.Context, server netip.AddrPort, path string) error {
	limit, cancel := context.WithTimeout(ctx, l.patience)
	defer cancel()
	c, err := dohTransport().NewClientConn(limit, "https", server.String())
	if err != nil {
		return err
	}
	url := "https://" + server.String() + path
	return l.overStreams(ctx, streams{
		exchange: func(ctx context.Context, query []byte) ([]byte, error) { return overHTTP(ctx, c, url, query) },
		close:    func() { c.Close() },
	})
}

// overQUIC asks over one connection of QUIC (RFC 9250).
func (l *lane) overQUIC(ctx context.Context, server netip.AddrPort) error {
	limit, cancel := context.WithTimeout(ctx, l.patience)
	defer cancel()
	quietQUIC()
	c, err := quic.DialAddr(limit, server.String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"doq"}}, nil)
	if err != nil {
		return err
	}
	return l.overStreams(ctx, streams{
		exchange: func(ctx context.Context, query []byte) ([]byte, error) {
			b, err := overStream(ctx, c, query)
			if err == nil && (len(b) < 2 || int(binary.BigEndian.Uint16(b)) != len(b)-2) {
				err = errors.New("a stream with something else than one reply")
			}
			if err != nil {
				return nil, err
			}
			return b[2:], nil
		},
		close: func() { c.CloseWithError(0, "") }, // DOQ_NO_ERROR
	})
}

// overStreams asks over one connection until all is asked and answered or lost, or an
// exchange fails for another reason than time.
func (l *lane) overStreams(ctx context.Context, c streams) error {
	ctx, cancel := context.WithCancel(ctx)
	var mu sync.Mutex
	var asking sync.WaitGroup
	var why error
	heard, ended := make(chan struct{}, 1), make(chan struct{})
	fail := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if why == nil && ctx.Err() == nil {
			why = err
			close(ended)
		}
	}
	err := l.write(ctx, &mu, heard, ended, func(out []byte) error {
		for len(out) > 0 {
			n := int(binary.BigEndian.Uint16(out)) + 2
			query := append([]byte(nil), out[2:n]...)
			out = out[n:]
			asking.Go(func() {
				if err := l.exchange(ctx, c, query, &mu); err != nil {
					fail(err)
				}
				wake(heard)
			})
		}
		return nil
	})
	cancel()
	c.close()
	asking.Wait()
	return errors.Join(err, why)
}

// exchange asks one query and takes in the reply. A reply that does not come in time is
// no error: the lane counts it as lost.
func (l *lane) exchange(ctx context.Context, c streams, query []byte, mu *sync.Mutex) error {
	ctx, cancel := context.WithTimeout(ctx, l.patience)
	defer cancel()
	id := binary.BigEndian.Uint16(query)
	binary.BigEndian.PutUint16(query, 0) // RFC 8484 section 4.1, RFC 9250 section 4.2.1
	reply, err := c.exchange(ctx, query)
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	if err != nil {
		return err
	}
	mu.Lock()
	defer mu.Unlock()
	if len(reply) < 2 || binary.BigEndian.Uint16(reply) != 0 {
		l.tally.strays++
		return nil
	}
	binary.BigEndian.PutUint16(reply, id)
	l.heard(reply, l.now())
	return nil
}
