package bgp

import (
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/placement"
)

func TestObserveTouchesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		b := start(t, func(c *Config, _ *bench) { c.Registerer = reg })
		b.want(placement.Announce, observed)
		b.pass(10 * time.Second)
		b.want(placement.Withdrawn, observed, local)
		b.pass(10 * time.Second)
		b.expect(placement.Withdrawn)
		if len(b.engine.told(false)) != 0 || b.store.taken != 0 || len(b.store.published) != 0 {
			t.Errorf("observe touched: engine %v, store %d, published %v", b.engine.told(false), b.store.taken, b.store.published)
		}
		for _, step := range []string{"prepend", "announce", "gshut", "withdrawn"} {
			if n := counted(t, reg, "rhumb_anycast_would_change_total", step); n != 1 {
				t.Errorf("would change to %s: counted %v, want 1", step, n)
			}
		}
		b.want(placement.Announce) // acts from now on, from the bottom
		b.pass(10 * time.Second)
		b.expect(placement.Announce)
		b.end()
	})
}

func TestReconcile(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, nil)
		b.up()
		b.engine.Withdraw(t.Context(), anycast)
		b.pass(auditEvery + time.Millisecond)
		if _, ok := b.engine.get(anycast); !ok {
			t.Fatal("a lost route was not announced again")
		}
		b.engine.Announce(t.Context(), Route{Prefix: anycast, Attrs: Attrs{Prepend: 9}})
		b.engine.Announce(t.Context(), Route{Prefix: anycast6, Attrs: Attrs{}})
		b.pass(auditEvery + time.Millisecond)
		if a, _ := b.engine.get(anycast); a.Prepend != 0 {
			t.Error("foreign attributes stayed")
		}
		if _, ok := b.engine.get(anycast6); ok {
			t.Error("a route nobody wants stayed")
		}
		b.end()
	})
}

func TestEngineError(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, nil)
		b.engine.err = errors.New("engine: no")
		b.want(placement.Announce)
		b.pass(5 * time.Second)
		b.expect(placement.Withdrawn)
		b.engine.mu.Lock()
		b.engine.err = nil
		b.engine.mu.Unlock()
		b.pass(5 * time.Second)
		b.expect(placement.Announce)
		b.end()
	})
}

func TestEmptySnapshotIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, nil)
		b.up()
		empty := b.snap
		empty.Announcements = nil
		b.s.Apply(t.Context(), &empty, nil)
		b.pass(10 * time.Second)
		b.expect(placement.Announce)
		b.end()
	})
}

func TestPrefixNoLongerNamed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, nil)
		b.up()
		b.want(placement.Announce, func(a *placement.Announcement) { a.Site = "fra" })
		b.pass(10 * time.Second)
		b.expect(placement.Withdrawn)
		b.end()
	})
}
