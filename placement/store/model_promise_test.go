package store

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"rhumb/bgp/guard"
	"rhumb/placement"
)

// What the model asks after each step: whether the promises hold, and whether all is
// as it was once all is well.

// announces tells whether a site announces: by a node that lives, or one which has died
// so lately that nobody can know.
func (m *model) announces(site string, p netip.Prefix) bool {
	for _, n := range m.nodes {
		if n.site != site || n.dead && m.now-n.died > 12*time.Second {
			continue
		}
		for _, r := range n.routes {
			if r.p.Prefix == p && r.ladder.At < placement.Withdrawn {
				return true
			}
		}
	}
	return false
}

// silenced is asked when a node has fallen silent by will: was it right?
func (m *model) silenced(n *modelNode, r *modelRoute, q *guard.Request) {
	switch {
	case r.want.Fault == placement.SharedFault && !r.want.Intent:
		m.fail("%s withdrew %s for a fault that all share", n.name, r.p.Prefix)
	case m.announces(n.site, r.p.Prefix):
		m.seen.left++
		return
	}
	others, cover := 0, false
	for _, s := range m.sites {
		if s != n.site && m.announces(s, r.p.Prefix) {
			others++
		}
		cover = cover || r.p.Reach == placement.Local && m.announces(s, m.nets[0].Prefix)
	}
	if m.tracing {
		m.say("%s: %s is silent; slot %v, %d others, covered %v", n.site, r.p.Prefix, r.slot != nil, others, cover)
	}
	quorum := !r.want.Intent && r.want.Fault == placement.NoFault
	switch {
	case m.orderOf(n, r) == guard.Retired:
		m.seen.retired++
		return // by the operator's own word, as far as this node has heard
	case r.want.Intent && n.state.inv.Prefix(r.p.Prefix) == nil:
		m.fail("%s was deleted, and not retired, and %s is silent", r.p.Prefix, n.site)
	case m.lateRetired() && (others == 0 || r.slot == nil && n.present) && !cover:
		return
	case others == 0 && !cover:
		m.fail("%s is announced nowhere: %s was the last, and went by will", r.p.Prefix, n.site)
	case m.anchor(n, r) && !cover:
		m.fail("%s is an anchor of %s, and silent", n.site, r.p.Prefix)
	case quorum && (r.slot == nil || !m.sees(n, r.p.Prefix)):
		m.fail("%s, up by its own votes, withdrew %s without slot and witness", n.name, r.p.Prefix)
	case r.slot == nil && !n.cut && n.present && !cover:
		m.fail("%s has the store, and withdrew %s without a slot", n.name, r.p.Prefix)
	case r.slot == nil && !cover && !q.Seen:
		m.fail("%s withdrew %s unseen, and without a slot", n.name, r.p.Prefix)
	case r.slot == nil && !cover && n.present:
		m.fail("%s withdrew %s on a witness, while the store still counts on it", n.name, r.p.Prefix)
	case r.slot != nil && !cover && m.now-r.counted > 5*time.Second:
		m.fail("%s withdrew %s by a count of %v ago", n.name, r.p.Prefix, m.now-r.counted)
	case r.want.Intent && !cover && !n.cut && n.present && guard.Announcing(n.live, r.p.Prefix, n.site) < min(2, len(r.p.Sites)-1):
		m.fail("an intent of %s left %d sites announcing %s", n.site, others, r.p.Prefix)
	}
	switch {
	case quorum:
		m.seen.quorum++
	case r.slot != nil:
		m.seen.slot++
	case cover:
		m.seen.cover++
	default:
		m.seen.witness++
	}
}

// lateRetired tells whether the prefixes are retired, or were a moment ago. Who goes by a
// retirement asks nobody, and one that is cut off just then is counted until its lease
// ends: whoever takes a retirement back at that moment may find that others relied on it.
func (m *model) lateRetired() bool {
	return len(m.inv.Retirements) > 0 || m.now-m.unretired < 25*time.Second
}

