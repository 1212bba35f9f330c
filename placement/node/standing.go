package node

import (
	"net/netip"
	"slices"
	"time"

	"rhumb/placement"
)

// standsFor is how long the verdict of others must have stood before this site,
// whose own votes are up, lowers a route for it. Answers have moved by then, and
// most outages of a path that look like a death are over sooner.
const standsFor = 2 * time.Second

// Standing holds back what the verdict of others lowers at this site until it has
// stood. Intents and the site's own faults pass at once. It counts by the clock of
// this node alone, from when the verdict was seen here: the clocks of others, by
// which votes are dated, may be wrong. It is a value for one goroutine.
type Standing struct {
	site  string
	since map[netip.Prefix]time.Time
}

// NewStanding returns a Standing for the speaker of a site.
func NewStanding(site string) *Standing {
	return &Standing{site: site, since: make(map[netip.Prefix]time.Time)}
}

// Settle returns the snapshot that the speaker shall act upon now, and when to ask
// again; the zero time means not before something changes.
func (h *Standing) Settle(s *placement.Snapshot, now time.Time) (*placement.Snapshot, time.Time) {
	var again time.Time
	var held []placement.Announcement
	for i := range s.Announcements {
		a := &s.Announcements[i]
		if a.Site != h.site {
			continue
		}
		if !byVerdict(a) {
			delete(h.since, a.Prefix)
			continue
		}
		if h.since[a.Prefix].IsZero() {
			h.since[a.Prefix] = now
		}
		if due := h.since[a.Prefix].Add(standsFor); now.Before(due) {
			if held == nil {
				held = slices.Clone(s.Announcements)
			}
			held[i].Want = s.Plan.Step(a.Prefix, a.Site)
			held[i].Intent = held[i].Want > placement.Announce
			if again.IsZero() || due.Before(again) {
				again = due
			}
		}
	}
	if held == nil {
		return s, time.Time{}
	}
	patient := *s
	patient.Announcements = held
	return &patient, again
}

// byVerdict tells whether others alone lower a route.
func byVerdict(a *placement.Announcement) bool {
	return a.Want > placement.Announce && !a.Intent && a.Fault == placement.NoFault
}
