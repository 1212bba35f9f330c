package edge

import (
	"fmt"
	"testing"

	"rhumb/edge/handsock"
)

// The model of one hand-off: both servers, both agents, the messages between them, and
// what the kernels have. All parties may die at any step, agents come back with nothing
// but what the taker's ledger says, and may die again; messages between the sites are
// lost or late, clocks run out at any time. What the parties decide is decided by the
// functions of the product.

type sock uint8

const (
	sockNone sock = iota
	sockSilent
	sockSpeaks
)

// said is a queue between an agent and its server, in order: up to four messages.
type said struct {
	n int
	m [6]handsock.Type
}

func (q *said) put(t handsock.Type) { q.m[q.n] = t; q.n++ }
func (q *said) get() handsock.Type {
	t := q.m[0]
	copy(q.m[:], q.m[1:])
	q.n--
	q.m[q.n] = 0
	return t
}

// flight are messages between the sites: any of them may come next, or never.
type flight uint8

const (
	flCommit flight = 1 << iota
	flAbort
	flReady
	flRefused
	flUnknown
	flActive
)

type party uint8

const (
	alive party = iota
	dead
	reborn // with its ledger alone
)

type serverState uint8

const (
	serving serverState = iota
	inHandOff
	hasLeft
	crashed
)

// world is everything. Comparable.
type handOff struct {
	server1 serverState
	phase1  handsock.Phase
	to1     said
	agent1  party
	give    givePhase
	told    bool // the server was told commit, the taker not yet
	tries   int
	sock1   sock
	net     flight
	agent2  party
	take    takePhase
	book    ledgerState // of the taker
	dim     bool        // its ledger has forgotten, and knows that
	starts  int         // steps of takeStart that are still to be done
	decl    bool
	asked   bool // the giver's next agent was asked by its server
	server2 serverState
	phase2  handsock.Phase
	to2     said
	from2   said
	sock2   sock
	third   bool // handed on to another site
	excused bool // the session may end: a server died or did not answer, a memory was lost, or nobody came back in time
}

func begin() handOff {
	h := handOff{server1: inHandOff, phase1: handsock.Offered, sock1: sockSilent, server2: inHandOff, phase2: handsock.Taken, sock2: sockSilent}
	h.to2.put(handsock.Offer)
	return h
}

func (h handOff) owners() (n int) {
	for _, yes := range [...]bool{h.sock1 == sockSpeaks, h.sock2 == sockSpeaks, h.third} {
		if yes {
			n++
		}
	}
	return n
}

// moves lists what can happen next without a fault, and faults what can go wrong.
func (h handOff) moves() (out []handOff) {
	do := func(ok bool, f func(*handOff)) {
		if ok {
			n := h
			f(&n)
			out = append(out, n)
		}
	}
	up1, up2 := h.agent1 == alive, h.agent2 == alive
	giving, taking := up1 && h.give != giveOver && !h.told, up2 && h.take != takeOver && h.starts == 0
	// The giver's server reads, or finds its agent gone.
	limbo := h.phase1 == handsock.Adrift || h.phase1 == handsock.Doubtful
	do(h.server1 == inHandOff && h.to1.n > 0, func(n *handOff) {
		n.hear1(map[handsock.Type]handsock.Event{handsock.Commit: handsock.HeardTicket, handsock.Active: handsock.HeardActive, handsock.Abort: handsock.HeardAbort,
			handsock.Again: handsock.HeardAgain}[n.to1.get()])
	})
	do(h.server1 == inHandOff && h.to1.n == 0 && !up1 && !limbo, func(n *handOff) { n.hear1(handsock.Broken) })
	do(h.server1 == inHandOff && h.to1.n == 0 && limbo && h.agent1 == dead, func(n *handOff) { n.hear1(handsock.Expired); n.excused = true })
	out = append(out, h.asking()...)
	// The giver hears the taker, the clock, its server's end.
	for bit, ev := range map[flight]guestEvent{flReady: evReady, flRefused: evRefused, flUnknown: evUnknown, flActive: evActive} {
		do(giving && h.net&bit != 0, func(n *handOff) { n.net &^= bit; n.giver(ev) })
	}
	do(giving && h.tries < 2, func(n *handOff) { n.giver(evLate) })
	do(giving && h.tries >= 2, func(n *handOff) { n.giver(evLast); n.excused = true })
	do(giving && h.server1 == crashed && h.give == giveShipped, func(n *handOff) { n.giver(evServerGone) })
	do(up1 && h.told, func(n *handOff) { n.told = false; n.net |= flCommit })
	// The taker hears the giver.
	do(h.net&flCommit != 0 && h.agent2 != dead && h.starts == 0, (*handOff).committed)
	do(h.net&flAbort != 0 && h.agent2 != dead && h.starts == 0, func(n *handOff) {
		n.net &^= flAbort
		if taking {
			n.taker(evAbort)
		}
	})
	// The taker hears its server and its clock, and does what it decided.
	do(taking && h.from2.n > 0, func(n *handOff) {
		n.taker(map[handsock.Type]guestEvent{handsock.Ready: evServerReady, handsock.Active: evServerActive, handsock.Abort: evServerNo}[n.from2.get()])
	})
	do(taking && h.from2.n == 0 && h.server2 == crashed, func(n *handOff) { n.taker(evServerGone) })
	do(taking, func(n *handOff) { n.taker(evLate) })
	do(up2 && h.starts > 0, (*handOff).started)
	// The taker's server.
	do(h.server2 == inHandOff && h.to2.n > 0, (*handOff).hear2)
	do(h.server2 == inHandOff && h.to2.n == 0 && !up2 && h.phase2 != handsock.Unsure, func(n *handOff) { n.end2(handsock.Broken) })
	do(h.server2 == inHandOff && h.to2.n == 0 && h.phase2 == handsock.Unsure && h.agent2 == dead, func(n *handOff) { n.end2(handsock.Expired); n.excused = true })
	do(h.server2 == inHandOff && h.to2.n == 0 && h.phase2 == handsock.Unsure && h.agent2 == reborn, func(n *handOff) {
		if n.book == ledgerActive {
			n.to2.put(handsock.Commit)
		} else {
			n.to2.put(handsock.Abort)
		}
	})
	do(h.server2 == serving && h.sock2 == sockSpeaks && h.take == takeOver, func(n *handOff) { n.sock2, n.server2, n.third = sockNone, hasLeft, true })
	return out
}

