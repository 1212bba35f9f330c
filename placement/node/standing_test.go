package node

import (
	"net/netip"
	"testing"
	"time"

	"rhumb/placement"
)

// TestStanding: what others say must stand for two seconds before a route goes
// down for it; the site's own fault and an intent need not, and a verdict that
// went meanwhile begins anew.
func TestStanding(t *testing.T) {
	p4, p6 := netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8:53::/48")
	wants := func(want placement.Step, fault placement.Fault, intent bool) *placement.Snapshot {
		return &placement.Snapshot{Plan: &placement.Plan{Steps: []placement.Announcement{{Prefix: p6, Site: "ams1", Want: placement.Prepend}}},
			Announcements: []placement.Announcement{
				{Prefix: p4, Site: "ams1", Want: want, Fault: fault, Intent: intent},
				{Prefix: p4, Site: "nyc1", Want: placement.GShut},
				{Prefix: p6, Site: "ams1", Want: max(want, placement.Prepend), Fault: fault, Intent: intent || want < placement.Prepend}}}
	}
	standing := NewStanding("ams1")
	verdict, calm := wants(placement.GShut, placement.NoFault, false), wants(placement.Announce, placement.NoFault, false)
	for _, c := range []struct {
		name  string
		s     *placement.Snapshot
		at    time.Duration
		want4 placement.Step
		want6 placement.Step
		again time.Duration // 0: none
	}{
		{"calm", calm, 0, placement.Announce, placement.Prepend, 0},
		{"seen", verdict, time.Second, placement.Announce, placement.Prepend, 3 * time.Second},
		{"stands", verdict, 2900 * time.Millisecond, placement.Announce, placement.Prepend, 3 * time.Second},
		{"has stood", verdict, 3 * time.Second, placement.GShut, placement.GShut, 0},
		{"still", verdict, time.Minute, placement.GShut, placement.GShut, 0},
		{"gone", calm, 61 * time.Second, placement.Announce, placement.Prepend, 0},
		{"again", verdict, 62 * time.Second, placement.Announce, placement.Prepend, 64 * time.Second},
		{"own fault", wants(placement.Withdrawn, placement.LocalFault, false), 63 * time.Second, placement.Withdrawn, placement.Withdrawn, 0},
		{"shared fault", wants(placement.GShut, placement.SharedFault, false), 63 * time.Second, placement.GShut, placement.GShut, 0},
		{"intent", wants(placement.Withdrawn, placement.NoFault, true), 63 * time.Second, placement.Withdrawn, placement.Withdrawn, 0},
		{"anew after them", verdict, 70 * time.Second, placement.Announce, placement.Prepend, 72 * time.Second},
	} {
		got, again := standing.Settle(c.s, time.Unix(0, 0).Add(c.at))
		if got.Announcements[0].Want != c.want4 || got.Announcements[2].Want != c.want6 || got.Announcements[1].Want != placement.GShut {
			t.Errorf("%s: %v, %v, the other site's %v; want %v, %v and its own", c.name, got.Announcements[0].Want, got.Announcements[2].Want, got.Announcements[1].Want, c.want4, c.want6)
		}
		if again.IsZero() != (c.again == 0) || c.again != 0 && !again.Equal(time.Unix(0, 0).Add(c.again)) {
			t.Errorf("%s: ask again at %v, want %v", c.name, again, c.again)
		}
		if held := got.Announcements[2]; held.Want == placement.Prepend && !held.Intent {
			t.Errorf("%s: the plan's own step is no intent any more", c.name)
		}
	}
	if verdict.Announcements[0].Want != placement.GShut {
		t.Error("the snapshot in force was changed")
	}
}
