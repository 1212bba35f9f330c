package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync"
	"time"

	"rhumb/bgp"
	"rhumb/placement"
)

// heardLine is a line of a transit router's record of what its neighbours tell
// it. A FIB shows the best route alone; that a site still announces as a fallback
// is seen here only.
type heardLine struct {
	At   time.Time  `json:"at"`
	Peer netip.Addr `json:"peer"`
	// Prefix is invalid where the session ended, and all of the peer's went.
	Prefix netip.Prefix   `json:"prefix,omitzero"`
	Step   placement.Step `json:"step"`
}

// record is the file of a router's lines, made anew at its start.
type record struct {
	mu  sync.Mutex
	enc *json.Encoder
}

// heardFile stands beside the router's configuration.
func heardFile(config string) string { return config + ".heard" }

// recordHeard writes down what the router's neighbours tell, until ctx ends.
func recordHeard(ctx context.Context, engine *bgp.GoBGP, file string) error {
	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("lab router: %w", err)
	}
	defer f.Close()
	r := &record{enc: json.NewEncoder(f)}
	return engine.Watch(ctx, r.note)
}

// note writes one change as a line; what cannot be written is missed by those who
// watch the lab, and by nobody else.
func (r *record) note(c bgp.Change) {
	line := heardLine{At: time.Now()}
	switch {
	case c.Learned != nil:
		line.Peer, line.Prefix, line.Step = c.Learned.Peer, c.Learned.Route.Prefix, heardStep(c.Learned)
	case c.Peer != nil && !c.Peer.Established:
		line.Peer, line.Step = c.Peer.Address, placement.Withdrawn
	default:
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.enc.Encode(line)
}

// heardStep reads the ladder's rung off a route. A neighbour's own AS is on every
// path once; more of it is a handicap.
func heardStep(l *bgp.Learned) placement.Step {
	switch {
	case l.Withdrawn:
		return placement.Withdrawn
	case l.Route.Attrs.GShut():
		return placement.GShut
	case l.Route.Attrs.Prepend > 1:
		return placement.Prepend
	}
	return placement.Announce
}

// tailEvery is how often a record is looked at for new lines; each carries its own
// time, so that nothing between two looks is missed.
const tailEvery = 50 * time.Millisecond

// tail calls each for every line of a record from a place on, until ctx ends. A
// record that has become shorter was begun anew.
func tail(ctx context.Context, file string, from int64, each func(heardLine)) error {
	tick := time.NewTicker(tailEvery)
	defer tick.Stop()
	for {
		var err error
		if from, err = tailOnce(file, from, each); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// tailOnce reads whole lines from a place on and returns the next place.
func tailOnce(file string, from int64, each func(heardLine)) (int64, error) {
	f, err := os.Open(file)
	if err != nil {
		return from, nil // a stock router keeps no record; ours begins it when it starts
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.Size() < from {
		from = 0
	}
	data, err := io.ReadAll(io.NewSectionReader(f, from, 1<<30))
	if err != nil {
		return from, fmt.Errorf("lab: %s: %w", file, err)
	}
	whole := data[:bytes.LastIndexByte(data, '\n')+1]
	for text := range bytes.Lines(whole) {
		var line heardLine
		if err := json.Unmarshal(text, &line); err != nil {
			return from, fmt.Errorf("lab: %s: %w", file, err)
		}
		each(line)
	}
	return from + int64(len(whole)), nil
}
