package vip

import "time"

// grantor is a member's word: to whom it has granted the lease, and until when. It
// never has two grants in force.
type grantor struct {
	to   holder
	seq  uint64        // of the last question of to that was answered, or of its release
	free time.Duration // until then the grant is in force
	last int           // the member that had it last; -1: none
}

// ask grants the lease to a holder for its length from now on, unless another one
// has it. If not, left is how long that will be so; it is 0 for a question that was
// overtaken by a later one, which deserves no answer.
func (g *grantor) ask(now, length time.Duration, h holder, seq uint64) (left time.Duration, ok bool) {
	if g.to == h && seq <= g.seq {
		return 0, false
	}
	if now < g.free && g.to != h {
		return g.free - now, false
	}
	g.to, g.seq, g.free, g.last = h, seq, now+length, h.member
	return 0, true
}

// release ends a holder's grant, if it is in force; it tells whether it was.
func (g *grantor) release(now time.Duration, h holder, seq uint64) bool {
	if g.to != h || seq <= g.seq {
		return false
	}
	was := now < g.free
	g.seq, g.free = seq, min(g.free, now)
	return was
}
