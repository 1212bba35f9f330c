package store

import (
	"context"
	"fmt"
	"time"

	"rhumb/placement"
)

// LookFor is how long a request for looks stands: those who have not answered by then
// are not asked any more.
const LookFor = time.Minute

// PutLook asks every vantage that a request names. It vanishes by itself.
func (s *Store) PutLook(ctx context.Context, r placement.LookRequest) error {
	lease, err := s.kv.grant(ctx, LookFor)
	if err == nil {
		_, _, err = s.write(ctx, nil, []op{{key: lookKey(r.ID), value: seal(r), lease: lease}})
	}
	if err != nil {
		return fmt.Errorf("store: put look: %w", err)
	}
	return nil
}

// SetLooked answers a request; written at once when nothing is open any more.
func (s *Session) SetLooked(a placement.LookAnswer) {
	s.set(lookedKey(a.Request, s.node), seal(a), a.Open == 0)
}

// DropLooked takes the answer to a request away.
func (s *Session) DropLooked(request string) { s.set(lookedKey(request, s.node), nil, false) }
