package main

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rhumb/health"
)

// TestEncountersAreTold: five errors in a row, then once a second, then the end.
func TestEncountersAreTold(t *testing.T) {
	e := newEncounters("", nil)
	at := time.Unix(100, 0)
	for i, step := range []struct {
		ok     bool
		after  time.Duration
		errors int
		tell   bool
	}{
		{true, 0, 0, false}, {false, 0, 0, false}, {true, 0, 0, false}, // one error is none
		{false, 0, 0, false}, {false, 0, 0, false}, {false, 0, 0, false}, {false, 0, 0, false}, {false, 0, 5, true},
		{false, 0, 0, false}, {false, 0, 0, false}, {false, time.Second, 3, true},
		{true, 0, 0, true}, {true, 0, 0, false},
	} {
		at = at.Add(step.after)
		if errors, tell := e.count("www", step.ok, at); errors != step.errors || tell != step.tell {
			t.Errorf("step %d: %d, %v; want %d, %v", i, errors, tell, step.errors, step.tell)
		}
	}
	if _, tell := e.count("other", true, at); tell {
		t.Error("another service's run was ended")
	}
}

// TestEncountersReachHealth: what the one role sends, the other reads.
func TestEncountersReachHealth(t *testing.T) {
	path := filepath.Join(t.TempDir(), "evidence.sock")
	heard := make(chan health.Encounter, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 2)
	go func() {
		ended <- health.NewEvidence(path, func(e health.Encounter) { heard <- e }, slog.New(slog.DiscardHandler)).Run(ctx)
	}()
	eventually(t, "the health role listens", func() bool {
		c, err := net.Dial("unixgram", path)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	e := newEncounters(path, func(string) []string { return []string{"web"} })
	go func() { ended <- e.run(ctx) }()
	for range tellFrom {
		e.met("www", false)
	}
	select {
	case met := <-heard:
		if met.Cluster != "web" || met.Errors != tellFrom || !strings.Contains(met.Cause, "www") {
			t.Errorf("%+v", met)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("nothing was heard")
	}
	cancel()
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
