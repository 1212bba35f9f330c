package main

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/placement"
)

// How many events wait while the store is away, how long one write may take, how
// soon it is tried again, and how long the last ones may keep a stopping unit.
const (
	eventsWaiting  = 256
	eventTimeout   = 2 * time.Second
	eventRetry     = time.Second
	eventsFarewell = time.Second
)

// eventQueue takes what a unit has to tell the fleet's log and writes it in
// order. tell never blocks, so that the speaker or the loop of a role does not
// wait for a store; when the store is away for long the newest events are lost
// and counted, because the oldest ones say how it began. run owns the writing.
type eventQueue struct {
	waiting chan placement.Event
	write   func(context.Context, placement.Event) error
	log     *slog.Logger
	dropped prometheus.Counter
}

func newEventQueue(write func(context.Context, placement.Event) error, log *slog.Logger, r prometheus.Registerer) *eventQueue {
	q := &eventQueue{waiting: make(chan placement.Event, eventsWaiting), write: write, log: log,
		dropped: prometheus.NewCounter(prometheus.CounterOpts{Name: "rhumb_events_dropped_total",
			Help: "Events which the fleet's log never got, because the store was away for too long."})}
	r.MustRegister(q.dropped)
	return q
}

// tell puts an event in line.
func (q *eventQueue) tell(e placement.Event) {
	select {
	case q.waiting <- e:
	default:
		q.dropped.Inc()
	}
}

// run writes until ctx ends, and then what is left, briefly: the last steps of a
// unit that stops are the ones somebody will ask for.
func (q *eventQueue) run(ctx context.Context) {
	for {
		select {
		case e := <-q.waiting:
			q.deliver(ctx, e)
			continue
		case <-ctx.Done():
		}
		break
	}
	bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), eventsFarewell)
	defer cancel()
	for {
		select {
		case e := <-q.waiting:
			if bye.Err() != nil || q.write(bye, e) != nil {
				q.dropped.Inc()
			}
		default:
			return
		}
	}
}

// deliver tries until the event is written. An attempt whose success was not
// heard of is repeated: an event may stand there twice, with one time.
func (q *eventQueue) deliver(ctx context.Context, e placement.Event) {
	for told := false; ; {
		wctx, cancel := context.WithTimeout(ctx, eventTimeout)
		err := q.write(wctx, e)
		cancel()
		if err == nil {
			return
		}
		if ctx.Err() == nil && !told {
			q.log.Warn("events wait: the store does not take them", "err", err)
			told = true
		}
		select {
		case <-ctx.Done():
			q.tell(e) // for the farewell
			return
		case <-time.After(eventRetry):
		}
	}
}

// event tells the fleet's log. A unit with a store of its own alone has no such
// log: there it stands in the unit's own. Safe for concurrent use; never blocks.
func (u *unit) event(e placement.Event) {
	e.Node, e.Site = cmp.Or(e.Node, u.cfg.Node.Name), cmp.Or(e.Site, u.cfg.Node.Site)
	if e.At.IsZero() {
		e.At = time.Now()
	}
	e.At = e.At.UTC()
	if u.alone() {
		u.log.Info("event: "+e.Text, "kind", e.Kind, "site", e.Site, "snapshot", e.Snapshot)
		return
	}
	u.events.tell(e)
}

// alone tells whether the unit's store is a file, which no other node reads.
func (u *unit) alone() bool { return u.cfg.Store.File != "" }
