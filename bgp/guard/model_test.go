package guard

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"rhumb/placement"
)

// The model plays random schedules of faults, mistaken orders, dead nodes and
// a store which comes and goes, on the real guard. After each tick it asks
// whether the prefix is where the rules promise it to be.

// modelNode is one node of a site.
type modelNode struct {
	site, name string
	at         placement.Step
	dead       bool
	away       bool // cannot reach the store
	fault      placement.Fault
	want       placement.Step
	intent     bool
	ticks      int  // at gshut
	slot       bool // its site's Slot, as it knows
}

type model struct {
	rnd     *rand.Rand
	off     placement.RuleName
	blind   bool // leave siblings without the store's transaction
	nodes   []*modelNode
	sites   []string
	anchors []string
	k       int
	holders []string
	broken  string // first violation
}

func newModel(seed uint64, off placement.RuleName) *model {
	m := &model{rnd: rand.New(rand.NewPCG(seed, 1)), off: off, k: 1}
	for i := range 3 + m.rnd.IntN(3) {
		site := fmt.Sprintf("s%d", i)
		m.sites = append(m.sites, site)
		for j := range 1 + m.rnd.IntN(2) {
			m.nodes = append(m.nodes, &modelNode{site: site, name: fmt.Sprintf("%s-%d", site, j)})
		}
	}
	m.anchors = m.sites[:2]
	if len(m.sites)-len(m.anchors) > 1 {
		m.k += m.rnd.IntN(2)
	}
	return m
}

func (m *model) fail(format string, args ...any) {
	if m.broken == "" {
		m.broken = fmt.Sprintf(format, args...)
	}
}

// announcing returns the live nodes which announce, of one site or (inverted) of all others.
func (m *model) announcing(site string, others bool) (out []*modelNode) {
	for _, n := range m.nodes {
		if !n.dead && n.at < placement.Withdrawn && (n.site == site) != others {
			out = append(out, n)
		}
	}
	return out
}

// event changes the world once.
func (m *model) event() {
	n := m.nodes[m.rnd.IntN(len(m.nodes))]
	switch m.rnd.IntN(9) {
	case 0:
		n.dead, n.at = true, placement.Withdrawn
	case 1:
		if n.dead { // comes back at prepend
			n.dead, n.at, n.want, n.intent, n.fault = false, placement.Prepend, placement.Announce, false, ""
		}
	case 2, 3: // the site judges itself, or is judged, for any reason
		fault := []placement.Fault{placement.LocalFault, placement.LocalFault, placement.SharedFault, placement.NoFault}[m.rnd.IntN(4)]
		m.order(n.site, placement.Withdrawn, fault, false)
	case 4: // everywhere at once: broken probers or a broken backbone
		fault := []placement.Fault{placement.LocalFault, placement.SharedFault}[m.rnd.IntN(2)]
		for _, s := range m.sites {
			m.order(s, placement.Withdrawn, fault, false)
		}
	case 5: // an order, at one site or by mistake at two
		for range 1 + m.rnd.IntN(2) {
			m.order(m.sites[m.rnd.IntN(len(m.sites))], placement.Withdrawn, placement.NoFault, true)
		}
	case 6:
		m.order(n.site, placement.Announce, placement.NoFault, false)
	case 7:
		n.away = !n.away
	case 8: // one node of a site breaks
		n.want, n.fault, n.intent = placement.Withdrawn, placement.LocalFault, false
	}
}

func (m *model) order(site string, want placement.Step, f placement.Fault, intent bool) {
	for _, n := range m.nodes {
		if n.site == site {
			n.want, n.fault, n.intent = want, f, intent
		}
	}
}

// act is what a Speaker does in one turn, with the store inlined.
func (m *model) act(n *modelNode) {
	if n.dead {
		return
	}
	if n.at == placement.GShut {
		n.ticks++
	} else {
		n.ticks = 0
	}
	if n.want < n.at {
		n.at = max(n.want, placement.Prepend)
		if !n.away && n.slot {
			m.holders = slices.DeleteFunc(m.holders, func(s string) bool { return s == n.site })
			n.slot = false
		}
		return
	}
	if n.want == n.at {
		return
	}
	req := m.request(n, min(n.at+1, n.want))
	if req.Want == placement.Withdrawn {
		m.evidence(n, &req)
	}
	to, _ := lower(req, m.off)
	if to <= n.at {
		return
	}
	m.judge(n, &req, to)
	n.at = to
}

