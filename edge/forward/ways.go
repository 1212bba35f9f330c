package forward

import (
	"maps"
	"slices"
	"time"

	"rhumb/placement"
)

// The times of ways round broken paths.
const (
	// helloEvery keeps the cost low: 200 sites say 40 hellos and answers a second each,
	// 3 kB. helloLife is how long one counts.
	helloEvery = 10 * time.Second
	helloLife  = 35 * time.Second
	// strangeEvery is the pace to a peer that has never spoken, after strangeTries: it is
	// of an earlier version, which counts each as refused. When it is replaced it speaks.
	strangeEvery = 5 * time.Minute
	strangeTries = 3
	// troubleEvery is the pace while a path is broken, proofEvery until a relay that was
	// taken has answered.
	troubleEvery = 500 * time.Millisecond
	proofEvery   = 100 * time.Millisecond
	// wordLife is how long a peer's word that it hears us, or doesn't, is believed.
	wordLife = 3 * time.Second
	// firstPatience and two round trips is how long a relay may take to answer first, if
	// there is another; latePatience how long one that did may be silent.
	firstPatience = 250 * time.Millisecond
	latePatience  = 2 * time.Second
	// restFor is how long a relay that failed is passed over.
	restFor = 10 * time.Second
	// cleanFor is how long the direct path must be good before it is used again.
	cleanFor = 5 * time.Second
	// together is how near to each other two paths must break to have one cause.
	together = 10 * time.Second
)

// ways decides which peers are reached by a relay: a pure state machine. It owns nothing
// and sends nothing; what to do stands in the steps it returns. One goroutine uses it.
type ways struct {
	at     placement.Position // of this site
	relays bool               // this site passes on what is for others
	sites  []string           // of the peers, sorted
	to     map[string]*way
	number uint32 // of the last question
}

// wayDeed is what shall be done.
type wayDeed uint8

const (
	sayHello  wayDeed = iota // to site, by via
	setRoute                 // datagrams to site go by via, bodies no larger than room
	tellRelay                // tell that via is in use for site, instead of was
)

// wayStep is one thing to do; via "" is the direct path.
type wayStep struct {
	do        wayDeed
	site, via string
	hello     hello
	room      int
	was       string
	since     time.Time // of setRoute: when the direct path was left; of tellRelay: now
	broken    bool      // of tellRelay: the direct path is, still
}

func newWays(at placement.Position, relays bool) *ways {
	return &ways{at: at, relays: relays, to: make(map[string]*way)}
}

// set replaces the peers; of those that stay all is remembered.
func (m *ways) set(peers map[string]placement.Position) {
	next := make(map[string]*way, len(peers))
	for site, at := range peers {
		w := m.to[site]
		if w == nil {
			w = newWay(site, at)
		}
		w.at, next[site] = at, w
		forget(w.past.failures, peers)
		forget(w.rests, peers)
		forget(w.lost, peers)
	}
	m.to, m.sites = next, slices.Sorted(maps.Keys(next))
}

// forget drops what is known of sites that are no longer peers.
func forget[T any](known map[string]T, peers map[string]placement.Position) {
	maps.DeleteFunc(known, func(site string, _ T) bool { _, stays := peers[site]; return !stays })
}

// hearing takes what the detector hears now. Who isn't named isn't watched.
func (m *ways) hearing(now time.Time, list []placement.Hearing, steps []wayStep) []wayStep {
	said := make(map[string]placement.Hearing, len(list))
	for _, h := range list {
		said[h.Site] = h
	}
	for _, site := range m.sites {
		w := m.to[site]
		h := said[site]
		for _, by := range w.heard.By {
			if slices.Contains(h.Silent, by) {
				w.lost[by] = now
			}
		}
		if h.State != w.heard.State {
			w.since, w.asked.next = now, now // the peer shall know at once whether we hear it
		}
		w.heard = h
	}
	return m.tick(now, steps)
}

// hello takes a hello of a peer.
func (m *ways) hello(now time.Time, site string, h hello, steps []wayStep) []wayStep {
	w := m.to[site]
	if w == nil {
		return steps
	}
	w.word = word{at: now, deaf: h.has(helloDeaf), relays: h.has(helloRelays)}
	if h.has(helloAnswer) {
		w.answered(now, h.number, m.number)
	}
	steps = m.judge(now, w, steps) // the answer goes by the way that the word leads to
	if h.has(helloAsk) {
		steps = append(steps, m.say(w, w.by.via, helloAnswer, h.number))
	}
	return steps
}

