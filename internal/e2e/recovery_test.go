//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	draw "rhumb/internal/timeline"
)

// Recovery as clients see it: many names in the caches of stock resolvers, each of
// them a client of its own whose answer runs out at another moment.
const (
	recoveryNames = 40
	// recoveryEvery is how often each client asks its resolver.
	recoveryEvery = 500 * time.Millisecond
	// recoverySpread is over how much of the TTL the clients' moments are spread.
	recoverySpread = 15 * time.Second
	recoveryTTL    = 20 * time.Second
	// recoveryDNS bounds, beyond the TTL, when 99 of 100 clients of a dead site are
	// served elsewhere, recoveryAnycast the same for clients of an anycast address whose
	// router sees the link go down with its site: bars for a machine that does nothing
	// else, as in the long form.
	recoveryDNS     = 3 * time.Second
	recoveryAnycast = time.Second
	// recoveryLost is when an anycast query counts as lost: more than the longest
	// way to the second-nearest site and back, four times as long on a machine that
	// may be busy.
	recoveryLost = 300 * time.Millisecond
)

// recovery watches a lab's clients from before a site's death.
type recovery struct {
	l       *lab
	names   map[string]*hearsay // by region: every name, at the region's resolver
	anycast map[string]*hearsay
}

// hearsay is what clients were told, by client, in order of time. It keeps the site
// and not the message: there are thousands, and they are looked at again and again.
type hearsay struct {
	stop func()

	mu  sync.Mutex
	all []told
}

type told struct {
	client int
	at     time.Time
	site   string // or why there is none: silent, SERVFAIL
}

// listen begins to ask, each question in turn for itself.
func (l *lab) listen(node string, every time.Duration, qs ...question) *hearsay {
	h := &hearsay{}
	h.stop = l.background(node, order{Poll: qs, Every: every}, func(e event) {
		if e.Answer == nil {
			return
		}
		site := l.sitesIn(*e.Answer)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.all = append(h.all, told{e.Answer.Q, e.Answer.At, site})
	})
	return h
}

// between returns what was told from a time on and before another.
func (h *hearsay) between(from, to time.Time) []told {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []told
	for _, t := range h.all {
		if !t.at.Before(from) && t.at.Before(to) {
			out = append(out, t)
		}
	}
	return out
}

// recoveryName is a client's name.
func recoveryName(i int) string { return fmt.Sprintf("r%02d.cdn.demo.test", i) }

// watchRecovery adds the names to the fleet and begins to ask.
func (l *lab) watchRecovery(t *testing.T) *recovery {
	t.Helper()
	text := l.fleetText()
	var names []string
	for i := range recoveryNames {
		names = append(names, recoveryName(i))
	}
	const was = "names: [www.cdn.demo.test"
	if !strings.Contains(text, was) {
		t.Fatalf("the lab's fleet has no %q", was)
	}
	l.applyText(strings.Replace(text, was, was+", "+strings.Join(names, ", "), 1))
	l.await(patience, "the names are served", func() error {
		for _, site := range sites() {
			if m, err := l.askAt(site, question{Name: recoveryName(0)}); err != nil || len(addrsOf(m)) == 0 {
				return fmt.Errorf("%s: %v %v", site, m, err)
			}
		}
		return nil
	})
	l.owners()
	r := &recovery{l: l, names: map[string]*hearsay{}, anycast: map[string]*hearsay{}}
	for _, region := range regions() {
		var qs []question
		for i := range recoveryNames {
			qs = append(qs, question{Server: l.resolver(region), Name: recoveryName(i), RD: true, Within: 8 * time.Second,
				After: recoverySpread * time.Duration(i) / recoveryNames})
		}
		r.names[region] = l.listen("client-"+region+"-5", recoveryEvery, qs...)
		top := question{Server: parseAddrPort("192.0.2.1:53"), Name: "demo.test", Type: "SOA", NSID: true, Within: promised(recoveryLost)}
		r.anycast[region] = l.listen("client-"+region+"-6", 50*time.Millisecond, top)
	}
	return r
}

// stop ends the asking.
func (r *recovery) stop() {
	for _, region := range regions() {
		r.names[region].stop()
		r.anycast[region].stop()
	}
}

// awaitWarm waits until every client has an answer from its own site.
func (r *recovery) awaitWarm() {
	r.l.await(recoverySpread+2*patience, "every client has an answer of its own site in its resolver's cache", func() error {
		for i, region := range regions() {
			last := r.last(region, time.Now())
			for n := range recoveryNames {
				if last[n] != sites()[i] {
					return fmt.Errorf("%s in %s is told %q", recoveryName(n), region, last[n])
				}
			}
		}
		return nil
	})
}

