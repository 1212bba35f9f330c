package store

import (
	"errors"
	"math"
	"net/netip"
	"slices"
	"time"

	"rhumb/bgp/guard"
	"rhumb/placement"
)

// The loop of a node of the model: from what it sees to the real guard, and back.

// act is one turn of a node: it hears the store, takes over the newest plan, and moves
// each route as far as it may.
func (m *model) act(n *modelNode) {
	if n.dead {
		return
	}
	if !n.cut {
		n.live = m.live
		if m.state != n.state && !(n.old && n.state != nil) && m.roll()%4 != 0 {
			n.state, n.own = m.state, m.state
		}
	}
	if n.state == nil {
		return
	}
	for _, r := range n.routes {
		m.want(n, r)
		m.publish(n, r)
		for range 4 {
			if !m.move(n, r) || m.broken != "" {
				break
			}
		}
		m.release(n, r)
	}
}

// want is what the node's state and its own health ask of a route.
func (m *model) want(n *modelNode, r *modelRoute) {
	inv := n.state.inv
	r.gone = true
	r.want = placement.Announcement{Prefix: r.p.Prefix, Site: n.site, Want: placement.Withdrawn, Intent: true}
	if inv.Retired(r.p.Prefix) != nil && n.state.plan.Step(r.p.Prefix, n.site) == placement.GShut {
		r.want.Want = placement.GShut // others go first
	}
	for i := range inv.Prefixes {
		if p := &inv.Prefixes[i]; p.Prefix == r.p.Prefix {
			r.p = p
			r.gone = !slices.Contains(p.Sites, n.site)
		}
	}
	if r.gone {
		return
	}
	r.want = placement.Announcement{Prefix: r.p.Prefix, Site: n.site, Want: n.state.plan.Step(r.p.Prefix, n.site)}
	r.want.Intent = r.want.Want > placement.Announce
	worse := func(a placement.Announcement) {
		if a.Want > r.want.Want {
			a.Prefix, a.Site = r.p.Prefix, n.site
			r.want = a
		}
	}
	if m.force[n.site] && !n.cut {
		worse(placement.Announcement{Want: placement.Withdrawn, Intent: true})
	}
	if n.sick && n.fault == placement.SharedFault { // the guard must stop it, whoever asks for more
		worse(placement.Announcement{Want: placement.Withdrawn, Fault: placement.SharedFault})
	} else if n.sick {
		worse(placement.Announcement{Want: placement.Withdrawn, Fault: placement.LocalFault})
	}
	if m.blamed[n.site] {
		worse(placement.Announcement{Want: placement.Withdrawn})
	}
}

func (m *model) anchorsOf(n *modelNode, r *modelRoute) []string {
	if n.state == nil {
		return nil
	}
	for _, a := range n.state.plan.Anchors {
		if a.Prefix == r.p.Prefix {
			return a.Sites
		}
	}
	return nil
}

func (m *model) anchor(n *modelNode, r *modelRoute) bool {
	return slices.Contains(m.anchorsOf(n, r), n.site)
}

// move takes one step of the ladder.
func (m *model) move(n *modelNode, r *modelRoute) bool {
	now := m.time(n)
	w := guard.Wish{Step: r.want.Want, Jump: !r.want.Intent && r.want.Fault == placement.LocalFault}
	if r.ladder.At == placement.Withdrawn && w.Step == placement.Withdrawn && (!r.silent || m.anchor(n, r) || m.unproven(n, r)) {
		to, req, no := m.judge(n, r, placement.GShut, placement.Withdrawn)
		lacks := no != nil && (no.Rule == placement.RuleSlots || no.Rule == placement.RuleWitness)
		switch {
		case to == placement.Withdrawn:
			if !r.silent {
				m.silenced(n, r, &req)
			}
			r.silent = true
		case r.silent && r.no == nil && lacks:
			return false // the store says nothing, and what was permitted stands
		default:
			w.Step = placement.GShut
		}
	}
	l, rung, _ := r.ladder.Next(w, modelTiming(), now)
	r.ladder = l
	switch {
	case rung < l.At:
		m.set(n, r, rung)
		return true
	case rung > l.At && r.stuck && m.roll()%2 == 0:
		return false // refused a moment ago; asking at every turn only takes time
	case rung > l.At:
		to, req, _ := m.judge(n, r, l.At, rung)
		if to <= l.At {
			m.seen.refused++
			r.stuck = true
			return false
		}
		r.stuck = false
		m.lowered(n, r, to)
		if m.set(n, r, to); to == placement.Withdrawn {
			m.silenced(n, r, &req)
		}
		return true
	}
	return false
}

func (m *model) unproven(n *modelNode, r *modelRoute) bool {
	if m.off == "a witness is asked again" {
		return false
	}
	if r.slot != nil && !n.cut && m.time(n).Sub(r.asked) > 5*time.Second && m.off != "a lost slot is noticed" && !m.holds(n.site, r.p.Prefix) {
		r.slot = nil
	}
	if r.slot != nil {
		return false
	}
	return !r.left || m.siblings(n, r) == 0
}

