package guard

import (
	"net/netip"
	"testing"

	"rhumb/placement"
)

// TestAlone: a node that is drained while its site stays goes by the store's word that
// another one announces, whatever its site's anchors, slots and other drains are; and never
// as the last.
func TestAlone(t *testing.T) {
	p := netip.MustParsePrefix("192.0.2.0/24")
	base := Request{Prefix: placement.Prefix{Prefix: p, Slots: 1}, Site: "ams", Node: "n1", Intent: true, Alone: true,
		Anchors: []string{"ams", "fra"}, Sites: []string{"ams", "fra", "lon"}, Prefixes: 2,
		Lowered: []placement.Announcement{{Prefix: p, Site: "lon", Want: placement.Withdrawn, Intent: true}}}
	for name, tc := range map[string]struct {
		at, want, got placement.Step
		others        int
		left          bool
		overrides     []string
	}{
		"prepended":                   {at: placement.Announce, want: placement.Prepend, got: placement.Prepend, others: 1},
		"prepended, the last":         {at: placement.Announce, want: placement.Prepend, got: placement.Announce},
		"gshut":                       {at: placement.Prepend, want: placement.GShut, got: placement.GShut, others: 2},
		"withdrawn":                   {at: placement.GShut, want: placement.Withdrawn, got: placement.Withdrawn, others: 1, left: true},
		"withdrawn, the store away":   {at: placement.GShut, want: placement.Withdrawn, got: placement.GShut, others: 1},
		"withdrawn, the last":         {at: placement.GShut, want: placement.Withdrawn, got: placement.GShut, left: true},
		"withdrawn, nothing set free": {at: placement.GShut, want: placement.Withdrawn, got: placement.GShut, others: 1, overrides: []string{"last-node", "slots", "witness", "anchors"}},
		"back, the last":              {at: placement.Withdrawn, want: placement.Prepend, got: placement.Prepend},
	} {
		r := base
		r.At, r.Want, r.Others, r.Left, r.Overrides = tc.at, tc.want, tc.others, tc.left, tc.overrides
		got, no := Lower(r)
		if got != tc.got || (no != nil) != (got != tc.want) || no != nil && no.Rule != placement.RuleLastNode {
			t.Errorf("%s: %s, %v; want %s", name, got, no, tc.got)
		}
	}
}
