package decide

import (
	"fmt"

	"rhumb/placement"
)

// serials judges zones that others copy. One which changes and keeps its serial
// would never reach them, and the same name would be answered in two ways for as
// long as nobody notices. It is refused and not raised by us: a serial that the
// operator's file does not show is one more thing which two systems disagree on.
func serials(oldInv, newInv *placement.Inventory) []*placement.Refusal {
	var out []*placement.Refusal
	for i := range newInv.Zones {
		z := &newInv.Zones[i]
		was := oldInv.Zone(z.Name)
		// A zone from before serials were kept has none: nothing is known of it.
		if z.Transfer == nil || was == nil || was.SHA256 == z.SHA256 || was.SHA256 == "" || z.SHA256 == "" || was.Serial == 0 || later(z.Serial, was.Serial) {
			continue
		}
		out = append(out, &placement.Refusal{Rule: placement.RuleSerial, Object: z.Name,
			Have: fmt.Sprintf("changed, with serial %d", z.Serial), Limit: fmt.Sprintf("later than %d", was.Serial)})
	}
	return out
}

// unfollowed judges catalogs of others that are left out: all zones which they list
// would go, and nobody here knows how many those are (RFC 9432 section 6).
func unfollowed(oldInv, newInv *placement.Inventory) []*placement.Refusal {
	followed := func(z *placement.Zone) bool { return z != nil && z.Catalog != nil && z.Secondary != nil }
	var out []*placement.Refusal
	for i := range oldInv.Zones {
		if was := &oldInv.Zones[i]; followed(was) && !followed(newInv.Zone(was.Name)) {
			out = append(out, &placement.Refusal{Rule: placement.RuleShrink, Object: was.Name,
				Have: "a catalog is followed no more, and all zones that it lists would go", Limit: "a catalog stays"})
		}
	}
	return out
}

// JudgeZones says what stands against new zones where no more is known than two
// configurations: the state file of a role that runs alone.
func JudgeZones(was, is *placement.Fleet, overrides []string) *placement.Refusal {
	l := newLimits(is.Safety, overrides)
	oldInv, newInv := &placement.Inventory{Fleet: *was}, &placement.Inventory{Fleet: *is}
	for _, r := range append(serials(oldInv, newInv), unfollowed(oldInv, newInv)...) {
		if l.stands(r) {
			return r
		}
	}
	return nil
}

// later tells whether serial a is later than b (RFC 1982 section 3.2).
func later(a, b uint32) bool { return int32(a-b) > 0 && a-b != 1<<31 }
