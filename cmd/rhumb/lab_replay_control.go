package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"rhumb/internal/netlab"
)

// replayLine is what the lab says while a replay runs: a step, or with a Lane a
// thing watched and its new state.
type replayLine struct {
	At   time.Time `json:"at"`
	Lane string    `json:"lane,omitempty"`
	// Kind of a step: then (what happened), here (what is done in the lab), do
	// (at this moment), see, mark (the blow), end (the verdict).
	Kind string `json:"kind,omitempty"`
	Text string `json:"text"`
	// Aside marks what is seen while something is prepared or undone: drawn, not told.
	Aside bool `json:"aside,omitempty"`
}

// replay is the control socket's verb: it plays one tale and undoes it. One at a
// time, in a lab where nothing else is broken.
func (c *labControl) replay(ctx context.Context, call *netlab.Call) (int, error) {
	t := findTale(call.Args["name"])
	if t == nil {
		return exitUsage, fmt.Errorf("lab: there is no replay %q", call.Args["name"])
	}
	if !c.replaying.TryLock() {
		return exitRefused, errors.New("lab: another replay is running")
	}
	defer c.replaying.Unlock()
	if code, err := c.playable(); err != nil {
		return code, err
	}
	lines := newLineQueue()
	r := &replayRun{w: c.world, tale: t, naive: call.Args["naive"] != "", watch: t.watch, fleet: labFleet{c.world.dir}, say: lines.put}
	if text := call.Args["watch"]; text != "" {
		var err error
		if r.watch, err = time.ParseDuration(text); err != nil {
			return exitUsage, fmt.Errorf("lab: --watch: %w", err)
		}
	}
	sent := make(chan error, 1)
	go func() { sent <- lines.send(call.Reply) }()
	err := r.play(ctx, c.over)
	lines.close()
	if sendErr := <-sent; err == nil {
		err = sendErr
	}
	if err != nil {
		return max(codeOf(err), exitFailed), err
	}
	return exitOK, nil
}

// playable says what keeps a replay from being played now.
func (c *labControl) playable() (int, error) {
	select {
	case <-c.ready:
	default:
		return exitUnhealthy, errors.New("lab: it is not ready yet; rhumb lab wait")
	}
	if len(c.world.foreign.routers) > 0 {
		return exitRefused, errors.New("lab: a stock router keeps no record of what it hears; start the lab without --router")
	}
	if len(c.world.net.Faults()) > 0 || c.world.fallen() != nil {
		return exitRefused, errors.New("lab: something is broken already; undo it first: rhumb lab heal")
	}
	return exitOK, nil
}

// lineQueue carries lines to the client without holding up those who watch.
type lineQueue struct {
	lines chan replayLine
	last  map[string]string // lane → state, owned by send
}

func newLineQueue() *lineQueue {
	return &lineQueue{lines: make(chan replayLine, 4096), last: map[string]string{}}
}

// put hands a line over. The queue is longer than any replay's; a client which does
// not read at all makes the lab wait rather than lose a step.
func (q *lineQueue) put(l replayLine) { q.lines <- l }

func (q *lineQueue) close() { close(q.lines) }

// send passes on steps, and of lanes what is new, until the queue is closed. A
// client that went away is told nothing more.
func (q *lineQueue) send(reply func(any) error) error {
	var failed error
	for l := range q.lines {
		if old, ok := q.last[l.Lane]; l.Lane != "" && ok && old == l.Text || failed != nil {
			continue
		}
		if l.Lane != "" {
			q.last[l.Lane] = l.Text
		}
		failed = reply(l)
	}
	return failed
}
