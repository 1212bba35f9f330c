package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"rhumb/edge"
	"rhumb/health"
	"rhumb/internal/api"
	"rhumb/placement"
)

// TestSuspects: a site is suspected when all of its machines are that were ever heard,
// and since the last of them is.
func TestSuspects(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(1000+s, 0) }
	for name, tc := range map[string]struct {
		list []placement.Hearing
		want []edge.Suspect
	}{
		"nobody": {[]placement.Hearing{{Site: "a", State: placement.Up}, {Site: "b", State: placement.Path}}, nil},
		"one of two sites, in order": {[]placement.Hearing{{Site: "c", State: placement.Up, Suspected: at(2)}, {Site: "b", State: placement.Up}, {Site: "a", State: placement.Down, Suspected: at(1)}},
			[]edge.Suspect{{Site: "a", Since: at(1)}, {Site: "c", Since: at(2)}}},
		"one of two machines":  {[]placement.Hearing{{Site: "a", State: placement.Up, Suspected: at(1)}, {Site: "a", State: placement.Up}}, nil},
		"both machines":        {[]placement.Hearing{{Site: "a", State: placement.Up, Suspected: at(5)}, {Site: "a", State: placement.Down, Suspected: at(1)}}, []edge.Suspect{{Site: "a", Since: at(5)}}},
		"the other never was":  {[]placement.Hearing{{Site: "a", State: placement.Up, Suspected: at(5)}, {Site: "a", State: placement.Unknown}}, []edge.Suspect{{Site: "a", Since: at(5)}}},
		"the detector is gone": {nil, nil},
	} {
		if got := suspects(tc.list); !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

// TestSuspicionTravels: what the health role tells comes to the edge of the machine with
// the moment of its beginning, and its end; after a restart of the one the other hears
// what is so now.
func TestSuspicionTravels(t *testing.T) {
	socket := filepath.Join(t.TempDir(), hearingSocket)
	heard := make(chan []edge.Suspect, 64)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- follow(ctx, socket, func(l []placement.Hearing) { heard <- suspects(l) })
	}()
	until := func(what string, want ...edge.Suspect) {
		t.Helper()
		for late := time.After(30 * time.Second); ; {
			select {
			case got := <-heard:
				if slices.EqualFunc(got, want, func(a, b edge.Suspect) bool { return a.Site == b.Site && a.Since.Equal(b.Since) }) {
					return
				}
			case <-late:
				t.Fatalf("%s: never heard %v", what, want)
			}
		}
	}
	since := time.Now()
	for _, round := range []string{"first process", "next process"} {
		s := health.NewHearingStream(socket, slog.New(slog.DiscardHandler))
		s.Tell([]placement.Hearing{{Site: "b", State: placement.Up}})
		sctx, end := context.WithCancel(ctx)
		ran := make(chan error, 1)
		go func() { ran <- s.Run(sctx) }()
		until(round + ", nobody")
		s.Tell([]placement.Hearing{{Site: "b", State: placement.Up, Suspected: since}, {Site: "c", State: placement.Up}})
		until(round+", a suspicion", edge.Suspect{Site: "b", Since: since})
		s.Tell([]placement.Hearing{{Site: "b", State: placement.Down, Suspected: since}})
		until(round+", a verdict", edge.Suspect{Site: "b", Since: since})
		s.Tell([]placement.Hearing{{Site: "b", State: placement.Up}})
		until(round + ", its end")
		end()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestPreparedText: an event says how far it went, and that sessions stay where they are.
func TestPreparedText(t *testing.T) {
	for want, p := range map[string]edge.Preparation{
		"tyo1 is suspected: 60 of 61 sessions are prepared": {Site: "tyo1", Sessions: 61, Ready: 60},
		"tyo1 is suspected: 7 sessions would be prepared":   {Site: "tyo1", Observed: 7},
		"tyo1 is heard again: its 61 sessions stay there":   {Site: "tyo1", Sessions: 61, Ready: 60, Result: edge.PrepareCleared},
		"tyo1 is down: 60 of 61 sessions were prepared":     {Site: "tyo1", Sessions: 61, Ready: 60, Result: edge.PrepareVerdict},
	} {
		if got := preparedText(p); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	var out strings.Builder
	now := time.Unix(1000, 0)
	writePrepared(&out, &api.Site{Edge: api.SiteEdge{Prepared: []placement.EdgePrepared{{Site: "tyo1", Since: now.Add(-2 * time.Second), Sessions: 61, Ready: 60}}}}, now)
	if got := out.String(); !strings.Contains(got, "tyo1 for 2 s: 60 of 61 sessions prepared\n") {
		t.Errorf("%q", got)
	}
}
