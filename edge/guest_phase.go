package edge

// guestEvent is what the agents on both ends hear of the hand-off of a guest, a
// session whose server is not ours.
type guestEvent uint8

// The events.
const (
	evReady        guestEvent = iota // the taking site has the connection, silent
	evRefused                        // the taking site has not activated it and never will
	evUnknown                        // the taking site knows nothing of it, any more perhaps
	evActive                         // it speaks at the taking site
	evServerGone                     // the local server's connection to us ended
	evServerNo                       // the local server calls it off
	evLate                           // nothing came in time
	evLast                           // nothing came in time, for the last time
	evCommit                         // the giving site gave it away
	evAbort                          // the giving site keeps it
	evServerReady                    // the local server can serve it
	evServerActive                   // the local server serves it
)

// givePhase is where a giving agent stands once the connection is dumped.
type givePhase uint8

const (
	giveShipped givePhase = iota
	giveCommitted
	giveOver
)

// giveDeed is what a giving agent does.
type giveDeed uint8

const (
	giveNothing giveDeed = iota
	// giveBack: the connection speaks here again, taker and server are told abort.
	giveBack
	// giveCommit: the server is told first, so that it never goes on by itself, then the
	// taker. Where the server cannot be told, that is evServerGone instead.
	giveCommit
	// giveAgain: the taker is told commit once more.
	giveAgain
	// giveAway: the taker has it; the socket vanishes here without a packet.
	giveAway
	// giveUp: nobody can say whether the taker had it. The same, loudly: this side
	// never goes on.
	giveUp
)

// nextGive decides what an event means to a giving agent. It is total.
//
// After commit only evRefused brings a session back: the word of an agent that
// remembers the offer and how that ended. One that knows nothing may be a new process
// in the place of one that took the session and gave it on: so evUnknown ends the
// session for this side.
func nextGive(p givePhase, e guestEvent) (givePhase, giveDeed) {
	switch p {
	case giveShipped:
		switch e {
		case evReady:
			return giveCommitted, giveCommit
		case evRefused, evUnknown, evServerGone, evServerNo, evLate, evLast:
			return giveOver, giveBack
		}
	case giveCommitted:
		switch e {
		case evActive:
			return giveOver, giveAway
		case evRefused:
			return giveOver, giveBack
		case evUnknown, evLast:
			return giveOver, giveUp
		case evLate:
			return giveCommitted, giveAgain
		}
	}
	return p, giveNothing
}

// takePhase is where a taking agent stands once the connection is made again, silent.
type takePhase uint8

const (
	takeOffered takePhase = iota // to the local server
	takeReady
	takeStarted // it speaks, the server was told
	takeOver
)

// takeDeed is what a taking agent does.
type takeDeed uint8

const (
	takeNothing takeDeed = iota
	// takeDecline: the silent socket is closed, the server told abort. That the offer
	// was declined is remembered before the giver is told, for when it asks.
	takeDecline
	// takeAnswer: the giver is told ready.
	takeAnswer
	// takeStart: the activation is remembered, then the socket speaks, the giver is told
	// active and the server commit.
	takeStart
	// takeDone: the server has it.
	takeDone
	// takeReset: it speaks and nobody serves it; the client hears a reset.
	takeReset
)

// nextTake decides what an event means to a taking agent. It is total.
func nextTake(p takePhase, e guestEvent) (takePhase, takeDeed) {
	switch p {
	case takeOffered:
		switch e {
		case evServerReady:
			return takeReady, takeAnswer
		case evServerGone, evServerNo, evLate, evAbort, evCommit:
			return takeOver, takeDecline
		}
	case takeReady:
		switch e {
		case evCommit:
			return takeStarted, takeStart
		case evServerGone, evServerNo, evLate, evAbort:
			return takeOver, takeDecline
		}
	case takeStarted:
		switch e {
		case evServerActive:
			return takeOver, takeDone
		case evServerGone, evServerNo, evLate:
			return takeOver, takeReset
		}
	}
	return p, takeNothing
}
