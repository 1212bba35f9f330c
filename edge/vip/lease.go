package vip

import (
	"math/bits"
	"time"
)

// Timing is how long the parts of the protocol take. All members of a site must
// have the same.
type Timing struct {
	// Lease is how long a grant binds the member that gave it, by its own clock.
	Lease time.Duration
	// Margin is what the owner leaves unused of it: room for clocks that run at
	// different rates, and for the kernel to act. With it two owners are apart as
	// long as no clock is faster than another by Margin / Lease.
	Margin time.Duration
	// Renew is how often the owner asks anew.
	Renew time.Duration
	// Stagger is the distance at which the members try to take a free lease, in the
	// order of their ranks.
	Stagger time.Duration
	// Attempt is how long one try may take.
	Attempt time.Duration
}

// DefaultTiming has a dead owner's addresses answer again in about 200 ms: the lease runs out, and
// the next member needs one round trip and a few system calls. The owner may miss two
// renewals in a row.
func DefaultTiming() Timing {
	return Timing{Lease: 180 * time.Millisecond, Margin: 15 * time.Millisecond, Renew: 45 * time.Millisecond,
		Stagger: 25 * time.Millisecond, Attempt: 60 * time.Millisecond}
}

// phase is where a member stands with one lease.
type phase uint8

const (
	waiting phase = iota // somebody else has it, or nobody
	trying               // asking for it
	owning
	leaving // no longer wanted, and our kernel not known to be silent yet
)

// holder is one life of a member: what was granted to a process binds nobody
// towards the process started after it.
type holder struct {
	member int // place in the list of members
	boot   uint64
}

// step is what the machine wants done. The driver does the steps in order.
type step struct {
	do    action
	to    int           // send, to this member
	msg   message       // send
	until time.Duration // permit: our kernel may answer until then
}

type action uint8

const (
	send   action = iota
	permit        // let the kernel answer until the given time, and no longer
	take          // the lease has become ours: tell the neighbours, after permit
	forbid        // silence the kernel, then call silenced
)

// openRounds is how many questions are open at once: those of more than a lease.
const openRounds = 5

// round is one question to all members.
type round struct {
	seq  uint64
	sent time.Duration
	yes  uint64 // members that granted it, a bit each
}

// lease is one member's part in one lease: it grants it to others, and tries to
// be its owner. It is a pure state machine: the time is what the caller says it
// is, on a clock of this host that never runs backwards and stops for nothing.
//
// The promise: of all members at most one is permitted at any moment. It rests on
// three facts. A member never has two grants in force; an owner has the grants of more
// than half of the members; and it counts its time from before it asked, less the
// margin, while a grant begins when the question has arrived.
type lease struct {
	id      uint64
	self    holder
	members int
	// order are the members by preference; they try in this order.
	order  []int
	timing Timing

	grants grantor
	phase  phase
	wanted bool // we would be the owner if we could
	seq    uint64
	rounds []round
	until  time.Duration // our kernel may answer until then
	next   time.Duration // when to try, or ask anew
	limit  time.Duration // trying: until then
}

// newLease begins without anything. Grants which an earlier process of this member
// gave may still be in force, so it gives none for the length of a lease.
func newLease(id uint64, self holder, order []int, t Timing, now time.Duration) *lease {
	return &lease{id: id, self: self, members: len(order), order: order, timing: t,
		grants: grantor{free: now + t.Lease, last: -1}}
}

// majority is how many members make an owner.
func (l *lease) majority() int { return l.members/2 + 1 }

// wake is when tick has to be called next at the latest.
func (l *lease) wake() time.Duration {
	if l.phase == owning {
		return min(l.next, l.until)
	}
	return l.next
}

// tick does what time demands.
func (l *lease) tick(now time.Duration) []step {
	switch l.phase {
	case owning:
		if now >= l.until || !l.wanted {
			return l.leave(now)
		}
		if now >= l.next {
			return l.ask(now, now+l.timing.Renew)
		}
	case leaving:
		// Nobody is told before the kernel is silent, however long it refuses.
		if now >= l.next {
			return l.leave(now) // the kernel refused; once more
		}
	case trying:
		if now >= l.limit || !l.wanted {
			return l.abandon(now, l.timing.Stagger+l.turn())
		}
		if now >= l.next {
			return l.ask(now, l.limit)
		}
	case waiting:
		return l.idle(now)
	}
	return nil
}

// idle tries once the lease is free by what this member granted, and its turn has come.
func (l *lease) idle(now time.Duration) []step {
	if now < l.next {
		return nil
	}
	if !l.wanted {
		l.next = now + l.timing.Lease
		return nil
	}
	if turn := l.grants.free + l.turn(); now < turn {
		l.next = turn
		return nil
	}
	l.phase, l.limit = trying, now+l.timing.Attempt
	return l.ask(now, l.limit)
}

// ask begins a round; our own grant is the first.
func (l *lease) ask(now, next time.Duration) []step {
	l.seq++
	l.next = next
	if _, ok := l.grants.ask(now, l.timing.Lease, l.self, l.seq); !ok {
		return l.abandon(now, l.timing.Stagger) // never as an owner: our own grant is ours
	}
	l.rounds = append(l.rounds, round{seq: l.seq, sent: now, yes: 1 << l.self.member})
	if len(l.rounds) > openRounds {
		l.rounds = l.rounds[1:]
	}
	return l.toAll(kindAsk)
}

