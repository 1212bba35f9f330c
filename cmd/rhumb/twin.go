package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/internal/api"
	"rhumb/internal/config"
	"rhumb/placement"
	"rhumb/placement/node"
	"rhumb/placement/store"
)

// twin stands between the store's views and the loop of an input-delayed twin. What
// people want (inventory, plan, zones, copies of zones) and what other sites measure
// passes it late; what this site measures itself, who is there, and whether the store
// lives pass at once. Once others come to harm nothing passes any more, until an
// operator says so: what did it is among what waits.
type twin struct {
	name, site, unit string
	conf             *config.Twin
	dir              string // of the node; the units share what stands in it
	late             *store.LateDir
	log              *slog.Logger
	metrics          *twinMetrics

	// Owned by run; mu guards what others read.
	queue  node.Queue[*store.LateInput]
	wave   node.Wave
	copies *delayedCopies // nil in units without role authdns
	known  time.Time      // as last written down

	mu   sync.Mutex
	hold twinHold
	seen placement.TwinStatus
}

// twinHold says why the feed is held, or that it was let go: the later of the two counts.
type twinHold struct {
	Since time.Time `json:"since,omitzero"`
	Why   string    `json:"why,omitempty"`
	// Released is when an operator last let the feed go on.
	Released time.Time `json:"released,omitzero"`
	Who      string    `json:"who,omitempty"`
	Reason   string    `json:"reason,omitempty"`
}

func (h *twinHold) held() bool { return h.Since.After(h.Released) }

type twinMetrics struct {
	inputs, held, queued prometheus.Gauge
}

// alarmTwinHeld says that a twin takes no new inputs.
const alarmTwinHeld = "TwinHeld"

// A twin looks at everything each twinTick. Its queue has twinGrains values at most. A
// name server counts as gone after twinGrace, which a restart does not take, or a tenth of
// a short delay.
const (
	twinTick   = time.Second
	twinGrains = 90
	twinGrace  = time.Minute
	twinKnown  = 5 * time.Second // how often it is written down until when all is known
)

// newTwin makes the stage and reads what it knew before a restart.
func newTwin(u *unit) (*twin, error) {
	c := u.cfg.Twin
	lag := c.Delay.D()
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	t := &twin{name: u.cfg.Node.Name, site: u.cfg.Node.Site, unit: u.name, conf: c, dir: filepath.Join(u.cfg.Node.DataDir, "twin"), log: u.log,
		queue: node.Queue[*store.LateInput]{Lag: lag, Grain: max(time.Second, lag/twinGrains)},
		wave:  node.Wave{Node: u.cfg.Node.Name, Least: c.Wave, Within: lag, Grace: min(twinGrace, lag/10)},
		metrics: &twinMetrics{
			inputs: gauge("rhumb_twin_inputs_timestamp_seconds", "When the inputs were in force by which this input-delayed twin acts."),
			held:   gauge("rhumb_twin_held", "1 while this twin takes no new inputs, as others came to harm."),
			queued: gauge("rhumb_twin_queued", "Inputs that wait for their time."),
		}}
	t.late = store.NewLateDir(filepath.Join(t.dir, u.name))
	u.metrics.MustRegister(t.metrics.inputs, t.metrics.held, t.metrics.queued)
	if err := os.MkdirAll(t.dir, 0o755); err != nil {
		return nil, fmt.Errorf("%s: twin: %w", u.name, err)
	}
	t.recall()
	u.reports = append(u.reports, func(n *placement.Node) {
		n.Twin = t.status()
		if n.Twin.Held != "" {
			n.Alarms = append(slices.Clip(n.Alarms), placement.Alarm{Kind: alarmTwinHeld, Object: n.Name, Text: n.Twin.String() + "; rhumb twin release lets it go on"})
		}
	})
	return t, nil
}

// recall takes up what waited when the last process ended. The oldest is in force.
func (t *twin) recall() {
	t.follow()
	t.wave.Since = t.hold.Released
	all, refused := t.late.Load()
	for _, err := range refused {
		t.log.Warn("twin: an input that waited is lost", "err", err)
	}
	var over []node.Late[*store.LateInput]
	for _, in := range all {
		if dropped, replaced := t.queue.Put(in.At, in); replaced {
			over = append(over, dropped)
		}
	}
	// The process before ended when it was about to remove them. A later one would find such
	// a one to be the oldest of all, and take it for what is in force.
	t.drop(over)
	if b, err := os.ReadFile(t.knownFile()); err == nil {
		if at, err := time.Parse(time.RFC3339, string(b)); err == nil {
			t.queue.Know(at)
		}
	}
}

