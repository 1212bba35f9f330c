package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"rhumb/bgp/guard"
	"rhumb/placement"
	"rhumb/placement/decide"
)

// The model plays schedules of faults, mistakes of operators, crashes, old disks,
// cut-off nodes, clocks of different speed and releases of different age on the real
// guard and ladder, the real transactions of Slots (on the memory twin of etcd, with
// other nodes acting between a read and its write) and the real choice of Anchors. Only
// the loop of a node which calls them is its own. After each step it asks whether the
// promises hold:
//
//   - a prefix is never silenced by will where nobody else announces it, or its cover;
//   - never more sites hold the right to be silent than the prefix has Slots;
//   - an anchor, by its own Snapshot, is never silent; nor is anybody for a shared fault;
//   - a Slot's holder is never named an anchor;
//   - one intent never lowers more sites than there are Slots;
//   - after all is well again, all is announced, and every Slot is back.

// modelEvent is one line of a schedule.
type modelEvent struct {
	kind       string
	a, b, dice uint16
	wait       time.Duration
}

// modelKinds are the events; those which stand more than once come more often.
func modelKinds() []string {
	return []string{"sick", "sick", "sick", "sick everywhere", "blamed", "well", "well", "well", "crash", "start", "start from old disk",
		"cut", "cut", "mend", "mend", "drain", "drain", "drain two", "undrain", "undrain", "force down", "force all down", "unforce",
		"forget sites", "restore sites", "director dies", "director back", "slot freed by hand", "wait", "wait"}
}

// modelSchedule draws a schedule from a seed.
func modelSchedule(seed uint64) []modelEvent {
	rnd, kinds := rand.New(rand.NewPCG(seed, 7)), modelKinds()
	out := make([]modelEvent, 9+rnd.IntN(12))
	for i := range out {
		out[i] = modelEvent{kind: kinds[rnd.IntN(len(kinds))], a: uint16(rnd.IntN(1 << 16)), b: uint16(rnd.IntN(1 << 16)),
			dice: uint16(rnd.IntN(1 << 16)), wait: time.Duration(rnd.IntN(9000)) * time.Millisecond}
	}
	return out
}

// modelState is what a node applies: a plan and the configuration it was made for.
type modelState struct {
	plan *placement.Plan
	inv  *placement.Inventory
}

// modelRoute is one prefix at one node, as bgp's own route.
type modelRoute struct {
	p      *placement.Prefix
	want   placement.Announcement
	gone   bool
	ladder guard.Ladder
	slot   *placement.Slot
	no     *placement.Refusal
	left   bool
	silent bool
	owed   bool
	// counted is when the store last counted the others for us.
	counted time.Duration
	stuck   bool // refused the last time
	asked   time.Time
	// unsaid is set where the store lists the route as silent, or not at all, because the
	// node was cut off when it last had something to say.
	unsaid bool
	bare   time.Duration  // since when it is silent without a slot, and has the store
	shown  placement.Step // what routers saw before
	lag    time.Duration  // until when they did
}

// modelNode is a machine with a speaker.
type modelNode struct {
	site, name string
	number     uint32
	dead, cut  bool
	died       time.Duration
	booted     time.Duration
	old        bool    // of an older release: acknowledges nothing
	speed      float64 // of its clock
	fault      placement.Fault
	sick       bool
	state, own *modelState // applied, and what lies on its disk
	routes     []*modelRoute
	live       []placement.Announced // as it last saw the store
	renewed    time.Duration         // its lease, in true time
	present    bool                  // its keys may be in the store
	before     time.Duration         // when the lease of its last life ends, if its keys may be there still
}

// modelCount counts what was seen, so that a model in which nothing happens fails.
type modelCount struct{ slot, witness, left, cover, refused, raced, quorum int }

type model struct {
	store   *Store
	gate    *modelGate
	asker   *modelNode
	off     string // the rule or mechanism which is switched off
	now     time.Duration
	inv     *placement.Inventory
	full    []string // sites of the configuration before any mistake
	sites   []string
	nodes   []*modelNode
	drains  map[string]*placement.Drain
	force   map[string]bool
	blamed  map[string]bool // by a quorum
	state   *modelState
	noPlans bool
	k       int
	byHand  int
	live    []placement.Announced // mirror of the store's
	held    []placement.Slot      // likewise, unless slotsOld
	// slotsOld is set when the store's slots may have changed since, changed when
	// anything may have that a plan is made from.
	slotsOld, changed bool
	dice              uint32
	trace             []string
	tracing           bool
	broken            string
	seen              modelCount
}

