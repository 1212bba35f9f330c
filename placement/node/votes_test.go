package node

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"rhumb/placement"
)

func TestStreamFollowsTheSocketAndReconnects(t *testing.T) {
	path := filepath.Join(t.TempDir(), "votes")
	out := make(chan []placement.Vote)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- NewStream(path, "ams1", slog.New(slog.DiscardHandler)).Run(ctx, out) }()
	defer func() { cancel(); <-done }()
	for round := range 2 {
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		line, _ := json.Marshal(says("nyc1", placement.Down, uint64(round+1)))
		fmt.Fprintf(conn, "no vote\n%s\n%s\n", line, line)
		got := <-out
		if len(got) != 1 || got[0].Object.Site != "nyc1" || got[0].State != placement.Down {
			t.Errorf("round %d: heard %+v", round, got)
		}
		conn.Close()
		l.Close()
		if got := <-out; len(got) != 0 {
			t.Errorf("round %d: still heard after the end: %+v", round, got)
		}
	}
}

func TestHearing(t *testing.T) {
	at := time.Unix(1000, 0)
	h := make(hearing)
	if !h.add(says("ams1", placement.Up, 1), at) || !h.add(says("nyc1", placement.Up, 1), at) {
		t.Error("a first vote is nothing new")
	}
	if h.add(says("ams1", placement.Up, 1), at) {
		t.Error("a repeated vote is something new")
	}
	if !h.add(says("ams1", placement.Down, 2), at) || h.add(says("ams1", placement.Up, 1), at) {
		t.Error("of two votes the later must stay")
	}
	h.add(says("nyc1", placement.Up, 1), at.Add(5*time.Second)) // still holds
	if h.forget("ams1", at.Add(12*time.Second)) {
		t.Error("forgot what was repeated 7 s ago")
	}
	if !h.forget("ams1", at.Add(16*time.Second)) || len(h.votes()) != 1 || h.votes()[0].Site != "ams1" {
		t.Errorf("after 16 s: %+v, want only the site's own", h.votes())
	}
}

func FuzzParseVote(f *testing.F) {
	line, _ := json.Marshal(says("nyc1", placement.Down, 1))
	f.Add(line)
	f.Add([]byte(`{"object":"ams1/-","state":"down"}`))
	f.Add([]byte(`{"object":"ams1","state":"Down"}`))
	f.Add([]byte(`{}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, line []byte) {
		v, err := parseVote(line)
		if err != nil {
			return
		}
		again, err := json.Marshal(v)
		if err != nil {
			return // a time zone may be read that is never written
		}
		if w, err := parseVote(again); err != nil || w.Object != v.Object || w.State != v.State {
			t.Errorf("%q read as %+v, and again as %+v (%v)", line, v, w, err)
		}
	})
}
