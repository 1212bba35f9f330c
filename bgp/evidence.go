package bgp

import (
	"math"
	"net/netip"
	"slices"
	"time"

	"rhumb/bgp/guard"
	"rhumb/placement"
)

// presence fills in what is known of the other sites, and since when of the store.
func (s *Speaker) presence(req *guard.Request, r *route, now time.Time) {
	in := s.loop.now
	inv := in.snapshot.Inventory
	req.Lowered = slices.DeleteFunc(in.lowered(s.loop.routes, s.cfg.Site), func(a placement.Announcement) bool {
		// A retirement is an intent of its own: it is counted among others of its kind,
		// and keeps nobody from draining a site, nor is it kept by that.
		return (inv.Retired(a.Prefix) != nil) != (req.Order == guard.Retired)
	})
	req.Announcing = in.announcing(r, s.cfg.Site, s.cfg.Node)
	req.StoreAway = math.MaxInt64
	if s.cfg.Renewed != nil {
		if at := s.cfg.Renewed(); !at.IsZero() {
			req.StoreAway = now.Sub(at)
		}
	}
	covers := guard.Covers(&r.prefix, inv.Prefixes)
	req.Covered = guard.Covered(covers, in.live, s.cfg.Site, func(p *placement.Prefix) int {
		return p.MinAnchors(len(inv.AnnouncingSites(p)))
	})
	req.CoverSeen = slices.ContainsFunc(covers, func(c *placement.Prefix) bool {
		return guard.Seen(s.loop.markers.sightings(), c.Prefix, uint32(s.cfg.SiteNumber))
	})
}

// announcing counts the other sites which announce a prefix; -1 where the store does
// not show ourselves, and so cannot be believed about others.
func (in *input) announcing(r *route, site, node string) int {
	if !slices.ContainsFunc(in.live, func(a placement.Announced) bool { return a.Prefix == r.prefix.Prefix && a.Node == node }) {
		return -1
	}
	return guard.Announcing(in.live, r.prefix.Prefix, site)
}

// order says how the fleet stands to a prefix. One that is retired but shall wait until
// the sites before this one are silent is not ordered to go yet.
func (in *input) order(r *route) guard.Order {
	inv := in.snapshot.Inventory
	switch retired := inv.Retired(r.prefix.Prefix) != nil; {
	case retired && r.want.Intent && r.want.Want == placement.Withdrawn:
		return guard.Retired
	case r.gone && !retired && inv.Prefix(r.prefix.Prefix) == nil:
		return guard.Forgotten
	}
	return guard.Named
}

// retired tells whether a prefix was retired and is announced nowhere any more: it is
// over, and nobody's lowering.
func (in *input) retired(p netip.Prefix) bool {
	return in.snapshot.Inventory.Retired(p) != nil && !slices.ContainsFunc(in.live, func(a placement.Announced) bool {
		return a.Prefix == p && a.Step < placement.Withdrawn
	})
}

// empties tells whether a snapshot has no announcements any more, and not because all
// of them were retired.
func (in *input) empties(old *input) bool {
	return len(in.snapshot.Announcements) == 0 && slices.ContainsFunc(old.snapshot.Announcements, func(a placement.Announcement) bool {
		return in.snapshot.Inventory.Retired(a.Prefix) == nil
	})
}

// leaving is what is wanted of a prefix which no snapshot names for this site any more:
// that it goes, unless it is retired and others go before it.
func (in *input) leaving(p netip.Prefix, site string) (placement.Step, string) {
	r := in.snapshot.Inventory.Retired(p)
	if r == nil {
		return placement.Withdrawn, "not configured here"
	}
	if plan := in.snapshot.Plan; plan != nil && plan.Step(p, site) == placement.GShut {
		return placement.GShut, "retired by " + r.Who + ": " + r.Reason
	}
	return placement.Withdrawn, "retired by " + r.Who + ": " + r.Reason
}