var modelEpoch = [...]time.Time{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}

func modelTiming() guard.Timing {
	return guard.Timing{Dwell: 250 * time.Millisecond, WarmUp: time.Second, MaxWarmUp: 4 * time.Second}
}

// modelGate lets another node act between what a transaction read and what it writes.
type modelGate struct {
	*Memory
	m      *model
	inside bool
	blind  bool // forget the conditions
}

func (g *modelGate) write(ctx context.Context, conds []cond, ops []op) (int64, bool, error) {
	if len(conds) > 0 && !g.inside && g.m.roll()%3 == 0 {
		g.inside = true
		g.m.meddle()
		g.inside = false
	}
	if g.blind {
		conds = nil
	}
	for _, o := range ops {
		g.m.changed, g.m.slotsOld = true, g.m.slotsOld || strings.HasPrefix(o.key, dirSlots)
	}
	rev, ok, err := g.Memory.write(ctx, conds, ops)
	if err == nil && !ok {
		g.m.seen.raced++
	}
	return rev, ok, err
}

// ctx has a deadline, so that no operation makes one of its own.
func (m *model) ctx() context.Context { return modelContext{} }

type modelContext struct{}

func (modelContext) Deadline() (time.Time, bool) { return time.Now().Add(time.Hour), true }
func (modelContext) Done() <-chan struct{}       { return nil }
func (modelContext) Err() error                  { return nil }
func (modelContext) Value(any) any               { return nil }

// newModel makes the fleet of a seed: 2 to 5 sites of 1 or 2 nodes, a global prefix,
// and sometimes a local one within it.
func newModel(seed uint64, off string) *model {
	rnd := rand.New(rand.NewPCG(seed, 1))
	m := &model{off: off, dice: uint32(seed) | 1, drains: map[string]*placement.Drain{}, force: map[string]bool{}, blamed: map[string]bool{}}
	m.gate = &modelGate{Memory: NewMemory(), m: m, blind: off == "the store compares"}
	metrics, _ := newMetrics(nil)
	m.store = &Store{kv: m.gate, slots: true, metrics: metrics, now: func() time.Time { return modelEpoch[0].Add(time.Duration(rnd.IntN(1e9))) }}
	inv := &placement.Inventory{Revision: 1, Fleet: placement.Fleet{Mode: placement.Act}}
	for i := range 2 + rnd.IntN(4) {
		site := fmt.Sprintf("s%d", i)
		m.sites = append(m.sites, site)
		inv.Sites = append(inv.Sites, placement.Site{Name: site, Number: uint16(i + 1)})
		for j := range 1 + rnd.IntN(4)/3 {
			m.nodes = append(m.nodes, &modelNode{site: site, name: fmt.Sprintf("%s-%d", site, j), number: uint32(i + 1),
				speed: 0.95 + 0.1*rnd.Float64(), old: rnd.IntN(12) == 0})
		}
	}
	witness := []placement.Witness{placement.WitnessAdvisory, placement.WitnessAdvisory, placement.WitnessRequired}[rnd.IntN(3)]
	global := placement.Prefix{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Reach: placement.Global, Sites: m.sites, Slots: 1 + rnd.IntN(2),
		Mode: placement.Act, Witness: witness, MinAnnouncing: rnd.IntN(3)}
	inv.Prefixes = []placement.Prefix{global}
	if rnd.IntN(4) == 0 {
		local := global
		local.Prefix, local.Reach = netip.MustParsePrefix("192.0.2.0/25"), placement.Local
		inv.Prefixes = append(inv.Prefixes, local)
	}
	m.inv, m.full = inv, m.sites
	m.k = max(0, min(global.Slots, len(m.sites)-global.MinAnchors(len(m.sites))))
	for _, n := range m.nodes {
		m.boot(n, nil)
	}
	m.plan()
	m.pass(12*time.Second, 0)
	return m
}

