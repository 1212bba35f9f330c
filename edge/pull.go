package edge

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"rhumb/edge/frame"
)

// Limits of pulling.
const (
	pullAgain  = time.Second      // after a pull without an effect
	pullSlowly = 30 * time.Second // at most, after repeated refusals
	pullQuiet  = 20 * time.Millisecond
	maxPulls   = 100_000 // flows remembered
	pullQueue  = 8192
	pullRank   = 3 // sites of the rendezvous order that may pull
)

// pulls remembers what was asked for. Safe for concurrent use.
type pulls struct {
	queue chan pull // in order of time

	mu   sync.Mutex
	next map[frame.Key]asked
}

// pull is one wish.
type pull struct {
	key   frame.Key
	owner string
	at    time.Time // not before
}

type asked struct {
	not  time.Time // before this
	wait time.Duration
}

func newPulls() *pulls { return &pulls{queue: make(chan pull, pullQueue), next: map[frame.Key]asked{}} }

// due reports whether a flow may be asked for now, and notes that it was.
func (p *pulls) due(k frame.Key, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	old, ok := p.next[k]
	if ok && now.Before(old.not) || !ok && len(p.next) >= maxPulls {
		return false
	}
	old.not = now.Add(max(old.wait, pullAgain))
	p.next[k] = old
	return true
}

// refused doubles the time until a flow is asked for again.
func (p *pulls) refused(k frame.Key, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if old, ok := p.next[k]; ok {
		old.wait = min(max(2*old.wait, pullAgain), pullSlowly)
		old.not = now.Add(old.wait)
		p.next[k] = old
	}
}

func (p *pulls) forget(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, a := range p.next {
		if now.Sub(a.not) > pullSlowly {
			delete(p.next, k)
		}
	}
}

// Foreign is told of a flow of a service whose sessions move, whose packets have been
// coming here since a time, while its session is at owner. It asks for the
// session once that is long enough. It does not block; call it again while
// strays come.
func (a *Agent) Foreign(k frame.Key, owner string, since time.Time) {
	mode, now := a.view.Load().mode(k), time.Now()
	if mode == "" || now.Sub(since) < a.moves.PullAfter || now.Sub(a.tab.gaveAt(k)) < a.moves.FlapHold {
		return
	}
	if a.drain.Load() != nil {
		return // what was given away would come back
	}
	if a.tab.get(k) != nil || !a.guests.takes(a.view.Load().guests[k.VIP]) || !a.pulls.due(k, now) {
		return
	}
	if mode != ModeAct {
		a.m.transfers.WithLabelValues(owner, a.cfg.Site, resultObserve).Inc()
		return
	}
	if a.view.Load().vips[k.VIP] != nil && !a.mayPull(now) {
		return // its packets go on to the owner
	}
	select {
	case a.pulls.queue <- pull{k, owner, now.Add(pullQuiet)}:
	default: // asked for again while strays come
	}
}

// asks sends the pulls. The packet that was the occasion of one is on its way
// to the owner; were it to arrive behind the dump it would be dropped, and
// sent again by the client only after its retransmission timeout.
func (a *Agent) asks(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case p := <-a.pulls.queue:
			timer.Reset(time.Until(p.at))
			select {
			case <-ctx.Done():
				return nil
			case <-timer.C:
			}
			a.pullNow(ctx, p)
		}
	}
}

// pullNow asks the owner of one session for it. It waits for a dial, and no
// longer, so one site that does not answer delays the others little.
func (a *Agent) pullNow(ctx context.Context, p pull) {
	wait, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	l, err := a.links.to(wait, p.owner)
	if err == nil {
		err = l.send(frame.Frame{Type: frame.Pull, Key: p.key})
	}
	if err != nil {
		a.pulls.refused(p.key, time.Now())
		a.log.Warn("pull", "peer", p.owner, "err", err)
	}
}

// pulled answers another site's wish for a session.
func (a *Agent) pulled(ctx context.Context, l *link, f frame.Frame) {
	s := a.tab.get(f.Key)
	err := errUnknown
	if s != nil {
		if err = a.permit(s, l.peer); err == nil {
			err = a.give(ctx, s, l.peer)
		}
	} else if svc := a.view.Load().guests[f.Key.VIP]; svc != nil {
		err = a.guests.pulled(ctx, svc, f.Key, l.peer)
	}
	if err != nil {
		a.log.Debug("pull refused", "peer", l.peer, "err", err)
		// The answer may find a dead link; then the asker asks again.
		_ = l.send(frame.Frame{Type: frame.Refused, Key: f.Key, Payload: []byte(err.Error())})
	}
}

// permit decides who may pull: another edge of this site, a target of the drain, a Backup
// of the session, or one of the first sites in its order.
func (a *Agent) permit(s *session, peer string) error {
	if s.svc.Mode != ModeAct {
		a.m.transfers.WithLabelValues(a.cfg.Site, peer, resultObserve).Inc()
		return errObserve
	}
	if a.drainsTo(peer) || s.mayKeep(peer) || a.inOrder(s.key, peer) {
		return nil
	}
	return fmt.Errorf("edge: %s may not pull this session", peer)
}

// drainsTo reports whether a drain names a site.
func (a *Agent) drainsTo(peer string) bool {
	d := a.drain.Load()
	return d != nil && (len(d.to) == 0 || slices.Contains(d.to, peer))
}

// inOrder reports whether a peer is another edge of this site, or a site among the first
// in a session's order. The routers in front of a site choose among its edges: each may be
// the right one.
func (a *Agent) inOrder(k frame.Key, peer string) bool {
	v := a.view.Load()
	if p, ok := v.peer(peer); ok && a.isNear(p) {
		return true
	}
	r := rank(k, peer, slices.DeleteFunc(slices.Clone(v.peers), a.isNear))
	return r >= 0 && r < pullRank
}