func (t *twin) knownFile() string { return filepath.Join(t.dir, "known-"+t.unit) }

// holdFile is where the node's units tell each other of a hold.
func (t *twin) holdFile() string { return filepath.Join(t.dir, "hold.json") }

// follow takes in what another unit, or an operator, said of the feed. It returns
// whether it was let go since the last look.
func (t *twin) follow() (released bool) {
	var said twinHold
	b, err := os.ReadFile(t.holdFile())
	if err == nil {
		err = json.Unmarshal(b, &said)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.log.Warn("twin: what was said of the feed cannot be read", "err", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if said.Released.After(t.hold.Released) {
		released = t.hold.held()
		t.hold.Released, t.hold.Who, t.hold.Reason = said.Released, said.Who, said.Reason
	}
	if said.Since.After(t.hold.Since) {
		t.hold.Since, t.hold.Why = said.Since, said.Why
	}
	return released
}

// say writes down what holds of the feed.
func (t *twin) say() error {
	b, err := json.Marshal(t.hold)
	if err != nil {
		return err
	}
	tmp := t.holdFile() + "." + t.unit // two units may stop at one moment
	if err := os.WriteFile(tmp, b, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, t.holdFile())
}

// stop holds the feed.
func (t *twin) stop(now time.Time, why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.hold.held() {
		return
	}
	t.hold.Since, t.hold.Why = now, why
	t.log.Error("twin: the feed is held, the inputs in force stay", "because", why, "inputs", t.queue.AsOf())
	if err := t.say(); err != nil {
		t.log.Error("twin: a restart would not know that the feed is held", "err", err)
	}
}

// harmed holds the feed where this node itself crashed of late: of what it was given, then.
func (t *twin) harmed(crashed, now time.Time) {
	if crashed.After(t.hold.Released) && now.Sub(crashed) <= t.queue.Lag {
		t.stop(now, "this node crashed at "+crashed.UTC().Format("15:04:05"))
	}
}

// Release lets the feed go on: what came so far is forgotten, since what did the harm is
// among it; what is in force now comes after the delay.
func (t *twin) Release(_ context.Context, who, reason string) (api.Outcome, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.hold.held() {
		return api.Outcome{}, fmt.Errorf("%w: the feed is not held", api.ErrNotFound)
	}
	next := t.hold
	next.Released, next.Who, next.Reason = time.Now(), who, reason
	was := t.hold
	t.hold = next
	err := t.say()
	t.hold = was // run takes it in as it takes in the word of another unit
	if err != nil {
		return api.Outcome{}, fmt.Errorf("twin: release: %w", err)
	}
	return api.Outcome{Object: t.name, Text: fmt.Sprintf("what is in force now is taken in %s; until then the inputs of %s stay",
		t.conf.Delay, t.seen.Inputs.UTC().Format("15:04:05"))}, nil
}

// status is what is told of the twin; nil where the node is none.
func (t *twin) status() *placement.TwinStatus {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	out := t.seen
	return &out
}

// worse is a snapshot as a twin announces it: on no rung better than prepend, with a
// longer path and a worse MED than others have there.
func (t *twin) worse(s *placement.Snapshot) *placement.Snapshot {
	if t == nil || s == nil {
		return s
	}
	out, inv := *s, *s.Inventory
	out.Inventory = &inv
	inv.Prefixes = slices.Clone(inv.Prefixes)
	for i := range inv.Prefixes {
		p := &inv.Prefixes[i]
		p.Prepend += t.conf.Prepend
		p.MED += min(t.conf.MED, math.MaxUint32-p.MED)
	}
	out.Announcements = slices.Clone(s.Announcements)
	for i := range out.Announcements {
		if a := &out.Announcements[i]; a.Site == t.site && a.Want == placement.Announce {
			a.Want, a.Cause = placement.Prepend, "input-delayed twin"
		}
	}
	return &out
}
