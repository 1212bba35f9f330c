package store

import (
	"cmp"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"rhumb/placement"
)

// table holds the decoded values of one directory and their sorted list, which
// is made anew only after a change and never changed once handed out.
type table[T any] struct {
	dir  string
	rows map[string]T
	list []T
	sort func(a, b T) int
	// stamp, if set, writes the revision of its key into a value.
	stamp func(v *T, mod int64)
}

func newTable[T any](dir string, sort func(a, b T) int) *table[T] {
	return &table[T]{dir: dir, rows: make(map[string]T), sort: sort}
}

func (t *table[T]) reset() {
	clear(t.rows)
	t.list = nil
}

func (t *table[T]) owns(key string) bool { return strings.HasPrefix(key, t.dir) }

// apply takes a change in. A value that cannot be read counts as absent, so that
// what a reader holds depends on the store alone and not on what came before.
func (t *table[T]) apply(c change) error {
	t.list = nil
	delete(t.rows, c.key)
	if c.deleted {
		return nil
	}
	v, err := unseal[T](c.value)
	if err != nil {
		return err
	}
	if t.stamp != nil {
		t.stamp(&v, c.mod)
	}
	t.rows[c.key] = v
	return nil
}

// sorted returns the values in order; ties keep the order of their keys.
func (t *table[T]) sorted() []T {
	if t.list == nil && len(t.rows) > 0 {
		t.list = make([]T, 0, len(t.rows))
		for _, k := range slices.Sorted(maps.Keys(t.rows)) {
			t.list = append(t.list, t.rows[k])
		}
		slices.SortStableFunc(t.list, t.sort)
	}
	return t.list
}

// rows is what content does with a table, whatever it holds.
type rows interface {
	reset()
	owns(key string) bool
	apply(change) error
}

// content is the decoded store: changes in, a View out. It belongs to one
// follower and knows neither clock nor connection.
type content struct {
	log       *slog.Logger
	config    head
	plan      planHead
	mods      map[string]int64 // revisions of config/current and of the intents
	votesRev  int64
	listed    bool // votesRev is that of a list, no vote has come or gone since
	heartbeat time.Time
	leader    leader
	state     *tables
	orders    *intentTables
}

// tables of what units report.
type tables struct {
	votes     *table[placement.Vote]
	announced *table[placement.Announced]
	slots     *table[placement.Slot]
	nodes     *table[placement.Node]
	loads     *table[placement.Load]
	demand    *table[placement.DemandReport]
	looks     *table[placement.LookRequest]
	looked    *table[placement.LookAnswer]
}

// intentTables hold the operator's standing orders.
type intentTables struct {
	drains *table[placement.Drain]
	forces *table[placement.Force]
	dials  *table[placement.Dial]
	pins   *table[placement.Pin]
	freeze *table[placement.Freeze]
	// retired are of prefixes which are gone, or going.
	retired *table[placement.Retirement]
}

func newContent(log *slog.Logger) *content {
	c := &content{log: log, mods: make(map[string]int64),
		state: &tables{
			votes: newTable(dirVotes, func(a, b placement.Vote) int {
				return cmp.Or(a.Object.Compare(b.Object), strings.Compare(a.Vantage, b.Vantage))
			}),
			announced: newTable(dirAnnounce, func(a, b placement.Announced) int {
				return cmp.Or(a.Prefix.Compare(b.Prefix), strings.Compare(a.Node, b.Node))
			}),
			slots: newTable(dirSlots, func(a, b placement.Slot) int {
				return cmp.Or(a.Prefix.Compare(b.Prefix), cmp.Compare(a.Number, b.Number))
			}),
			nodes: newTable(dirNodes, func(a, b placement.Node) int {
				return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Unit, b.Unit))
			}),
			loads:  newTable(dirLoads, func(a, b placement.Load) int { return a.Cluster.Compare(b.Cluster) }),
			demand: newTable(dirDemand, func(a, b placement.DemandReport) int { return strings.Compare(a.Node, b.Node) }),
			looks:  newTable(dirLooks, func(a, b placement.LookRequest) int { return strings.Compare(a.ID, b.ID) }),
			looked: newTable(dirLooked, func(a, b placement.LookAnswer) int {
				return cmp.Or(strings.Compare(a.Request, b.Request), strings.Compare(a.Vantage, b.Vantage))
			}),
		},
		orders: &intentTables{
			drains:  newTable(dirDrains, func(a, b placement.Drain) int { return strings.Compare(a.Site, b.Site) }),
			forces:  newTable(dirForces, func(a, b placement.Force) int { return a.Object.Compare(b.Object) }),
			dials:   newTable(dirDials, func(a, b placement.Dial) int { return strings.Compare(a.Site, b.Site) }),
			pins:    newTable(dirPins, func(a, b placement.Pin) int { return strings.Compare(a.Site, b.Site) }),
			freeze:  newTable(keyFreeze, func(a, b placement.Freeze) int { return 0 }),
			retired: newTable(dirRetired, func(a, b placement.Retirement) int { return a.Prefix.Compare(b.Prefix) }),
		},
	}
	c.state.announced.stamp = func(a *placement.Announced, mod int64) { a.Revision = mod }
	c.state.slots.stamp = func(s *placement.Slot, mod int64) { s.Revision = mod }
	return c
}

