package hold

import "time"

// Bounds of what waits. Acknowledgements are cumulative, so the oldest may go: a later
// one says the same and more. What a connection sends besides, it repeats.
const (
	waitMost   = 256              // segments of one connection
	strangers  = 4096             // connections that nobody has entered yet
	waitLong   = 10 * time.Second // of a segment
	waitToKnow = time.Second      // of a connection to be entered
)

// waiting is a segment in the kernel's queue.
type waiting struct {
	id    uint32
	ack   uint32
	since time.Time
}

// lane is one connection: what may be acknowledged of it, and what waits.
type lane struct {
	known bool
	upto  uint32
	wait  []waiting
}

// lanes decide on segments. They are values and time alone; one caller at a time.
type lanes struct {
	of map[Flow]*lane
	// busy are those in which something waits: few of many, and all that expire looks at.
	busy    map[Flow]*lane
	strange int // connections that nobody has entered
}

func newLanes() *lanes { return &lanes{of: map[Flow]*lane{}, busy: map[Flow]*lane{}} }

// lane is that of a connection, perhaps a new one, that nobody has entered.
func (ls *lanes) lane(f Flow) *lane {
	l := ls.of[f]
	if l == nil {
		l = &lane{}
		ls.of[f] = l
		ls.strange++
	}
	return l
}

// came judges a segment: whether it leaves at once, and which others are given up for it.
func (ls *lanes) came(f Flow, w waiting) (leaves bool, gone []uint32) {
	if ls.of[f] == nil && ls.strange >= strangers {
		return false, []uint32{w.id}
	}
	l := ls.lane(f)
	if l.known && int32(w.ack-l.upto) <= 0 {
		return true, nil
	}
	l.wait = append(l.wait, w)
	ls.busy[f] = l
	if len(l.wait) > waitMost {
		gone = []uint32{l.wait[0].id}
		l.wait = l.wait[1:]
	}
	return false, gone
}

// enter begins a lane, instead of one of an earlier connection of the same ends.
func (ls *lanes) enter(f Flow, upto uint32) (leave []waiting) {
	l := ls.lane(f)
	if !l.known {
		ls.strange--
	}
	l.known, l.upto = true, upto
	return ls.allow(f, upto)
}

// allow lets acknowledgements up to upto leave, and returns those that waited for it.
func (ls *lanes) allow(f Flow, upto uint32) (leave []waiting) {
	l := ls.of[f]
	if l == nil || !l.known {
		return nil
	}
	if int32(upto-l.upto) > 0 {
		l.upto = upto
	}
	if len(l.wait) == 0 {
		return nil
	}
	kept := l.wait[:0]
	for _, w := range l.wait {
		if int32(w.ack-l.upto) <= 0 {
			leave = append(leave, w)
		} else {
			kept = append(kept, w)
		}
	}
	if l.wait = kept; len(kept) == 0 {
		l.wait = nil // most lanes wait once
		delete(ls.busy, f)
	}
	return leave
}

// leave ends a lane and returns what waited in it.
func (ls *lanes) leave(f Flow) []waiting {
	l := ls.of[f]
	if l == nil {
		return nil
	}
	ls.remove(f, l)
	return l.wait
}

func (ls *lanes) remove(f Flow, l *lane) {
	if !l.known {
		ls.strange--
	}
	delete(ls.of, f)
	delete(ls.busy, f)
}

// expire gives up what has waited for too long.
func (ls *lanes) expire(now time.Time) (gone []uint32) {
	for f, l := range ls.busy {
		limit := waitLong
		if !l.known {
			limit = waitToKnow
		}
		for len(l.wait) > 0 && now.Sub(l.wait[0].since) > limit {
			gone = append(gone, l.wait[0].id)
			l.wait = l.wait[1:]
		}
		switch {
		case len(l.wait) > 0:
		case l.known:
			delete(ls.busy, f)
		default:
			ls.remove(f, l)
		}
	}
	return gone
}