func (m *model) request(n *modelNode, to placement.Step) Request {
	r := Request{Prefix: placement.Prefix{Prefix: anycast, Slots: m.k, Witness: placement.WitnessAdvisory},
		Site: n.site, Node: n.name, At: n.at, Want: to, Fault: n.fault, Intent: n.intent,
		Anchors: m.anchors, Sites: m.sites, Prefixes: 1}
	for _, o := range m.nodes {
		if o.intent && o.want > placement.Announce {
			r.Lowered = append(r.Lowered, placement.Announcement{Prefix: anycast, Site: o.site, Want: o.want, Intent: true})
		}
	}
	for _, o := range m.announcing(n.site, true) {
		if o.at < placement.GShut {
			r.Seen = true
		}
	}
	r.Others = len(m.announcing(n.site, false)) - 1
	if n.ticks > 3 {
		r.AtGShut = StoreAwayHold
	}
	return r
}

// evidence asks the store as the Speaker does: leave first, then a Slot.
func (m *model) evidence(n *modelNode, r *Request) {
	if m.blind && r.Others >= 0 && len(m.nodesOf(n.site)) > 1 {
		r.Others, r.Left = 1, true
		return
	}
	if n.away {
		return
	}
	if r.Others > 0 {
		r.Left = true
		return
	}
	if slices.Contains(m.holders, n.site) {
		n.slot = true
	}
	var others []string
	for _, o := range m.announcing(n.site, true) {
		others = add(others, o.site)
	}
	if !n.slot && len(m.holders) < m.k && len(others) >= min(2, len(m.sites)-1) {
		m.holders, n.slot = append(m.holders, n.site), true
	}
	if n.slot {
		r.Slot = &placement.Slot{Prefix: anycast, Number: 1, Site: n.site}
		return
	}
	r.SlotRefusal = &placement.Refusal{Rule: placement.RuleSlots}
}

func (m *model) nodesOf(site string) (out []*modelNode) {
	for _, n := range m.nodes {
		if n.site == site {
			out = append(out, n)
		}
	}
	return out
}

// judge holds each single step against what the rules promise.
func (m *model) judge(n *modelNode, r *Request, to placement.Step) {
	if n.intent {
		sites := []string{n.site}
		for _, o := range m.nodes {
			if !o.dead && o.intent && o.at > placement.Announce {
				sites = add(sites, o.site)
			}
		}
		if len(sites) > m.k {
			m.fail("orders lowered %v, more than %d", sites, m.k)
		}
	}
	if to < placement.Withdrawn {
		return
	}
	last := len(m.announcing(n.site, false)) <= 1
	switch {
	case n.fault == placement.SharedFault && !n.intent:
		m.fail("%s withdrew for a fault that all share", n.name)
	case last && slices.Contains(m.anchors, n.site):
		m.fail("%s, an anchor, fell silent", n.site)
	case last && r.Slot == nil && !n.away:
		m.fail("%s fell silent without a slot", n.site)
	case last && r.Slot == nil && !r.Seen:
		m.fail("%s fell silent unseen: nobody else is there", n.site)
	}
}

// check holds the whole against the promise.
func (m *model) check() {
	if len(m.holders) > m.k {
		m.fail("%d slots taken of %d", len(m.holders), m.k)
	}
	for _, n := range m.nodes {
		alone := len(m.announcing(n.site, false)) > 1
		if !n.dead && !n.away && alone && n.at == placement.GShut && n.ticks > 2 && n.fault == placement.LocalFault && !n.intent && n.want == placement.Withdrawn {
			m.fail("%s cannot leave, though its site goes on", n.name)
		}
	}
}

// play runs one schedule and returns the first broken promise.
func (m *model) play(ticks int) string {
	for range ticks {
		m.event()
		for _, i := range m.rnd.Perm(len(m.nodes)) {
			m.act(m.nodes[i])
		}
		m.check()
	}
	return m.broken
}

const schedules = 4000

func TestPromisesHold(t *testing.T) {
	for seed := range uint64(schedules) {
		if broken := newModel(seed, "").play(60); broken != "" {
			t.Fatalf("seed %d: %s", seed, broken)
		}
	}
}

// TestEachRuleIsNeeded switches the rules off in turn: the same schedules must
// then break a promise, or the rule, or the test, is good for nothing.
func TestEachRuleIsNeeded(t *testing.T) {
	for _, rule := range []placement.RuleName{placement.RuleAnchors, placement.RuleSlots, placement.RuleWitness,
		placement.RuleFault, placement.RuleLastNode, placement.RuleBlastRadius} {
		t.Run(string(rule), func(t *testing.T) {
			for seed := range uint64(schedules) {
				if broken := newModel(seed, rule).play(60); broken != "" {
					t.Logf("seed %d: %s", seed, broken)
					return
				}
			}
			t.Error("no schedule noticed that the rule is off")
		})
	}
	t.Run("leaving without the transaction", func(t *testing.T) {
		for seed := range uint64(schedules) {
			m := newModel(seed, "")
			m.blind = true
			if broken := m.play(60); broken != "" {
				t.Logf("seed %d: %s", seed, broken)
				return
			}
		}
		t.Error("no schedule noticed it")
	})
}