// answered takes the answer to a question.
func (w *way) answered(now time.Time, number, last uint32) {
	// Numbers go round; a difference does not.
	if w.by.via != "" && int32(number-w.by.first) >= 0 && int32(last-number) >= 0 {
		w.by.proved = now
		delete(w.rests, w.by.via)
	}
	if w.by.via == "" && number == w.asked.number && now.Sub(w.asked.at) < troubleEvery {
		took := now.Sub(w.asked.at)
		if w.asked.rtt == 0 {
			w.asked.rtt = took
		}
		w.asked.rtt += (took - w.asked.rtt) / 8
	}
}

// refused takes a relay's word that it doesn't pass on what is for a site.
func (m *ways) refused(now time.Time, via, site string, steps []wayStep) []wayStep {
	w := m.to[site]
	if w == nil || via == "" || w.by.via != via {
		return steps
	}
	w.rests[via] = now.Add(restFor)
	return m.judge(now, w, steps)
}

// narrow takes a relay's word on the largest body that passes.
func (m *ways) narrow(via, site string, room int, steps []wayStep) []wayStep {
	w := m.to[site]
	if w == nil || via == "" || w.by.via != via || w.by.room != 0 && room >= w.by.room {
		return steps
	}
	w.by.room = room
	return append(steps, wayStep{do: setRoute, site: site, via: via, room: room, since: w.by.since})
}

// tick does what the time asks for.
func (m *ways) tick(now time.Time, steps []wayStep) []wayStep {
	for _, site := range m.sites {
		steps = m.judge(now, m.to[site], steps)
	}
	return steps
}

// judge looks at one way: does it go round, by whom, and what is there to ask.
func (m *ways) judge(now time.Time, w *way, steps []wayStep) []wayStep {
	broken := w.broken(now)
	switch {
	case broken:
		w.by.clean = time.Time{}
	case w.by.clean.IsZero():
		w.by.clean = now
	}
	if w.deaf() {
		m.compare(now, w)
	}
	over := !broken && now.Sub(w.by.clean) >= cleanFor
	switch {
	case over || w.heard.State == placement.Down:
		clear(w.past.counted)
		steps = m.take(now, w, "", steps)
	case broken || w.by.via != "":
		steps = m.take(now, w, m.choose(now, w), steps)
	}
	return m.speak(now, w, steps)
}

// compare notes which ways by others broke together with the direct one.
func (m *ways) compare(now time.Time, w *way) {
	for _, site := range m.sites {
		c := m.to[site]
		if c == w {
			continue
		}
		near := (c.heard.State == placement.Path || c.heard.State == placement.Down) && c.since.Sub(w.since).Abs() <= together
		at, far := w.lost[site]
		if near || far && at.Sub(w.since).Abs() <= together {
			w.past.count(now, site)
		}
	}
}

// choose returns the relay for a peer, or "" if there is none.
func (m *ways) choose(now time.Time, w *way) string {
	list := m.candidates(now, w)
	order := rank(list)
	if m.failed(now, w, order, list) {
		w.rests[w.by.via] = now.Add(restFor)
		w.past.count(now, w.by.via)
	}
	return pick(order, w.by.via, func(site string) time.Duration { return w.rests[site].Sub(now) })
}

// failed tells whether the relay in use has been silent for too long. A peer of an earlier
// version answers nothing: then only what others say of the legs counts.
func (m *ways) failed(now time.Time, w *way, order []string, list []candidate) bool {
	d := &w.by
	if d.via == "" || !w.spoke() {
		return false
	}
	patience := latePatience
	if !d.isProved() && slices.ContainsFunc(order, func(s string) bool { return s != d.via && !now.Before(w.rests[s]) }) {
		patience = firstPatience
		if i := slices.IndexFunc(list, func(c candidate) bool { return c.site == d.via }); i >= 0 {
			patience += time.Duration(2 * list[i].cost.Milliseconds() * float64(time.Millisecond))
		}
	}
	last := d.chosen
	if d.isProved() {
		last = d.proved
	}
	return now.Sub(last) >= patience
}

