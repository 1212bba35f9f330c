package detect

import "time"

// doubt is the suspicion of one peer: that it may soon be judged silent. It rises
// well before a verdict and takes nothing away from anybody, so that what it
// starts must cost little and be easy to undo. It is a value; the loop owns it.
type doubt struct {
	since time.Duration // when it began; 0: there is none
	calm  time.Duration // since when nothing speaks for it; 0: something does
	at    time.Time     // since, by the clock of the machine
}

// calmFor is how long a peer must be heard without a gap until a suspicion of it is
// over. Paths lose a beat or two many times an hour: what was prepared at the first
// gap is kept for the next one, instead of being thrown away and made again.
const calmFor = 3 * time.Second

// step is the doubt after a look at a time, which is never 0.
func (s doubt) step(now time.Duration, doubtful bool) doubt {
	switch {
	case doubtful && s.since == 0:
		return doubt{since: now}
	case doubtful:
		s.calm = 0
	case s.since == 0:
	case s.calm == 0:
		s.calm = now
	case now-s.calm >= calmFor:
		return doubt{}
	}
	return s
}

// surePhi is the phi of a normal distribution from which the next beat is taken for
// lost: one in a hundred million would be that late.
const surePhi = 8

// Doubtful tells whether a subject may soon be judged: it is silent on all paths for
// half of its timeout; or two beats are missing on the direct path, as they are
// hardly ever by the delays seen so far. Where the direct path is known to be
// broken, relays speak once in a while only, and it takes three quarters. An observer
// that doubts itself has no word on anybody; ask Held first.
func (d *Detector) Doubtful(id uint32, now time.Duration) bool {
	s := d.subjects[id]
	if s == nil || s.state == Unknown || s.state == Left {
		return false
	}
	silent := now - s.heard
	if s.state == Down {
		return true
	}
	if silent < d.cfg.Timeouts[manyPaths-1]/2 { // the shortest of all: most looks end here
		return false
	}
	timeout := s.timeout(&d.cfg)
	if s.state == Path {
		return silent >= timeout-timeout/4
	}
	direct := &s.vias[0]
	return silent >= timeout/2 ||
		silent >= 2*d.cfg.Interval && s.works(direct) && direct.timed() && d.Suspicion(id, now) >= surePhi
}

// looksPerInterval is how often the peers are looked at for doubt: half of the
// shortest timeout is an interval and a half, and a beat's time is too coarse.
const looksPerInterval = 4

// look steps the doubt of every peer, tells if one begins or ends, and returns when
// the next look is due. While the observer doubts itself all stays as it was.
func (l *Link) look(due time.Duration) time.Duration {
	if l.now < due {
		return due
	}
	news := false
	for _, p := range l.roster.peers {
		if l.d.Held() {
			break
		}
		before := p.since
		p.doubt = p.step(max(l.now, 1), l.d.Doubtful(uint32(p.Node), l.now))
		if (before == 0) == (p.since == 0) {
			continue
		}
		news = true
		if p.since > 0 {
			p.at = l.started.Add(p.since)
			p.doubts.Add(1)
		}
	}
	if news {
		l.tellHearing()
	}
	return l.now + l.cfg.Times.Interval/looksPerInterval
}
