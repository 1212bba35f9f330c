package node

import (
	"fmt"
	"log/slog"
	"slices"
	"time"

	"rhumb/placement"
)

// The alarms of a loop. Neither changes an answer or a route.
const (
	AlarmSnapshotStale = "SnapshotStale" // an input is missing, or the digest differs
	AlarmStateStale    = "StateStale"    // the store, or the director's heartbeat, is old
	AlarmNoPlan        = "NoPlan"        // nobody has ever made a plan
)

const (
	staleTick = time.Second
	// staleSoft is the age of the inputs from which on it is said loudly.
	staleSoft = 10 * time.Second
)

// staleness is what keeps the loop from following.
type staleness struct {
	err   error
	since time.Time // of the first look without a store
}

// input notes why the last step failed, nil when it did not; each cause is
// logged once.
func (s *staleness) input(err error, log *slog.Logger) {
	switch {
	case err != nil && (s.err == nil || s.err.Error() != err.Error()):
		log.Error("node: the last snapshot stays in force", "err", err)
	case err == nil && s.err != nil:
		log.Info("node: follows again")
	}
	s.err = err
}

// judgeAge refreshes the alarms. The age comes from the heartbeat in the data:
// a watcher of a dead store says nothing at all.
func (n *Node) judgeAge() {
	var out []placement.Alarm
	now := n.c.Now()
	if n.stale.err != nil {
		out = append(out, placement.Alarm{Kind: AlarmSnapshotStale, Object: n.c.Node, Text: n.stale.err.Error()})
	}
	age := n.age(now)
	if age > staleSoft {
		out = append(out, placement.Alarm{Kind: AlarmStateStale,
			Text: fmt.Sprintf("nothing was heard of the director for %s; the last state serves on", age.Round(time.Second))})
	}
	if n.held.Plan != nil && n.held.Plan.Revision == 0 {
		out = append(out, placement.Alarm{Kind: AlarmNoPlan, Text: "no plan was ever made: the nearest cluster serves, by static capacity"})
	}
	n.m.age.Set(age.Seconds())
	n.m.stale.Set(flag(n.stale.err != nil))
	n.alarms.Store(&out)
	n.tell()
}

// tell shows every loud condition in the gauge of alarms: those of this loop and
// those that the snapshot in force carries.
func (n *Node) tell() {
	all := slices.Clone(n.Alarms())
	if s := n.c.Current.Load(); s != nil {
		all = append(all, s.Alarms...)
	}
	for _, a := range n.raised {
		if !slices.ContainsFunc(all, func(b placement.Alarm) bool { return b.Kind == a.Kind && b.Object == a.Object }) {
			n.m.alarm.DeleteLabelValues(a.Kind, a.Object)
		}
	}
	for _, a := range all {
		n.m.alarm.WithLabelValues(a.Kind, a.Object).Set(1)
	}
	n.raised = all
}

// undirected tells that the store answers and nobody has ever directed: a name server
// alone, or a new fleet. NoPlan says so already, and nothing is old.
func (n *Node) undirected() bool {
	return n.view.Connected && n.view.Heartbeat.IsZero() && n.held.Plan != nil && n.held.Plan.Revision == 0
}

// age is how old the inputs are; before the first heartbeat, how long it is awaited.
func (n *Node) age(now time.Time) time.Duration {
	if n.undirected() {
		n.stale.since = time.Time{}
		return 0
	}
	from := n.view.Heartbeat
	if from.IsZero() {
		if n.stale.since.IsZero() {
			n.stale.since = now
		}
		from = n.stale.since
	}
	return max(0, now.Sub(from))
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
