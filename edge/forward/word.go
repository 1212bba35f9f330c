package forward

import (
	"slices"
	"time"
)

// mine takes a site's word that it owns the flow. For a flow nobody asked
// about it is ignored.
func (o *owners) mine(now time.Time, f Flow, site string, steps []step) []step {
	r := o.flows[f]
	if r == nil || r.is == holding || r.moved {
		return steps
	}
	if r.is == foreign && r.owner != site {
		return steps // the first who said so is believed until it fails
	}
	was := r.is
	r.is, r.owner, r.until = foreign, site, now.Add(hintLife)
	o.remember(now, f, site)
	if was != asking {
		return steps
	}
	o.asking = without(o.asking, f)
	how := o.foundBy(site, r.waiting.how)
	r.waiting = question{}
	for _, p := range o.drain(r) {
		o.countOne(r, how)
		steps = o.toOwner(now, f, r, p, steps)
	}
	return steps
}

// notMine takes a site's word that it doesn't own the flow: the next sites are
// asked, or, if all have said no, the packets are given back. From the
// believed owner it ends the belief.
func (o *owners) notMine(now time.Time, f Flow, site string, steps []step) []step {
	r := o.flows[f]
	if r == nil {
		return steps
	}
	if r.is == foreign && r.owner == site && !r.moved {
		// The next stray asks all. Nothing waits here: what was on its
		// way to the owner is lost, and its client repeats it.
		o.retire(site, f)
		delete(o.flows, f)
		return steps
	}
	i := slices.Index(r.waiting.open, site)
	if r.is != asking || i < 0 {
		return steps
	}
	o.retire(site, f)
	r.waiting.denied(site)
	r.waiting.open = slices.Delete(r.waiting.open, i, i+1)
	if len(r.waiting.open) > 0 {
		return steps
	}
	if len(r.waiting.later) > 0 {
		if !o.affordMore(now, f, r) {
			return o.beyond(now, f, r, steps)
		}
		return o.widen(now, f, r, steps)
	}
	o.asking = without(o.asking, f)
	return o.give(now, f, r, steps)
}

// movedTo takes the old owner's word that the session went to another site.
func (o *owners) movedTo(now time.Time, f Flow, from, to string, steps []step) []step {
	r := o.flows[f]
	if r == nil || to == "" {
		return steps
	}
	// Only the owner itself may say so, or one who was asked.
	if r.is == foreign && r.owner == from && !r.moved {
		r.owner, r.until = to, now.Add(hintLife)
		o.remember(now, f, to)
		return steps
	}
	if r.is == asking {
		return o.mine(now, f, to, steps)
	}
	return steps
}

// home takes the old owner's word that the session went to this very site: the
// kernel has it, or will.
func (o *owners) home(now time.Time, f Flow, steps []step) []step {
	r := o.flows[f]
	if r == nil || r.is == holding || r.moved {
		return steps
	}
	if r.is == asking {
		o.asking = without(o.asking, f)
		steps = o.give(now, f, r, steps)
	}
	delete(o.flows, f)
	return steps
}

// widen asks those who were left for later.
func (o *owners) widen(now time.Time, f Flow, r *record, steps []step) []step {
	steps = askAll(steps, f, r.waiting.later)
	r.waiting.open = append(r.waiting.open, r.waiting.later...)
	r.waiting.later, r.waiting.how, r.asked = nil, byGroup, now
	return steps
}

// give decides that nobody owns the flow.
func (o *owners) give(now time.Time, f Flow, r *record, steps []step) []step {
	r.is, r.until, r.waiting = nobody, now.Add(nobodyLife), question{}
	for _, p := range o.drain(r) {
		o.countOne(r, byNobody)
		steps = o.refuse(r, f, p, steps)
	}
	return steps
}

// tick repeats questions that may have been lost and ends those whose time is
// up.
func (o *owners) tick(now time.Time, steps []step) []step {
	open := o.asking[:0]
	for _, f := range o.asking {
		r := o.flows[f]
		switch {
		case r == nil || r.is != asking:
		case o.unanswered(now, f, r), o.hopeless(now, f, r):
			steps = o.give(now, f, r, steps)
		case now.Sub(r.asked) >= r.pace(now):
			steps = o.again(now, f, r, steps)
			open = append(open, f)
		default:
			open = append(open, f)
		}
	}
	o.asking = open
	return steps
}

// again repeats a question to the silent, and asks the rest as well.
func (o *owners) again(now time.Time, f Flow, r *record, steps []step) []step {
	r.asked = now
	steps = askAll(steps, f, r.waiting.whomAgain())
	if len(r.waiting.later) > 0 && o.affordMore(now, f, r) {
		steps = o.widen(now, f, r, steps)
	}
	return steps
}

// sweep forgets what is no longer believed, and releases what was held and
// forgotten by its holder.
func (o *owners) sweep(now time.Time, steps []step) []step {
	var forgotten []Flow
	for f, r := range o.flows {
		switch {
		case now.Before(r.until) || r.is == asking:
		case r.is == holding:
			forgotten = append(forgotten, f)
		default:
			delete(o.flows, f)
		}
	}
	slices.SortFunc(forgotten, Flow.compare)
	for _, f := range forgotten {
		steps = o.release(f, steps)
	}
	for net, n := range o.near {
		if !now.Before(n.until) {
			delete(o.near, net)
		}
	}
	return steps
}