func (m *model) holds(site string, p netip.Prefix) bool {
	return slices.ContainsFunc(m.slots(), func(s placement.Slot) bool { return s.Site == site && s.Prefix == p })
}

func (m *model) siblings(n *modelNode, r *modelRoute) (count int) {
	for _, a := range n.live {
		if a.Prefix == r.p.Prefix && a.Site == n.site && a.Node != n.name && a.Step < placement.Withdrawn {
			count++
		}
	}
	return count
}

// judge asks the guard, and the store before, where even the best answer could help.
func (m *model) judge(n *modelNode, r *modelRoute, at, to placement.Step) (placement.Step, guard.Request, *placement.Refusal) {
	req := m.request(n, r, at, to)
	if to == placement.Withdrawn && req.Order != guard.Retired {
		hopeful := req
		hopeful.Slot, hopeful.Left, hopeful.Seen = &placement.Slot{Site: n.site}, true, true
		if step, no := guard.Lower(hopeful); no != nil {
			return step, req, no
		}
		if m.ask(n, r) {
			req = m.request(n, r, at, to) // the answer took its time
		}
		req.Slot, req.SlotRefusal, req.Left = r.slot, r.no, r.left
		if m.off == "last-node" && len(m.nodesOf(n.site)) > 1 {
			req.Others, req.Left = 1, true
		}
		if m.off == "slots" && req.Slot == nil {
			req.Slot, req.SlotRefusal = &placement.Slot{Site: n.site}, nil
		}
	}
	step, no := guard.Lower(req)
	return step, req, no
}

func (m *model) nodesOf(site string) (out []*modelNode) {
	for _, n := range m.nodes {
		if n.site == site {
			out = append(out, n)
		}
	}
	return out
}

// request gathers what the guard weighs; a rule that is switched off is shown what
// satisfies it.
func (m *model) request(n *modelNode, r *modelRoute, at, to placement.Step) guard.Request {
	q := guard.Request{Prefix: *r.p, Site: n.site, Node: n.name, At: at, Want: to, Fault: r.want.Fault, Intent: r.want.Intent,
		Anchors: m.anchorsOf(n, r), Sites: r.p.Sites, Prefixes: len(n.state.inv.Prefixes)}
	if q.Intent { // nobody else is asked about them
		q.Lowered = m.intents(n, m.off != "the forgotten count")
	}
	q.Order = m.orderOf(n, r)
	if d := m.drains[n.site]; d != nil {
		q.Overrides = d.Override
	}
	switch {
	case q.Order == guard.Retired:
		q.Overrides = n.state.inv.Retired(r.p.Prefix).Override
	case r.gone:
		q.Overrides = n.state.inv.SetAside.Override
	}
	q.Others, q.Announcing = m.siblings(n, r), -1
	if slices.ContainsFunc(n.live, func(a placement.Announced) bool { return a.Prefix == r.p.Prefix && a.Node == n.name }) {
		q.Announcing = guard.Announcing(n.live, r.p.Prefix, n.site)
	}
	q.Seen = m.sees(n, r.p.Prefix)
	if r.ladder.At == placement.GShut {
		q.AtGShut = m.time(n).Sub(r.ladder.Since)
	}
	q.StoreAway = math.MaxInt64
	if n.renewed != 0 {
		q.StoreAway = time.Duration(float64(m.now-n.renewed) * n.speed)
	}
	covers := guard.Covers(r.p, n.state.inv.Prefixes)
	q.Covered = guard.Covered(covers, n.live, n.site, func(p *placement.Prefix) int { return p.MinAnchors(len(p.Sites)) })
	for _, c := range covers {
		q.CoverSeen = q.CoverSeen || m.sees(n, c.Prefix)
	}
	m.blind(&q)
	return q
}

// orderOf is how the fleet stands to a prefix, as a node knows it.
func (m *model) orderOf(n *modelNode, r *modelRoute) guard.Order {
	inv := n.state.inv
	switch retired := inv.Retired(r.p.Prefix) != nil; {
	case retired && r.want.Intent && r.want.Want == placement.Withdrawn:
		return guard.Retired
	case inv.Prefix(r.p.Prefix) == nil && !retired && m.off != "retire":
		return guard.Forgotten
	}
	return guard.Named
}

// blind switches a rule off by showing it what satisfies it.
func (m *model) blind(q *guard.Request) {
	switch m.off {
	case "anchors":
		q.Anchors = nil
	case "witness":
		q.Seen, q.AtGShut, q.StoreAway = true, time.Hour, time.Hour
	case "the store forgets first":
		q.StoreAway = time.Hour
	case "fault":
		if !q.Intent && q.Fault == placement.SharedFault {
			q.Fault = placement.LocalFault
		}
	case "blast-radius":
		q.Lowered = nil
	case "min-sites":
		q.Announcing = -1
	case "covers are asked":
		q.CoverSeen = true
	}
}

