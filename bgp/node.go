package bgp

import (
	"fmt"
	"time"

	"rhumb/placement"
)

// defaultNodeGShut is how long a node that is drained alone stands at gshut: its sessions
// go next door meanwhile, and a router that spread clients over the site's nodes has
// chosen the others before the route goes.
const defaultNodeGShut = 10 * time.Second

// nodeWish is what is wanted of a prefix at one node of a site, given what the site wants,
// the drain of the node alone, if there is one, and the other nodes that announce the prefix
// and stay. The site's own step never moves with it: where nobody else is as loud as the
// site wants to be, the node stays, and the refusal says so.
func nodeWish(site placement.Announcement, node string, d *placement.Drain, others []placement.Announced) (want placement.Announcement, alone bool, no *placement.Refusal) {
	if d == nil || site.Want == placement.Withdrawn {
		return site, false, nil
	}
	if len(others) == 0 {
		return site, false, &placement.Refusal{Rule: placement.RuleLastNode, Object: site.Prefix.String() + " at " + node,
			Have: fmt.Sprintf("no other node of %s announces it", site.Site), Limit: "another node of the site stays",
			Hint: "bring another node of the site back, or drain the site"}
	}
	want = site
	want.Want, want.Intent, want.Fault, want.Cause = placement.Withdrawn, true, placement.NoFault, "node drained by "+d.Who+": "+d.Reason
	return want, true, nil
}

// followNode applies the drain of this node to what its site wants. Once it has gone, another
// one that announces is enough: while a site comes back rung by rung, no node is as loud
// yet as it is to be, and what was drained is not called for that.
func (s *Speaker) followNode(r *route) {
	in, name := s.loop.now, s.cfg.Site+"/"+s.cfg.Node
	r.alone, r.stays, r.loud = false, nil, r.want.Want
	if r.gone {
		return // the site's own step
	}
	if r.ladder.At == placement.Withdrawn {
		r.loud = placement.GShut
	}
	r.want, r.alone, r.stays = nodeWish(r.want, name, in.snapshot.Inventory.Drained(name), in.staying(r, s.cfg.Node, r.loud))
}

// staying returns the live nodes of this site, other than this one, which announce the
// prefix at a step or louder, and are not drained themselves.
func (in *input) staying(r *route, node string, step placement.Step) []placement.Announced {
	var out []placement.Announced
	for _, a := range in.siblings(r.prefix.Prefix, r.want.Site, node) {
		if a.Step <= step && in.snapshot.Inventory.Drained(a.Site+"/"+a.Node) == nil {
			out = append(out, a)
		}
	}
	return out
}

// waits tells until when a node that is drained alone stands at gshut; zero: it need not.
func (s *Speaker) waits(r *route, now time.Time) time.Time {
	if !r.alone || r.ladder.At != placement.GShut {
		return time.Time{}
	}
	if until := r.ladder.Since.Add(s.cfg.NodeGShut); now.Before(until) {
		return until
	}
	return time.Time{}
}
