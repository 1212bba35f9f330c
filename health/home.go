package health

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"rhumb/placement"
)

// home is what an agent knows of itself and its machine: whether the machine is fit,
// whether it doubts what it sees, and who of those it voted down waits to come
// back. It belongs to the loop.
type home struct {
	returns  returns       // of sites
	halfLife time.Duration // of their penalties; one for the whole fleet
	heldAt   time.Time     // of the last account of a hold by the detector; zero: there is none
	doubtAt  time.Time     // since when this vantage doubts itself; zero: it does not
	looks    chan error    // of the machine; nil: nobody looks
	looked   time.Time     // when the last came
	fitness  fitness
	began    time.Time
	missedAt time.Time                   // since when this site's other vantage is silent
	ended    map[string][]netip.AddrPort // by unit of this machine: what its end took along
}

// watchHome starts the looks at the machine. A look may hang for as long as a disk
// does, so nobody waits for its end but the process's.
func (a *Agent) watchHome(ctx context.Context) {
	a.home.began, a.home.looked = time.Now(), time.Now()
	if a.cfg.Fit == nil {
		return
	}
	a.home.looks = make(chan error)
	go watchFit(ctx, a.cfg.Fit, a.home.looks)
}

// fit judges a look at the machine.
func (a *Agent) fit(err error, now time.Time) {
	a.home.looked = now
	a.judgeFit(err, now)
}

// overdue judges a look that does not come back.
func (a *Agent) overdue(now time.Time) {
	if a.home.looks == nil || now.Sub(a.home.looked) < stuckAfter {
		return
	}
	a.home.looked = now.Add(fitEvery - stuckAfter) // and again in a second
	a.judgeFit(errors.New("a write to the disk does not return"), now)
}

// judgeFit fences an unfit node: it votes its own site down, with a fault of its
// own, and doubts what it sees of others. The guard decides how far the routes may
// go. The vote is taken back as one on another site is, with a penalty.
func (a *Agent) judgeFit(err error, now time.Time) {
	h := &a.home
	if h.fitness.judge(err, clock{wall: now.Round(0), mono: now.Sub(h.began)}) {
		a.cfg.Log.Warn("fitness of this node", "fit", h.fitness.cause == "", "cause", h.fitness.cause)
		a.m.unfit.Set(map[bool]float64{true: 1}[h.fitness.cause != ""])
	}
	own := placement.SiteID(a.cfg.Site)
	switch down := a.ballot.own[own].State == placement.Down; {
	case h.fitness.cause != "" && !down:
		a.home.returns.left(own, now, h.halfLife)
		a.vote(placement.Vote{Object: own, State: placement.Down, Fault: placement.LocalFault, Cause: "unfit: " + h.fitness.cause})
	case h.fitness.cause == "" && down && a.home.returns.back(own, now):
		a.vote(placement.Vote{Object: own, State: placement.Up})
	}
}

// doubts tells whether this vantage doubts what it sees of others.
func (a *Agent) doubts() bool { return !a.home.heldAt.IsZero() || a.home.fitness.cause != "" }

// unit takes what the kernel says of another unit of this machine. An end acts at
// once, whatever the probes have seen so far; a beginning proves nothing, and the
// probes find out by themselves.
func (a *Agent) unit(e UnitEvent) {
	a.m.units.WithLabelValues(e.Unit.Name, e.State.String()).Inc()
	a.cfg.Log.Info("unit", "unit", e.Unit.Name, "pid", e.PID, "state", e.State.String(), "cause", e.Cause)
	now := time.Now()
	failed := e.State == UnitExited || e.State == UnitStalled || e.State == UnitDeaf
	a.noteEnd(e, failed)
	for _, id := range sortedIDs(a.clusters) {
		if c := a.clusters[id]; c.process(e.Unit.Listen, failed, e.Cause, now) {
			a.cast(c)
		}
	}
}
