package node

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/placement"
	"rhumb/placement/decide"
)

// View is what the loop reads of the store: one immutable whole.
type View struct {
	Inventory *placement.Inventory
	// Recent are older inventories, one of which a plan may name.
	Recent        []*placement.Inventory
	Plan          *placement.Plan
	Votes         []placement.Vote
	VotesRevision int64
	// VotesListed tells that others may know the same votes by an earlier revision.
	VotesListed bool
	// Nodes are the records of all units.
	Nodes []placement.Node
	// Heartbeat is the director's last sign of life; zero where there is none.
	Heartbeat time.Time
	// Connected is false while the store does not answer.
	Connected bool
}

// State is what a snapshot is made of, as kept on disk.
type State struct {
	Inventory *placement.Inventory `json:"inventory"`
	Plan      *placement.Plan      `json:"plan"`
	Votes     []placement.Vote     `json:"votes"`
	Revision  int64                `json:"votes_revision"`
	Name      string               `json:"name"`
	Digest    string               `json:"digest"`
}

// Disk keeps the last states, so that a start needs no store.
type Disk interface {
	Save(State) error
	// Newest returns the newest valid state; an error where there is none.
	Newest() (State, error)
}

// Applier acts upon snapshots. Apply is called with one after another; while it
// works, older ones are skipped. ctx ends with the loop.
type Applier interface {
	Apply(ctx context.Context, s *placement.Snapshot)
}

// Config is what a Node needs.
type Config struct {
	Node, Site string
	// Views yields the newest view after each change.
	Views <-chan View
	// Heard yields all votes now heard on the node's socket (Stream); may be nil.
	Heard <-chan []placement.Vote
	// Classes returns the class table of an inventory, overrides included. It is
	// asked often and must be cheap for an inventory it has seen.
	Classes func(*placement.Inventory) (*placement.ClassTable, error)
	// PlanAt finds a plan that the site is pinned to; may be nil.
	PlanAt func(ctx context.Context, revision int64) (*placement.Plan, error)
	// Disk may be nil: nothing is kept then.
	Disk     Disk
	Current  *placement.Current
	Appliers []Applier
	Log      *slog.Logger
	// Metrics may be nil.
	Metrics prometheus.Registerer
	// Now is the clock; nil means the system's.
	Now func() time.Time
}

// Node is the loop of one unit. Run owns it; Alarms may be called from anywhere.
type Node struct {
	c        Config
	m        metrics
	unfolder decide.Unfolder
	stale    staleness
	alarms   atomic.Pointer[[]placement.Alarm]
	raised   []placement.Alarm // as the gauge shows them

	view  View
	heard []placement.Vote
	// held is what the snapshot in force was made of; makeshift tells that it is
	// one of this node's own (standIn).
	held      State
	makeshift bool
	mail      []mailbox
	disk      mailbox
}

// New returns the loop of one unit; Run starts it.
func New(c Config) *Node {
	if c.Now == nil {
		c.Now = time.Now
	}
	n := &Node{c: c, m: newMetrics(c.Metrics), disk: newMailbox()}
	for range c.Appliers {
		n.mail = append(n.mail, newMailbox())
	}
	return n
}

// Alarms are the loud conditions of this unit, beside those of its snapshot.
func (n *Node) Alarms() []placement.Alarm {
	if p := n.alarms.Load(); p != nil {
		return *p
	}
	return nil
}

// Run serves the last state from disk, then follows the store until ctx ends.
func (n *Node) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer func() { cancel(); group.Wait() }()
	for i, a := range n.c.Appliers {
		group.Go(func() { n.mail[i].deliver(ctx, func(s delivery) { a.Apply(ctx, s.snapshot) }) })
	}
	group.Go(func() { n.disk.deliver(ctx, n.save) })
	n.restore()
	ticker := time.NewTicker(staleTick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case v, ok := <-n.c.Views:
			if !ok {
				return errors.New("node: the store's views have ended")
			}
			n.view = v
		case n.heard = <-n.c.Heard:
		case <-ticker.C:
			n.judgeAge()
			continue
		}
		n.step(ctx)
	}
}

// restore puts the newest state on disk in force.
func (n *Node) restore() {
	if n.c.Disk == nil {
		return
	}
	state, err := n.c.Disk.Newest()
	if err != nil {
		n.c.Log.Warn("node: no state on disk, waits for the store", "err", err)
		return
	}
	if err := n.put(state, state.Votes, false, nil); err != nil {
		n.stale.input(err, n.c.Log)
		n.goOn(state)
		n.judgeAge()
		return
	}
	n.c.Log.Info("node: serves from disk", "snapshot", state.Name)
}

// step brings the snapshot in line with what is known now. Until the store has
// answered after a start, the state from disk stands for it, so that votes heard
// on the socket count then too.
func (n *Node) step(ctx context.Context) {
	state, err := n.held, error(nil)
	switch {
	case n.view.Inventory != nil:
		state, err = n.wanted(ctx)
	case n.held.Plan == nil:
		return // nothing was ever configured, or the store has not answered yet
	}
	if err == nil {
		votes, patched := decide.Patch(state.Votes, n.ahead(state.Inventory))
		if err = n.put(state, votes, patched, nil); err == nil {
			n.makeshift = false
		}
	}
	if err != nil {
		n.goOn(state)
	}
	n.stale.input(err, n.c.Log)
	n.judgeAge()
}

// put makes the snapshot of a state and puts it in force, unless it is there
// already. Without a class table the one at hand counts.
func (n *Node) put(state State, votes []placement.Vote, patched bool, classes *placement.ClassTable) error {
	began := time.Now()
	s, err := n.unfold(&state, votes, patched, classes)
	if err != nil {
		return err
	}
	if n.view.VotesListed && !s.Name.Patched {
		s = commonName(s, n.view.Nodes)
	}
	current := n.c.Current.Load()
	if current != nil && current.Name == s.Name && current.Digest == s.Digest && current.Listed == s.Listed {
		return nil
	}
	state.Name, state.Digest, state.Revision = s.Name.String(), s.Digest, s.Name.Votes
	n.held = state
	n.c.Current.Store(s)
	n.m.applied(s, time.Since(began))
	n.tell()
	n.c.Log.Info("node: snapshot in force", "snapshot", state.Name, "digest", s.Digest[:12])
	for i := range n.mail {
		n.mail[i].post(delivery{snapshot: s})
	}
	if !s.Name.Patched { // a patch is of this moment only
		n.disk.post(delivery{snapshot: s, state: state})
	}
	return nil
}

// save writes what is in force. It comes after the swap: a client must not wait
// for a disk, and until it is written the state before serves a restart as well.
func (n *Node) save(d delivery) {
	if n.c.Disk == nil {
		return
	}
	if err := n.c.Disk.Save(d.state); err != nil {
		n.m.unsaved.Inc()
		n.c.Log.Error("node: state not saved, a restart would serve an older one", "snapshot", d.state.Name, "err", err)
	}
}
