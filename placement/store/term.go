package store

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// TermTTL is how long the director's lease outlives its holder by default. etcd
// rounds up to seconds and grants no less than 1.5 election timeouts.
const TermTTL = 3 * time.Second

// Term is the time for which one node directs. Safe for concurrent use.
type Term struct {
	// Node directs; Revision is the store revision at which the term began.
	Node     string
	Revision int64

	kv    kv
	lease int64
	ttl   time.Duration
	end   context.CancelFunc
	done  chan struct{} // closed when the term has ended
	freed chan struct{} // closed when the lease was given back
}

// Done closes when the term has ended: resigned, or lost. A holder which cannot
// renew learns so before the lease runs out at the server, since it counts
// from the moment at which it asked.
func (t *Term) Done() <-chan struct{} { return t.done }

// Resign ends the term and gives the lease back, so that another node takes
// over at once.
func (t *Term) Resign() {
	t.end()
	<-t.freed
}

// guard is the condition under which the holder of the term may write.
func (t *Term) guard() cond { return cond{keyLeader, t.Revision} }

// leader is the value of the leader key.
type leader struct {
	Node  string    `json:"node"`
	Since time.Time `json:"since"`
}

// Campaign waits until node leads. ctx bounds both the wait and the term: when
// it ends, the term is resigned.
func (s *Store) Campaign(ctx context.Context, node string) (*Term, error) {
	ttl := s.termTTL
	for {
		t, seen, err := s.claim(ctx, node, ttl)
		switch {
		case ctx.Err() != nil:
			return nil, fmt.Errorf("store: campaign: %w", ctx.Err())
		case err != nil:
			s.log.Warn("store: campaign", "err", err)
			pause(ctx, ttl/3)
		case t != nil:
			return t, nil
		default:
			s.awaitVacancy(ctx, seen, ttl)
		}
	}
}

// claim tries once to lead; without success it returns the revision from which
// to watch for the other leader's end.
func (s *Store) claim(ctx context.Context, node string, ttl time.Duration) (*Term, int64, error) {
	term := ctx // outlives the attempt
	ctx, cancel := context.WithTimeout(ctx, max(ttl, time.Second))
	defer cancel()
	found, rev, err := s.read(ctx, query{span: only(keyLeader)})
	if err != nil || len(found[0]) > 0 {
		return nil, rev, err
	}
	asked := time.Now()
	lease, err := s.kv.grant(ctx, ttl)
	if err != nil {
		return nil, 0, err
	}
	o := put(keyLeader, seal(leader{node, s.now().UTC()}))
	o.lease = lease
	began, ok, err := s.write(ctx, []cond{{keyLeader, 0}}, []op{o})
	if err != nil || !ok {
		// An unused lease runs out by itself where this fails; if the write
		// did happen after all, the key goes with it.
		s.release(lease)
		return nil, began, err
	}
	return s.begin(term, node, began, lease, asked), 0, nil
}

func (s *Store) begin(ctx context.Context, node string, rev, lease int64, asked time.Time) *Term {
	ctx, end := context.WithCancel(ctx)
	t := &Term{Node: node, Revision: rev, kv: s.kv, lease: lease, ttl: s.termTTL, end: end,
		done: make(chan struct{}), freed: make(chan struct{})}
	go func() {
		defer close(t.freed)
		t.hold(ctx, asked)
		close(t.done) // at once: giving the lease back may take a while
		end()
		s.release(lease)
	}()
	return t
}

// hold renews the lease until ctx ends or the lease is lost.
func (t *Term) hold(ctx context.Context, renewed time.Time) {
	for {
		pause(ctx, t.ttl/3)
		if ctx.Err() != nil {
			return
		}
		asked := time.Now()
		left := t.ttl - asked.Sub(renewed)
		kctx, cancel := context.WithTimeout(ctx, left)
		err := t.kv.keep(kctx, t.lease)
		cancel()
		switch {
		case err == nil:
			renewed = asked
		case errors.Is(err, errLease) || time.Since(renewed) >= t.ttl:
			return
		}
	}
}

// release gives a lease back; when the store is away it runs out by itself.
func (s *Store) release(lease int64) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := s.kv.revoke(ctx, lease); err != nil && !errors.Is(err, errLease) {
		s.log.Debug("store: lease not revoked, it runs out", "err", err)
	}
}

// awaitVacancy waits until the leader key goes, or a ttl has passed: a watcher
// of a dead server says nothing.
func (s *Store) awaitVacancy(ctx context.Context, rev int64, ttl time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, ttl)
	defer cancel()
	for b := range s.kv.watch(ctx, rev+1, only(keyLeader)) {
		for _, c := range b.changes {
			if c.deleted {
				return
			}
		}
	}
}

// pause waits for a while or for the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
