package netlab

import (
	"net/netip"
	"sync"
	"time"
)

// Timing of questions to servers. The first timeout is what common resolvers
// begin with; a server that answers gets one that fits it.
const (
	firstTimeout = 400 * time.Millisecond
	leastTimeout = 100 * time.Millisecond
	mostTimeout  = 1600 * time.Millisecond
	leastRest    = time.Second      // how long a silent server is left alone at first
	mostRest     = 16 * time.Second // and at most
)

// exploreShare of the questions go to another server than the fastest, so that
// its figures stay fresh and load is never all in one place.
const exploreShare = 1.0 / 16

// serverState is what we know of one server.
type serverState struct {
	srtt, rttvar time.Duration // smoothed as in RFC 6298; srtt 0: never answered
	silent       int           // timeouts in a row
	restUntil    time.Time     // while others answer, do not ask before this
}

// timeout is how long to wait for the server's next answer. In the first round
// over a zone's servers another one is at hand, so none gets long; after that
// patience doubles with each round.
func (s serverState) timeout(round int) time.Duration {
	t := firstTimeout
	if s.srtt > 0 {
		t = min(max(s.srtt+4*s.rttvar, leastTimeout), firstTimeout)
	}
	if round > 0 {
		t = firstTimeout << min(round, 2)
	}
	return min(t, mostTimeout)
}

// answered folds in a round trip, RFC 6298 section 2, and forgives silence.
func (s serverState) answered(rtt time.Duration) serverState {
	if s.srtt == 0 {
		return serverState{srtt: max(rtt, 1), rttvar: rtt / 2}
	}
	deviation := (s.srtt - rtt).Abs()
	return serverState{srtt: max((7*s.srtt+rtt)/8, 1), rttvar: (3*s.rttvar + deviation) / 4}
}

// timedOut sends the server to rest, twice as long with each silence in a row.
// Its smoothed time stays: once rested it is asked as before, and one timeout is
// all that a client pays for finding out.
func (s serverState) timedOut(now time.Time) serverState {
	s.restUntil = now.Add(min(leastRest<<min(s.silent, 8), mostRest))
	s.silent++
	return s
}

// serverTable keeps the states of all servers ever asked. Safe for concurrent
// use. Its size is bounded by dropping all: figures are quickly gathered anew.
type serverTable struct {
	mu     sync.Mutex
	states map[netip.Addr]serverState
}

const maxServers = 10000

// get returns what is known; the zero state of one never heard of.
func (t *serverTable) get(a netip.Addr) serverState {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.states[a]
}

// update replaces a server's state by a function of it, under the lock.
func (t *serverTable) update(a netip.Addr, f func(serverState) serverState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.states == nil || len(t.states) >= maxServers {
		t.states = map[netip.Addr]serverState{}
	}
	t.states[a] = f(t.states[a])
}

// pick chooses the next server to ask out of those not yet tried: one never
// heard of first, then the fastest, with exploration; those at rest only when no
// other is left, the soonest rested first. It returns false when all were tried.
func (t *serverTable) pick(servers []netip.Addr, tried map[netip.Addr]bool, now time.Time, random func() float64) (netip.Addr, bool) {
	var awake []netip.Addr
	var resting netip.Addr
	for _, a := range servers {
		s := t.get(a)
		switch {
		case tried[a]:
		case now.Before(s.restUntil):
			if !resting.IsValid() || s.restUntil.Before(t.get(resting).restUntil) {
				resting = a
			}
		default:
			awake = append(awake, a)
		}
	}
	if len(awake) == 0 {
		return resting, resting.IsValid()
	}
	if len(awake) > 1 && random() < exploreShare {
		return awake[int(random()*float64(len(awake)))%len(awake)], true
	}
	return t.fastest(awake), true
}

// fastest picks the least smoothed time; never having answered counts as none, so
// that every server gets its first chance. Equals go by order.
func (t *serverTable) fastest(servers []netip.Addr) netip.Addr {
	best := servers[0]
	for _, a := range servers[1:] {
		if t.get(a).srtt < t.get(best).srtt {
			best = a
		}
	}
	return best
}
