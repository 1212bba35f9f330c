package director

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/placement"
	"rhumb/placement/decide"
)

// View is what the director reads of the store: one immutable whole.
type View struct {
	Inventory     *placement.Inventory
	Plan          *placement.Plan
	Votes         []placement.Vote
	VotesRevision int64
	Announced     []placement.Announced
	Slots         []placement.Slot
	Nodes         []placement.Node
	Demand        []placement.DemandReport
	// Connected is false while the store does not answer; nothing is decided then.
	Connected bool
}

// Term is the time for which a node directs.
type Term interface {
	// Done closes when the term has ended, by whatever cause.
	Done() <-chan struct{}
	// Resign gives the lease back, so that another node takes over at once.
	Resign()
}

// Store is where plans go.
type Store interface {
	// Campaign waits until the node leads.
	Campaign(ctx context.Context, node string) (Term, error)
	// Publish makes the plan the one in force and returns its revision.
	Publish(ctx context.Context, term Term, plan *placement.Plan) (int64, error)
	// Heartbeat says that the director lives, with the time.
	Heartbeat(ctx context.Context, term Term, now time.Time) error
}

// Config is what a Director needs.
type Config struct {
	Node  string
	Store Store
	// Views yields the newest view after each change; older ones may be skipped.
	Views <-chan View
	// Classes returns the class table of an inventory, overrides included.
	Classes func(*placement.Inventory) (*placement.ClassTable, error)
	Log     *slog.Logger
	// Metrics may be nil.
	Metrics prometheus.Registerer
	// Now is the clock; nil means the system's.
	Now func() time.Time
}

// The rhythm of a director.
const (
	debounce   = 100 * time.Millisecond // inputs come in bursts
	heartbeat  = time.Second
	tick       = time.Second      // drains and ramps go on
	settledFor = 10 * time.Second // between two looks at a plan where nothing waits for time
	writeLimit = 5 * time.Second  // a write that takes longer is given up
)

// Director campaigns, and directs while it leads. Run owns all of it.
type Director struct {
	c       Config
	planner decide.Planner
	m       metrics

	view View
	seen bool // a view has arrived
	// last is the plan this term published; the view may show it later.
	last *placement.Plan
	// planned is when the last look was, and votes what it was made with: while
	// decisions are frozen, no newer votes count.
	planned  time.Time
	votes    []placement.Vote
	votesRev int64
	demand   decide.Gauge
	refused  string // the last refusal, logged once
}

// New returns a director; Run starts it.
func New(c Config) *Director {
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Director{c: c, m: newMetrics(c.Metrics)}
}

// Run campaigns for the lease and directs whenever it holds it, until ctx ends.
func (d *Director) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	terms := make(chan Term)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		d.campaign(ctx, terms)
	}()
	defer func() { cancel(); <-ended }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case v, ok := <-d.c.Views:
			if !ok {
				return errors.New("director: the store's views have ended")
			}
			d.view, d.seen = v, true
		case term := <-terms:
			if err := d.lead(ctx, term); err != nil {
				return err
			}
		}
	}
}

