package store

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"rhumb/placement"
)

func TestOpenRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		c    Config
	}{
		{"nothing", Config{}},
		{"two grounds", Config{File: "x", Memory: NewMemory()}},
		{"etcd without endpoints", Config{Etcd: &Etcd{}}},
		{"a path below a file", Config{File: "store_test.go/x"}},
	} {
		if s, err := Open(t.Context(), tt.c); err == nil {
			s.Close()
			t.Errorf("%s: opened", tt.name)
		}
	}
	reg := prometheus.NewRegistry()
	if _, err := Open(t.Context(), Config{Memory: NewMemory(), Registerer: reg}); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Config{Memory: NewMemory(), Registerer: reg}); err == nil {
		t.Error("metrics registered twice")
	}
}

// A call without a deadline gets one.
func TestNoCallHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory()
		s := memoryStore(t, m)
		m.Cut()
		began := time.Now()
		if err := s.Heartbeat(context.Background()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("heartbeat: %v", err)
		}
		if d := time.Since(began); d != opTimeout {
			t.Errorf("took %v", d)
		}
	})
}

func TestMetrics(t *testing.T) {
	reg, m := prometheus.NewRegistry(), NewMemory()
	s, err := Open(t.Context(), Config{Memory: m, Registerer: reg})
	if err != nil {
		t.Fatal(err)
	}
	viewWhere(t, s.Follow(ctxFor(t)), "first", func(v *View) bool { return v.Connected })
	m.Cut()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.Heartbeat(ctx)
	got := make(map[string]float64)
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		for _, x := range f.Metric {
			got[f.GetName()] += x.GetCounter().GetValue() + x.GetGauge().GetValue() + float64(x.GetHistogram().GetSampleCount())
		}
	}
	for name, want := range map[string]float64{"rhumb_store_connected": 1, "rhumb_store_relists_total": 1,
		"rhumb_store_failures_total": 1, "rhumb_store_operation_seconds": 2} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
}

// Every intent comes back, in order, in one inventory; an ended one stays.
func TestIntents(t *testing.T) {
	m := NewMemory()
	s := memoryStore(t, m)
	ctx := ctxFor(t)
	f, _ := sample(nil)
	mustPutFleet(t, s, f, nil, 0)
	audit := placement.Audit{Who: "kim", Reason: "test"}
	var last int64
	for _, site := range []string{"lhr1", "ams1"} {
		for _, put := range []func() (int64, error){
			func() (int64, error) { return s.PutDrain(ctx, placement.Drain{Site: site, Audit: audit}) },
			func() (int64, error) {
				return s.PutForce(ctx, placement.Force{Object: placement.SiteID(site), State: placement.ForceDown, Audit: audit})
			},
			func() (int64, error) {
				return s.PutForce(ctx, placement.Force{Object: placement.ClusterID{Site: site, Name: "web"}, State: placement.ForceUp, Audit: audit})
			},
			func() (int64, error) { return s.PutDial(ctx, placement.Dial{Site: site, PerMille: 500, Audit: audit}) },
			func() (int64, error) {
				return s.PutDial(ctx, placement.Dial{Site: site + "/web", PerMille: 400, Audit: audit})
			},
			func() (int64, error) { return s.PutPin(ctx, placement.Pin{Site: site, Revision: 3, Audit: audit}) },
			func() (int64, error) { return s.PutFreeze(ctx, placement.Freeze{Audit: audit}) },
		} {
			rev, err := put()
			if err != nil || rev <= last {
				t.Fatalf("revision %d after %d, %v", rev, last, err)
			}
			last = rev
		}
	}
	retired := placement.Retirement{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Audit: audit}
	if _, err := s.Expecting(last-1).PutRetirement(ctx, retired); !errors.Is(err, ErrConflict) {
		t.Errorf("a retirement judged by an old inventory: %v", err)
	}
	if _, err := s.Expecting(last).PutRetirement(ctx, retired); err != nil {
		t.Fatal(err)
	}
	ended := audit
	ended.Ended = time.Unix(1000, 0).UTC()
	last, err := s.PutDrain(ctx, placement.Drain{Site: "lhr1", Audit: ended})
	if err != nil {
		t.Fatal(err)
	}
	v := viewWhere(t, s.Follow(ctx), "all", func(v *View) bool { return v.Inventory != nil })
	in := v.Inventory
	if in.Revision != last || len(in.Drains) != 2 || len(in.Forces) != 4 || len(in.Dials) != 4 || len(in.Pins) != 2 || !in.Frozen() {
		t.Fatalf("inventory %d, want %d: %+v", in.Revision, last, in.Intents)
	}
	if in.Drains[0].Site != "ams1" || in.Forces[0].Object.String() != "ams1/-" || in.Forces[3].Object.String() != "lhr1/web" {
		t.Errorf("out of order: %+v", in.Intents)
	}
	if in.Drained("ams1") == nil || in.Drained("lhr1") != nil {
		t.Error("an ended drain goes on, or a live one does not")
	}
	if in.Retired(retired.Prefix) == nil || in.Retired(netip.MustParsePrefix("192.0.2.0/25")) != nil {
		t.Errorf("retired are %+v", in.Retirements)
	}
}

// The operator began with a new, empty store: its revisions are younger than
// what we remember, and what we remember must not mix with it.
func TestFollowAnotherStore(t *testing.T) {
	m := NewMemory()
	s := memoryStore(t, m)
	f, _ := sample(nil)
	for range 5 {
		mustPutFleet(t, s, f, nil, 0)
	}
	ch := s.Follow(ctxFor(t))
	viewWhere(t, ch, "old", func(v *View) bool { return v.Inventory != nil })
	fresh := NewMemory()
	f.Version = 2
	rev := mustPutFleet(t, memoryStore(t, fresh), f, nil, 0)
	m.mu.Lock()
	wake := m.m.wake
	m.m = fresh.m
	m.m.compact()
	m.m.wake = make(chan struct{})
	close(wake)
	m.mu.Unlock()
	v := viewWhere(t, ch, "new", func(v *View) bool { return v.Inventory != nil && v.Inventory.Version == 2 })
	if v.Inventory.Revision != rev || len(v.Recent) != 1 {
		t.Errorf("inventory %d, want %d, among %d", v.Inventory.Revision, rev, len(v.Recent))
	}
}

func TestRecentKeepsWhatThePlanNames(t *testing.T) {
	d := documents{plan: &planDoc{Plan: &placement.Plan{Inputs: placement.Inputs{Inventory: 3}}}}
	for rev := range int64(30) {
		d.remember(&placement.Inventory{Revision: rev})
	}
	if len(d.recent) != recentLen || d.recent[0].Revision != 29 || d.recent[recentLen-1].Revision != 3 {
		t.Errorf("kept %d, first %d, last %d", len(d.recent), d.recent[0].Revision, d.recent[len(d.recent)-1].Revision)
	}
}

func TestZapSpeaksSlog(t *testing.T) {
	var b bytes.Buffer
	log := zapTo(slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug})), slog.LevelWarn)
	log.Info("chatter")
	log.With(zap.String("member", "m1")).Warn("slow", zap.Duration("took", time.Second), zap.Error(errTorn))
	for _, want := range []string{`msg="etcd: slow"`, "level=WARN", "component=etcd", "member=m1", "took=1s", `error="line is not whole"`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s in %s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "chatter") {
		t.Error("what is below the level was written")
	}
}
