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
	pullRank   = 3       // sites of the rendezvous order that may pull
)

// pulls remembers what was asked for. Safe for concurrent use.
type pulls struct {
	mu   sync.Mutex
	next map[frame.Key]asked
}

type asked struct {
	not  time.Time // before this
	wait time.Duration
}

func newPulls() *pulls { return &pulls{next: map[frame.Key]asked{}} }

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

// Foreign is told of a flow of a content service whose packets have been
// coming here since a time, while its session is at owner. It asks for the
// session once that is long enough. It does not block; call it again while
// strays come.
func (a *Agent) Foreign(k frame.Key, owner string, since time.Time) {
	svc, now := a.view.Load().vips[k.VIP], time.Now()
	if svc == nil || now.Sub(since) < a.moves.PullAfter || now.Sub(a.tab.gaveAt(k)) < a.moves.FlapHold {
		return
	}
	if a.tab.get(k) != nil || !a.pulls.due(k, now) {
		return
	}
	if svc.Mode != ModeAct {
		a.m.transfers.WithLabelValues(owner, a.cfg.Site, resultObserve).Inc()
		return
	}
	a.wg.Go(func() { a.pull(k, owner) })
}

// pull asks the owner for a session. The packet that was the occasion is on
// its way to the owner; were it to arrive behind the dump it would be dropped
// and sent again by the client only after its retransmission timeout.
func (a *Agent) pull(k frame.Key, owner string) {
	time.Sleep(pullQuiet)
	ctx, cancel := context.WithTimeout(context.Background(), 2*dialLimit)
	defer cancel()
	l, err := a.links.to(ctx, owner)
	if err == nil {
		err = l.send(frame.Frame{Type: frame.Pull, Key: k})
	}
	if err != nil {
		a.log.Warn("pull", "peer", owner, "err", err)
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
	}
	if err != nil {
		a.log.Debug("pull refused", "peer", l.peer, "err", err)
		// The answer may find a dead link; then the asker asks again.
		_ = l.send(frame.Frame{Type: frame.Refused, Key: f.Key, Payload: []byte(err.Error())})
	}
}

// permit decides who may pull: a target of the drain, the session's Backup,
// or one of the first sites in its order.
func (a *Agent) permit(s *session, peer string) error {
	if s.svc.Mode != ModeAct {
		a.m.transfers.WithLabelValues(a.cfg.Site, peer, resultObserve).Inc()
		return errObserve
	}
	if d := a.drain.Load(); d != nil && (len(d.to) == 0 || slices.Contains(d.to, peer)) {
		return nil
	}
	if b := s.backup.Load(); b != nil && *b == peer {
		return nil
	}
	if r := rank(s.key, peer, a.view.Load().peers); r >= 0 && r < pullRank {
		return nil
	}
	return fmt.Errorf("edge: %s may not pull this session", peer)
}
