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

// Covers returns the global prefixes around a local one; none of a global one.
func Covers(p *placement.Prefix, all []placement.Prefix) []*placement.Prefix {
	var out []*placement.Prefix
	for i := range all {
		c := &all[i]
		if p.Reach == placement.Local && c.Reach != placement.Local && c.Prefix.Bits() < p.Prefix.Bits() && c.Prefix.Contains(p.Prefix.Addr()) {
			out = append(out, c)
		}
	}
	return out
}

// Covered tells whether one of the covers is announced by at least as many other
// sites as it has anchors.
func Covered(covers []*placement.Prefix, live []placement.Announced, site string, anchors func(*placement.Prefix) int) bool {
	return slices.ContainsFunc(covers, func(c *placement.Prefix) bool {
		return Announcing(live, c.Prefix, site) >= max(1, anchors(c))
	})
}

// Announcing counts the other sites which announce a prefix, at any rung but the last;
// one that only its twin announces is none.
func Announcing(live []placement.Announced, prefix netip.Prefix, site string) int {
	var sites []string
	for _, a := range live {
		if a.Prefix == prefix && a.Site != site && a.Step < placement.Withdrawn && !a.Twin {
			sites = add(sites, a.Site)
		}
	}
	return len(sites)
}

// forgotten tells whether the store counts on this node no more. Under a cover, too, a
// sibling may leave on what the store says of us, for a cause which asks for a Slot.
func (r *Request) forgotten() bool {
	return r.StoreAway >= StoreForgets || r.overridden(placement.RuleSlots)
}

// judgeWitness is asked last. With a Slot it is advice unless the prefix or a
// quorum's verdict requires it; while the store is away it stands for the Slot,
// and not before routes had time to move and the store to forget this node.
func judgeWitness(r *Request) (verdict, *placement.Refusal) {
	if r.covered() && !r.quorum() && (r.answered() || r.AtGShut >= StoreAwayHold && r.forgotten()) {
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
	if !r.forgotten() {
		return refuse, r.refusal(placement.RuleWitness, "store away for "+r.StoreAway.String(),
			StoreForgets.String()+", so that nobody's slot counts on us", "")
	}
	return permit, nil
}