// roll is a cheap die: the schedule's own numbers set it, so that a shorter schedule
// plays what is left of it alike.
func (m *model) roll() uint32 {
	m.dice ^= m.dice << 13
	m.dice ^= m.dice >> 17
	m.dice ^= m.dice << 5
	return m.dice
}

func (m *model) say(format string, args ...any) {
	if m.tracing {
		m.trace = append(m.trace, fmt.Sprintf("%7.2fs  ", m.now.Seconds())+fmt.Sprintf(format, args...))
	}
}

func (m *model) fail(format string, args ...any) {
	if m.broken == "" {
		m.broken = fmt.Sprintf(format, args...)
		m.say("BROKEN: %s", m.broken)
	}
}

// time is what a node's clock shows.
func (m *model) time(n *modelNode) time.Time {
	return modelEpoch[0].Add(time.Duration(float64(m.now) * n.speed))
}

// boot starts a node from a disk; its routes begin in silence.
func (m *model) boot(n *modelNode, disk *modelState) {
	n.dead, n.sick, n.state, n.own, n.routes, n.live = false, false, disk, disk, nil, nil
	if n.present { // a lease outlives who took it
		n.before = n.renewed + 10*time.Second
	}
	n.renewed, n.present, n.booted = 0, false, m.now
	for i := range m.inv.Prefixes {
		n.routes = append(n.routes, &modelRoute{p: &m.inv.Prefixes[i], ladder: guard.Start(m.time(n)), owed: true, shown: placement.Withdrawn,
			want: placement.Announcement{Prefix: m.inv.Prefixes[i].Prefix, Site: n.site}})
	}
}

// event changes the world once.
func (m *model) event(e modelEvent) {
	n := m.nodes[int(e.a)%len(m.nodes)]
	site := n.site
	m.dice, m.changed = uint32(e.dice)<<8|1, true
	m.say("%s %s", e.kind, n.name)
	switch e.kind {
	case "sick":
		n.sick, n.fault = true, []placement.Fault{placement.LocalFault, placement.LocalFault, placement.LocalFault, placement.SharedFault}[e.b%4]
	case "sick everywhere": // broken probers, or a broken backbone
		for _, o := range m.nodes {
			o.sick, o.fault = true, []placement.Fault{placement.LocalFault, placement.SharedFault}[e.b%2]
		}
	case "blamed":
		m.blamed[site] = true
	case "well":
		for _, o := range m.nodes {
			o.sick = o.sick && o.site != site && e.b%3 != 0
		}
		delete(m.blamed, site)
	case "crash":
		if !n.dead {
			n.dead, n.died = true, m.now
		}
	case "start", "start from old disk":
		m.start(n, e)
	case "cut":
		n.cut = true
	case "mend":
		for i, o := range m.nodes {
			o.cut = o.cut && o != n && (int(e.b)+i)%2 == 0
		}
	case "director dies":
		m.noPlans = true
	case "director back":
		m.noPlans = false
	case "slot freed by hand":
		m.freeByHand(site)
	default:
		m.order(e, site)
	}
	m.pass(e.wait, e.dice)
}

// start brings a dead node back. A disk which was restored from somewhere, or could not
// be written, is older than what the node said it knew.
func (m *model) start(n *modelNode, e modelEvent) {
	if !n.dead {
		return
	}
	disk := n.own
	if e.kind == "start from old disk" && m.staleDisks(n) == 0 {
		disk = nil
		if m.state != nil && e.b%2 == 0 {
			disk = &modelState{plan: &placement.Plan{Anchors: []placement.Anchors{}}, inv: m.inv}
		}
	}
	m.boot(n, disk)
}

// staleDisks counts the other nodes which run on an older state than they had: one
// anchor may forget itself, for a prefix has two; not all of them at once.
func (m *model) staleDisks(but *modelNode) (count int) {
	if m.inv.Prefixes[0].MinAnchors(len(m.full)) < 2 {
		return 1
	}
	for _, n := range m.nodes {
		if n != but && !n.dead && n.cut && n.state != m.state {
			count++
		}
	}
	return count
}