// lowered returns the fleet's lowerings by intent: those which the snapshot names, and
// those of announcements that live and which it does not name any more. A
// configuration that forgets prefixes is an intent like any other.
func (in *input) lowered(routes []*route, site string) []placement.Announcement {
	var out []placement.Announcement
	named := make(map[placement.Announcement]bool, len(in.snapshot.Announcements))
	for _, a := range in.snapshot.Announcements {
		named[placement.Announcement{Prefix: a.Prefix, Site: a.Site}] = true
		if a.Intent && a.Want > placement.Announce && !in.retired(a.Prefix) {
			out = append(out, a)
		}
	}
	forgotten := func(a placement.Announcement) {
		if !named[a] {
			named[a] = true
			a.Want, a.Intent = placement.Withdrawn, true
			out = append(out, a)
		}
	}
	for _, a := range in.live {
		if a.Step < placement.Withdrawn {
			forgotten(placement.Announcement{Prefix: a.Prefix, Site: a.Site})
		}
	}
	for _, r := range routes {
		if r.gone && r.told < placement.Withdrawn {
			forgotten(placement.Announcement{Prefix: r.prefix.Prefix, Site: site})
		}
	}
	return out
}

// setAside returns the rules which the operator behind a lowering set aside: of the
// retirement, of the apply which forgot the prefix, else of the drain and of the forces
// on this site.
func (s *Speaker) setAside(r *route) []string {
	inv := s.loop.now.snapshot.Inventory
	if s.loop.now.order(r) == guard.Retired {
		return inv.Retired(r.prefix.Prefix).Override
	}
	if r.gone {
		return inv.SetAside.Override
	}
	var out []string
	if d := inv.Drained(s.cfg.Site); d != nil {
		out = append(out, d.Override...)
	}
	for i := range inv.Forces {
		if f := &inv.Forces[i]; f.Live() && f.Object.Site == s.cfg.Site {
			out = append(out, f.Override...)
		}
	}
	return out
}

// unproven tells whether a silence rests on nothing that holds by itself: no Slot, nor
// a sibling which announces. A witness is seen once, and not for ever.
func (s *Speaker) unproven(r *route) bool {
	return s.cfg.Slots != nil && r.mode == placement.Act && !s.holds(r)
}

// slotShown is how long the store may take to show a Slot which it granted.
const slotShown = 5 * time.Second

// holds tells whether a silent route has a Slot, or a sibling which announces. A Slot
// that the store does not show any more was freed: by hand, or by a sibling which came
// back and has gone again since.
func (s *Speaker) holds(r *route) bool {
	c := &r.claim
	if c.slot != nil && s.cfg.Held != nil && time.Since(c.asked) > slotShown && !s.cfg.Held(r.prefix.Prefix) {
		c.slot = nil
	}
	return c.slot != nil || c.left && len(s.loop.now.siblings(r.prefix.Prefix, s.cfg.Site, s.cfg.Node)) > 0
}

// stands tells whether a silence which was permitted goes on, though nothing proves it
// now: as long as the store says nothing. Its no ends it, and so does any rule which no
// Slot would help against.
func (s *Speaker) stands(r *route, no *placement.Refusal) bool {
	lacks := no != nil && (no.Rule == placement.RuleSlots || no.Rule == placement.RuleWitness)
	return r.claim.silent && r.claim.refusal == nil && lacks
}

// tellFleet publishes where a route stands, if it is not known yet.
func (s *Speaker) tellFleet(r *route) {
	if r.mode != placement.Act || s.cfg.Announcer == nil {
		return
	}
	if own := s.own(r); own != r.published {
		r.published = own
		s.cfg.Announcer.SetAnnounced(own)
	}
}

// acknowledge says that this node knows itself an anchor, or one no more: the director
// lets another go only after that.
func (s *Speaker) acknowledge(r *route) {
	if r.told < placement.Withdrawn {
		s.tellFleet(r)
	}
}

// protest tells that the end of the process withdraws what the guard would not let go.
// Nothing is asked of the store: a Slot taken now would stay behind.
func (s *Speaker) protest(r *route, now time.Time) {
	if s.loop.now == nil || r.mode != placement.Act {
		return
	}
	req := s.request(r, placement.GShut, placement.Withdrawn, now)
	req.Intent, req.Fault = true, placement.NoFault
	if _, no := guard.Lower(hopeful(req)); no != nil {
		r.refusal = nil
		r.want.Cause = "exit all the same"
		s.refuse(r, no)
	}
}

// anchor tells whether this site is named to keep the prefix announced.
func (s *Speaker) anchor(r *route) bool {
	return slices.Contains(s.loop.now.anchors(r), s.cfg.Site)
}

// anchors returns the named sites; none before the first snapshot.
func (in *input) anchors(r *route) []string {
	if in == nil {
		return nil
	}
	return in.snapshot.AnchorSites(r.prefix.Prefix)
}
