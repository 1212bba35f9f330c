package health

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"net"
	"slices"
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

	mu      sync.Mutex // guards what follows
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

// End takes a vote of this machine off the stream. Readers get it once more,
// newer and held, as the ballot made it: of their own site's votes they forget
// none by themselves.
func (s *Stream) End(v placement.Vote) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.votes, heardKey{v.Vantage, v.Object})
	s.send(v)
}

// Drop takes a vote heard from another site off the stream; readers forget it by
// themselves, since it is no longer repeated.
func (s *Stream) Drop(object placement.ClusterID, vantage string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.votes, heardKey{vantage, object})
}

// send hands a vote to every client; one whose queue is full is closed. It never
// blocks: the caller is the loop which also judges beats. mu is held.
func (s *Stream) send(v placement.Vote) {
	for c := range s.clients {
		select {
		case c <- v:
		default:
			delete(s.clients, c)
			close(c)
		}
	}
}

// Run serves clients until the context ends. A socket left behind by a process
// that was killed is replaced.
func (s *Stream) Run(ctx context.Context) error {
	return serveUnix(ctx, s.path, "vote stream", s.log, untilGone(ctx, s.serve))
}

const (
	streamQueue  = 1024            // votes that a client may be behind
	writeTimeout = 5 * time.Second // for one vote; a client that reads takes them at once
	retryAccept  = time.Second
)

// serve writes votes to a client until it goes, is too slow, or the context ends.
func (s *Stream) serve(ctx context.Context, conn net.Conn) {
	lines, present := s.join()
	defer s.leave(lines)
	enc := json.NewEncoder(conn)
	for _, v := range present {
		conn.SetWriteDeadline(time.Now().Add(writeTimeout))
		if enc.Encode(v) != nil {
			return
		}
	}
	for {
		select {
		case v, ok := <-lines:
			if !ok {
				s.log.Warn("a slow reader of the vote stream was dropped")
				return
			}
			conn.SetWriteDeadline(time.Now().Add(writeTimeout))
			if enc.Encode(v) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// join adds a client and returns what it gets first: the whole present set, in
// order of object, taken in the same moment, so that no vote falls in between.
func (s *Stream) join() (lines chan placement.Vote, present []placement.Vote) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range slices.SortedFunc(maps.Keys(s.votes), heardKey.compare) {
		present = append(present, s.votes[key])
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
