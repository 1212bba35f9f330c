package handsock

// Phase is where a hand-off stands for one of its servers.
type Phase uint8

// The phases of a giver and of a taker.
const (
	// Offered: the giver has sent the descriptor and rests.
	Offered Phase = iota
	// Committed: the giver may go on only if its agent says so.
	Committed
	// Ticketed is Committed, with a ticket by which another process can be asked.
	Ticketed
	// Doubtful: the agent went away after commit, and the next one is asked who has it.
	Doubtful
	// Adrift: the agent went away with the connection silent, and nobody else has it or
	// will. The next agent is asked to wake it.
	Adrift
	// Taken: the taker has said ready.
	Taken
	// Unsure: the agent went away before commit, perhaps with the connection speaking.
	// The next one is asked.
	Unsure
	// Over: the hand-off has no more to say.
	Over
)

// Event is what a server hears of a hand-off.
type Event uint8

// The events. Broken is the end of the connection to the agent, after all that
// stood in it was read.
const (
	HeardCommit Event = iota
	HeardTicket       // commit, with a ticket
	HeardActive
	HeardAbort
	HeardAgain
	Broken
	// Expired: no agent came back for too long, or none that knows.
	Expired
)

// Deed is what the server has to do with the connection.
type Deed uint8

// The deeds.
const (
	Nothing Deed = iota
	// Resume: serve it on, as if nothing had been.
	Resume
	// Return: have the agent wake it, by an abort with the descriptor.
	Return
	// Leave: close it. It is silent, nobody hears that.
	Leave
	// Start: serve it from the record on, and say active.
	Start
	// Discard: close what was taken so that, if it speaks after all, its client hears
	// a reset and no orderly end (SO_LINGER, 0 s).
	Discard
)

// Next decides what an event means. It is total: what makes no sense changes nothing.
//
//	           commit     ticket    active  abort    again   broken    expired
//	Offered    Committed  Ticketed  -       Resume   -       Adrift    -
//	Committed  -          -         Leave   Resume   -       Leave     -
//	Ticketed   -          -         Leave   Resume   -       Doubtful  -
//	Doubtful   -          -         Leave   -        Return  -         Leave
//	Adrift     -          -         -       Resume   -       -         Leave
//	Taken      Start      Start     -       Discard  -       Unsure    -
//	Unsure     Start      Start     -       Discard  -       -         Discard
func Next(p Phase, e Event) (Phase, Deed) {
	switch p {
	case Offered, Committed, Ticketed:
		return nextGiver(p, e)
	case Doubtful:
		switch e {
		case HeardActive, Expired:
			return Over, Leave
		case HeardAgain:
			return Adrift, Return
		}
	case Adrift:
		switch e {
		case HeardAbort:
			return Over, Resume
		case Expired:
			return Over, Leave
		}
	case Taken, Unsure:
		switch {
		case e == HeardCommit || e == HeardTicket:
			return Over, Start
		case e == HeardAbort || e == Expired && p == Unsure:
			return Over, Discard
		case e == Broken:
			return Unsure, Nothing
		}
	}
	return p, Nothing
}

// nextGiver is Next of a giver whose agent is there.
func nextGiver(p Phase, e Event) (Phase, Deed) {
	switch {
	case e == HeardAbort:
		return Over, Resume
	case p == Offered && e == HeardCommit:
		return Committed, Nothing
	case p == Offered && e == HeardTicket:
		return Ticketed, Nothing
	case p == Offered && e == Broken:
		return Adrift, Nothing
	case p == Committed && (e == HeardActive || e == Broken), p == Ticketed && e == HeardActive:
		return Over, Leave
	case p == Ticketed && e == Broken:
		return Doubtful, Nothing
	}
	return p, Nothing
}

// limbo reports whether a hand-off waits for the next agent.
func (p Phase) limbo() bool { return p == Doubtful || p == Adrift || p == Unsure }
