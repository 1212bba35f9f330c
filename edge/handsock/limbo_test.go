package handsock

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inLimbo is a server with one hand-off, and what its Handler is called for.
func inLimbo(x *handed) (*server, *notes) {
	n := &notes{calls: make(chan string, 10)}
	return &server{h: n, open: map[uint64]*handed{7: x}}, n
}

// called is all that the Handler was called for.
func (n *notes) called() (all string) {
	for {
		select {
		case what := <-n.calls:
			all += what + " "
		default:
			return all
		}
	}
}

// takenFile is a connection as a server is given it, and the client's end.
func takenFile(t *testing.T) (*os.File, net.Conn) {
	t.Helper()
	ln := listener(t)
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f, err := c.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, client
}

// TestLimboEnds: what an agent left open waits for the next one, a giver's connection for as long as an agent may need to
// come back, a taker's for less; it counts from the first agent's end, however many follow that know nothing.
func TestLimboEnds(t *testing.T) {
	for name, tc := range map[string]struct {
		from  Phase
		limit time.Duration
		deed  string
	}{
		"before commit":     {Offered, AdriftLimit, "leave "},
		"behind a ticket":   {Ticketed, AdriftLimit, "leave "},
		"taken, and unsure": {Taken, UnsureLimit, "discard "},
	} {
		t.Run(name, func(t *testing.T) {
			x := &handed{key: key4(), phase: tc.from}
			if tc.from == Taken {
				x.file, _ = takenFile(t)
			}
			s, n := inLimbo(x)
			begun := time.Now()
			s.hear(7, Broken)
			if !x.phase.limbo() || x.since.Before(begun) {
				t.Fatalf("phase %d since %v", x.phase, x.since)
			}
			x.since = time.Unix(1000, 0)
			s.hear(7, Broken)
			if end := time.Unix(1000, 0).Add(tc.limit); !x.until().Equal(end) {
				t.Errorf("waits until %v, want %v", x.until(), end)
			}
			s.expire(x.until().Add(-1))
			if got := n.called(); got != "" || len(s.open) != 1 {
				t.Errorf("given up too early: %q", got)
			}
			s.expire(x.until())
			if got := n.called(); got != tc.deed || len(s.open) != 0 {
				t.Errorf("given up by %q, want %q; %d are open", got, tc.deed, len(s.open))
			}
		})
	}
}

// TestLimboEndsWhileConnected: an agent that is there and knows nothing is waited for no longer than one that is not; what
// it says later is heard all the same.
func TestLimboEndsWhileConnected(t *testing.T) {
	here, there := pair(t)
	s, n := inLimbo(&handed{key: key4(), phase: Doubtful, since: time.Now().Add(-time.Hour)})
	s.conn = here
	heard := make(chan Message, 1)
	go func() {
		defer close(heard)
		if m, _, err := s.receive(here); err == nil {
			heard <- m
		}
	}()
	n.want(t, "leave")
	if err := there.Send(Message{Type: Abort, ID: 9}, nil); err != nil {
		t.Fatal(err)
	}
	if m := <-heard; m.Type != Abort || m.ID != 9 {
		t.Errorf("heard %+v", m)
	}
}

// TestDiscardIsHeard: who is discarded hears a reset and no orderly end.
func TestDiscardIsHeard(t *testing.T) {
	f, client := takenFile(t)
	s, n := inLimbo(&handed{key: key4(), phase: Taken, file: f})
	s.hear(7, HeardAbort)
	if got := n.called(); got != "discard " {
		t.Errorf("called for %q", got)
	}
	client.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) || errors.Is(err, io.EOF) {
		t.Errorf("the client hears %v", err)
	}
}

// TestAgainWithoutAgent: an agent that is gone when the connection comes back for waking is followed by one that wakes it.
func TestAgainWithoutAgent(t *testing.T) {
	here, there := pair(t)
	f, _ := takenFile(t)
	x := &handed{key: key4(), phase: Doubtful, conn: f, ticket: "ticket", since: time.Unix(1000, 0)}
	s, n := inLimbo(x)
	s.conn = here
	there.Close()
	s.hear(7, HeardAgain)
	if x.phase != Adrift || !x.since.After(time.Unix(1000, 0)) {
		t.Fatalf("phase %d since %v", x.phase, x.since)
	}
	s.hear(7, Broken)
	here, there = pair(t)
	s.conn = here
	s.ask(7, x)
	m, back, err := there.Receive()
	if err != nil || m.Type != Abort || m.ID != 7 || back == nil {
		t.Fatalf("the next agent hears %+v, %v, %v", m, back, err)
	}
	back.Close()
	s.hear(7, HeardAbort)
	if got := n.called(); got != "resume " {
		t.Errorf("called for %q", got)
	}
}
