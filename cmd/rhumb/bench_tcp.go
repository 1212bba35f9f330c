package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// errConnClosed tells that the server has closed a connection, as it may at any
// time (RFC 7766 section 6.2.3).
var errConnClosed = errors.New("the server closed the connection")

// run asks over one connection after another. What is open when the server closes one is
// lost; one that it closes without an answer is an error.
func (l *lane) run(ctx context.Context, connection func(context.Context) error) error {
	for {
		before := l.tally.answered.Load()
		err := connection(ctx)
		if !errors.Is(err, errConnClosed) || l.tally.answered.Load() == before {
			return err
		}
		l.tally.lost += l.open.drop()
	}
}

// overTCP asks over one connection, many queries in it at once (RFC 7766 section
// 6.2.1.1), in TLS if there is a configuration. The lane is used by its writer and its
// reader in turn.
func (l *lane) overTCP(ctx context.Context, server netip.AddrPort, secure *tls.Config) error {
	dialer := interface {
		DialContext(context.Context, string, string) (net.Conn, error)
	}(&net.Dialer{Timeout: l.patience})
	if secure != nil {
		dialer = &tls.Dialer{NetDialer: &net.Dialer{Timeout: l.patience}, Config: secure}
	}
	conn, err := dialer.DialContext(ctx, "tcp", server.String())
	if err != nil {
		return err
	}
	var mu sync.Mutex
	heard, ended := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(ended)
		l.readTCP(conn, &mu, heard)
	}()
	err = l.write(ctx, &mu, heard, ended, func(out []byte) error {
		conn.SetWriteDeadline(time.Now().Add(l.patience))
		_, err := conn.Write(out)
		return err
	})
	conn.Close()
	<-ended
	return err
}

// write hands queries to send, each behind its length as over TCP, until all is asked and
// answered or lost, or the connection has ended.
func (l *lane) write(ctx context.Context, mu *sync.Mutex, heard, ended <-chan struct{}, send func(out []byte) error) error {
	out := make([]byte, 0, benchBatch*2048)
	for {
		mu.Lock()
		now := l.now()
		out = out[:0]
		for range min(l.pace.ready(now, l.open.count), benchBatch) {
			at := len(out)
			out = out[:at+2+l.ask(out[at+2:at+2048], now)]
			binary.BigEndian.PutUint16(out[at:], uint16(len(out)-at-2))
		}
		done, wait := l.tidy(ctx, now), l.pace.wait(now)
		mu.Unlock()
		if done {
			return nil
		}
		if len(out) > 0 {
			if err := send(out); err != nil {
				return errors.Join(errConnClosed, err)
			}
			continue
		}
		select {
		case <-heard:
		case <-time.After(wait):
		case <-ended:
			return errConnClosed
		}
	}
}

// readTCP takes in replies until the connection ends.
func (l *lane) readTCP(conn net.Conn, mu *sync.Mutex, heard chan<- struct{}) {
	in := bufio.NewReaderSize(conn, 1<<16)
	var length [2]byte
	msg := make([]byte, 1<<16)
	for {
		if _, err := io.ReadFull(in, length[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(in, msg[:n]); err != nil {
			return
		}
		mu.Lock()
		l.heard(msg[:n], l.now())
		mu.Unlock()
		wake(heard)
	}
}

// wake lets the writer look again.
func wake(heard chan<- struct{}) {
	select {
	case heard <- struct{}{}:
	default:
	}
}
