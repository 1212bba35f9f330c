package bfd

import "time"

// Session is one end of a BFD session: the state variables of RFC 5880 section
// 6.8.1. It is a value; each event gives the next one.
type Session struct {
	State  State
	Diag   Diag
	Remote Remote
	// Ups counts how often the session came Up: the name of this run of it.
	Ups uint64

	mine   uint32 // our discriminator, not zero
	timing Timing
	poll   bool      // a Poll Sequence is under way
	heard  time.Time // the last packet which counted; zero when nobody is there
}

// Remote is what the neighbour last said of itself.
type Remote struct {
	Discriminator uint32
	State         State
	MinTx, MinRx  time.Duration
	Multiplier    uint8
	Demand        bool
}

// nobody is a neighbour from whom nothing was heard (RFC 5880 section 6.8.1:
// RemoteMinRxInterval begins at 1 microsecond).
func nobody() Remote { return Remote{State: Down, MinRx: time.Microsecond} }

// NewSession returns a session which has heard nothing yet. The discriminator
// must be unique among ours, and not zero.
func NewSession(mine uint32, t Timing) Session {
	return Session{State: Down, Remote: nobody(), mine: mine, timing: t}
}

// Receive takes a packet which was decoded and is ours. answer asks for a
// packet with the Final bit at once (RFC 5880 section 6.8.6).
func (s Session) Receive(p *Packet, now time.Time) (next Session, answer bool) {
	s.Remote = Remote{Discriminator: p.Mine, State: p.State, MinTx: fromMicros(p.MinTx), MinRx: fromMicros(p.MinRx),
		Multiplier: p.Multiplier, Demand: p.Demand}
	if s.poll && p.Final {
		s.poll = false
	}
	if s.State == AdminDown {
		return s, false
	}
	s.heard = now
	return s.follow(p.State), p.Poll
}

// follow is the state machine (RFC 5880 section 6.2, in the words of 6.8.6):
// a three-way handshake up, and down as soon as the other end is.
func (s Session) follow(remote State) Session {
	switch {
	case remote == AdminDown:
		if s.State != Down {
			return s.to(Down, NeighborDown)
		}
	case s.State == Down && remote == Down:
		return s.to(Init, NoDiag)
	case s.State == Down && remote == Init, s.State == Init && remote >= Init:
		return s.to(Up, NoDiag)
	case s.State == Up && remote == Down:
		return s.to(Down, NeighborDown)
	}
	return s
}

// to changes the state. The interval that we want changes with Up, and each
// change of it is told by a Poll Sequence (RFC 5880 section 6.8.3).
func (s Session) to(state State, why Diag) Session {
	before := s.minTx()
	s.State, s.Diag = state, why
	if state == Up {
		s.Ups++
	}
	if s.minTx() != before {
		s.poll = true
	}
	return s
}

// Expire judges silence: after a detection time without a packet the neighbour
// is forgotten, and a session which was coming or was there is Down (RFC 5880
// sections 6.8.1 and 6.8.4).
func (s Session) Expire(now time.Time) Session {
	if s.heard.IsZero() || now.Sub(s.heard) < s.Detection() {
		return s
	}
	s.Remote, s.heard = nobody(), time.Time{}
	if s.State == Init || s.State == Up {
		return s.to(Down, Expired)
	}
	return s
}

// Disable is the operator's or the process's will (RFC 5880 section 6.8.16).
func (s Session) Disable() Session { return s.to(AdminDown, AdminDownByUser) }

// Detection is the silence which ends the session: the neighbour's multiplier
// times the slower of its sending and our asking (RFC 5880 section 6.8.4).
func (s Session) Detection() time.Duration {
	return time.Duration(s.Remote.Multiplier) * max(s.timing.Interval, s.Remote.MinTx)
}

// Deadline is when Expire has something to say; zero is never.
func (s Session) Deadline() time.Time {
	if s.heard.IsZero() {
		return time.Time{}
	}
	return s.heard.Add(s.Detection())
}

// minTx is the interval at which we want to send: slow until Up.
func (s Session) minTx() time.Duration {
	if s.State == Up {
		return s.timing.Interval
	}
	return max(s.timing.Interval, slow)
}

// Interval is how often to send, before jitter: the slower of what we want and
// what the neighbour can take. Zero means that it wants no periodic packets
// (RFC 5880 section 6.8.7).
func (s Session) Interval() time.Duration {
	demand := s.Remote.Demand && s.State == Up && s.Remote.State == Up && !s.poll
	if demand || s.Remote.MinRx == 0 {
		return 0
	}
	return max(s.minTx(), s.Remote.MinRx)
}

// Packet is what to send now. A packet answers a Poll or asks, never both.
func (s Session) Packet(final bool) Packet {
	return Packet{Diag: s.Diag, State: s.State, Poll: s.poll && !final, Final: final, Multiplier: s.timing.Multiplier,
		Mine: s.mine, Yours: s.Remote.Discriminator, MinTx: micros(s.minTx()), MinRx: micros(s.timing.Interval)}
}

// Mine is our discriminator.
func (s Session) Mine() uint32 { return s.mine }
