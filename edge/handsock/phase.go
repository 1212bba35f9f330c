package handsock

// Phase is where a hand-off stands for one of its servers.
type Phase uint8

// The phases of a giver and of a taker.
const (
	// Offered: the giver has sent the descriptor and rests.
	Offered Phase = iota
	// Committed: the giver may go on only if its agent says so.
	Committed
	// Adrift: the agent went away before commit, perhaps with the connection silent.
	// The next agent is asked to wake it.
	Adrift
	// Taken: the taker has said ready.
	Taken
	// Over: the hand-off has no more to say.
	Over
)

// Event is what a server hears of a hand-off.
type Event uint8

// The events. Broken is the end of the connection to the agent, after all that
// stood in it was read.
const (
	HeardCommit Event = iota
	HeardActive
	HeardAbort
	Broken
	// Expired: no agent came back for too long.
	Expired
)

// Deed is what the server has to do with the connection.
type Deed uint8

// The deeds.
const (
	Nothing Deed = iota
	// Resume: serve it on, as if nothing had been.
	Resume
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
//	             commit     active   abort     broken    expired
//	Offered      Committed  -        Resume    Adrift    -
//	Committed    -          Leave    Resume    Leave     -
//	Adrift       -          -        Resume    -         Leave
//	Taken        Start      -        Discard   Discard   -
func Next(p Phase, e Event) (Phase, Deed) {
	switch {
	case p == Offered && e == HeardCommit:
		return Committed, Nothing
	case p == Offered && e == Broken:
		return Adrift, Nothing
	case p == Committed && (e == HeardActive || e == Broken), p == Adrift && e == Expired:
		return Over, Leave
	case (p == Offered || p == Committed || p == Adrift) && e == HeardAbort:
		return Over, Resume
	case p == Taken && e == HeardCommit:
		return Over, Start
	case p == Taken && (e == HeardAbort || e == Broken):
		return Over, Discard
	}
	return p, Nothing
}
