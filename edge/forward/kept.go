package forward

import (
	"slices"
	"time"
)

// keptLife is how long packets wait, from the first on, for a verdict against a silent
// site whose session another one would revive. A verdict of several vantages takes a
// second or two; a client that is reset meanwhile is lost for nothing.
const keptLife = 6 * time.Second

// slowAsk is when a question is asked again whose first wait is over: of a dead site's
// sessions there may be thousands.
const slowAsk = time.Second

// reviveLife is how long after a verdict sessions of the lost site may come back.
const reviveLife = 15 * time.Second

// keeper is a site's word that it keeps the record of a session and would revive it.
type keeper struct {
	site  string // who keeps it
	owner string // whose session it is; "": nobody has said so, or the owner denies it
}

// kept takes a site's word that it would revive the flow's session, were its owner
// dead. While that one is silent, what waits goes on waiting: for its word, or for
// that of the keeper, who claims the session after the verdict.
func (o *owners) kept(now time.Time, f Flow, site, owner string) {
	r := o.flows[f]
	if r == nil || r.is != asking || !r.waiting.silent(owner) {
		return // who has spoken is no longer waited for
	}
	r.waiting.keeper = keeper{site: site, owner: owner}
	o.mourn(now.Add(keptLife))
}

// silent tells whether a site's word is still waited for.
func (q *question) silent(site string) bool {
	return slices.Contains(q.open, site) || slices.Contains(q.later, site)
}

// denied notes that a site has said no: then nobody's record of its session counts.
func (q *question) denied(site string) {
	if q.keeper.owner == site {
		q.keeper = keeper{}
	}
}

// keepers are the sites that likely have the record of a flow's session, while sessions of a
// lost site may come back: asked first, they spare the group thousands of questions.
func (o *owners) keepers(now time.Time, f Flow) []string {
	if o.first == nil || !now.Before(o.mourning) {
		return nil
	}
	return o.first(f)
}

// unanswered tells whether a question ends without an answer. Where the session could be
// revived, here or elsewhere, silence does not mean that it is gone: its owner may be
// dead, or merely late.
func (o *owners) unanswered(now time.Time, f Flow, r *record) bool {
	switch waited := now.Sub(r.since); {
	case now.Before(r.until):
		return false
	case o.shadowed(f):
		return waited >= holdLife
	case r.waiting.keeper.owner != "":
		return waited >= keptLife
	}
	return true
}

// pace is when a question is repeated.
func (r *record) pace(now time.Time) time.Duration {
	if now.Before(r.until) {
		return retryAsk
	}
	return slowAsk
}

// whomAgain are those who are asked again: the silent, and who would revive the
// session. Its claim may have been lost on the way.
func (q *question) whomAgain() []string {
	if q.keeper.owner == "" || slices.Contains(q.open, q.keeper.site) {
		return q.open
	}
	return append(slices.Clone(q.open), q.keeper.site)
}

// mourn lets strays that are too many to ask about be lost until then, as in any full
// queue, instead of reset: they come from a site whose sessions may live on.
func (o *owners) mourn(until time.Time) {
	if until.After(o.mourning) {
		o.mourning = until
	}
}
