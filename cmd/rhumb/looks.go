package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"rhumb/internal/api"
	"rhumb/placement"
	"rhumb/placement/store"
)

// lookDesk is a unit's part in looks on demand. Where a health role is, it hears of the
// fleet's requests and has the role look; what is asked of a unit without a store that
// answers stays on its own machine. Safe for concurrent use.
type lookDesk struct {
	u *unit
	// now has the health role of this process look; nil without one.
	now func(placement.LookRequest, func(placement.LookAnswer)) bool

	mu    sync.Mutex // guards what follows
	known map[string]time.Time
	local []placement.LookRequest // asked of this unit alone, newest last
	found map[string]placement.LookAnswer
}

func newLookDesk(u *unit) *lookDesk {
	return &lookDesk{u: u, known: make(map[string]time.Time), found: make(map[string]placement.LookAnswer)}
}

// sameWithin is how long a request for the same is taken for the one before: whoever
// asks in a loop gets the answer that is under way.
const sameWithin = 3 * time.Second

// looksStand is how many requests may stand at once in the fleet: each is written to the
// store by everybody whom it concerns.
const looksStand = 32

// LookNow asks all vantages by the store; while that is away, or is a file, the one of
// this machine alone.
func (d *lookDesk) LookNow(ctx context.Context, r placement.LookRequest) (placement.LookRequest, error) {
	standing, _ := d.seen()
	for i := len(standing) - 1; i >= 0; i-- {
		if s := &standing[i]; s.Same(&r) && r.At.Sub(s.At) < sameWithin {
			return *s, nil
		}
	}
	if len(standing) >= looksStand {
		return r, fmt.Errorf("%w: %d looks on demand stand; each does for a minute", api.ErrBusy, len(standing))
	}
	r.ID = strconv.FormatInt(r.At.UnixNano(), 36) + "-" + d.u.cfg.Node.Name
	if d.u.views.view().Connected && !d.u.alone() {
		err := d.u.store.PutLook(ctx, r)
		d.tell(&r, err)
		return r, storeError(err)
	}
	if d.now == nil {
		return r, fmt.Errorf("%w; ask the unit with role health on a machine of the site", api.ErrUnavailable)
	}
	var err error
	d.mu.Lock()
	d.local = append(d.local, r)
	d.mu.Unlock()
	if !d.take(r) {
		err = api.ErrBusy
	}
	d.tell(&r, err)
	return r, err
}

// tell writes an event: who asked for what.
func (d *lookDesk) tell(r *placement.LookRequest, err error) {
	text := "looks at " + r.Object() + " on demand"
	if r.Reason != "" {
		text += ": " + r.Reason
	}
	if err != nil {
		text += " (failed: " + err.Error() + ")"
	}
	d.u.event(placement.Event{Kind: "health", Site: cmp.Or(r.Site, d.u.cfg.Node.Site), Who: r.Who, Text: text})
}

// seen are the requests that stand and what was answered, by the store and here.
func (d *lookDesk) seen() ([]placement.LookRequest, []placement.LookAnswer) {
	if d == nil {
		return nil, nil
	}
	v := d.u.views.view()
	d.mu.Lock()
	defer d.mu.Unlock()
	looks, looked := slices.Concat(v.Looks, d.local), slices.Clone(v.Looked)
	for _, r := range d.local {
		if a, ok := d.found[r.ID]; ok {
			looked = append(looked, a)
		}
	}
	return looks, looked
}

// take has the health role of this process look for a request; once for each.
func (d *lookDesk) take(r placement.LookRequest) bool {
	d.mu.Lock()
	_, known := d.known[r.ID]
	d.known[r.ID] = time.Now()
	d.mu.Unlock()
	if known || d.now(r, d.answer) {
		return true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.known, r.ID) // the role has just started, or has much to do: at the next view
	return false
}

// answer takes what the role found so far. It is called by the role's own loop.
func (d *lookDesk) answer(a placement.LookAnswer) {
	d.mu.Lock()
	d.found[a.Request] = a
	d.mu.Unlock()
	if !d.u.alone() {
		d.u.session.SetLooked(a)
	}
}

// run hears the fleet's requests and forgets those that are over, until ctx ends.
func (d *lookDesk) run(ctx context.Context) error {
	views := d.u.views.subscribe()
	tick := time.NewTicker(store.LookFor / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case v := <-views:
			for _, r := range v.Looks {
				if d.now != nil && (r.Site == "" || r.Site == d.u.cfg.Node.Site) {
					d.take(r)
				}
			}
		case now := <-tick.C:
			d.forget(now)
		}
	}
}

// forget drops what was asked too long ago for anybody to read.
func (d *lookDesk) forget(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.local = slices.DeleteFunc(d.local, func(r placement.LookRequest) bool { return now.Sub(r.At) > store.LookFor })
	for id, at := range d.known {
		if now.Sub(at) > 2*store.LookFor { // the store's own clock ends it a little later
			delete(d.known, id)
			delete(d.found, id)
			d.u.session.DropLooked(id)
		}
	}
}