// asking is what comes of the question of a giver's server to the next agent.
func (h handOff) asking() (out []handOff) {
	do := func(ok bool, f func(*handOff)) {
		if ok {
			n := h
			f(&n)
			out = append(out, n)
		}
	}
	here := h.server1 == inHandOff && h.agent1 == reborn && h.to1.n == 0
	do(here && h.phase1 == handsock.Adrift, func(n *handOff) {
		n.sock1 = sockSpeaks
		n.to1.put(handsock.Abort)
	})
	do(here && h.phase1 == handsock.Doubtful && !h.asked, func(n *handOff) { n.asked = true; n.net |= flCommit })
	heard := h.asked && h.agent1 == reborn
	answer := func(t handsock.Type) func(*handOff) {
		return func(n *handOff) { n.asked = false; n.to1.put(t) }
	}
	do(heard && h.net&flActive != 0, answer(handsock.Active))
	do(heard && h.net&flRefused != 0, answer(handsock.Again))
	do(heard && h.net&flUnknown != 0, answer(handsock.Active))
	do(heard && h.net&flCommit == 0, func(n *handOff) { n.net |= flCommit }) // once more
	do(heard, func(n *handOff) { answer(handsock.Active)(n); n.excused = true })
	return out
}

// faults are deaths, losses and an unwilling server.
func (h handOff) faults() (out []handOff) {
	do := func(ok bool, f func(*handOff)) {
		if ok {
			n := h
			f(&n)
			out = append(out, n)
		}
	}
	do(h.agent1 != dead, func(n *handOff) { n.agent1, n.give, n.told, n.asked = dead, giveOver, false, false; n.orphan1() })
	do(h.agent1 == dead, func(n *handOff) { n.agent1 = reborn })
	do(h.agent2 != dead, func(n *handOff) {
		// What it was about to activate ends, and what its server was not told of yet, if that comes too late.
		n.excused = n.excused || n.book == ledgerBegun
		n.agent2, n.take, n.starts, n.decl = dead, takeOver, 0, false
		n.orphan2()
	})
	do(h.agent2 == dead, func(n *handOff) { n.agent2 = reborn })
	do(h.server1 == inHandOff, func(n *handOff) { n.server1, n.excused = crashed, true; n.orphan1() })
	do(h.server2 == inHandOff || h.server2 == serving, func(n *handOff) { n.server2, n.excused = crashed, true; n.orphan2() })
	do(!h.dim, func(n *handOff) { n.book, n.decl, n.dim, n.excused = ledgerNone, false, true, true }) // the ledger is full
	do(h.decl, func(n *handOff) { n.decl = false })
	for bit := flCommit; bit <= flActive; bit <<= 1 {
		do(h.net&bit != 0, func(n *handOff) { n.net &^= bit })
	}
	return out
}

// orphan1 and orphan2: a socket whose last holder died is closed by the kernel.
func (h *handOff) orphan1() {
	if h.agent1 != alive && (h.server1 == crashed || h.server1 == hasLeft) {
		h.sock1 = sockNone
	}
}

