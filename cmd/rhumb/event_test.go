package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/placement"
)

// fakeLog is a fleet's log that can be away.
type fakeLog struct {
	away atomic.Bool
	got  []string
}

func (f *fakeLog) write(_ context.Context, e placement.Event) error {
	if f.away.Load() {
		return errors.New("away")
	}
	f.got = append(f.got, e.Text)
	return nil
}

func startQueue(ctx context.Context, f *fakeLog) (*eventQueue, *prometheus.Registry, chan struct{}) {
	reg := prometheus.NewRegistry()
	q := newEventQueue(f.write, slog.New(slog.DiscardHandler), reg)
	done := make(chan struct{})
	go func() { q.run(ctx); close(done) }()
	return q, reg, done
}

// value returns the value of a metric without labels, or with those given.
func value(t *testing.T, reg *prometheus.Registry, name string, labels ...string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var have []string
			for _, l := range m.GetLabel() {
				have = append(have, l.GetValue())
			}
			if f.GetName() == name && slices.Equal(have, labels) {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	t.Errorf("no metric %s %v", name, labels)
	return -1
}

// TestEventsWaitForTheStore: what happens while the store is away is written when
// it is back, in order; what had no room is counted.
func TestEventsWaitForTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		f := &fakeLog{}
		f.away.Store(true)
		q, reg, done := startQueue(ctx, f)
		q.tell(placement.Event{Text: "0"})
		synctest.Wait() // it is being tried
		for i := range eventsWaiting + 5 {
			q.tell(placement.Event{Text: strconv.Itoa(i + 1)})
		}
		if len(f.got) != 0 {
			t.Errorf("written while away: %v", f.got)
		}
		f.away.Store(false)
		time.Sleep(eventRetry)
		synctest.Wait()
		if len(f.got) != eventsWaiting+1 || f.got[0] != "0" || f.got[eventsWaiting] != strconv.Itoa(eventsWaiting) {
			t.Errorf("%d events came, want %d, the oldest ones, in order", len(f.got), eventsWaiting+1)
		}
		if n := value(t, reg, "rhumb_events_dropped_total"); n != 5 {
			t.Errorf("%v dropped, want 5", n)
		}
		cancel()
		<-done
	})
}

// TestEventsOfAStop: what was told just before the end is still written, and a
// store that is away does not keep the unit.
func TestEventsOfAStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, away := range []bool{false, true} {
			ctx, cancel := context.WithCancel(t.Context())
			f := &fakeLog{}
			f.away.Store(away)
			cancel()
			q := newEventQueue(f.write, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
			q.tell(placement.Event{Text: "withdrawn"})
			began := time.Now()
			q.run(ctx)
			if took := time.Since(began); took > eventsFarewell {
				t.Errorf("away %v: the end took %s", away, took)
			}
			if !away && !slices.Equal(f.got, []string{"withdrawn"}) {
				t.Errorf("written: %v", f.got)
			}
		}
	})
}
