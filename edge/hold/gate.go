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
type lanes map[Flow]*lane

// came judges a segment: whether it leaves at once, and which others are given up for it.
func (ls lanes) came(f Flow, w waiting) (leaves bool, gone []uint32) {
	l := ls[f]
	if l == nil {
		if len(ls) >= strangers && ls.strange() >= strangers {
			return false, []uint32{w.id}
		}
		l = &lane{}
		ls[f] = l
	}
	if l.known && int32(w.ack-l.upto) <= 0 {
		return true, nil
	}
	l.wait = append(l.wait, w)
	if len(l.wait) > waitMost {
		gone = []uint32{l.wait[0].id}
		l.wait = l.wait[1:]
	}
	return false, gone
}

// strange counts the connections that nobody has entered.
func (ls lanes) strange() (n int) {
	for _, l := range ls {
		if !l.known {
			n++
		}
	}
	return n
}

// enter begins a lane, instead of one of an earlier connection of the same ends.
func (ls lanes) enter(f Flow, upto uint32) (leave []uint32) {
	l := ls[f]
	if l == nil {
		l = &lane{}
		ls[f] = l
	}
	l.known, l.upto = true, upto
	return ls.allow(f, upto)
}

// allow lets acknowledgements up to upto leave, and returns those that waited for it.
func (ls lanes) allow(f Flow, upto uint32) (leave []uint32) {
	l := ls[f]
	if l == nil || !l.known {
		return nil
	}
	if int32(upto-l.upto) > 0 {
		l.upto = upto
	}
	kept := l.wait[:0]
	for _, w := range l.wait {
		if int32(w.ack-l.upto) <= 0 {
			leave = append(leave, w.id)
		} else {
			kept = append(kept, w)
		}
	}
	l.wait = kept
	return leave
}

// leave ends a lane and returns what waited in it.
func (ls lanes) leave(f Flow) (ids []uint32) {
	if l := ls[f]; l != nil {
		for _, w := range l.wait {
			ids = append(ids, w.id)
		}
	}
	delete(ls, f)
	return ids
}

// expire gives up what has waited for too long.
func (ls lanes) expire(now time.Time) (gone []uint32) {
	for f, l := range ls {
		limit := waitLong
		if !l.known {
			limit = waitToKnow
		}
		for len(l.wait) > 0 && now.Sub(l.wait[0].since) > limit {
			gone = append(gone, l.wait[0].id)
			l.wait = l.wait[1:]
		}
		if !l.known && len(l.wait) == 0 {
			delete(ls, f)
		}
	}
	return gone
}
