package health

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"rhumb/placement"
)

// Stream tells the other units of this machine the votes which the health role
// casts and hears, over a unix socket, so that they act together when the store
// is away: one JSON vote a line. A new client gets the whole present set first;
// a vote heard from another site is repeated for as long as it stands, so that
// a reader forgets what is not. Slow clients are dropped: they connect again.
type Stream struct {
	path string
	log  *slog.Logger

	mu      sync.Mutex
	votes   map[heardKey]placement.Vote
	clients map[chan placement.Vote]struct{}
}

// NewStream returns a stream which will listen at path.
func NewStream(path string, log *slog.Logger) *Stream {
	return &Stream{path: path, log: log, votes: make(map[heardKey]placement.Vote), clients: make(map[chan placement.Vote]struct{})}
}

// Vote puts a vote on the stream.
func (s *Stream) Vote(v placement.Vote) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.votes[heardKey{v.Vantage, v.Object}] = v
	s.send(v)
}

// Drop takes a vote off the stream; readers forget it by themselves.
func (s *Stream) Drop(object placement.ClusterID, vantage string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.votes, heardKey{vantage, object})
}

// send hands a line to every client; one whose queue is full is closed.
func (s *Stream) send(l placement.Vote) {
	for c := range s.clients {
		select {
		case c <- l:
		default:
			delete(s.clients, c)
			close(c)
		}
	}
}

// Run serves clients until the context ends.
func (s *Stream) Run(ctx context.Context) error {
	if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("health: vote stream %s: %w", s.path, err)
	}
	l, err := net.Listen("unix", s.path)
	if err != nil {
		return fmt.Errorf("health: vote stream %s: %w", s.path, err)
	}
	if err := os.Chmod(s.path, 0o660); err != nil {
		return fmt.Errorf("health: vote stream %s: %w", s.path, err)
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("health: vote stream %s: %w", s.path, err)
		}
		wg.Go(func() { s.serve(ctx, conn) })
	}
}

// streamQueue is how many lines a client may be behind.
const streamQueue = 1024

func (s *Stream) serve(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	lines, present := s.join()
	defer s.leave(lines)
	go func() { // a client says nothing; its end is seen by reading
		defer cancel()
		var one [1]byte
		conn.Read(one[:])
	}()
	enc := json.NewEncoder(conn)
	for _, l := range present {
		if enc.Encode(l) != nil {
			return
		}
	}
	for {
		select {
		case l, ok := <-lines:
			if !ok {
				s.log.Warn("a slow reader of the vote stream was dropped")
				return
			}
			conn.SetWriteDeadline(time.Now().Add(5 * time.Second))
			if enc.Encode(l) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// join adds a client and returns what it gets first.
func (s *Stream) join() (lines chan placement.Vote, present []placement.Vote) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.votes {
		present = append(present, v)
	}
	lines = make(chan placement.Vote, streamQueue)
	s.clients[lines] = struct{}{}
	return lines, present
}

func (s *Stream) leave(lines chan placement.Vote) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.clients, lines)
}