// intents are the fleet's lowerings by intent as a node knows them, those included
// which nobody names any more.
func (m *model) intents(n *modelNode, forgotten bool) (out []placement.Announcement) {
	out = slices.Clip(n.state.plan.Steps)
	for site := range m.force {
		for i := range n.state.inv.Prefixes {
			out = append(out, placement.Announcement{Prefix: n.state.inv.Prefixes[i].Prefix, Site: site, Want: placement.Withdrawn, Intent: true})
		}
	}
	if !forgotten {
		return out
	}
	for _, a := range n.live {
		i := slices.IndexFunc(n.state.inv.Prefixes, func(p placement.Prefix) bool { return p.Prefix == a.Prefix })
		if a.Step < placement.Withdrawn && (i < 0 || !slices.Contains(n.state.inv.Prefixes[i].Sites, a.Site)) {
			out = append(out, placement.Announcement{Prefix: a.Prefix, Site: a.Site, Want: placement.Withdrawn, Intent: true})
		}
	}
	return out
}

// sees tells whether the node's router shows another site's route, not at gshut. Routers
// lag behind: a route that is gone is seen for a while.
func (m *model) sees(n *modelNode, p netip.Prefix) bool {
	var room [16]guard.Sighting
	list := room[:0]
	for _, o := range m.nodes {
		for _, r := range o.routes {
			if r.p.Prefix != p {
				continue
			}
			step := r.ladder.At
			if m.now < r.lag {
				step = r.shown
			}
			if o.dead && m.now-o.died > 2*time.Second {
				step = placement.Withdrawn
			}
			if step < placement.Withdrawn {
				list = append(list, guard.Sighting{Prefix: p, Number: o.number, GShut: step == placement.GShut})
			}
		}
	}
	return guard.Seen(list, p, n.number)
}

// ask is the question to the store, at most once a second.
func (m *model) ask(n *modelNode, r *modelRoute) (asked bool) {
	now := m.time(n)
	silent := r.ladder.At == placement.Withdrawn || m.off == "a slot is counted anew"
	if silent && (r.slot != nil || r.left && m.siblings(n, r) > 0) {
		return false
	}
	if !r.asked.IsZero() && now.Sub(r.asked) < time.Second {
		return false
	}
	r.asked, r.owed, r.left, r.no, r.slot = now, true, false, nil, nil
	if n.cut || !n.present {
		return false
	}
	var err error
	if !m.gate.inside {
		m.asker = n
	}
	if m.siblings(n, r) > 0 {
		m.unlist(n, r.p.Prefix)
		if err = m.store.LeaveNode(m.ctx(), r.p.Prefix, n.name, n.site); err == nil {
			r.left = true
			return true
		}
		defer m.publish(n, r)
	}
	slot, err := m.store.TakeSlot(m.ctx(), *r.p, n.site, "model", nil)
	if err == nil {
		r.slot, r.counted = &slot, m.now
	} else if !errors.As(err, &r.no) && !errors.Is(err, ErrConflict) {
		m.fail("store: %v", err)
	}
	return true
}

// release gives the Slot back when the route is there again and means to stay.
func (m *model) release(n *modelNode, r *modelRoute) {
	if !r.owed || n.cut || !n.present || r.ladder.At == placement.Withdrawn || r.want.Want == placement.Withdrawn {
		return
	}
	r.left, r.no = false, nil
	m.publish(n, r)
	for _, s := range m.slots() {
		if s.Site == n.site && s.Prefix == r.p.Prefix {
			if err := m.store.FreeSlot(m.ctx(), s.Prefix, s.Number, s.Site, ""); err != nil {
				return
			}
		}
	}
	r.slot, r.owed, r.silent, r.asked = nil, false, false, time.Time{}
}

// set makes a step true.
func (m *model) set(n *modelNode, r *modelRoute, to placement.Step) {
	if m.tracing {
		m.say("%s: %s %s → %s (%s)", n.name, r.p.Prefix, r.ladder.At, to, wantText(r))
	}
	r.shown, r.lag = r.ladder.At, m.now+time.Duration(m.roll()%2000)*time.Millisecond
	if r.ladder.At == placement.Withdrawn {
		if r.silent, r.left, r.no = false, false, nil; m.off != "a slot is counted anew" {
			r.slot, r.asked = nil, time.Time{}
		}
	}
	r.ladder = r.ladder.To(to, modelTiming(), m.time(n))
	r.silent = r.silent || to == placement.Withdrawn
	m.publish(n, r)
}

func wantText(r *modelRoute) string {
	what := "by a quorum"
	if r.want.Intent {
		what = "by intent"
	} else if r.want.Fault != placement.NoFault {
		what = string(r.want.Fault) + " fault"
	}
	return "wants " + r.want.Want.String() + " " + what
}
