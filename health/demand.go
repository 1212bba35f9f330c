package health

import (
	"net/netip"
	"time"

	"rhumb/placement"
)

// The limits of looks on demand. One counts as any other look, so a person's loop must
// not make a service fail, or recover, faster than its checks mean it to.
const (
	// askedAtMost is how long after a look on demand the same target is not looked at on
	// demand again, where its own interval is not shorter.
	askedAtMost = 10 * time.Second
	// errandFor bounds an errand whose looks do not come back.
	errandFor = time.Minute
	// errandsWait is how many requests may wait for the loop.
	errandsWait = 16
)

// lookID is one check of one address.
type lookID struct {
	object placement.ClusterID
	addr   netip.AddrPort
	check  string
}

// demand is what people have asked to be looked at. It belongs to the loop, but for in.
type demand struct {
	in      chan errand
	errands []*errand
	last    map[lookID]time.Time // of the last look on demand
}

// errand is one request on its way.
type errand struct {
	request placement.LookRequest
	tell    func(placement.LookAnswer)
	began   time.Time
	waiting map[lookID]time.Time // and when a look must have begun at the earliest
	answer  placement.LookAnswer
}

func newDemand() demand {
	return demand{in: make(chan errand, errandsWait), last: make(map[lookID]time.Time)}
}

// LookNow has what a request names looked at without waiting for its turn. tell gets
// what was found so far after each look, and the last time with nothing open; it is
// called from the agent's goroutine and must not block. Any goroutine may call LookNow;
// false: too many requests wait already.
func (a *Agent) LookNow(r placement.LookRequest, tell func(placement.LookAnswer)) bool {
	select {
	case a.demand.in <- errand{request: r, tell: tell}:
		return true
	default:
		return false
	}
}

// ask begins an errand: lookAt is called for each target that is to be looked at.
func (a *Agent) ask(e errand, lookAt func(lookID), now time.Time) {
	e.began, e.waiting = now, make(map[lookID]time.Time)
	e.answer = placement.LookAnswer{Request: e.request.ID, Vantage: a.cfg.Node, Site: a.cfg.Site, Looks: []placement.FreshLook{}}
	for _, id := range sortedIDs(a.clusters) {
		c := a.clusters[id]
		for i := range c.addresses {
			ad := &c.addresses[i]
			for k := range ad.parts {
				if p := &ad.parts[k]; e.request.Wants(id, p.check.Name) {
					a.send(&e, ad, p, lookID{id, ad.addr, p.check.Name}, lookAt)
				}
			}
		}
	}
	a.cfg.Log.Info("look on demand", "object", e.request.Object(), "who", e.request.Who, "looks", len(e.waiting), "repeated", e.answer.Total)
	a.demand.errands = append(a.demand.errands, &e)
	a.progress(&e)
}

// send has one target looked at for an errand. One that was a moment ago is not: the
// errand waits for that look with the others, or takes its result.
func (a *Agent) send(e *errand, ad *address, p *part, id lookID, lookAt func(lookID)) {
	gap := min(p.check.Every.Or(placement.DefaultEvery), askedAtMost)
	if last := a.demand.last[id]; !last.IsZero() && e.began.Sub(last) < gap {
		a.m.asked.WithLabelValues("repeated").Inc()
		if a.demand.awaits(id) || p.looks == 0 {
			e.waiting[id] = last
			return
		}
		row := p.fresh(id.object, ad)
		row.Repeated = true
		e.answer.Add(row)
		return
	}
	a.m.asked.WithLabelValues("looked").Inc()
	a.demand.last[id] = e.began
	e.waiting[id] = e.began
	lookAt(id)
}

func (d *demand) awaits(id lookID) bool {
	for _, e := range d.errands {
		if _, waits := e.waiting[id]; waits {
			return true
		}
	}
	return false
}

// answer takes a look, which began at a time, for those errands that wait for it. One
// that began before an errand was not made for it.
func (a *Agent) answer(id lookID, c *cluster, began time.Time) {
	for _, e := range a.demand.errands {
		if earliest, waits := e.waiting[id]; !waits || began.Before(earliest) {
			continue
		}
		ad := c.find(id.addr)
		if ad == nil || ad.part(id.check) == nil {
			continue // no longer watched: closeErrands gives up on it
		}
		delete(e.waiting, id)
		e.answer.Add(ad.part(id.check).fresh(id.object, ad))
		a.progress(e)
	}
	a.demand.forget()
}

// progress tells how far an errand is.
func (a *Agent) progress(e *errand) {
	e.answer.Open = len(e.waiting)
	out := e.answer
	out.Looks = append([]placement.FreshLook{}, e.answer.Looks...)
	e.tell(out)
}

// closeErrands gives up on looks at what is not watched any more, and on errands that
// take too long; and forgets when old looks on demand were.
func (a *Agent) closeErrands(now time.Time) {
	for _, e := range a.demand.errands {
		before := len(e.waiting)
		for id := range e.waiting {
			if c := a.clusters[id.object]; now.Sub(e.began) > errandFor || c == nil || c.find(id.addr) == nil || c.find(id.addr).part(id.check) == nil {
				delete(e.waiting, id)
			}
		}
		if len(e.waiting) < before {
			a.progress(e)
		}
	}
	a.demand.forget()
	for id, at := range a.demand.last {
		if now.Sub(at) > askedAtMost {
			delete(a.demand.last, id)
		}
	}
}

// forget drops errands that are done.
func (d *demand) forget() {
	kept := d.errands[:0]
	for _, e := range d.errands {
		if len(e.waiting) > 0 {
			kept = append(kept, e)
		}
	}
	clear(d.errands[len(kept):])
	d.errands = kept
}

// fresh is the last look at a part, and how far it is from another state.
func (p *part) fresh(id placement.ClusterID, ad *address) placement.FreshLook {
	out := placement.FreshLook{CheckStatus: p.status(id, ad), Found: p.last.State}
	switch d := &p.damp; {
	case d.state != placement.Down && d.bad > 0:
		out.InRow, out.Needed = d.bad, d.fall
	case d.state == placement.Down && d.good > 0:
		out.InRow, out.Needed = min(d.good, d.rise), d.rise
	}
	return out
}