// last is what each client of a region was told last before a moment.
func (r *recovery) last(region string, before time.Time) []string {
	out := make([]string, recoveryNames)
	for _, t := range r.names[region].between(time.Time{}, before) {
		out[t.client] = t.site
	}
	return out
}

// served tells whether a client was sent to a site.
func served(site string) bool { return slices.Contains(sites(), site) }

// elsewhere is how long after the death each client that was sent to the dead site
// was told another one; zero for those not told yet.
func (r *recovery) elsewhere(region, dead string, killed time.Time) []time.Duration {
	was := r.last(region, killed)
	moved := make([]time.Duration, recoveryNames)
	for _, t := range r.names[region].between(killed, time.Now()) {
		switch {
		case t.site == dead:
			moved[t.client] = 0 // told so again: it had not left
		case moved[t.client] == 0 && served(t.site):
			moved[t.client] = t.at.Sub(killed)
		}
	}
	var out []time.Duration
	for i, m := range moved {
		if was[i] == dead {
			out = append(out, m)
		}
	}
	return out
}

// check wants 99 of 100 clients served elsewhere in time, by either way, and draws
// how the traffic moved.
func (r *recovery) check(t *testing.T, dead string, killed time.Time) {
	t.Helper()
	region := r.l.regionOf(dead)
	byDNS, byAnycast := recoveryTTL+promised(recoveryDNS), promised(recoveryAnycast)
	var moved []time.Duration
	for deadline := killed.Add(byDNS + 2*time.Second); ; {
		moved = r.elsewhere(region, dead, killed)
		if !slices.Contains(moved, 0) || time.Now().After(deadline) {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if len(moved) < recoveryNames*9/10 {
		t.Fatalf("only %d of %d clients of %s were sent to %s before its death", len(moved), recoveryNames, region, dead)
	}
	for i, m := range moved {
		if m == 0 { // never, as far as was seen
			moved[i] = time.Since(killed)
		}
	}
	slices.Sort(moved)
	half, most := moved[len(moved)/2], moved[(len(moved)*99+99)/100-1]
	anycast := r.firstElsewhere(region, dead, killed)
	text := fmt.Sprintf("death of %s: by DNS half of its %d clients elsewhere after %.1f s, 99 of 100 after %.1f s (TTL %s); by anycast after %.2f s",
		dead, len(moved), half.Seconds(), most.Seconds(), recoveryTTL, anycast.Seconds())
	r.l.line.eventf("%s", text)
	if most > byDNS {
		t.Errorf("99 of 100 clients of %s are served elsewhere after %.1f s, want at most %s", dead, most.Seconds(), byDNS)
	}
	if anycast == 0 || anycast > byAnycast {
		t.Errorf("anycast clients of %s are served elsewhere after %.2f s, want at most %s", dead, anycast.Seconds(), byAnycast)
	}
	r.draw(t, dead, killed, text)
}

// firstElsewhere is when an anycast client of the region first heard another site;
// zero if it never did.
func (r *recovery) firstElsewhere(region, dead string, killed time.Time) time.Duration {
	for _, t := range r.anycast[region].between(killed, time.Now()) {
		if t.site != dead && served(t.site) {
			return t.at.Sub(killed)
		}
	}
	return 0
}

// draw leaves the shares of the sites over time, in the answers that clients of each
// region got, and who answers at the anycast address.
func (r *recovery) draw(t *testing.T, dead string, killed time.Time, text string) {
	began, ended := killed.Add(-5*time.Second), time.Now()
	c := &draw.Chart{Title: "Recovery from the death of " + dead, Notes: []string{text,
		"clients ask stock resolvers with warm caches; lanes: who answers at the anycast address; areas: which site the answers name"},
		Began: began, Ended: ended, Bad: []string{"silent", "no answer", "SERVFAIL"},
		Events: []draw.Mark{{At: killed, Text: "SIGKILL to every process of " + dead + ", its links down"}}}
	for _, region := range regions() {
		lane := draw.Lane{Name: "anycast " + region}
		for _, t := range r.anycast[region].between(began, ended) {
			lane.Set(t.at, t.site)
		}
		c.Lanes = append(c.Lanes, lane)
		area := draw.NewArea("answers "+region, append(sites(), "SERVFAIL", "silent"), began, ended, time.Second)
		for _, t := range r.names[region].between(began, ended) {
			area.Count(began, t.at, t.site)
		}
		c.Areas = append(c.Areas, area)
	}
	leave(r.l.t, c, "-recovery-"+dead)
}
