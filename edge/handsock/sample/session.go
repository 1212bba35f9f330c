package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Bounds of a session.
const (
	lineMax   = 40 // octets of a request
	digestLen = 8
	block     = 16 << 10
)

// state is all that is known of a session: what a record holds.
type state struct {
	Line     []byte // of the request, while it is not whole
	Asked    bool   // the request is whole; what follows counts from there
	Seed     uint64
	Length   uint64
	Upload   uint64
	Sent     uint64 // octets of the answer that the kernel has taken
	Received uint64 // octets behind the request
	Digest   uint64 // of these
}

func (s *state) append(b []byte) []byte {
	asked := byte(0)
	if s.Asked {
		asked = 1
	}
	b = append(b, asked)
	for _, v := range [...]uint64{s.Seed, s.Length, s.Upload, s.Sent, s.Received, s.Digest} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return append(b, s.Line...)
}

func readState(b []byte) (state, error) {
	if len(b) < 49 || len(b) > 49+lineMax {
		return state{}, fmt.Errorf("record of %d octets", len(b))
	}
	s := state{Asked: b[0] == 1, Line: bytes.Clone(b[49:])}
	for i, into := range [...]*uint64{&s.Seed, &s.Length, &s.Upload, &s.Sent, &s.Received, &s.Digest} {
		*into = binary.BigEndian.Uint64(b[1+8*i:])
	}
	return s, nil
}

// take reads what the client sent.
func (s *state) take(b []byte) error {
	for i, c := range b {
		if s.Asked {
			s.digest(b[i:])
			return nil
		}
		if s.Line = append(s.Line, c); len(s.Line) > lineMax {
			return errors.New("request too long")
		}
		if c != '\n' {
			continue
		}
		if _, err := fmt.Sscanf(string(s.Line), "%d %d %d\n", &s.Seed, &s.Length, &s.Upload); err != nil {
			return err
		}
		s.Asked, s.Line, s.Digest = true, nil, 0xcbf29ce484222325
	}
	return nil
}

// digest goes on with FNV-1a.
func (s *state) digest(b []byte) {
	for _, c := range b {
		s.Digest = (s.Digest ^ uint64(c)) * 0x100000001b3
	}
	s.Received += uint64(len(b))
}

// answer fills b with the answer from Sent on and returns how much there is at present.
func (s *state) answer(b []byte) int {
	n := 0
	for n < len(b) && s.Sent+uint64(n) < s.Length {
		b[n] = octet(s.Seed, s.Sent+uint64(n))
		n++
	}
	if at := s.Sent + uint64(n); at >= s.Length && s.Received >= s.Upload {
		var d [digestLen]byte
		binary.BigEndian.PutUint64(d[:], s.Digest)
		n += copy(b[n:], d[min(at-s.Length, digestLen):])
	}
	return n
}

// done reports whether everything was answered.
func (s *state) done() bool { return s.Asked && s.Sent >= s.Length+digestLen }

// octet draws the ith octet of a seed's stream (splitmix64).
func octet(seed, i uint64) byte {
	x := seed + (i/8+1)*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return byte((x ^ x>>31) >> (8 * (i % 8)))
}

// session is one client's. Two goroutines serve it; at rest there is none.
type session struct {
	conn  *net.TCPConn
	ended func() // called once, when it has ended here
	wg    sync.WaitGroup
	once  sync.Once

	mu    sync.Mutex
	state state
	rests bool
	news  chan struct{} // closed when there is something new for the writer
}

// resume serves it from its state on.
func (s *session) resume() {
	s.mu.Lock()
	s.rests, s.news = false, make(chan struct{})
	s.mu.Unlock()
	_ = s.conn.SetDeadline(time.Time{}) // of a connection that ended, the next read tells
	s.wg.Go(s.read)
	s.wg.Go(s.write)
}

// pause brings both goroutines to an end between two octets. It reports false if the
// session is over.
func (s *session) pause() bool {
	s.mu.Lock()
	s.rests = true
	s.tell()
	s.mu.Unlock()
	err := s.conn.SetDeadline(time.Unix(1, 0))
	s.wg.Wait()
	return err == nil
}

// close ends it.
func (s *session) close() {
	s.once.Do(func() {
		s.conn.Close()
		s.ended()
	})
}

// tell wakes the writer. The caller holds s.mu.
func (s *session) tell() {
	close(s.news)
	s.news = make(chan struct{})
}

// resting reports whether an error is that of a pause.
func (s *session) resting(err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rests && errors.Is(err, os.ErrDeadlineExceeded)
}

func (s *session) read() {
	buf := make([]byte, block)
	for {
		n, err := s.conn.Read(buf)
		s.mu.Lock()
		bad := s.state.take(buf[:n])
		s.tell()
		s.mu.Unlock()
		switch {
		case bad != nil:
			s.close()
			return
		case s.resting(err), errors.Is(err, io.EOF):
			return // a client that sends no more may still read
		case err != nil:
			s.close()
			return
		}
	}
}

func (s *session) write() {
	buf := make([]byte, block)
	for {
		s.mu.Lock()
		n, done, rests, news := 0, s.state.done(), s.rests, s.news
		if s.state.Asked {
			n = s.state.answer(buf)
		}
		s.mu.Unlock()
		switch {
		case rests:
			return
		case done:
			s.close()
			return
		case n == 0:
			<-news
			continue
		}
		n, err := s.conn.Write(buf[:n])
		s.mu.Lock()
		s.state.Sent += uint64(n)
		s.mu.Unlock()
		if s.resting(err) {
			return
		}
		if err != nil {
			s.close()
			return
		}
	}
}