// lowered is asked before an intent lowers a route: how many sites does it take?
func (m *model) lowered(n *modelNode, r *modelRoute, to placement.Step) {
	if !r.want.Intent || to > placement.Prepend && m.off == "" {
		return // the first rung tells it all, as long as nothing is switched off
	}
	sites := []string{n.site}
	for _, a := range m.intents(n, true) {
		if a.Prefix == r.p.Prefix && !slices.Contains(sites, a.Site) {
			sites = append(sites, a.Site)
		}
	}
	if m.orderOf(n, r) == guard.Retired || r.gone && len(n.state.inv.SetAside.Override) > 0 {
		return // all of them shall go, or somebody has taken it upon himself
	}
	covered := r.p.Reach == placement.Local // may all go where the cover stays
	if limit := max(1, min(r.p.Slots, len(r.p.Sites)-r.p.MinAnchors(len(r.p.Sites)))); len(sites) > limit && !covered {
		m.fail("%s goes to %s with %s by intent, though intents lower it at %v, more than %d", n.name, to, r.p.Prefix, sites, limit)
	}
}

// check holds the whole against the promise.
func (m *model) check() {
	held := map[string]bool{}
	for _, s := range m.slots() {
		if s.Prefix == m.nets[0].Prefix {
			held[s.Site] = true
		}
	}
	if len(held) > m.k {
		m.fail("%d slots are held of %d", len(held), m.k)
	}
	silent := map[string]bool{}
	for _, n := range m.nodes {
		for _, r := range n.routes {
			if n.dead || r.p.Reach == placement.Local || r.ladder.At < placement.Withdrawn || m.announces(n.site, r.p.Prefix) {
				r.bare = 0
				continue
			}
			// Who is cut off cannot know that a sibling came back and gave the site's slot
			// away, nor at once when it is not any more; that the sibling went again was a
			// death. How long it may go on is asked below.
			deceived := len(m.nodesOf(n.site)) > 1 && !m.holds(n.site, r.p.Prefix)
			silent[n.site] = silent[n.site] || r.slot != nil && !deceived
			switch right := !r.silent || n.cut || m.holds(n.site, r.p.Prefix) || n.state != nil && n.state.inv.Retired(r.p.Prefix) != nil; {
			case right:
				r.bare = 0
			case r.bare == 0:
				r.bare = m.now
			case m.now-r.bare > 25*time.Second:
				m.fail("%s has the store and no slot, and has been silent for %v", n.name, m.now-r.bare)
			}
		}
	}
	maps.DeleteFunc(silent, func(_ string, by bool) bool { return !by })
	if len(silent) > m.k+m.byHand {
		m.fail("%d sites are silent by slots, of %d", len(silent), m.k)
	}
}

// heal makes all well, and waits until all is as before.
func (m *model) heal() {
	clear(m.drains)
	clear(m.force)
	clear(m.blamed)
	m.noPlans, m.changed = false, true
	m.order(modelEvent{kind: "unretire"}, "")
	m.order(modelEvent{kind: "restore sites"}, "")
	for _, n := range m.nodes {
		if n.cut, n.sick, n.old = false, false, false; n.dead {
			m.boot(n, n.own)
		}
	}
	m.say("all is healed")
	for range 30 {
		m.pass(3*time.Second, 0)
		if m.broken != "" || m.well() == "" {
			return
		}
	}
	m.fail("after all was healed: %s", m.well())
}

// well says what is not as it should be when nothing is wrong.
func (m *model) well() string {
	for _, n := range m.nodes {
		for _, r := range n.routes {
			if r.ladder.At != placement.Announce {
				return fmt.Sprintf("%s is at %s with %s", n.name, r.ladder.At, r.p.Prefix)
			}
		}
	}
	if s := m.slots(); len(s) > 0 {
		return "a slot is still held by " + s[0].Site
	}
	return ""
}