// campaign offers one term after another; the next begins when the last has ended.
func (d *Director) campaign(ctx context.Context, terms chan<- Term) {
	for ctx.Err() == nil {
		term, err := d.c.Store.Campaign(ctx, d.c.Node)
		if err != nil {
			if ctx.Err() == nil {
				d.c.Log.Warn("director: campaign", "err", err)
				pause(ctx, tick)
			}
			continue
		}
		select {
		case terms <- term:
			<-term.Done()
		case <-ctx.Done():
			term.Resign()
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// lead directs for one term.
func (d *Director) lead(ctx context.Context, term Term) error {
	d.c.Log.Info("director: leads")
	d.m.leads.Set(1)
	d.last = nil // another may have published since
	defer func() {
		d.m.leads.Set(0)
		term.Resign()
		d.c.Log.Info("director: leads no more")
	}()
	beat, ticker, wait := time.NewTicker(heartbeat), time.NewTicker(tick), time.NewTimer(0)
	defer beat.Stop()
	defer ticker.Stop()
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-term.Done():
			return nil
		case v, ok := <-d.c.Views:
			if !ok {
				return errors.New("director: the store's views have ended")
			}
			urgent := d.urgent(v)
			d.view, d.seen = v, true
			if urgent {
				d.decide(ctx, term)
				continue
			}
			wait.Reset(debounce)
		case <-wait.C:
			d.decide(ctx, term)
		case <-ticker.C:
			if d.due() {
				d.decide(ctx, term)
			}
		case <-beat.C:
			d.beat(ctx, term)
		}
	}
}

func (d *Director) beat(ctx context.Context, term Term) {
	ctx, cancel := context.WithTimeout(ctx, heartbeat)
	defer cancel()
	if err := d.c.Store.Heartbeat(ctx, term, d.c.Now()); err != nil && ctx.Err() == nil {
		d.c.Log.Warn("director: heartbeat", "err", err)
	}
}

// urgent tells whether a view changes what is usable: that waits for nobody.
func (d *Director) urgent(v View) bool {
	plan := d.plan(v)
	if !d.seen || v.Inventory == nil || plan == nil || v.VotesRevision == d.view.VotesRevision {
		return false
	}
	down := make(map[placement.ClusterID]bool)
	for _, id := range plan.Down {
		down[id] = true
	}
	for _, verdict := range decide.Fold(v.Inventory, v.Votes, plan) {
		if verdict.Usable() == down[verdict.Object] {
			return true
		}
	}
	return false
}

// due tells whether time alone may have changed the plan.
func (d *Director) due() bool {
	plan := d.plan(d.view)
	if plan != nil && settled(plan) {
		return d.c.Now().Sub(d.planned) >= settledFor
	}
	return true
}

// settled tells whether nothing in a plan waits for time to pass.
func settled(plan *placement.Plan) bool {
	for _, s := range plan.Drains {
		if s.Phase != placement.PhaseDrained {
			return false
		}
	}
	return len(plan.Ramps) == 0
}

// plan is the newest plan known: the store's, or the one just published.
func (d *Director) plan(v View) *placement.Plan {
	if d.last != nil && (v.Plan == nil || d.last.Revision > v.Plan.Revision) {
		return d.last
	}
	return v.Plan
}

// decide makes a plan and publishes it if it decides anything anew.
func (d *Director) decide(ctx context.Context, term Term) {
	if !d.seen || d.view.Inventory == nil || !d.view.Connected {
		return
	}
	began := d.c.Now()
	d.planned = began
	plan, err := d.make(began)
	if err != nil {
		d.refuse(err)
		return
	}
	d.m.seconds.Observe(d.c.Now().Sub(began).Seconds())
	if plan == nil || decide.Same(plan, d.plan(d.view)) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	rev, err := d.c.Store.Publish(ctx, term, plan)
	if err != nil {
		d.refuse(fmt.Errorf("director: publish: %w", err))
		return
	}
	plan.Revision, d.last, d.refused = rev, plan, ""
	d.m.published.Inc()
	d.m.planned(plan)
	d.c.Log.Info("director: published a plan", "snapshot", placement.Name{Plan: rev, Votes: plan.Votes}.String())
}

// refuse logs what stands in the way, once for as long as it does.
func (d *Director) refuse(err error) {
	d.m.refused.Inc()
	if text := err.Error(); text != d.refused {
		d.refused = text
		d.c.Log.Error("director: no new plan", "err", err)
	}
}

// make returns the plan of this moment; nil while nothing may be decided.
func (d *Director) make(now time.Time) (*placement.Plan, error) {
	inv, prev := d.view.Inventory, d.plan(d.view)
	if d.frozen(inv, prev) {
		return nil, nil
	}
	algorithm, err := d.runnable()
	if err != nil {
		return nil, err
	}
	classes, err := d.c.Classes(inv)
	if err != nil {
		return nil, fmt.Errorf("director: class table: %w", err)
	}
	if !inv.Frozen() || d.votes == nil {
		d.votes, d.votesRev = d.view.Votes, d.view.VotesRevision
	}
	plan, refusals := d.planner.Plan(decide.PlanInput{
		Inventory: inv, Classes: classes, Votes: d.votes, VotesRevision: d.votesRev, Prev: prev,
		Asked: d.asked(inv, prev, classes, now), Sessions: sessions(d.view.Nodes), Announced: d.view.Announced, Slots: d.view.Slots,
		Now: now, By: d.c.Node, Algorithm: algorithm,
	})
	for i := range refusals {
		d.c.Log.Debug("director: a service keeps its last good part", "err", &refusals[i])
	}
	if r := d.planner.Check(inv, classes, plan, d.votes); r != nil {
		return nil, fmt.Errorf("director: plan: %w", r)
	}
	return plan, nil
}

// asked is what this plan is to be made with, of what the name servers are asked.
func (d *Director) asked(inv *placement.Inventory, prev *placement.Plan, classes *placement.ClassTable, now time.Time) []placement.ServiceDemand {
	table := ""
	if classes != nil {
		table = classes.Digest
	}
	return d.demand.Read(inv, decide.Measured(prev, table), decide.SumDemand(d.view.Demand, table), now)
}

// frozen tells whether decisions stand still. What an operator does meanwhile
// goes on: a change of the inventory, and a drain or a retirement which is under way.
func (d *Director) frozen(inv *placement.Inventory, prev *placement.Plan) bool {
	return inv.Frozen() && prev != nil && prev.Inputs.Inventory == inv.Revision && !draining(prev) &&
		!decide.Retiring(inv, d.view.Announced)
}

func draining(plan *placement.Plan) bool {
	for _, s := range plan.Drains {
		if s.Phase != placement.PhaseDrained {
			return true
		}
	}
	return false
}

// runnable is the newest algorithm that every live node runs. It is an error where
// there is none, or where what the fleet says needs a newer one: a node that is too old
// would leave out what it does not know, and give clients other answers than the rest.
func (d *Director) runnable() (int, error) {
	common, old := placement.CommonAlgorithm(d.view.Nodes)
	need, why := d.view.Inventory.MinAlgorithm()
	switch {
	case common == 0:
		return 0, fmt.Errorf("director: node %s (%s) runs algorithms %v, not %d", old.Name, old.Unit, old.Algorithms, placement.Algorithms()[0])
	case common < need:
		return 0, fmt.Errorf("director: %s needs algorithm %d, and node %s (%s) runs algorithms %v: upgrade it", why, need, old.Name, old.Unit, old.Algorithms)
	}
	return common, nil
}

// sessions sums what edge nodes still have to hand over, by site. Sessions of
// other servers cannot be moved, and go on through the tunnel when the route is
// gone, so nothing waits for them.
func sessions(nodes []placement.Node) map[string]int {
	out := make(map[string]int)
	for i := range nodes {
		if e := nodes[i].Edge; e != nil {
			out[nodes[i].Site] += e.Sessions
		}
	}
	return out
}
