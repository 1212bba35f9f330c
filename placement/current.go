package placement

import "sync/atomic"

// Current is the one pointer behind which snapshots swap. The node loop stores,
// everybody else loads; a loaded snapshot stays valid for as long as it is held.
// The zero value holds none.
type Current struct {
	p atomic.Pointer[Snapshot]
}

// Load returns the snapshot in force, or nil before the first one.
func (c *Current) Load() *Snapshot { return c.p.Load() }

// Store puts a snapshot in force. Only the node loop calls it.
func (c *Current) Store(s *Snapshot) { c.p.Store(s) }