// order is what operators do, rightly or not.
func (m *model) order(e modelEvent, site string) {
	drain := func(site string) {
		m.drains[site] = &placement.Drain{Site: site, Audit: placement.Audit{Who: "op", Reason: "test", Override: []string{"max-drains"}}}
	}
	switch e.kind {
	case "drain":
		drain(site)
	case "drain two":
		drain(site)
		drain(m.sites[int(e.b)%len(m.sites)])
	case "undrain":
		delete(m.drains, site)
	case "force down":
		m.force[site] = true
	case "force all down":
		for _, s := range m.sites {
			m.force[s] = true
		}
	case "unforce":
		clear(m.force)
	case "forget sites", "restore sites":
		keep := m.full
		if e.kind == "forget sites" {
			keep = slices.DeleteFunc(slices.Clone(m.full), func(s string) bool { return s == site || e.b%2 == 0 })
			if len(keep) == 0 {
				keep = []string{m.full[int(e.a)%len(m.full)]}
			}
		}
		inv := *m.inv
		inv.Revision++
		inv.Prefixes = slices.Clone(inv.Prefixes)
		inv.Prefixes[0].Sites = keep
		m.inv = &inv
	}
}

// freeByHand is an operator who believes a holder gone for good. The store says no
// where the holder is there and silent; else it is the operator's word.
func (m *model) freeByHand(site string) {
	for _, s := range m.slots() {
		if s.Site == site && m.store.FreeSlot(m.ctx(), s.Prefix, s.Number, s.Site, "gone for good") == nil {
			m.byHand++
			m.say("slot %d of %s freed by hand", s.Number, site)
		}
	}
}

// pass lets time go by: leases end, nodes and the director act.
func (m *model) pass(d time.Duration, dice uint16) {
	rounds := 2 + int(d/(4*time.Second))
	for i := range rounds {
		m.now += d / time.Duration(rounds)
		m.leases()
		m.plan()
		for j := range m.nodes {
			n := m.nodes[(j+int(dice)+i)%len(m.nodes)]
			m.act(n)
			if m.broken != "" {
				return
			}
		}
		m.check()
	}
}

// meddle is what others do while a transaction is under way.
func (m *model) meddle() {
	m.now += time.Duration(m.roll()%300) * time.Millisecond
	if n := m.nodes[int(m.roll())%len(m.nodes)]; n != m.asker {
		m.act(n)
	}
}

// leases renews those of nodes which reach the store, and ends those which ran out:
// a dead or cut node's announcements stay for ten seconds.
func (m *model) leases() {
	for _, n := range m.nodes {
		switch {
		case !n.dead && !n.cut:
			if !n.present {
				n.present, n.before = true, 0
				for _, r := range n.routes {
					m.publish(n, r)
				}
			}
			n.renewed = m.now
		case n.present && m.now-n.renewed > 10*time.Second:
			n.present = false
			m.expire(n)
		case !n.present && n.before > 0 && m.now > n.before:
			n.before = 0
			m.expire(n)
		}
	}
}

func (m *model) expire(n *modelNode) {
	for i := range m.inv.Prefixes {
		p := m.inv.Prefixes[i].Prefix
		m.store.write(m.ctx(), nil, []op{{key: announceKey(p, n.name), del: true}})
		if m.off == "slots are held" {
			for _, s := range m.slots() {
				if s.Site == n.site {
					m.store.FreeSlot(m.ctx(), s.Prefix, s.Number, s.Site, "")
				}
			}
		}
	}
	m.unlist(n, netip.Prefix{})
}

// unlist takes a node's announcements out of the mirror.
func (m *model) unlist(n *modelNode, p netip.Prefix) {
	m.live = slices.DeleteFunc(slices.Clone(m.live), func(a placement.Announced) bool {
		return a.Node == n.name && (a.Prefix == p || !p.IsValid())
	})
}

// publish writes what a node announces.
func (m *model) publish(n *modelNode, r *modelRoute) {
	r.unsaid = n.cut && !slices.ContainsFunc(m.live, func(a placement.Announced) bool {
		return a.Node == n.name && a.Prefix == r.p.Prefix && a.Step < placement.Withdrawn
	})
	if n.cut || n.dead || !n.present || r.left && r.ladder.At < placement.Withdrawn {
		return
	}
	a := placement.Announced{Prefix: r.p.Prefix, Site: n.site, Node: n.name, Step: r.ladder.At, Anchor: m.anchor(n, r) && !n.old}
	if slices.Contains(m.live, a) {
		return
	}
	m.store.write(m.ctx(), nil, []op{put(announceKey(a.Prefix, a.Node), seal(a))})
	m.unlist(n, a.Prefix)
	m.live = append(m.live, a)
}

