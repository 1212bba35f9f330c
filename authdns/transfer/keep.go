package transfer

import "time"

// keep is what the zone holds, for whoever comes after it.
func (z *copied) keep() kept {
	z.mu.Lock()
	defer z.mu.Unlock()
	return kept{text: z.held.Data, listed: z.want.Listed, confirmed: z.held.Confirmed}
}

// forget removes the zone from the disk, and keeps it from coming back by a transfer
// that is under way.
func (z *copied) forget() {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.forgotten = true
	if err := z.in.shelf.remove(z.want.Name); err != nil {
		z.in.c.Log.Error("zone that its catalog lists no more not removed from disk", "zone", z.want.Name, "err", err)
	}
}

// keepOnDisk writes a version down; mu is held, or nobody else has the zone yet.
func (z *copied) keepOnDisk(text []byte, confirmed time.Time) {
	if z.forgotten {
		return
	}
	if err := z.in.shelf.put(z.want.Name, kept{text, z.want.Listed, confirmed}); err != nil {
		z.in.c.Log.Error("zone held but not kept on disk", "zone", z.want.Name, "err", err)
	}
}
