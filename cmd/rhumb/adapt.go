package main

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"rhumb/placement"
	"rhumb/placement/director"
	"rhumb/placement/node"
	"rhumb/placement/store"
)

// What one part says in its own words and another reads in its own meets here.

// nodeView is what a node loop reads of a view.
func nodeView(v *store.View) node.View {
	return node.View{Inventory: v.Inventory, Recent: v.Recent, Plan: v.Plan, Votes: v.Votes,
		VotesRevision: v.VotesRevision, VotesListed: v.VotesListed, Nodes: v.Nodes, Heartbeat: v.Heartbeat, Connected: v.Connected}
}

// directorView is what a director reads of a view.
func directorView(v *store.View) director.View {
	return director.View{Inventory: v.Inventory, Plan: v.Plan, Votes: v.Votes, VotesRevision: v.VotesRevision,
		Announced: v.Announced, Slots: v.Slots, Nodes: v.Nodes, Demand: v.Demand, Connected: v.Connected}
}

// disk lets the node loop keep its states in the store's directory format.
type disk struct{ d *store.Disk }

// diskOf keeps the states below the data directory, shared by the units of a node:
// they are named by state and digest, so that it does not matter who writes them.
func diskOf(dataDir string) disk { return disk{store.NewDisk(filepath.Join(dataDir, "snapshots"))} }

// Save keeps a state.
func (d disk) Save(s node.State) error {
	name, err := placement.ParseName(s.Name)
	if err != nil {
		return err
	}
	return d.d.Save(&store.State{Name: name, Digest: s.Digest, ClassTable: s.Plan.Inputs.ClassTable, Saved: time.Now().UTC(),
		Inventory: s.Inventory, Plan: s.Plan, Votes: s.Votes})
}

// Newest returns the newest state that is whole.
func (d disk) Newest() (node.State, error) {
	s, refused := d.d.Load()
	if s == nil {
		return node.State{}, errors.Join(append(refused, errors.New("no state on disk"))...)
	}
	return node.State{Inventory: s.Inventory, Plan: s.Plan, Votes: s.Votes, Revision: s.Name.Votes, Name: s.Name.String(), Digest: s.Digest}, nil
}

// directorStore lets the director publish into the store.
type directorStore struct{ s *store.Store }

// Campaign waits until the node leads.
func (d directorStore) Campaign(ctx context.Context, node string) (director.Term, error) {
	t, err := d.s.Campaign(ctx, node)
	if err != nil {
		return nil, err
	}
	return t, nil
}

// Publish makes a plan the one in force.
func (d directorStore) Publish(ctx context.Context, t director.Term, p *placement.Plan) (int64, error) {
	term, ok := t.(*store.Term)
	if !ok {
		return 0, errors.New("publish: a term of another store")
	}
	return d.s.Publish(ctx, term, p)
}

// Heartbeat says that the director lives.
func (d directorStore) Heartbeat(ctx context.Context, _ director.Term, _ time.Time) error {
	return d.s.Heartbeat(ctx)
}

// sortedKeys lists a map's keys in order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
