package silence

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/google/nftables"
)

const (
	// Life is how long a flow stays quiet unless renewed. It bounds how long
	// a client waits for a process that does not come back.
	Life = 2 * time.Second
	// renewEvery leaves three chances before the silence ends.
	renewEvery = 500 * time.Millisecond
	// held is how long an element stands, quiet or not; all are entered anew each
	// refillEvery. So nothing is left for long by a process that is gone.
	held        = time.Minute
	refillEvery = 20 * time.Second
	// inheritedFill is when that comes first, of elements that an earlier process entered.
	inheritedFill = 2 * time.Second
	// enterEvery gathers new flows, which are entered when they have waited for one
	// such time. A session that ends before costs nothing.
	enterEvery = 100 * time.Millisecond
)

// Flow is a connection of this host.
type Flow struct{ Local, Peer netip.AddrPort }

func (f Flow) compare(o Flow) int {
	if c := f.Local.Compare(o.Local); c != 0 {
		return c
	}
	return f.Peer.Compare(o.Peer)
}

// Silence is the set of quiet flows of this host. One process has it.
type Silence struct {
	log  *slog.Logger
	mu   sync.Mutex
	nft  *kernel // nil after the end
	wish map[Flow]bool
	due  map[Flow]bool // wished for at the last look already
	// quiet are the flows the kernel was told of; those of them that left are to be taken
	// out of its set with the next that enter.
	quiet, left map[Flow]bool
	// filled is when the kernel was told all flows; zero if it may hold others.
	filled time.Time
	// impaired holds back the repetition of one complaint.
	impaired bool
}

// Open makes the table, or takes over the one that an earlier process left,
// whose flows it returns in order; they stay quiet until removed.
func Open(log *slog.Logger) (*Silence, []Flow, error) {
	k, err := openKernel()
	if err != nil {
		return nil, nil, err
	}
	s := &Silence{log: log, nft: k, wish: map[Flow]bool{}, due: map[Flow]bool{}, quiet: map[Flow]bool{}, left: map[Flow]bool{}}
	left, err := k.list()
	switch {
	case err != nil:
	case len(left) == 0: // what may be in the sets is nobody's
		s.filled = time.Now()
		err = k.refill(nil)
	default: // their own elements stand for a while: their sessions come first
		s.filled = time.Now().Add(inheritedFill - refillEvery)
		err = k.renew()
	}
	if err != nil {
		k.close()
		return nil, nil, err
	}
	for _, f := range left {
		s.quiet[f] = true
	}
	return s, left, nil
}

// Add makes a flow quiet, soon.
func (s *Silence) Add(f Flow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.left, f) // it came back
	if !s.quiet[f] && !s.due[f] {
		s.wish[f] = true
	}
}

// Leave is Remove of a flow whose socket here ends without a packet, since another host has
// the connection: nobody waits for it, and many that leave together cost one batch.
func (s *Silence) Leave(f Flow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.wish, f)
	delete(s.due, f)
	if s.quiet[f] {
		s.left[f] = true
	}
}

// Remove gives a flow back to the kernel before it returns.
func (s *Silence) Remove(f Flow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.wish, f)
	delete(s.due, f)
	delete(s.left, f)
	if !s.quiet[f] || s.nft == nil {
		return
	}
	delete(s.quiet, f)
	err := s.nft.remove([]Flow{f})
	if err != nil {
		s.filled = time.Time{} // what fails here is quiet until the next renewal
	}
	s.complain(err)
}

// Len counts the flows that the kernel keeps quiet.
func (s *Silence) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.quiet)
}

// Run renews until the context ends. Then the table goes, before Run returns:
// who ends a process in order closes its connections in order.
func (s *Silence) Run(ctx context.Context) error {
	renew, enter := time.NewTicker(renewEvery), time.NewTicker(enterEvery)
	defer renew.Stop()
	defer enter.Stop()
	for {
		select {
		case <-ctx.Done():
			return s.End()
		case <-renew.C:
			s.renew()
		case <-enter.C:
			s.enter()
		}
	}
}

// End takes the table away. The Silence is spent.
func (s *Silence) End() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nft == nil {
		return nil
	}
	err := s.nft.destroy()
	s.nft = nil
	clear(s.quiet)
	clear(s.wish)
	clear(s.due)
	clear(s.left)
	return err
}

func (s *Silence) enter() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nft == nil {
		return
	}
	s.release()
	if len(s.due) > 0 {
		flows := sorted(s.due)
		if err := s.nft.add(flows); err != nil {
			s.complain(err)
			return // the wishes stand; renewing repairs the table first
		}
		for _, f := range flows {
			s.quiet[f] = true
		}
		clear(s.due)
	}
	s.due, s.wish = s.wish, s.due
}

// release gives back to the kernel what has left. The caller holds mu.
func (s *Silence) release() {
	if len(s.left) == 0 {
		return
	}
	flows := sorted(s.left)
	clear(s.left)
	for _, f := range flows {
		delete(s.quiet, f)
	}
	if err := s.nft.remove(flows); err != nil {
		s.filled = time.Time{} // the next renewal enters the others alone
		s.complain(err)
	}
}

// renew keeps the flows quiet. If that fails, somebody has removed the table, as a
// firewall does that flushes the ruleset to load its own.
func (s *Silence) renew() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nft == nil {
		return
	}
	now := time.Now()
	err := error(nil)
	if now.Sub(s.filled) < refillEvery {
		err = s.nft.renew()
	} else {
		err = s.refill(now)
	}
	if err != nil {
		if err = s.nft.load(); err == nil {
			err = s.refill(now)
		}
	}
	s.complain(err)
}

// refill tells the kernel all flows. The caller holds mu.
func (s *Silence) refill(now time.Time) error {
	err := s.nft.refill(sorted(s.quiet))
	if s.filled = now; err != nil {
		s.filled = time.Time{}
	}
	return err
}

// complain logs the first of a row of errors.
func (s *Silence) complain(err error) {
	if err != nil && !s.impaired {
		s.log.Warn("sessions would not outlive this process", "err", fmt.Errorf("silence: %w", err))
	}
	s.impaired = err != nil
}

func sorted(m map[Flow]bool) []Flow {
	out := make([]Flow, 0, len(m))
	for f := range m {
		out = append(out, f)
	}
	slices.SortFunc(out, Flow.compare)
	return out
}

// elements splits flows by family, as keys of the two sets.
func elements(flows []Flow) (v4, v6 []nftables.SetElement) {
	for _, f := range flows {
		e := nftables.SetElement{Key: f.key()}
		if f.Local.Addr().Is4() {
			v4 = append(v4, e)
		} else {
			v6 = append(v6, e)
		}
	}
	return v4, v6
}
