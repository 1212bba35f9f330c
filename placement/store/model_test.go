package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"rhumb/bgp/guard"
	"rhumb/placement"
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
//   - one intent never lowers more sites than there are Slots, unless it retires the prefix;
//   - a mistake may delete, only a retirement may silence;
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
		"forget sites", "restore sites", "delete prefixes", "retire", "unretire", "director dies", "director back", "slot freed by hand", "wait", "wait"}
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
type modelCount struct{ slot, witness, left, cover, refused, raced, quorum, retired int }

type model struct {
	store     *Store
	gate      *modelGate
	asker     *modelNode
	off       string // the rule or mechanism which is switched off
	now       time.Duration
	inv       *placement.Inventory
	nets      []placement.Prefix // what there is to announce, whatever the configuration says
	unretired time.Duration      // when a retirement was last taken back
	full      []string           // sites of the configuration before any mistake
	sites     []string
	nodes     []*modelNode
	drains    map[string]*placement.Drain
	force     map[string]bool
	blamed    map[string]bool // by a quorum
	state     *modelState
	noPlans   bool
	k         int
	byHand    int
	live      []placement.Announced // mirror of the store's
	held      []placement.Slot      // likewise, unless slotsOld
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
	m.inv, m.full, m.nets, m.unretired = inv, m.sites, inv.Prefixes, -time.Hour
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
	for i := range m.nets {
		n.routes = append(n.routes, &modelRoute{p: &m.nets[i], ladder: guard.Start(m.time(n)), owed: true, shown: placement.Withdrawn,
			want: placement.Announcement{Prefix: m.nets[i].Prefix, Site: n.site}})
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
	for i := range m.nets {
		p := m.nets[i].Prefix
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
