package bgp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"rhumb/placement"
)

// Memory keeps on disk what a node announces by the guard's leave, so that a restart is
// no way round it: a prefix which the fleet does not name any more, and nobody has
// retired, is held by the next process as it was by this one. A clean exit withdraws the
// routes and forgets nothing, since it was nobody's will that they be silent.
//
// The file is written by a goroutine of its own, for a disk that hangs must not stop the
// loop: routers would see its BFD fall silent. What is lost is then the last moment.
type Memory struct {
	path string
	site string // what another site announced is no concern of this one
	held []held // read at the start
	last []byte // newest handed to the writer; of the loop
	due  chan []byte
	done chan struct{}
}

// held is one prefix: with its attributes, lest one of reach local come back without
// NO_EXPORT, and with what was served in it.
type held struct {
	Prefix    placement.Prefix `json:"prefix"`
	Addresses []netip.Addr     `json:"addresses,omitempty"`
}

// memoryFile is what lies on disk.
type memoryFile struct {
	Site string `json:"site"`
	Held []held `json:"held"`
}

// OpenMemory reads what this node announced for the site. An unreadable file is told, and
// counts as none; one of another site counts as none as well.
func OpenMemory(path, site string) (*Memory, error) {
	m := &Memory{path: path, site: site, due: make(chan []byte, 1), done: make(chan struct{})}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	var f memoryFile
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err != nil {
		return m, fmt.Errorf("bgp: prefixes held before: %w", err)
	}
	if f.Site == site {
		m.held, m.last = f.Held, b
	}
	return m, nil
}

// keep hands the newest state to the writer, if it is news. It never blocks.
func (m *Memory) keep(list []held) error {
	b, err := json.Marshal(memoryFile{m.site, list})
	if err != nil || bytes.Equal(b, m.last) {
		return err
	}
	m.last = b
	select {
	case <-m.due: // an older one, which nobody has taken yet
	default:
	}
	m.due <- b // the loop alone sends, so there is room
	return nil
}

// rewriteAfter is how soon a write that failed is tried again.
const rewriteAfter = 10 * time.Second

// write is the writer, until the channel is closed. A disk that refuses is told once.
func (m *Memory) write(log *slog.Logger) {
	defer close(m.done)
	var failed []byte
	for {
		var again <-chan time.Time
		if failed != nil {
			again = time.After(rewriteAfter)
		}
		b, more := failed, true
		select {
		case b, more = <-m.due:
		case <-again:
		}
		if !more {
			return
		}
		err := replaceFile(m.path, b)
		if err != nil && failed == nil {
			log.Error("bgp: a restart would not know what is announced", "err", err)
		}
		if failed = nil; err != nil {
			failed = b
		}
	}
}

// end lets the writer finish, within limits: a disk that hangs must not keep the process.
func (m *Memory) end() {
	close(m.due)
	select {
	case <-m.done:
	case <-time.After(exitDeadline):
	}
}

// replaceFile writes a file whole or not at all.
func replaceFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".held-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// recall makes routes of what the process before this one left. The first snapshot says
// which of them are wanted; the guard judges the silence of the others.
func (s *Speaker) recall(now time.Time) {
	if s.cfg.Memory == nil || s.cfg.Mode == placement.Observe {
		return
	}
	for _, h := range s.cfg.Memory.held {
		r := s.route(h.Prefix.Prefix, now)
		r.prefix, r.served, r.held, r.mode = h.Prefix, h.Addresses, true, placement.Act
	}
}

// memorize hands what is held to the memory, if anything was changed.
func (s *Speaker) memorize() {
	if s.cfg.Memory == nil || !s.loop.changed {
		return
	}
	s.loop.changed = false
	list := []held{}
	for _, r := range s.loop.routes {
		if r.held {
			list = append(list, held{r.prefix, r.served})
		}
	}
	s.failed("memory", s.cfg.Memory.keep(list))
}

// hold notes that a route is announced, or may be silent, by the guard's leave.
func (s *Speaker) hold(r *route, on bool) {
	if r.mode == placement.Act && r.held != on {
		r.held, s.loop.changed = on, true
	}
}

// served returns what is served within a prefix: what the fleet says or, of a prefix
// which it has forgotten, what it said last.
func (s *Speaker) served(r *route) []netip.Addr {
	if list := s.addresses(r); len(list) > 0 || !r.gone {
		return list
	}
	return r.served
}
