package edge

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"time"

	"rhumb/edge/content"
	"rhumb/edge/frame"
)

// need is what the revival of some sessions would ask of one object.
type need struct {
	objectOf
	svc      *service
	name     string // "" if nobody told
	size     uint64
	sessions int
	blocks   []int64 // next to where the clients are, rising
}

// needs is what the sessions of a site would need here if it were lost.
type needs struct {
	objects  []need // those of most sessions first
	idle     int    // sessions between two requests: nothing
	observed int    // sessions that are only counted
}

// sessions is how many would go on here.
func (n *needs) sessions() int {
	sum := n.idle
	for i := range n.objects {
		sum += n.objects[i].sessions
	}
	return sum
}

// needs looks through the records of a site's sessions. at is when they were last
// served: none is further than it was then.
func (r *replica) needs(site string, at time.Time) needs {
	var out needs
	vips := r.a.view.Load().vips
	type gathered struct {
		need
		blocks map[int64]bool
	}
	by := map[objectOf]*gathered{}
	r.mu.Lock()
	for _, st := range r.store {
		svc := vips[st.rec.Key.VIP]
		switch {
		case st.from != site || st.deposit || !svc.couldRevive(&st.rec) || svc.id != st.rec.Service:
			continue
		case !svc.revives():
			if svc.Revival == ModeAct || svc.Revival == ModeObserve {
				out.observed++
			}
			continue
		case st.rec.Object == [32]byte{} || st.rec.Length == 0 || st.rec.Flags&(frame.Head|frame.Idle) != 0:
			out.idle++
			continue
		}
		o := objectOf{st.rec.Service, st.rec.Object}
		g := by[o]
		if g == nil {
			g = &gathered{need{objectOf: o, svc: svc, name: r.names[o].name, size: st.rec.Size}, map[int64]bool{}}
			by[o] = g
		}
		g.sessions++
		for _, b := range st.blocks(at) {
			g.blocks[b] = true
		}
	}
	r.mu.Unlock()
	for _, g := range by {
		g.need.blocks = slices.Sorted(maps.Keys(g.blocks))
		out.objects = append(out.objects, g.need)
	}
	slices.SortFunc(out.objects, func(a, b need) int {
		return cmp.Or(cmp.Compare(b.sessions, a.sessions), cmp.Compare(a.service, b.service), bytes.Compare(a.hash[:], b.hash[:]))
	})
	return out
}

// blocksAround is how many blocks to either side of the likely place are made ready:
// what the owner's kernel had taken, the client may not have; and the last word of it
// is a few seconds old.
const blocksAround = 1

// blocks are those of the object which a session will need first.
func (st stored) blocks(at time.Time) []int64 {
	// The response's head is short beside a block: it is not counted.
	gone := st.pace * max(at.Sub(st.at).Seconds(), 0)
	off := min(st.rec.Offset+uint64(gone), st.rec.Length-1)
	here := int64((st.rec.Start + off) / content.BlockSize)
	first, last := int64(st.rec.Start/content.BlockSize), int64((st.rec.Start+st.rec.Length-1)/content.BlockSize)
	var out []int64
	for b := max(here-blocksAround, first); b <= min(here+blocksAround, last); b++ {
		out = append(out, b)
	}
	return out
}

// paceSince is how fast the response runs, by the word before this one. Words that
// follow each other at once say nothing about that.
func (st stored) paceSince(old stored) float64 {
	same := old.rec.Epoch == st.rec.Epoch && old.rec.Base == st.rec.Base && old.rec.Object == st.rec.Object && old.rec.Offset <= st.rec.Offset
	took := st.at.Sub(old.at)
	switch {
	case old.at.IsZero() || !same:
		return 0
	case took < time.Second:
		return old.pace
	}
	return float64(st.rec.Offset-old.rec.Offset) / took.Seconds()
}