// toAll sends a message of ours to the other members.
func (l *lease) toAll(k kind) []step {
	var steps []step
	for i := range l.members {
		if i != l.self.member {
			steps = append(steps, step{do: send, to: i, msg: message{kind: k, lease: l.id, boot: l.self.boot, seq: l.seq}})
		}
	}
	return steps
}

// want tells whether this member would be owner; one that would not gives up.
func (l *lease) want(now time.Duration, wanted bool) []step {
	if wanted && !l.wanted {
		l.next = min(l.next, now)
	}
	l.wanted = wanted
	return l.tick(now)
}

// leave begins to give up what we own: the kernel first. The grants which we have bind
// the others until silenced says that it is done, or until they run out.
func (l *lease) leave(now time.Duration) []step {
	l.phase, l.rounds, l.next = leaving, nil, now+l.timing.Stagger
	return []step{{do: forbid}}
}

// silenced tells that our kernel answers no more, so that others may.
func (l *lease) silenced(now time.Duration) []step {
	if l.phase != leaving {
		return nil
	}
	l.until = 0
	return l.abandon(now, l.timing.Attempt+l.turn())
}

// abandon frees what was granted to us, and waits before the next try.
func (l *lease) abandon(now, pause time.Duration) []step {
	l.phase, l.rounds, l.next = waiting, nil, now+pause
	l.seq++
	l.grants.release(now, l.self, l.seq)
	return l.toAll(kindRelease)
}

// turn is how long this member lets others go first. The last owner goes last: it
// has just been lost, or has just given up.
func (l *lease) turn() time.Duration {
	turn := 0
	for _, m := range l.order {
		if m == l.self.member {
			break
		}
		if m != l.grants.last {
			turn++
		}
	}
	if l.grants.last == l.self.member {
		turn = l.members - 1
	}
	return time.Duration(turn) * l.timing.Stagger
}

// receive handles a message from another member.
func (l *lease) receive(now time.Duration, from int, m message) []step {
	switch m.kind {
	case kindAsk:
		return l.asked(now, from, m)
	case kindGrant:
		return l.granted(now, from, m)
	case kindDeny:
		return l.denied(now, m)
	case kindRelease:
		l.released(now, from, m)
	}
	return nil
}

// released notes that a member has the lease no longer, or tries no longer. Those
// who had granted it to that member are free again.
func (l *lease) released(now time.Duration, from int, m message) {
	was := l.grants.release(now, holder{from, m.boot}, m.seq)
	switch {
	case l.phase == trying:
		l.next = now
	case l.phase == waiting && was:
		l.next = now + l.turn()
	}
}

// asked answers a question. Who is only trying makes room for a member that goes
// before it, so that two who try at once do not hinder each other.
func (l *lease) asked(now time.Duration, from int, m message) (steps []step) {
	if l.phase == trying && l.goesBefore(from) {
		steps = l.abandon(now, l.timing.Attempt)
	}
	left, ok := l.grants.ask(now, l.timing.Lease, holder{from, m.boot}, m.seq)
	// A grant binds us from now on, whether or not the answer arrives.
	answer := message{kind: kindGrant, lease: l.id, boot: m.boot, seq: m.seq}
	if !ok {
		if left == 0 {
			return steps // an old question
		}
		answer.kind, answer.left = kindDeny, left
	}
	return append(steps, step{do: send, to: from, msg: answer})
}

// goesBefore tells whether a member is preferred to this one.
func (l *lease) goesBefore(other int) bool {
	for _, m := range l.order {
		if m == other || m == l.self.member {
			return m == other
		}
	}
	return false
}

// granted counts a grant. With a majority of one round the lease is ours for its
// length, counted from when that round was asked.
func (l *lease) granted(now time.Duration, from int, m message) []step {
	if m.boot != l.self.boot || l.phase != trying && l.phase != owning {
		return nil
	}
	for i := range l.rounds {
		r := &l.rounds[i]
		if r.seq != m.seq {
			continue
		}
		// A bit, so that an answer which came by two media counts once.
		r.yes |= 1 << from
		until := r.sent + l.timing.Lease - l.timing.Margin
		if bits.OnesCount64(r.yes) >= l.majority() && until > now && until > l.until {
			return l.own(r.sent, until)
		}
	}
	return nil
}

// own takes the lease, or goes on having it.
func (l *lease) own(sent, until time.Duration) []step {
	l.until = until
	steps := []step{{do: permit, until: until}}
	if l.phase != owning {
		l.phase, l.next = owning, sent+l.timing.Renew
		steps = append(steps, step{do: take})
	}
	return steps
}

// denied asks anew as soon as the one who said no will be free, if that is soon
// enough for this try.
func (l *lease) denied(now time.Duration, m message) []step {
	again := now + m.left + time.Millisecond
	if l.phase == trying && m.boot == l.self.boot && m.seq == l.seq && again < l.limit {
		l.next = min(l.next, again)
	}
	return nil
}