func (m *model) slots() []placement.Slot {
	if !m.slotsOld {
		return m.held
	}
	var out []placement.Slot
	for _, p := range m.gate.Memory.m.read([]query{{span: under(dirSlots)}})[0] {
		if s, err := unseal[placement.Slot](p.value); err == nil {
			out = append(out, s)
		}
	}
	m.held, m.slotsOld = out, false
	return out
}

// plan is the director: it sees the store as it is, and makes the next plan.
func (m *model) plan() {
	if m.noPlans || m.gate.inside || !m.changed {
		return
	}
	m.changed = false
	held := m.slots()
	in := decide.PlanInput{Inventory: m.inv, Announced: m.live, Slots: held, Now: modelEpoch[0].Add(m.now)}
	if m.state != nil {
		in.Prev = m.state.plan
	}
	switch m.off {
	case "anchors acknowledge":
		in.Announced = slices.Clone(m.live)
		for i := range in.Announced {
			in.Announced[i].Anchor = true
		}
	case "holders are not named":
		in.Slots = nil
	}
	plan := &placement.Plan{Inputs: placement.Inputs{Inventory: m.inv.Revision}, Drains: m.phases()}
	decide.Standing(&in, plan, m.verdicts())
	for _, a := range plan.Anchors {
		for _, s := range held {
			if s.Prefix == a.Prefix && slices.Contains(a.Sites, s.Site) && !m.wasAnchor(a.Prefix, s.Site) {
				m.fail("%s holds a slot and is named an anchor of %s", s.Site, a.Prefix)
			}
		}
	}
	m.changed = m.state != nil && len(plan.Drains) > 0
	m.checkMove(plan)
	next := &modelState{plan, m.inv}
	if m.state != nil && m.state.inv == m.inv && decide.Same(plan, m.state.plan) {
		return
	}
	if r := (&placement.Snapshot{Inventory: m.inv, Anchors: plan.Anchors}).Check(); r != nil {
		if m.tracing {
			m.say("no plan: %v", r)
		}
		return
	}
	m.state, m.changed = next, true
	if m.tracing {
		m.say("plan: anchors %v, steps %v", plan.Anchors, stepsText(plan))
	}
}

func stepsText(p *placement.Plan) (out []string) {
	for _, s := range p.Steps {
		out = append(out, s.Site+" "+s.Want.String())
	}
	return out
}

func (m *model) wasAnchor(p netip.Prefix, site string) bool {
	return m.state != nil && slices.ContainsFunc(m.state.plan.Anchors, func(a placement.Anchors) bool {
		return a.Prefix == p && slices.Contains(a.Sites, site)
	})
}

// checkMove asks, where a plan lets an anchor go, whether enough of those who stay know
// that they are anchors; who has died or started since the store last heard of it may
// have forgotten. No plan can ask a node which is cut off, nor one which came back this
// moment and has not said yet that it announces again: the store knows it as silent, or
// not at all. Nobody counts on such a route, and by going again it takes nothing away:
// what the plan counts on is its sibling, which knows, and stays.
func (m *model) checkMove(next *placement.Plan) {
	if m.state == nil {
		return
	}
	for i, a := range m.state.plan.Anchors {
		p := m.inv.Prefixes[i]
		gone := slices.ContainsFunc(a.Sites, func(s string) bool { return !slices.Contains(next.Anchors[i].Sites, s) })
		know := 0
		for _, s := range next.Anchors[i].Sites {
			some, all := false, true
			for _, n := range m.nodesOf(s) {
				lately := n.dead && m.now-n.died < 12*time.Second || n.booted > 0 && m.now-n.booted < 12*time.Second
				knows := lately || m.anchor(n, n.routes[i]) && !n.old
				some = some || knows
				all = all && (knows || n.dead || n.cut || n.routes[i].unsaid || n.routes[i].ladder.At == placement.Withdrawn)
			}
			if some && all {
				know++
			}
		}
		if gone && know < p.MinAnchors(len(p.Sites)) {
			m.fail("the plan names %v anchors of %s after %v, and only %d of them know it", next.Anchors[i].Sites, p.Prefix, a.Sites, know)
		}
	}
}

