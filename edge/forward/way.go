package forward

import (
	"math"
	"time"

	"rhumb/placement"
)

// way is what this site knows of the way to one peer, and by whom it goes round it.
type way struct {
	site string
	at   placement.Position // zero: not known
	// heard is what the detector says, since when it has said this state, and when each
	// relay's word on the peer ended.
	heard placement.Hearing
	since time.Time
	lost  map[string]time.Time

	word  word
	asked inquiry
	by    detour
	// rests are the relays that didn't get through lately, each until a time.
	rests map[string]time.Time
	past  past
}

// word is what the peer said last by a hello, and when.
type word struct {
	at           time.Time
	deaf, relays bool
}

// inquiry is the newest question put to the peer, and the next one's time. rtt is
// smoothed, of the direct path.
type inquiry struct {
	number uint32
	at     time.Time
	next   time.Time
	rtt    time.Duration
	// tries are the questions to a peer that never spoke.
	tries int
}

// detour is a way by a third site; via is "" while datagrams go directly.
type detour struct {
	via string
	// since is when datagrams left the direct path, chosen when this relay was taken,
	// first the first question that went by it, proved when it answered one last.
	since, chosen, proved time.Time
	first                 uint32
	// room is the largest body that passes, by the relay's word; 0: it said nothing.
	room int
	// clean is since when the direct path has been good again; zero while it isn't.
	clean time.Time
	// told is the relay that was told of.
	told string
}

// past is which ways failed together with the direct path.
type past struct {
	failures map[string]fading
	// counted are those of the present failure: each counts once.
	counted map[string]bool
}

// fading is a count of which half is left after halfLife.
type fading struct {
	value float64
	at    time.Time
}

// halfLife of a failure: longer than the weeks between two maintenances of one fibre would
// outlive most routings, shorter than days forgets what breaks each night.
const halfLife = 3 * 24 * time.Hour

// quarters is what is left of a count, in quarters: what has faded below one no longer
// weighs against a shorter way.
func (f fading) quarters(now time.Time) int { return int(4 * f.left(now)) }

func (f fading) left(now time.Time) float64 {
	return f.value * math.Exp2(-max(0, now.Sub(f.at).Hours())/halfLife.Hours())
}

// count notes that a way failed together with the direct one.
func (p *past) count(now time.Time, site string) {
	if p.counted[site] {
		return
	}
	p.counted[site] = true
	p.failures[site] = fading{value: p.failures[site].left(now) + 1, at: now}
}

func newWay(site string, at placement.Position) *way {
	return &way{site: site, at: at, lost: make(map[string]time.Time), rests: make(map[string]time.Time),
		past: past{failures: make(map[string]fading), counted: make(map[string]bool)}}
}

// spoke tells that the peer is of a version that answers hellos.
func (w *way) spoke() bool { return !w.word.at.IsZero() }

// broken tells whether what we send directly is lost. The peer itself knows best whether
// it hears us, if it has said so lately and since our own detector changed its mind: a
// path may be cut in one direction alone. Otherwise our own detector is believed: a cut
// mostly is one of both.
func (w *way) broken(now time.Time) bool {
	lately := w.spoke() && now.Sub(w.word.at) < wordLife
	if lately && w.word.at.After(w.since) {
		return w.word.deaf
	}
	return w.deaf() || lately && w.word.deaf
}

// deaf tells that the peer's beats don't come to us directly.
func (w *way) deaf() bool { return w.heard.State == placement.Path }

// troubled tells whether there is more to ask than whether the peer is still there.
func (w *way) troubled(now time.Time) bool { return w.by.via != "" || w.deaf() || w.broken(now) }

// near is what is known of the leg from here to a peer that might relay.
func (w *way) near(now time.Time) leg {
	switch {
	case w.by.via != "", w.broken(now), w.heard.State == placement.Path, w.heard.State == placement.Down:
		return legBroken
	case w.heard.State == placement.Up:
		return legUp
	}
	return legUnknown
}

// isProved tells whether the relay in use has let a question and its answer through.
func (d *detour) isProved() bool { return d.proved.After(d.chosen) }
