package guard

import (
	"fmt"
	"net/netip"

	"rhumb/placement"
)

// Toward is one wish to be announced more quietly at one peer alone, because the
// path behind it loses packets. It is no rung of the ladder: the site stays as
// loud as it is at its other peers.
type Toward struct {
	Peer     netip.Addr
	At, Want placement.Step
	// Others are the peers besides this one which hear us in full: established,
	// not lowered themselves, and not known to lose packets.
	Others int
}

// LowerToward tells whether a peer may hear less of us. The last one that hears
// us in full is as good as the site's last route, whatever is seen behind it: who
// measures all his upstreams dead has more reason to doubt the measurement.
func LowerToward(t Toward) (placement.Step, *placement.Refusal) {
	if t.Want <= t.At || t.Others > 0 {
		return t.Want, nil
	}
	return t.At, &placement.Refusal{Rule: placement.RuleLastNode, Object: "peer " + t.Peer.String(),
		Have: "no other peer with a good path", Limit: fmt.Sprintf("1 besides it, to go to %s", t.Want),
		Hint: "the last upstream stays; drain the site to leave it"}
}
