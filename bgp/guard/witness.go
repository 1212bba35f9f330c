package guard

import (
	"net/netip"
	"slices"

	"rhumb/placement"
)

// Sighting is a route of another site that one of our routers shows us: the
// proof that clients have somewhere else to go.
type Sighting struct {
	Prefix netip.Prefix
	// Number of the site whose marker the route carries (ASN:1:Number).
	Number uint32
	// GShut is set when that site asks not to be preferred either.
	GShut bool
}

// Seen tells whether the fallback of a prefix works: another site's route is
// there, and does not itself ask to be avoided.
func Seen(sightings []Sighting, prefix netip.Prefix, own uint32) bool {
	return slices.ContainsFunc(sightings, func(s Sighting) bool {
		return s.Prefix == prefix && s.Number != own && !s.GShut
	})
}

// Covered tells whether a local prefix may go freely: a global prefix around it
// is announced by at least its number of anchors of other sites.
func Covered(p *placement.Prefix, all []placement.Prefix, live []placement.Announced, site string, anchors func(*placement.Prefix) int) bool {
	if p.Reach != placement.Local {
		return false
	}
	for i := range all {
		c := &all[i]
		around := c.Reach != placement.Local && c.Prefix.Bits() < p.Prefix.Bits() && c.Prefix.Contains(p.Prefix.Addr())
		if around && announcing(live, c.Prefix, site) >= max(1, anchors(c)) {
			return true
		}
	}
	return false
}

// announcing counts the other sites which announce a prefix, at any rung but the last.
func announcing(live []placement.Announced, prefix netip.Prefix, site string) int {
	var sites []string
	for _, a := range live {
		if a.Prefix == prefix && a.Site != site && a.Step < placement.Withdrawn {
			sites = add(sites, a.Site)
		}
	}
	return len(sites)
}

// judgeWitness is asked last. With a Slot it is advice unless the prefix or a
// quorum's verdict requires it; while the store is away it stands for the Slot,
// and not before routes had time to move.
func judgeWitness(r *Request) (verdict, *placement.Refusal) {
	if r.Covered && !r.quorum() {
		return permit, nil
	}
	if r.Slot != nil {
		if r.Seen || !r.quorum() && r.Prefix.Witness != placement.WitnessRequired {
			return permit, nil
		}
		return refuse, r.refusal(placement.RuleWitness, "slot, no other site's route seen", "witness required", "")
	}
	if r.Prefix.Witness == placement.WitnessOff {
		return refuse, r.refusal(placement.RuleSlots, "no slot, store away, witness off", "1 slot", "")
	}
	if !r.Seen {
		return refuse, r.refusal(placement.RuleWitness, "store away, no other site's route seen", "another site's route", "")
	}
	if r.AtGShut < StoreAwayHold {
		return refuse, r.refusal(placement.RuleWitness, "at gshut for "+r.AtGShut.String(), StoreAwayHold.String(), "")
	}
	return permit, nil
}
