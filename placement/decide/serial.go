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

// JudgeSerials says what stands against new zones where no more is known than two
// configurations: the state file of a role that runs alone.
func JudgeSerials(was, is *placement.Fleet, overrides []string) *placement.Refusal {
	l := newLimits(is.Safety, overrides)
	for _, r := range serials(&placement.Inventory{Fleet: *was}, &placement.Inventory{Fleet: *is}) {
		if l.stands(r) {
			return r
		}
	}
	return nil
}

// later tells whether serial a is later than b (RFC 1982 section 3.2).
func later(a, b uint32) bool { return int32(a-b) > 0 && a-b != 1<<31 }
