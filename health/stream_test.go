package health

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"rhumb/placement"
)

// openStream runs a stream; stop ends it and waits for all that it started.
func openStream(t *testing.T) (s *Stream, stop func() error) {
	t.Helper()
	s = NewStream(filepath.Join(t.TempDir(), "votes.sock"), quiet())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = func() error {
		cancel()
		err := <-done
		done <- err
		return err
	}
	t.Cleanup(func() { stop() })
	return s, stop
}

// reader is a client of the stream.
type reader struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Scanner
}

// connect dials until the socket is there.
func connect(t *testing.T, s *Stream) *reader {
	t.Helper()
	var err error
	for range 6000 {
		var conn net.Conn
		if conn, err = net.Dial("unix", s.path); err == nil {
			conn.SetDeadline(time.Now().Add(2 * time.Minute))
			t.Cleanup(func() { conn.Close() })
			return &reader{t, conn, bufio.NewScanner(conn)}
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal(err)
	return nil
}

func (r *reader) next() (v placement.Vote) {
	r.t.Helper()
	if !r.in.Scan() {
		r.t.Fatalf("the stream ended: %v", r.in.Err())
	}
	if err := json.Unmarshal(r.in.Bytes(), &v); err != nil {
		r.t.Fatal(err)
	}
	return v
}

func onObject(i int, vantage string) placement.Vote {
	return placement.Vote{Object: placement.ClusterID{Site: "ams1", Name: fmt.Sprintf("web%04d", i)}, Vantage: vantage, Site: "ams1", Seq: uint64(i + 1)}
}

// TestStreamWholeSetFirst: a new client gets what stands, in order, each vote
// once and as it is now; then what changes.
func TestStreamWholeSetFirst(t *testing.T) {
	s, stop := openStream(t)
	for _, i := range []int{3, 1, 2} {
		s.Vote(onObject(i, "ams1-a"))
	}
	newer := onObject(1, "ams1-a")
	newer.Seq, newer.State = 9, placement.Down
	s.Vote(newer)
	s.Vote(onObject(4, "nyc1-a"))
	s.Drop(onObject(4, "").Object, "nyc1-a")
	r := connect(t, s)
	for _, want := range []placement.Vote{newer, onObject(2, "ams1-a"), onObject(3, "ams1-a")} {
		if v := r.next(); v != want {
			t.Errorf("have %+v, want %+v", v, want)
		}
	}
	s.Vote(onObject(7, "ams1-a"))
	if v := r.next(); v != onObject(7, "ams1-a") {
		t.Errorf("have %+v", v)
	}
	last := onObject(2, "ams1-a")
	last.Seq, last.Hold = 10, true
	s.End(last)
	if v := r.next(); v != last {
		t.Errorf("a vote that ended came as %+v", v)
	}
	again := connect(t, s)
	for _, want := range []placement.Vote{newer, onObject(3, "ams1-a"), onObject(7, "ams1-a")} {
		if v := again.next(); v != want {
			t.Errorf("the second client: have %+v, want %+v", v, want)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if r.in.Scan() || again.in.Scan() {
		t.Error("a client is served after the end")
	}
}

// TestSlowReaderIsDropped: a client that reads nothing costs no more than its
// queue, holds nobody up, and reads an end when it wakes; others miss nothing.
func TestSlowReaderIsDropped(t *testing.T) {
	const votes = 20000
	s, _ := openStream(t)
	s.Vote(onObject(0, "ams1-a"))
	slow, quick := connect(t, s), connect(t, s)
	slow.next()
	quick.next()
	for i := range votes {
		s.Vote(onObject(1, fmt.Sprintf("v%d", i)))
		if v := quick.next(); v.Vantage != fmt.Sprintf("v%d", i) {
			t.Fatalf("the quick reader got %+v for vote %d", v, i)
		}
	}
	s.mu.Lock()
	left := len(s.clients)
	s.mu.Unlock()
	if left != 1 {
		t.Errorf("%d clients are left, want the quick one", left)
	}
	got := 0
	for slow.in.Scan() {
		got++
	}
	if got == 0 || got >= votes {
		t.Errorf("the slow reader got %d of %d votes", got, votes)
	}
}

// TestStreamLeavesNothing: a client that goes is forgotten.
func TestStreamForgetsClients(t *testing.T) {
	s, _ := openStream(t)
	s.Vote(onObject(0, "ams1-a"))
	gone, stays := connect(t, s), connect(t, s)
	gone.next()
	stays.next()
	gone.conn.Close()
	for i := 1; ; i++ {
		s.Vote(onObject(i, "ams1-a"))
		stays.next()
		s.mu.Lock()
		left := len(s.clients)
		s.mu.Unlock()
		if left == 1 {
			return
		}
		if i > 1000 {
			t.Fatalf("%d clients after %d votes", left, i)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestStreamSocket: what a killed process left behind is replaced, the file may
// be opened by owner and group alone, and a path that cannot be is an error.
func TestStreamSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "votes.sock")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := NewStream(path, quiet())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	s.Vote(onObject(0, "ams1-a"))
	connect(t, s).next()
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v (%v), want 0660", info.Mode(), err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the socket is left behind")
	}
	if err := NewStream(filepath.Join(path, "no", "such"), quiet()).Run(context.Background()); err == nil {
		t.Error("a stream runs where it cannot listen")
	}
}