// pick takes the first in an order that isn't to rest. The one in use stays for as long as
// it is good. If all rest, the one that may soonest be used again is tried.
func pick(order []string, using string, rest func(string) time.Duration) string {
	if slices.Contains(order, using) && rest(using) <= 0 {
		return using
	}
	best := ""
	for _, site := range order {
		if rest(site) <= 0 {
			return site
		}
		if best == "" || rest(site) < rest(best) {
			best = site
		}
	}
	return best
}

// candidates are all other peers as relays to one.
func (m *ways) candidates(now time.Time, w *way) []candidate {
	var list []candidate
	for _, site := range m.sites {
		c := m.to[site]
		if c == w {
			continue
		}
		list = append(list, candidate{site: site, near: c.near(now), far: w.far(site), failures: w.past.failures[site].quarters(now),
			offers: c.word.relays && now.Sub(c.word.at) < helloLife, cost: m.cost(c, w)})
	}
	return list
}

// far is what others say of the leg from a relay to the peer.
func (w *way) far(site string) leg {
	switch {
	case slices.Contains(w.heard.By, site):
		return legUp
	case slices.Contains(w.heard.Silent, site):
		return legBroken
	}
	return legUnknown
}

// cost is the round trip by a relay: measured as far as that goes, else by distance.
func (m *ways) cost(c, w *way) placement.Cost {
	near := distance(m.at, c.at)
	if c.asked.rtt > 0 {
		near = placement.Cost(16 * c.asked.rtt.Seconds() * 1000)
	}
	return near + distance(c.at, w.at)
}

// distance is the cost between two places, 0 if one isn't known.
func distance(a, b placement.Position) placement.Cost {
	if a == (placement.Position{}) || b == (placement.Position{}) {
		return 0
	}
	return placement.DistanceCost(a, b)
}

// take makes a relay the one in use, or the direct path with "".
func (m *ways) take(now time.Time, w *way, via string, steps []wayStep) []wayStep {
	d := &w.by
	if d.via != via {
		d.room, d.chosen, d.proved, d.first = 0, now, time.Time{}, m.number+1
		if d.via == "" {
			d.since = now
		}
		d.via, w.asked.next = via, now
		steps = append(steps, wayStep{do: setRoute, site: w.site, via: via, since: d.since})
	}
	// A relay is told of once it is known to work, lest a row of tries fill the log.
	if d.told != via && (via == "" || d.isProved() || !w.spoke()) {
		steps = append(steps, wayStep{do: tellRelay, site: w.site, via: via, was: d.told, since: now, broken: w.broken(now)})
		d.told = via
	}
	return steps
}

// speak says hello if it is time. While we don't hear a peer directly, it is told so
// directly as well: the path may be cut in one direction alone.
func (m *ways) speak(now time.Time, w *way, steps []wayStep) []wayStep {
	if pace := w.pace(now); now.Before(w.asked.next) && (pace > troubleEvery || now.Sub(w.asked.at) < pace) {
		return steps
	}
	m.number++
	w.asked.tries = min(w.asked.tries+1, strangeTries)
	w.asked.number, w.asked.at, w.asked.next = m.number, now, now.Add(w.pace(now))
	steps = append(steps, m.say(w, w.by.via, helloAsk, m.number))
	if w.deaf() && w.by.via != "" {
		steps = append(steps, m.say(w, "", 0, 0))
	}
	return steps
}

// pace is the time from one question to the next.
func (w *way) pace(now time.Time) time.Duration {
	switch {
	case !w.spoke() && w.asked.tries >= strangeTries:
		return strangeEvery
	case !w.spoke():
	case w.by.via != "" && !w.by.isProved():
		return proofEvery
	case w.troubled(now):
		return troubleEvery
	}
	return helloEvery
}

// say makes a hello.
func (m *ways) say(w *way, via string, flags byte, number uint32) wayStep {
	if w.deaf() {
		flags |= helloDeaf
	}
	if m.relays {
		flags |= helloRelays
	}
	return wayStep{do: sayHello, site: w.site, via: via, hello: hello{flags: flags, number: number}}
}
