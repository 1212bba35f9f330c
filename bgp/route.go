package bgp

import (
	"net/netip"
	"slices"
	"time"

	"rhumb/bgp/guard"
	"rhumb/bgp/rpki"
	"rhumb/placement"
)

// route is one prefix at this node.
type route struct {
	prefix placement.Prefix
	want   placement.Announcement
	mode   placement.Mode
	ladder guard.Ladder
	// told is the step which the engine was last given; in mode observe the
	// ladder moves and told does not.
	told    placement.Step
	claim   claim
	refusal *placement.Refusal
	// missing says why nobody can be served here now.
	missing string
	// settled is set once the wish was reached since the start.
	settled bool
	// unbind is when the addresses leave lo; zero when nothing is due.
	unbind time.Time
	// expected is set once the addresses were bound ahead of the announcement.
	expected bool
	// alone is set while this node leaves its site's others, and the site stays; stays says
	// why it does not, though it is drained.
	alone bool
	loud  placement.Step // how loud, at the least, those are that stay
	stays *placement.Refusal
	// gone is set while no snapshot names the prefix for this site any more.
	gone bool
	// held is set from the announcement until the guard permits silence, through a
	// restart; served are the addresses when a snapshot last named the prefix.
	held   bool
	served []netip.Addr
	// origin is what the RPKI last said, and published what the fleet was last told.
	origin    rpki.Finding
	published placement.Announced
}

// adopt brings the routes in line with a snapshot: own announcements are the
// wishes, and a prefix which is not named any more is to go, by the same rules.
func (s *Speaker) adopt(snap *placement.Snapshot, now time.Time) {
	for _, r := range s.loop.routes {
		r.gone = true
		r.want = placement.Announcement{Prefix: r.prefix.Prefix, Site: s.cfg.Site, Intent: true, Mode: r.mode}
		r.want.Want, r.want.Cause = s.loop.now.leaving(r.prefix.Prefix, s.cfg.Site)
	}
	for _, a := range snap.Announcements {
		if a.Site == s.cfg.Site {
			r := s.route(a.Prefix, now)
			r.want, r.gone = a, false
		}
	}
	s.loop.changed = true
	for _, r := range s.loop.routes {
		if p := snap.Inventory.Prefix(r.prefix.Prefix); p != nil {
			r.prefix = *p
		}
		s.setMode(r, s.modeOf(&r.want, snap), now)
		s.followNode(r)
		if !r.gone {
			r.served = s.addresses(r)
		}
		if r.mode != placement.Act && r.told == placement.Withdrawn {
			r.held = false // who only observes after a restart has left it to others
		}
		s.acknowledge(r)
		s.expect(r)
	}
}

// route returns the route of a prefix, making it where it is new.
func (s *Speaker) route(p netip.Prefix, now time.Time) *route {
	i, ok := slices.BinarySearchFunc(s.loop.routes, p, func(r *route, p netip.Prefix) int {
		return comparePrefix(r.prefix.Prefix, p)
	})
	if !ok {
		r := &route{prefix: placement.Prefix{Prefix: p}, ladder: guard.Start(now), told: placement.Withdrawn,
			claim: claim{owed: true}}
		s.loop.routes = slices.Insert(s.loop.routes, i, r)
	}
	return s.loop.routes[i]
}

// modeOf returns the mode of a route: this node's if it observes, else the
// announcement's, else the role's.
func (s *Speaker) modeOf(a *placement.Announcement, snap *placement.Snapshot) placement.Mode {
	if s.cfg.Mode == placement.Observe {
		return placement.Observe
	}
	return a.Mode.Or(snap.Inventory.RoleMode("bgp"))
}

// setMode starts the ladder again from what the routers really have when a
// route begins to act.
func (s *Speaker) setMode(r *route, m placement.Mode, now time.Time) {
	if r.mode != m && m == placement.Act {
		r.ladder = guard.Ladder{At: r.told, Since: now, Settled: now}
		r.claim, r.settled = claim{owed: true}, false
	}
	r.mode = m
}
