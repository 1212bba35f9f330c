package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

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
