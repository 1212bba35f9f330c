package guard

import (
	"net/netip"
	"testing"

	"rhumb/placement"
)

func TestLowerToward(t *testing.T) {
	peer := netip.MustParseAddr("198.51.100.2")
	tests := []struct {
		name   string
		in     Toward
		want   placement.Step
		permit bool
	}{
		{"another peer hears us in full", Toward{Peer: peer, Want: placement.Withdrawn, Others: 1}, placement.Withdrawn, true},
		{"last-node: the last upstream stays", Toward{Peer: peer, Want: placement.Prepend}, placement.Announce, false},
		{"last-node: nor does it go further", Toward{Peer: peer, At: placement.Prepend, Want: placement.Withdrawn}, placement.Prepend, false},
		{"up is always allowed", Toward{Peer: peer, At: placement.Withdrawn}, placement.Announce, true},
		{"nothing asked", Toward{Peer: peer}, placement.Announce, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, no := LowerToward(tt.in)
			if got != tt.want || (no == nil) != tt.permit {
				t.Errorf("%v, %v; want %v, permitted %v", got, no, tt.want, tt.permit)
			}
			if no != nil && no.Rule != placement.RuleLastNode {
				t.Errorf("rule %s", no.Rule)
			}
		})
	}
}