// watched are the spans that a follower lists and watches: all but zones, which
// are fetched by digest. One span holds configuration and intents together, so
// that their order is kept.
func watched() []span {
	return []span{under(dirAnnounce), {root + "c", root + "~"}}
}

// listed are the spans of a whole list: what is watched, without the documents
// and the events, which are read by name.
func listed() []span {
	return append(intentSpans(), only(keyPlan), only(keyHeartbeat), only(keyLeader), only(keySchema),
		under(dirVotes), under(dirAnnounce), under(dirSlots), under(dirNodes), under(dirLoads), under(dirDemand), under(dirLooks), under(dirLooked))
}

// intentSpans are the spans of which an Inventory is made.
func intentSpans() []span {
	return []span{only(keyConfig), under(dirDrains), under(dirForces), under(dirDials), under(dirPins), under(dirRetired), only(keyFreeze)}
}

func queries(spans []span) []query {
	out := make([]query, len(spans))
	for i, s := range spans {
		out[i].span = s
	}
	return out
}

// tablesInOrder returns all tables, the intents first.
func (c *content) tablesInOrder() (orders, state []rows) {
	o, s := c.orders, c.state
	return []rows{o.drains, o.forces, o.dials, o.pins, o.retired, o.freeze},
		[]rows{s.votes, s.announced, s.slots, s.nodes, s.loads, s.demand, s.looks, s.looked}
}

// load replaces everything by a list read at a revision.
func (c *content) load(pairs []pair, rev int64) {
	orders, state := c.tablesInOrder()
	for _, t := range append(orders, state...) {
		t.reset()
	}
	clear(c.mods)
	c.config, c.plan, c.leader = head{}, planHead{}, leader{}
	changes := make([]change, len(pairs))
	for i, p := range pairs {
		changes[i] = change{pair: p}
	}
	c.apply(changes)
	// Which vote came or went last cannot be told from a list; its revision
	// names the same votes.
	c.votesRev, c.listed = rev, true
}

// apply takes changes in.
func (c *content) apply(changes []change) {
	orders, state := c.tablesInOrder()
	for _, ch := range changes {
		if err := c.applyOne(ch, orders, state); err != nil {
			c.log.Error("store: value ignored", "key", ch.key, "err", err)
		}
	}
}

func (c *content) applyOne(ch change, orders, state []rows) error {
	for _, t := range orders {
		if t.owns(ch.key) {
			c.note(ch)
			return t.apply(ch)
		}
	}
	for _, t := range state {
		if t.owns(ch.key) {
			if strings.HasPrefix(ch.key, dirVotes) {
				c.votesRev, c.listed = ch.mod, false
			}
			return t.apply(ch)
		}
	}
	switch ch.key {
	case keyConfig:
		return keep(&c.config, ch, c.note)
	case keyPlan:
		return keep(&c.plan, ch, nil)
	case keyHeartbeat:
		return keep(&c.heartbeat, ch, nil)
	case keyLeader:
		c.leader = leader{}
		return keep(&c.leader, ch, nil)
	}
	return nil
}

// note keeps the revisions of which Inventory.Revision is the highest.
func (c *content) note(ch change) {
	if ch.deleted {
		delete(c.mods, ch.key)
	} else {
		c.mods[ch.key] = ch.mod
	}
}

// keep replaces a single value by what a change says; a pointer that is gone or
// cannot be read leaves the last good one standing.
func keep[T any](v *T, ch change, then func(change)) error {
	if ch.deleted {
		return nil
	}
	n, err := unseal[T](ch.value)
	if err != nil {
		return err
	}
	*v = n
	if then != nil {
		then(ch)
	}
	return nil
}

func (c *content) inventoryRevision() int64 {
	var out int64
	for _, mod := range c.mods {
		out = max(out, mod)
	}
	return out
}

func (c *content) intents() placement.Intents {
	o := c.orders
	out := placement.Intents{Drains: o.drains.sorted(), Forces: o.forces.sorted(),
		Dials: o.dials.sorted(), Pins: o.pins.sorted(), Retirements: o.retired.sorted()}
	if f := o.freeze.sorted(); len(f) > 0 {
		out.Freeze = f[0]
	}
	return out
}

// fill writes what units report into a view.
func (c *content) fill(v *View) {
	s := c.state
	v.Votes, v.VotesRevision, v.VotesListed = s.votes.sorted(), c.votesRev, c.listed
	v.Announced, v.Slots, v.Nodes = s.announced.sorted(), s.slots.sorted(), s.nodes.sorted()
	v.Loads, v.Demand = sumLoads(s.loads.sorted()), s.demand.sorted()
	v.Looks, v.Looked = s.looks.sorted(), s.looked.sorted()
	v.Heartbeat, v.Leader = c.heartbeat, c.leader.Node
}

// sumLoads adds up what the nodes of a cluster report; the list is sorted.
func sumLoads(all []placement.Load) []placement.Load {
	var out []placement.Load
	for _, l := range all {
		if n := len(out); n > 0 && out[n-1].Cluster == l.Cluster {
			out[n-1].QPS += l.QPS
			out[n-1].Sessions += l.Sessions
			out[n-1].Counted = out[n-1].Counted || l.Counted
			if l.At.After(out[n-1].At) {
				out[n-1].At = l.At
			}
			continue
		}
		out = append(out, l)
	}
	return out
}
