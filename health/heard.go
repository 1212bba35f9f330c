package health

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"rhumb/health/detect"
	"rhumb/placement"
)

// HearingStream tells the other units of this machine by which paths this site hears the
// others, over a unix socket: one JSON list a line, the whole each time. It is what
// the detector sees and no vote: paths break for a second many times a day, and only
// what can be taken back at once may follow that.
type HearingStream struct {
	path string
	log  *slog.Logger

	mu      sync.Mutex // guards what follows
	last    []placement.Hearing
	clients map[chan []placement.Hearing]struct{}
}

// NewHearingStream returns a stream which will listen at path.
func NewHearingStream(path string, log *slog.Logger) *HearingStream {
	return &HearingStream{path: path, log: log, clients: make(map[chan []placement.Hearing]struct{})}
}

// Tell puts a new list on the stream. It never blocks: a client that is behind gets the
// newest list and not those between.
func (s *HearingStream) Tell(list []placement.Hearing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = list
	for c := range s.clients {
		select {
		case <-c:
		default:
		}
		c <- list // room for one, and nobody else writes
	}
}

// Run serves clients until the context ends. A socket left behind is replaced.
func (s *HearingStream) Run(ctx context.Context) error {
	return serveUnix(ctx, s.path, "hearing stream", s.log, untilGone(ctx, s.serve))
}

// serve writes lists to a client until it goes or the context ends.
func (s *HearingStream) serve(ctx context.Context, conn net.Conn) {
	lists := s.join()
	defer s.leave(lists)
	enc := json.NewEncoder(conn)
	for {
		select {
		case list := <-lists:
			conn.SetWriteDeadline(time.Now().Add(writeTimeout))
			if enc.Encode(list) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// join adds a client, which gets the present list at once.
func (s *HearingStream) join() chan []placement.Hearing {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := make(chan []placement.Hearing, 1)
	c <- s.last
	s.clients[c] = struct{}{}
	return c
}

func (s *HearingStream) leave(c chan []placement.Hearing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.clients, c)
}

// maxHearing bounds a line: some 200 sites with a dozen relays each fit many times.
const maxHearing = 1 << 20

// Hear reads a stream until it or the context ends, and hands each list on. It
// returns an error if there is no stream, and nil when one that was there has ended.
func Hear(ctx context.Context, path string, to func([]placement.Hearing)) error {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("health: hearing: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, maxHearing)
	for lines.Scan() {
		var list []placement.Hearing
		if err := json.Unmarshal(lines.Bytes(), &list); err != nil {
			return fmt.Errorf("health: hearing: %w", err)
		}
		to(list)
	}
	return nil
}

// hears hands on what the detector hears of everybody, with the names of sites.
func (a *Agent) hears(list []detect.Hearing) {
	if a.cfg.Hearing == nil {
		return
	}
	out := make([]placement.Hearing, 0, len(list))
	for _, r := range list {
		if site, ok := a.sites[r.Node]; ok {
			out = append(out, placement.Hearing{Site: site, State: stateOf(r.State), By: a.named(r.By), Silent: a.named(r.Silent), Suspected: r.Suspected})
		}
	}
	a.cfg.Hearing(out)
}

// named are the sites of nodes, without those that are no longer peers.
func (a *Agent) named(nodes []uint16) []string {
	var out []string
	for _, n := range nodes {
		if site, ok := a.sites[n]; ok {
			out = append(out, site)
		}
	}
	return out
}

// stateOf is the state by the words of the fleet; who said goodbye is neither up nor
// down.
func stateOf(s detect.State) placement.State {
	switch s {
	case detect.Up:
		return placement.Up
	case detect.Path:
		return placement.Path
	case detect.Down:
		return placement.Down
	}
	return placement.Unknown
}