// phases takes each drain to its last phase in two plans.
func (m *model) phases() (out []placement.DrainState) {
	for _, site := range m.sites {
		if m.drains[site] == nil {
			continue
		}
		d := placement.DrainState{Site: site, Phase: placement.PhaseGShut}
		if m.state != nil && m.state.plan.Drain(site) != nil {
			d.Phase = placement.PhaseWithdraw
		}
		out = append(out, d)
	}
	return out
}

func (m *model) verdicts() []placement.Verdict {
	out := make([]placement.Verdict, len(m.sites))
	for i, site := range m.sites {
		v := placement.Verdict{Object: placement.SiteID(site), State: placement.Up, Own: placement.Up}
		lives := false
		for _, n := range m.nodes {
			if n.site != site {
				continue
			}
			lives = lives || !n.dead && !n.cut
			if n.sick && !n.dead {
				v.Own, v.Fault = placement.Down, n.fault
			}
		}
		if !lives || m.blamed[site] {
			v.State = placement.Down
		}
		if m.force[site] {
			v.Force = placement.ForceDown
		}
		out[i] = v
	}
	return out
}

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
	if to == placement.Withdrawn {
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
	if d := m.drains[n.site]; d != nil {
		q.Overrides = d.Override
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
		if a.Step < placement.Withdrawn && !slices.Contains(n.state.inv.Prefixes[i].Sites, a.Site) {
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
		cover = cover || r.p.Reach == placement.Local && m.announces(s, m.inv.Prefixes[0].Prefix)
	}
	if m.tracing {
		m.say("%s: %s is silent; slot %v, %d others, covered %v", n.site, r.p.Prefix, r.slot != nil, others, cover)
	}
	quorum := !r.want.Intent && r.want.Fault == placement.NoFault
	switch {
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
	covered := r.p.Reach == placement.Local // may all go where the cover stays
	if limit := max(1, min(r.p.Slots, len(r.p.Sites)-r.p.MinAnchors(len(r.p.Sites)))); len(sites) > limit && !covered {
		m.fail("%s goes to %s with %s by intent, though intents lower it at %v, more than %d", n.name, to, r.p.Prefix, sites, limit)
	}
}

// check holds the whole against the promise.
func (m *model) check() {
	held := map[string]bool{}
	for _, s := range m.slots() {
		if s.Prefix == m.inv.Prefixes[0].Prefix {
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
			switch right := !r.silent || n.cut || m.holds(n.site, r.p.Prefix); {
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

// playModel runs a schedule and returns the model.
func playModel(seed uint64, off string, schedule []modelEvent, tracing bool) *model {
	m := newModel(seed, off)
	m.tracing = tracing
	for _, e := range schedule {
		if m.broken != "" {
			return m
		}
		m.event(e)
	}
	if m.broken == "" && seed%8 == 0 {
		m.heal()
	}
	return m
}

// shrink leaves out of a schedule what the violation does not need.
func shrink(seed uint64, off string, schedule []modelEvent) []modelEvent {
	for size := len(schedule) / 2; size > 0; {
		cut := false
		for i := 0; i+size <= len(schedule); i++ {
			less := slices.Delete(slices.Clone(schedule), i, i+size)
			if playModel(seed, off, less, false).broken != "" {
				schedule, cut = less, true
				break
			}
		}
		if !cut {
			size /= 2
		}
	}
	return schedule
}

// story is the shortest schedule found, what happened in it, and how to play it again.
func story(seed uint64, off string) string {
	schedule := shrink(seed, off, modelSchedule(seed))
	m := playModel(seed, off, schedule, true)
	lines := []string{fmt.Sprintf("seed %d, %d events, sites %v, %d slots:", seed, len(schedule), m.sites, m.k)}
	lines = append(lines, m.trace...)
	for _, e := range schedule { // as Go writes them: a schedule which is worth keeping goes into a test
		lines = append(lines, fmt.Sprintf("{kind: %q, a: %d, b: %d, dice: %d, wait: %d},", e.kind, e.a, e.b, e.dice, e.wait))
	}
	if off == "" {
		lines = append(lines, fmt.Sprintf("again: RHUMB_SEED=%d go test ./placement/store -run TestPromisesHold", seed))
	}
	return strings.Join(lines, "\n")
}
