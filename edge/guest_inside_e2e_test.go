//go:build e2e

package edge

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestGuestDeathsInside kills an agent between two steps of its own, which no message on a
// socket shows, alone or with the other one: the next process asks, or is asked, and the
// session goes on. Only what was being activated in that very moment may be reset.
func TestGuestDeathsInside(t *testing.T) {
	w := newWorld(t)
	w.deadline = time.Millisecond
	d := &deaths{guestWorld: w.guests(oneSecond), taps: map[string]*tap{"a": w.tap("a"), "b": w.tap("b")}, servers: map[string]*exec.Cmd{}, whole: t}
	for _, tc := range []struct {
		site, point string
		with        string // who dies, too
		route, want string
		result      string // counted by whom is asked
		long        bool
	}{
		// The taker may be asked within the life of its offer: then it is there that it goes on.
		{site: "a", point: guestTold, route: "a", want: goesOn},
		{site: "a", point: guestTold, with: "agent-b", route: "a", want: goesOn, result: doubtBack},
		{site: "b", point: guestNoted, route: "b", want: goesOn, result: doubtTaken},
		{site: "b", point: guestNoted, with: "agent-a", route: "b", want: goesOn, result: doubtTaken, long: true},
		{site: "b", point: guestBegun, route: "b", want: isReset, result: doubtDrop},
		{site: "a", point: guestShipped, route: "a", want: goesOn, long: true},
		{site: "a", point: guestShipped, with: "agent-b", route: "a", want: goesOn, long: true},
		{site: "a", point: guestTold, with: "server-b", route: "a", want: goesOn, result: doubtBack, long: true},
		{site: "a", point: guestSent, route: "b", want: goesOn, long: true},
		{site: "a", point: guestSent, with: "agent-b", route: "a", want: goesOn, long: true},
		{site: "b", point: guestSpoken, route: "b", want: onOrReset, result: doubtDrop, long: true},
		{site: "b", point: guestNoted, with: "server-a", route: "b", want: goesOn, result: doubtTaken, long: true},
		{site: "b", point: guestSaid, route: "b", want: goesOn, result: doubtTaken, long: true},
		{site: "b", point: guestSaid, with: "agent-a", route: "b", want: goesOn, result: doubtTaken, long: true},
	} {
		name := tc.point
		if tc.with != "" {
			name += " and " + tc.with
		}
		t.Run(name, func(t *testing.T) {
			if tc.long && os.Getenv("RHUMB_SOAK") != "1" {
				return // in the long form
			}
			d.inside(t, tc.site, tc.point, tc.with, tc.route)
			if tc.result != "" {
				d.await("word of "+tc.result, func() bool { return d.state(*d.agentOf(tc.site)).Doubts[tc.result] == 1 })
			}
			d.settled(d.load, tc.want)
		})
	}
}

// inside has the agent of a site die at a point, and everybody back.
func (d *deaths) inside(t *testing.T, site, point, with, route string) {
	d.t = t
	d.alive()
	d.kill("agent-" + site)
	d.t = d.whole
	p := d.guestAgent(site, func(x *agentArgs) { oneSecond(x); x.Die = point })
	*d.agentOf(site) = p
	d.t = t
	d.ready(d.a, d.b)
	d.route("a")
	d.load = d.start("c", "stream", streamArgs{N: 1, VIP: vip4, Length: 1 << 20, Upload: 64 << 10, Hold: 256 << 10, Beat: 20 * time.Millisecond, Limit: 40 * time.Second})
	var word string
	d.load.next(&word)
	d.route(route)
	d.a.tell("drain b")
	_ = p.cmd.Wait() // killed by itself
	if with != "" {
		d.kill(with)
	}
	if site != "a" && with != "agent-a" {
		d.a.next(&word)
	}
	d.alive()
	d.ready(d.a, d.b)
}