func (h *handOff) orphan2() {
	held := h.agent2 == alive && h.take != takeOver
	if !held && h.server2 != inHandOff && h.server2 != serving {
		h.sock2 = sockNone
	}
}

func (h *handOff) hear1(e handsock.Event) {
	next, deed := handsock.Next(h.phase1, e)
	h.phase1 = next
	switch deed {
	case handsock.Resume:
		h.server1 = serving
	case handsock.Leave:
		h.server1 = hasLeft
		h.orphan1()
	}
}

func (h *handOff) giver(e guestEvent) {
	if e == evReady && h.give == giveShipped && h.server1 == crashed {
		e = evServerGone
	}
	was := h.give
	next, deed := nextGive(h.give, e)
	h.give = next
	switch deed {
	case giveCommit:
		h.to1.put(handsock.Commit)
		h.told, h.tries = true, 1
	case giveAgain:
		h.tries++
		h.net |= flCommit
	case giveBack:
		h.net |= flAbort
		h.to1.put(handsock.Abort)
		if h.sock1 = sockSpeaks; h.server1 == crashed || was == giveCommitted && h.server1 != inHandOff {
			h.sock1 = sockNone
		}
	case giveAway, giveUp:
		h.to1.put(handsock.Active)
		h.sock1 = sockNone
	}
}

func (h *handOff) committed() {
	h.net &^= flCommit
	switch {
	case h.book == ledgerBegun || h.book == ledgerActive:
		h.net |= flActive
	case h.agent2 == alive && h.take != takeOver && h.take != takeStarted:
		if h.take == takeReady && h.server2 == crashed {
			h.taker(evServerGone)
		} else {
			h.taker(evCommit)
		}
	case h.decl || !h.dim:
		h.net |= flRefused
	default:
		h.net |= flUnknown
	}
}

func (h *handOff) taker(e guestEvent) {
	next, deed := nextTake(h.take, e)
	h.take = next
	switch deed {
	case takeAnswer:
		h.net |= flReady
	case takeStart:
		h.starts = 4
	case takeDecline:
		h.decl, h.sock2 = true, sockNone
		h.net |= flRefused
		h.to2.put(handsock.Abort)
	case takeReset:
		if h.sock2, h.excused = sockNone, true; h.book == ledgerActive {
			h.book = ledgerBegun
		}
		h.to2.put(handsock.Abort)
	case takeDone:
		h.orphan2()
	}
}

// started does the steps of takeStart one by one.
func (h *handOff) started() {
	switch h.starts {
	case 4:
		h.book = ledgerBegun
	case 3:
		h.sock2 = sockSpeaks
	case 2:
		if h.book == ledgerBegun { // and not overwritten
			h.book = ledgerActive
		}
	case 1:
		h.net |= flActive
		h.to2.put(handsock.Commit)
	}
	h.starts--
}

func (h *handOff) hear2() {
	switch h.to2.get() {
	case handsock.Offer:
		h.from2.put(handsock.Ready)
	case handsock.Commit:
		h.end2(handsock.HeardCommit)
	case handsock.Abort:
		h.end2(handsock.HeardAbort)
	}
}

func (h *handOff) end2(e handsock.Event) {
	next, deed := handsock.Next(h.phase2, e)
	h.phase2 = next
	switch deed {
	case handsock.Start:
		h.server2 = serving
		h.from2.put(handsock.Active)
	case handsock.Discard:
		h.server2 = hasLeft
		if h.agent2 != alive || h.take == takeOver {
			h.sock2 = sockNone
		}
	}
}

// TestOneOwner walks through everything that can happen in one hand-off: never are
// there two owners, and where nothing more can happen no socket is left silent.
func TestOneOwner(t *testing.T) {
	seen := map[handOff]bool{}
	ends := map[string]int{}
	todo := []handOff{begin()}
	seen[todo[0]] = true
	for len(todo) > 0 {
		h := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if h.owners() > 1 {
			t.Fatalf("two owners: %+v", h)
		}
		next := h.moves()
		if len(next) == 0 {
			if h.sock1 == sockSilent || h.sock2 == sockSilent {
				t.Fatalf("silent for ever: %+v", h)
			}
			if h.owners() == 0 && !h.excused {
				t.Fatalf("lost, with all servers alive: %+v", h)
			}
			ends[fmt.Sprintf("giver %d, taker %d, third %t", h.sock1, h.sock2, h.third)]++
		}
		for _, n := range append(next, h.faults()...) {
			if !seen[n] {
				seen[n] = true
				todo = append(todo, n)
			}
		}
	}
	t.Logf("%d states, ends: %v", len(seen), ends)
	for _, want := range []string{"giver 2, taker 0, third false", "giver 0, taker 0, third true", "giver 0, taker 0, third false"} {
		if ends[want] == 0 {
			t.Errorf("no end is %q: the model does not do what it should", want)
		}
	}
}
