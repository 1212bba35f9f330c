package node

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"time"

	"rhumb/placement"
)

// Stream reads the votes which the health role of this machine offers on a unix
// socket: one JSON vote a line, its own and those heard on peers' beats. It
// reconnects for as long as it runs.
type Stream struct {
	path string
	site string
	log  *slog.Logger
}

const (
	redial = 500 * time.Millisecond
	// hearsay is how long another site's vote counts ahead of the store: long
	// enough for the store to catch up, and no longer, since a dead site's last
	// words must not outlive its lease.
	hearsay = 10 * time.Second
	// voteLine bounds a line; a vote is some 300 bytes.
	voteLine = 64 << 10
)

// NewStream returns a reader of the socket at path, for a node of a site.
func NewStream(path, site string, log *slog.Logger) *Stream {
	return &Stream{path: path, site: site, log: log}
}

// Run sends the votes now heard to out after every change, until ctx ends. When
// the socket goes nothing is heard any more.
func (s *Stream) Run(ctx context.Context, out chan<- []placement.Vote) error {
	connected := false
	for ctx.Err() == nil {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", s.path)
		if err == nil {
			connected = true
			s.log.Info("node: hears the health role")
			s.listen(ctx, conn, out)
			send(ctx, out, nil)
		} else if connected {
			connected = false
			s.log.Warn("node: the health role is not there", "err", err)
		}
		pause(ctx, redial)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// listen follows one connection to its end.
func (s *Stream) listen(ctx context.Context, conn net.Conn, out chan<- []placement.Vote) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	lines := make(chan placement.Vote)
	go func() {
		defer close(lines)
		s.read(ctx, conn, lines)
	}()
	heard := make(hearing)
	sweep := time.NewTicker(time.Second)
	defer sweep.Stop()
	for {
		changed := false
		select {
		case v, ok := <-lines:
			if !ok {
				return
			}
			changed = heard.add(v, time.Now())
		case now := <-sweep.C:
			changed = heard.forget(s.site, now)
		}
		if changed {
			send(ctx, out, heard.votes())
		}
	}
}

// read parses lines until the connection ends. A line that is no vote is
// dropped: the others still count.
func (s *Stream) read(ctx context.Context, conn net.Conn, to chan<- placement.Vote) {
	sc := bufio.NewScanner(conn)
	sc.Buffer(nil, voteLine)
	for sc.Scan() {
		v, err := parseVote(sc.Bytes())
		if err != nil {
			s.log.Warn("node: a line on the health socket is no vote", "err", err)
			continue
		}
		select {
		case to <- v:
		case <-ctx.Done():
			return
		}
	}
}

// parseVote reads a line; a vote must say who looked, from where, at what.
func parseVote(line []byte) (placement.Vote, error) {
	var v placement.Vote
	err := json.Unmarshal(line, &v)
	if err == nil && (v.Object.Site == "" || v.Object.Name == "" || v.Vantage == "" || v.Site == "") {
		err = errors.New("object, vantage and site must be there")
	}
	return v, err
}

func send(ctx context.Context, out chan<- []placement.Vote, votes []placement.Vote) {
	select {
	case out <- votes:
	case <-ctx.Done():
	}
}
