package edge

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// pushAgain is the pause between two rounds of a push.
const pushAgain = time.Second

// drain is the operator's will that this site's sessions go elsewhere.
type drain struct {
	to          []string // empty: to any member
	since       time.Time
	deadline    time.Time
	moved, kept atomic.Int64
	tries       *pulls // when each session may be pushed again
}

// DrainState tells how far a drain is.
type DrainState struct {
	To       []string
	Since    time.Time
	Deadline time.Time // from here on what is left is pushed
	Left     int       // sessions whose socket is still here
	Pinned   int       // of these, that cannot be moved now
	Moved    int64     // pushed and confirmed
	Kept     int64     // attempts that left the session here
}

// Drain lets the sites in to pull any session, and pushes to them what nobody
// pulled when Moves.Deadline is over: idle connections send nothing, so
// nothing pulls them. An empty list means every member. New connections are
// still served; keeping them away is the routes' affair.
func (a *Agent) Drain(to []string) error {
	v := a.view.Load()
	for _, name := range to {
		if _, ok := v.peer(name); !ok {
			return errors.New("edge: drain to " + name + ": not a member")
		}
	}
	now := time.Now()
	a.drain.Store(&drain{to: slices.Clone(to), since: now, deadline: now.Add(a.moves.Deadline), tries: newPulls()})
	a.pushNow()
	return nil
}

// Undrain ends a drain. Sessions that went stay where they are.
func (a *Agent) Undrain() {
	a.drain.Store(nil)
	a.pushNow()
}

// DrainState returns the progress, false if this site is not draining.
func (a *Agent) DrainState() (DrainState, bool) {
	d := a.drain.Load()
	if d == nil {
		return DrainState{}, false
	}
	st := DrainState{To: slices.Clone(d.to), Since: d.since, Deadline: d.deadline, Moved: d.moved.Load(), Kept: d.kept.Load()}
	for _, s := range a.tab.all() {
		st.Left++
		if State(s.state.Load()) == Pinned {
			st.Pinned++
		}
	}
	return st, true
}

func (a *Agent) pushNow() {
	select {
	case a.drained <- struct{}{}:
	default:
	}
}

// drains waits for deadlines and pushes. One goroutine.
func (a *Agent) drains(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		d := a.drain.Load()
		wait := time.Hour
		if d != nil {
			if wait = time.Until(d.deadline); wait <= 0 {
				a.push(ctx, d)
				a.guests.push(ctx, d)
				wait = pushAgain
			}
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return nil
		case <-a.drained:
		case <-timer.C:
		}
	}
}

// push gives away all sessions that can be moved, each to the first of its
// order among the drain's targets.
func (a *Agent) push(ctx context.Context, d *drain) {
	targets := a.targets(d)
	loads := map[string][]*session{}
	for _, s := range a.tab.all() {
		order := rendezvous(s.key, targets)
		if len(order) == 0 || s.svc.Mode != ModeAct || State(s.state.Load()) != Active || !d.tries.due(s.key, time.Now()) {
			continue
		}
		loads[order[0].Name] = append(loads[order[0].Name], s)
	}
	var wg sync.WaitGroup
	for to, load := range loads {
		wg.Go(func() { a.pushTo(ctx, d, to, load) })
	}
	wg.Wait()
}

// pushTo gives some to one site, as long as the drain lasts. A session has a goroutine when
// it has a slot: thousands would wait, each with a stack of its own.
func (a *Agent) pushTo(ctx context.Context, d *drain, to string, load []*session) {
	slots := a.lanes.of(to)
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, s := range load {
		if slots.take(ctx) != nil {
			return
		}
		if a.drain.Load() != d {
			slots.done(time.Now(), 0, "")
			return
		}
		wg.Go(func() {
			switch err := a.giveNow(ctx, s, to, slots); {
			case err == nil:
				d.moved.Add(1)
			case !errors.Is(err, errClaimed):
				d.kept.Add(1)
				d.tries.refused(s.key, time.Now())
			}
		})
	}
}

// targets are the members a drain goes to. Named by the operator, a site
// needs no weight; else none is a target that is held for dead.
func (a *Agent) targets(d *drain) []Peer {
	var out []Peer
	peers := a.view.Load().peers
	if len(d.to) == 0 {
		peers = a.sure()
	}
	for _, p := range peers {
		switch {
		case len(d.to) == 0 && !a.isNear(p): // it is the site that drains, and p with it
			out = append(out, p)
		case slices.Contains(d.to, p.Name):
			p.Weight = max(p.Weight, 1)
			out = append(out, p)
		}
	}
	return out
}
