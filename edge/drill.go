package edge

import (
	"context"
	"time"

	"rhumb/edge/content"
)

// drill makes ready what the sessions of one suspected site would need. Fields
// without a remark belong to its goroutine.
type drill struct {
	p        *preparation
	ctx      context.Context
	cancel   context.CancelFunc
	seen     Preparation         // guarded by preparation.mu
	results  map[objectOf]string // as counted
	read     map[blockKey]bool   // blocks that were read, and are in the cache unless others push them out
	copies   map[objectOf]*ahead
	spooled  uint64 // bytes of the objects of copies
	needs    needs  // as of gathered
	gathered time.Time
}

// blockKey is one block of an object.
type blockKey struct {
	hash  [32]byte
	index int64
}

// ahead is a copy of the origin's that the drill began.
type ahead struct {
	over <-chan struct{}
	drop func()
}

// What became of an object, as counted.
const (
	prepareReady   = "ready"
	prepareCopying = "copying"  // of the origin
	prepareMissing = "missing"  // not here, and nobody can say where it is
	prepareBound   = "bound"    // more than is prepared for a suspicion
	prepareFailed  = "failed"   // its bytes are no longer those of its hash
	prepareObserve = "observed" // sessions, not objects: would be
)

// end stops the drill; the first result stays. The caller holds preparation.mu.
func (d *drill) end(result string) {
	if d.seen.Result != "" {
		return
	}
	d.seen.Result = result
	d.cancel()
}

// run works until the drill is ended: again and again, since the site may live, and
// have new sessions, for as long as it is suspected.
func (d *drill) run() {
	site, m := d.seen.Site, d.p.a.m.prepare
	d.meet()
	next := time.NewTimer(0)
	defer next.Stop()
	for first := true; ; first = false {
		select {
		case <-d.ctx.Done():
			s := d.close()
			if s.Result == "" {
				return // this process ends, not the suspicion
			}
			m.suspicions.WithLabelValues(site, s.Result).Inc()
			if s.Sessions > 0 {
				d.p.a.log.Info("suspicion is over", "peer", site, "result", s.Result, "sessions", s.Sessions, "ready", s.Ready)
				d.tell(s)
			}
			return
		case <-next.C:
		}
		s, soon := d.pass()
		if first && d.ctx.Err() == nil && s.Sessions+s.Observed > 0 {
			d.p.a.log.Info("site is suspected", "peer", site, "since", s.Since, "sessions", s.Sessions, "ready", s.Ready, "observed", s.Observed)
			d.tell(s)
		}
		if next.Reset(prepareEvery); soon {
			next.Reset(prepareSoon)
		}
	}
}

func (d *drill) tell(s Preparation) {
	if d.p.told != nil {
		d.p.told(s)
	}
}

// meet opens the links to the sites that may be Backups of what is revived here: a
// session that has just lost its owner needs the next one at once.
func (d *drill) meet() {
	a := d.p.a
	if !a.moves.Backups || !a.revival.on() {
		return
	}
	for _, peer := range a.alive() {
		if peer.Name != d.seen.Site && peer.Weight > 0 && a.links.have(peer.Name) == nil {
			a.wg.Go(func() { _, _ = a.links.to(d.ctx, peer.Name) }) // without it, as before
		}
	}
}

// close gives up what was begun and returns what there was. After a verdict copies
// go on: those who need them have come.
func (d *drill) close() Preparation {
	d.p.mu.Lock()
	defer d.p.mu.Unlock()
	d.p.blocks -= len(d.read)
	if d.seen.Result != PrepareVerdict {
		for _, c := range d.copies {
			c.drop()
		}
	}
	d.p.a.m.prepare.forget(d.seen.Site)
	return d.seen
}

