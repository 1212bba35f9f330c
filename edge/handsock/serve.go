package handsock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
)

// Handler is what a server does with its connections. All calls come from one
// goroutine and hold up all hand-offs while they last: an agent waits 200 ms.
type Handler interface {
	// Give stops reads and writes of a connection and returns it with what the taker
	// needs to know. It rests until Resume or Leave. After an error, which becomes the
	// reason, it goes on here.
	Give(k Key) (conn syscall.Conn, record []byte, err error)
	// Resume goes on with a connection that was to be given.
	Resume(k Key)
	// Leave closes a connection that was given away. It is silent: nobody hears that.
	Leave(k Key)
	// Take makes ready what a connection with this record needs; an error refuses it.
	Take(k Key, record []byte) error
	// Start serves it; the connection is the Handler's from here on.
	Start(k Key, c *net.TCPConn)
	// Discard forgets what Take made.
	Discard(k Key)
}

// Times of a server.
const (
	// dialPause is between two attempts to reach an agent.
	dialPause = 200 * time.Millisecond
	// AdriftLimit is how long a connection that an agent left silent waits for the
	// next one to wake it, or to tell who has it.
	AdriftLimit = time.Minute
	// UnsureLimit is how long a connection that an agent left before commit waits for the
	// next one. It may speak already, with nobody behind it.
	UnsureLimit = 10 * time.Second
)

// ErrRefused: the agent wants nothing to do with this server.
var ErrRefused = errors.New("handsock: refused by the agent")

// Serve speaks for a service with the agent at path until the context ends. While
// there is no agent it tries again; only a refusal ends it. At the end of the context
// hand-offs under way are brought to theirs first.
func Serve(ctx context.Context, path, service string, h Handler) error {
	s := &server{service: service, h: h, open: map[uint64]*handed{}}
	for ctx.Err() == nil {
		c, err := Dial(path)
		if err == nil {
			err = s.talk(ctx, c)
		}
		if errors.Is(err, ErrRefused) {
			s.expire(time.Time{})
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(dialPause):
		}
		s.expire(time.Now())
	}
	s.expire(time.Time{})
	return nil
}

// server is the state behind Serve. One goroutine.
type server struct {
	service string
	h       Handler
	conn    *Conn
	open    map[uint64]*handed
}

// handed is one hand-off.
type handed struct {
	key    Key
	phase  Phase
	file   *os.File     // of what was taken; nil for a giver
	conn   syscall.Conn // of what was given
	ticket string       // of its commit
	since  time.Time    // in limbo
}

// until is when a hand-off in limbo is given up.
func (x *handed) until() time.Time {
	if x.phase == Unsure {
		return x.since.Add(UnsureLimit)
	}
	return x.since.Add(AdriftLimit)
}

// talk serves one connection to an agent.
func (s *server) talk(ctx context.Context, c *Conn) error {
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.Finish() })
	defer stop()
	if err := s.greet(c); err != nil {
		return err
	}
	s.conn = c
	for id, x := range s.open {
		s.ask(id, x)
	}
	for {
		m, f, err := s.receive(c)
		if errors.Is(err, ErrDescriptor) {
			s.say(Message{Type: Abort, ID: m.ID, Text: ErrDescriptor.Error()})
			continue
		}
		if err != nil {
			for id := range s.open {
				s.hear(id, Broken)
			}
			return err
		}
		s.handle(m, f)
	}
}

// ask asks a new agent what the one before it left open; a dead agent shows in Receive.
// Agents that know of no such questions hear nothing in the first and the last.
func (s *server) ask(id uint64, x *handed) {
	switch x.phase {
	case Doubtful:
		s.say(Message{Type: Commit, ID: id, Text: x.ticket})
	case Adrift:
		_ = s.conn.Send(Message{Type: Abort, ID: id}, x.conn)
	case Unsure:
		s.say(Message{Type: Ready, ID: id})
	}
}

