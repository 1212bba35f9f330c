package edge

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"rhumb/edge/frame"
	"rhumb/edge/tcprepair"
)

// revival brings back the sessions of sites and processes that died. Safe for
// concurrent use.
type revival struct {
	a    *Agent
	wire *tcprepair.Wire // nil: nothing can be probed, nothing is revived
	// ready tells that there is a wire. It is set once, by who opens it.
	ready atomic.Bool
	// opened tells that the kernel was asked once; it is Agent.Run's, then Run's.
	opened bool
	// seen is shown each session that went on, by its round; nil: to nobody.
	seen  func(*session, *round)
	woken chan struct{} // down was replaced, or the services were
	down  atomic.Pointer[[]string]
	*doubtful

	mu     sync.Mutex
	rounds map[frame.Key]*round
	// orphans are sessions that an earlier process of this site left, until
	// their record comes or their time is over.
	orphans map[frame.Key]bool
	// returned are their records, as they come.
	returned chan stored
	// fetched is when an object was last looked for by its name.
	fetched map[objectOf]time.Time
}

func newRevival(a *Agent) *revival {
	v := &revival{a: a, woken: make(chan struct{}, 1), doubtful: newDoubtful(), returned: make(chan stored, returnedQueue), rounds: map[frame.Key]*round{}, orphans: map[frame.Key]bool{}, fetched: map[objectOf]time.Time{}}
	v.down.Store(&[]string{})
	return v
}

// on reports whether the kernel lets us send segments of sessions: those of lost
// sites can be revived, and clients of moved ones be asked. Where it does not,
// sessions move and end as without all that.
func (v *revival) on() bool { return v.ready.Load() }

func (v *revival) close() error {
	if v.wire == nil {
		return nil
	}
	return v.wire.Close()
}

// SetDown tells which sites are down by the verdict of several vantages. The
// sessions of a site that falls, whose records are here, go on here; no site
// of the list is chosen as a Backup. It does not block.
func (a *Agent) SetDown(sites []string) {
	sites = slices.DeleteFunc(slices.Clone(sites), func(s string) bool { return s == a.cfg.Site })
	a.revival.down.Store(&sites)
	a.revival.wake()
	a.prep.wake()
}

func (v *revival) wake() {
	select {
	case v.woken <- struct{}{}:
	default:
	}
}

// mayAsk reports whether the client of a moved session is asked where it stands.
func (a *Agent) mayAsk(s *session) bool { return a.revival.on() && s.svc.revives() }

func (a *Agent) isDown(site string) bool { return slices.Contains(*a.revival.down.Load(), site) }

// alive are the members that are not down.
func (a *Agent) alive() []Peer {
	return slices.DeleteFunc(slices.Clone(a.view.Load().peers), func(p Peer) bool { return a.isDown(p.Name) })
}

// sure are those of them whom nobody takes for dead, if there are any.
func (a *Agent) sure() []Peer { return certain(a.alive(), *a.revival.doubted.Load()) }

// Shadowed reports whether there is a record of a session here: its packets are
// worth keeping while its owner is silent. It is a question for the session, too.
func (a *Agent) Shadowed(k frame.Key) bool {
	svc := a.view.Load().vips[k.VIP]
	if !a.revival.on() || svc == nil || !svc.revives() || !a.replica.has(k) {
		return false
	}
	a.revival.asked(k)
	return true
}

// KeptFor names the site whose session would be revived here after its loss, "" for
// none. Sites that get its packets wait for that.
func (a *Agent) KeptFor(k frame.Key) string {
	if !a.Shadowed(k) {
		return ""
	}
	return a.replica.owner(k)
}

// Heard is told of a packet of a claimed flow. It does not block and keeps
// nothing of packet.
func (a *Agent) Heard(k frame.Key, packet []byte) {
	seg, err := tcprepair.ParseSegment(packet)
	if err != nil || seg.Src != k.Client || seg.Dst != k.VIP {
		return
	}
	a.revival.mu.Lock()
	rd := a.revival.rounds[k]
	a.revival.mu.Unlock()
	if rd == nil {
		return
	}
	rd.hear(seg)
	if rd.wave != nil {
		rd.wave.heard(rd)
	}
}

// hear queues a segment; the oldest makes room, since later ones acknowledge more. It does
// not block.
func (rd *round) hear(seg tcprepair.Segment) {
	for range 2 {
		select {
		case rd.heard <- seg:
			return
		default:
		}
		select {
		case <-rd.heard:
		default:
		}
	}
}

// Run follows the verdicts until the context ends. left are the sessions of an
// earlier process of this site.
func (v *revival) Run(ctx context.Context, g *errgroup.Group, left []frame.Key) error {
	v.followUp(ctx, left)
	var known, before []string
	for {
		select {
		case <-ctx.Done():
			return nil
		case k := <-v.summoned:
			v.summon(ctx, k)
			continue
		case <-v.woken:
		}
		v.followUp(ctx, v.a.openRevival(ctx, g))
		now, doubted := *v.down.Load(), *v.doubted.Load()
		for _, site := range slices.Concat(known, before) {
			if !slices.Contains(now, site) && !slices.Contains(doubted, site) {
				v.rose(site)
			}
		}
		for _, site := range now {
			if !slices.Contains(known, site) {
				v.lost(ctx, site)
			}
		}
		known, before = now, doubted
	}
}

// followUp goes on with what an earlier process left.
func (v *revival) followUp(ctx context.Context, left []frame.Key) {
	if len(left) > 0 {
		v.a.wg.Go(func() { v.recall(ctx, left) })
	}
}

// lost begins the revival of a site's sessions. All their packets are held from
// here on; the probes leave over a moment, in proportion to their number.
func (v *revival) lost(ctx context.Context, site string) {
	now, a := time.Now(), v.a
	claimed := a.replica.take(site, a.mayRevive)
	if len(claimed) == 0 {
		return
	}
	a.log.Info("reviving sessions", "peer", site, "sessions", len(claimed))
	w := newWave(v, now, spreadOf(len(claimed), a.moves.RestoreRate), len(claimed))
	w.start(ctx)
	w.begin(claimed)
	a.wg.Go(func() { w.run(ctx) })
}

// mayRevive leaves the records of services that are not revived, or are only
// counted, where they are.
func (a *Agent) mayRevive(rec frame.Record) bool {
	svc := a.view.Load().vips[rec.Key.VIP]
	if !svc.couldRevive(&rec) {
		return false
	}
	if !svc.revives() && (svc.Revival == ModeAct || svc.Revival == ModeObserve) {
		a.m.revivals.WithLabelValues(reviveObserve).Inc()
	}
	return svc.revives() && a.revival.on() && a.uploads.knows(&rec)
}

// couldRevive reports whether a record is one of a session that a service with
// revival goes on with.
func (s *service) couldRevive(rec *frame.Record) bool {
	return s != nil && rec.Flags&frame.Pinned == 0
}

// rose ends what was begun for a site that is not down after all.
func (v *revival) rose(site string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, rd := range v.rounds {
		if rd.from == site {
			rd.end()
		}
	}
}

// spare ends the round of one session: its owner has just spoken of it.
func (v *revival) spare(k frame.Key, from string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if rd := v.rounds[k]; rd != nil && rd.from == from {
		rd.end()
	}
}