// pass goes once through what is needed. soon: something is on its way.
func (d *drill) pass() (now Preparation, soon bool) {
	a, m := d.p.a, d.p.a.m.prepare
	n := &d.needs
	if at := time.Now(); at.Sub(d.gathered) >= prepareEvery {
		*n, d.gathered = a.replica.needs(d.seen.Site, d.seen.Since), at
		if !a.revival.on() {
			n.objects, n.idle = nil, 0 // the kernel refuses what a revival needs
		}
		d.note(n, min(max(n.idle, d.seen.Ready), n.sessions()))
	}
	ready := n.idle
	for i := range n.objects {
		if d.ctx.Err() != nil {
			break
		}
		x := &n.objects[i]
		result := d.prepare(x)
		if d.results[x.objectOf] != result {
			d.results[x.objectOf] = result
			m.objects.WithLabelValues(result).Inc()
		}
		soon = soon || result == prepareCopying
		if result == prepareReady {
			ready += x.sessions
		}
	}
	return d.note(n, ready), soon
}

// note says how far it is.
func (d *drill) note(n *needs, ready int) Preparation {
	d.p.mu.Lock()
	defer d.p.mu.Unlock()
	d.seen.Sessions, d.seen.Ready, d.seen.Observed = n.sessions(), ready, n.observed
	if d.seen.Result == "" {
		g := d.p.a.m.prepare.sessions
		g.WithLabelValues(d.seen.Site, "ready").Set(float64(ready))
		g.WithLabelValues(d.seen.Site, "waiting").Set(float64(d.seen.Sessions - ready))
		g.WithLabelValues(d.seen.Site, prepareObserve).Set(float64(n.observed))
	}
	return d.seen
}

// prepare makes one object ready.
func (d *drill) prepare(x *need) string {
	obj, ok := x.svc.source.ByHash(x.hash, "")
	if !ok {
		return d.fetch(x)
	}
	for _, b := range x.blocks {
		if b*content.BlockSize >= obj.Size() { // a record of another object under this hash: admit refuses it
			return prepareFailed
		}
		if result := d.load(obj, b); result != prepareReady {
			return result
		}
	}
	return prepareReady
}

// load brings a block into the cache, as fast as the rate and as much as half of the
// cache allows: sessions that live here are served from the rest.
func (d *drill) load(obj *content.Object, b int64) string {
	key := blockKey{obj.Hash(), b}
	if d.read[key] {
		return prepareReady
	}
	d.p.mu.Lock()
	full := d.p.blocks >= d.p.room
	if !full {
		d.p.blocks++
		d.read[key] = true
	}
	d.p.mu.Unlock()
	if full {
		return prepareBound
	}
	for !d.p.rate.take(time.Now()) {
		select {
		case <-d.ctx.Done():
			return prepareBound
		case <-time.After(time.Second / prepareRate):
		}
	}
	if _, err := obj.At(b * content.BlockSize); err != nil {
		d.p.a.log.Warn("prepare an object", "peer", d.seen.Site, "err", err)
		return prepareFailed
	}
	return prepareReady
}

// fetch has an object come here that is not: by its name, whole.
func (d *drill) fetch(x *need) string {
	c := d.copies[x.objectOf]
	switch {
	case c == nil && x.name == "":
		return prepareMissing
	case c == nil && (d.underWay() >= prepareFetch || x.size > prepareSpool-d.spooled):
		return prepareBound
	case c == nil:
		c = &ahead{}
		c.over, c.drop = x.svc.source.Ahead(x.name)
		d.copies[x.objectOf], d.spooled = c, d.spooled+x.size
	}
	select {
	case <-c.over:
		if _, ok := x.svc.source.ByHash(x.hash, ""); !ok {
			return prepareMissing // the name has another content by now, or none
		}
	default:
	}
	return prepareCopying // its blocks are read in the next pass
}

// underWay counts the copies that have not come yet.
func (d *drill) underWay() int {
	n := 0
	for _, c := range d.copies {
		select {
		case <-c.over:
		default:
			n++
		}
	}
	return n
}
