package health

import (
	"context"
	"net"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"rhumb/health/detect"
	"rhumb/placement"
)

// TestHearingStream: a new reader gets what is heard now, then each change, the newest
// one if it was behind; and its end when the stream ends.
func TestHearingStream(t *testing.T) {
	s := NewHearingStream(filepath.Join(t.TempDir(), "hearing.sock"), quiet())
	if err := Hear(t.Context(), s.path, nil); err == nil || !strings.Contains(err.Error(), "health: hearing: ") {
		t.Errorf("without a stream: %v", err)
	}
	list := func(states ...placement.State) (out []placement.Hearing) {
		for i, state := range states {
			out = append(out, placement.Hearing{Site: string(rune('a' + i)), State: state, By: []string{"x"}})
		}
		return out
	}
	s.Tell(list(placement.Down))
	s.Tell(list(placement.Up))
	ctx, stop := context.WithCancel(t.Context())
	ran, heard, got := make(chan error, 1), make(chan error, 1), make(chan []placement.Hearing)
	go func() { ran <- s.Run(ctx) }()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if conn, err := net.Dial("unix", s.path); err == nil {
			conn.Close() // who goes at once disturbs nobody
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("the stream is not there: %v", err)
		}
	}
	go func() { heard <- Hear(t.Context(), s.path, func(l []placement.Hearing) { got <- l }) }()
	next := func() []placement.Hearing {
		t.Helper()
		select {
		case l := <-got:
			return l
		case <-time.After(20 * time.Second):
			t.Fatal("nothing is heard")
			return nil
		}
	}
	if l := next(); !reflect.DeepEqual(l, list(placement.Up)) {
		t.Errorf("at first %+v", l)
	}
	want := list(placement.Path, placement.Up)
	s.Tell(want)
	if l := next(); !reflect.DeepEqual(l, want) {
		t.Errorf("%+v, want %+v", l, want)
	}
	// While nobody takes them lists don't pile up, and nobody waits.
	for range 1000 {
		s.Tell(list(placement.Down))
	}
	s.Tell(want)
	for !reflect.DeepEqual(next(), want) {
	}
	stop()
	for name, end := range map[string]chan error{"stream": ran, "reader": heard} {
		select {
		case err := <-end:
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: no end", name)
		}
	}
}

// TestAgentHears: nodes get the names of their sites, states the fleet's words; who is no
// longer a peer is nobody's relay.
func TestAgentHears(t *testing.T) {
	var got []placement.Hearing
	a := New(Config{Log: quiet(), Hearing: func(l []placement.Hearing) { got = l }})
	a.sites = map[uint16]string{2: "b", 3: "c"}
	since := time.Unix(1000, 0)
	a.hears([]detect.Hearing{{Node: 2, State: detect.Path, By: []uint16{3, 9}, Suspected: since}, {Node: 3, State: detect.Left, Silent: []uint16{2}}, {Node: 9, State: detect.Up}})
	want := []placement.Hearing{{Site: "b", State: placement.Path, By: []string{"c"}, Suspected: since}, {Site: "c", State: placement.Unknown, Silent: []string{"b"}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	for from, to := range map[detect.State]placement.State{detect.Up: placement.Up, detect.Down: placement.Down, detect.Unknown: placement.Unknown} {
		if stateOf(from) != to {
			t.Errorf("%s is %s, want %s", from, stateOf(from), to)
		}
	}
}