// receive waits for a message, and gives up meanwhile what no agent answers for.
func (s *server) receive(c *Conn) (Message, *os.File, error) {
	for {
		var until time.Time
		for _, x := range s.open {
			if at := x.until(); x.phase.limbo() && (until.IsZero() || at.Before(until)) {
				until = at
			}
		}
		_ = c.c.SetReadDeadline(until) // a closed connection fails the read
		m, f, err := c.Receive()
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return m, f, err
		}
		s.expire(time.Now())
	}
}

func (s *server) greet(c *Conn) error {
	if err := c.Send(Message{Type: Ready, Text: s.service}, nil); err != nil {
		return err
	}
	m, _, err := c.Receive()
	switch {
	case err != nil:
		return err
	case m.Type == Abort && m.ID == 0:
		return fmt.Errorf("%w: %s", ErrRefused, m.Text)
	case m.Type != Ready || m.ID != 0:
		return fmt.Errorf("%w: greeted by %s", ErrRefused, m.Type)
	}
	return nil
}

// say sends; a dead agent shows in Receive.
func (s *server) say(m Message) { _ = s.conn.Send(m, nil) }

func (s *server) handle(m Message, f *os.File) {
	switch m.Type {
	case Offer:
		if f != nil {
			s.take(m, f)
		} else {
			s.give(m)
		}
		return
	case Commit:
		s.committed(m)
	case Again:
		s.hear(m.ID, HeardAgain)
	case Active:
		s.hear(m.ID, HeardActive)
	case Abort:
		s.hear(m.ID, HeardAbort)
	}
	if f != nil {
		f.Close()
	}
}

// give answers the wish for a connection.
func (s *server) give(m Message) {
	for _, x := range s.open {
		if x.key == m.Key {
			s.say(Message{Type: Abort, ID: m.ID, Text: "another hand-off of the connection is not over"})
			return
		}
	}
	conn, record, err := s.h.Give(m.Key)
	if err == nil {
		err = s.conn.Send(Message{Type: Offer, ID: m.ID, Key: m.Key, Record: record}, conn)
		if err == nil {
			s.open[m.ID] = &handed{key: m.Key, phase: Offered, conn: conn}
			return
		}
		s.h.Resume(m.Key)
	}
	s.say(Message{Type: Abort, ID: m.ID, Text: cut(err.Error())})
}

// take answers a connection that is to be taken.
func (s *server) take(m Message, f *os.File) {
	if err := s.h.Take(m.Key, m.Record); err != nil {
		f.Close()
		s.say(Message{Type: Abort, ID: m.ID, Text: cut(err.Error())})
		return
	}
	s.open[m.ID] = &handed{key: m.Key, phase: Taken, file: f}
	s.say(Message{Type: Ready, ID: m.ID})
}

func cut(text string) string { return text[:min(len(text), MaxText)] }

// committed keeps the ticket, if there is one.
func (s *server) committed(m Message) {
	e := HeardCommit
	if x := s.open[m.ID]; x != nil && m.Text != "" {
		x.ticket, e = m.Text, HeardTicket
	}
	s.hear(m.ID, e)
}

// hear moves one hand-off on.
func (s *server) hear(id uint64, e Event) {
	x := s.open[id]
	if x == nil {
		return
	}
	next, deed := Next(x.phase, e)
	if next.limbo() && next != x.phase {
		x.since = time.Now()
	}
	if x.phase = next; next == Over {
		delete(s.open, id)
	}
	switch deed {
	case Resume:
		s.h.Resume(x.key)
	case Return:
		s.ask(id, x)
	case Leave:
		s.h.Leave(x.key)
	case Discard:
		discard(x.file)
		s.h.Discard(x.key)
	case Start:
		s.start(id, x)
	}
}

func (s *server) start(id uint64, x *handed) {
	c, err := tcpOf(x.file)
	if err != nil {
		s.h.Discard(x.key)
		s.say(Message{Type: Abort, ID: id, Text: cut(err.Error())})
		return
	}
	s.h.Start(x.key, c)
	s.say(Message{Type: Active, ID: id})
}

// expire gives up what no agent woke or knew of; a zero time gives all up.
func (s *server) expire(now time.Time) {
	for id, x := range s.open {
		if x.phase.limbo() && (now.IsZero() || !now.Before(x.until())) {
			s.hear(id, Expired)
		}
	}
}
