package forward

import (
	"bytes"
	"slices"
	"time"
)

// keep lets a packet wait with its flow. What exceeds the bounds is lost, as
// in any full queue; TCP sends it again.
func (o *owners) keep(r *record, p []byte) {
	if len(r.packets) >= maxHeldPackets || o.held+len(p) > maxHeldOctets {
		return
	}
	r.packets = append(r.packets, bytes.Clone(p))
	o.held += len(p)
	o.heldNow++
}

// drain takes the waiting packets out, in the order they came.
func (o *owners) drain(r *record) [][]byte {
	packets := r.packets
	r.packets, r.early = nil, 0
	for _, p := range packets {
		o.held -= len(p)
	}
	o.heldNow -= len(packets)
	return packets
}

// hold keeps all packets of a flow from now on, those which wait already
// included, until release.
func (o *owners) hold(now time.Time, f Flow) {
	r := o.flows[f]
	if r == nil {
		r = &record{since: now}
		o.flows[f] = r
	}
	// A flow that was asked about stays in the list of those until the next tick, which passes
	// over it: a lost site's sessions come by the thousand, and to look for each costs as much
	// as all the rest.
	// A session that comes back to the site which gave it away is no
	// longer elsewhere.
	r.is, r.owner, r.moved, r.watch, r.claimed = holding, "", false, false, false
	r.waiting, r.until = question{}, now.Add(holdLife)
}

// claim is hold for a session whose owner is lost.
func (o *owners) claim(now time.Time, f Flow) {
	o.hold(now, f)
	o.flows[f].claimed = true
}

// claims tells whether a session of the flow is being revived here.
func (o *owners) claims(f Flow) bool {
	r := o.flows[f]
	return r != nil && r.is == holding && r.claimed
}

// mayBeHere reports whether a session that was claimed is, or was, brought back here.
func (o *owners) mayBeHere(f Flow) bool {
	r := o.flows[f]
	return r == nil || r.is == holding
}

// lost forgets what a site was believed to own. The next stray of such a flow
// asks all.
func (o *owners) lost(site string) {
	for f, r := range o.flows {
		if r.is == foreign && r.owner == site {
			delete(o.flows, f)
		}
	}
	for net, n := range o.near {
		if n.site == site {
			delete(o.near, net)
		}
	}
}

// holds tells whether packets of the flow are kept, and keeps this one if so. It
// came by tunnel: where a session moves it is one that was sent to the old owner
// and returned, older than what came here by itself since. So it goes before that:
// a client's word of a closed window must not follow the word that it is open.
func (o *owners) holds(f Flow, p []byte) bool {
	r := o.flows[f]
	if r == nil || r.is != holding {
		return false
	}
	n := len(r.packets)
	o.keep(r, p)
	if len(r.packets) > n {
		r.packets = slices.Insert(r.packets[:n], r.early, r.packets[n])
		r.early++
	}
	return true
}

// release gives the kept packets back to the kernel and forgets the flow.
func (o *owners) release(f Flow, steps []step) []step {
	r := o.flows[f]
	if r == nil || r.is != holding {
		return steps
	}
	for _, p := range o.drain(r) {
		steps = append(steps, step{do: doGiveBack, flow: f, packet: p})
	}
	delete(o.flows, f)
	return steps
}

// move records that this site gave a session away: what still arrives here
// follows it.
func (o *owners) move(now time.Time, f Flow, to string, steps []step) []step {
	r := o.flows[f]
	if r == nil {
		r = &record{since: now}
		o.flows[f] = r
	}
	if r.is == asking {
		o.asking = without(o.asking, f)
	}
	r.is, r.owner, r.moved, r.until, r.waiting = foreign, to, true, now.Add(movedLife), question{}
	r.claimed, r.passed = false, 0
	for _, p := range o.drain(r) {
		steps = append(steps, step{do: doTunnel, flow: f, site: to, packet: p})
	}
	return steps
}

// stay ends the hold of a session that stayed with its owner: what was kept is the owner's.
// Unlike with move, the owner's denial ends that: it may have died over the session since.
func (o *owners) stay(now time.Time, f Flow, at string, steps []step) []step {
	steps = o.move(now, f, at, steps)
	r := o.flows[f]
	r.moved, r.until = false, now.Add(hintLife)
	return steps
}

// wentTo returns where this site gave the session of a flow, or "".
func (o *owners) wentTo(now time.Time, f Flow) string {
	if r := o.flows[f]; r != nil && r.moved && now.Before(r.until) {
		return r.owner
	}
	return ""
}

// passedMost is how many packets that come by tunnel follow a session that was given away:
// more than are on their way when it moves. Where two sites take each other for its new
// owner, that is what they send each other.
const passedMost = 128

// passes tells whether one more packet that came by tunnel follows the session that this site
// gave away, and counts it. Its client would send it again, but only after a time-out.
func (o *owners) passes(f Flow) bool {
	r := o.flows[f]
	if r == nil || !r.moved || r.passed == passedMost {
		return false
	}
	r.passed++
	return true
}
