package decide

import (
	"fmt"
	"slices"
	"strings"

	"rhumb/placement"
	"rhumb/placement/lpm"
)

// Unfolder unfolds one plan after another and keeps what does not change with
// health: distances, rankings, and client blocks whose classes are decided as
// before. It changes no result. It is not safe for concurrent use.
type Unfolder struct {
	world  *world
	blocks map[string]labelled // by service
}

// labelled is a folded table with the labels it was folded by.
type labelled struct {
	classes *placement.ClassTable
	labels  []uint32
	blocks  *lpm.Blocks
}

// Unfold makes the Snapshot of one state: see Unfolder.Unfold.
func Unfold(inv *placement.Inventory, classes *placement.ClassTable, plan *placement.Plan, verdicts []placement.Verdict, votesRevision int64, patched bool) (*placement.Snapshot, error) {
	return new(Unfolder).Unfold(inv, classes, plan, verdicts, votesRevision, patched)
}

// Unfold makes the Snapshot of one state. The verdicts are Fold's, of the same
// inventory and plan. What is down now though the plan counts on it is left
// out, and its clients move on to the next clusters with room: every node comes
// to the same result without asking. What is up again though the plan was
// solved without it waits for the next plan, unless nobody else is usable.
//
// An error means that the inputs are not those which the plan names; the caller
// keeps its last Snapshot.
func (u *Unfolder) Unfold(inv *placement.Inventory, classes *placement.ClassTable, plan *placement.Plan, verdicts []placement.Verdict, votesRevision int64, patched bool) (*placement.Snapshot, error) {
	if err := checkInputs(inv, classes, plan); err != nil {
		return nil, err
	}
	w := u.worldOf(inv, classes, plan.Inputs.Algorithm)
	s := &placement.Snapshot{
		Name:      placement.Name{Plan: plan.Revision, Votes: votesRevision, Patched: patched},
		Inventory: inv, Plan: plan, Classes: classes, Verdicts: verdicts,
		Anchors: plan.Anchors, Backups: plan.Backups,
	}
	s.Alarms = append(planAlarms(inv, plan), capAlarms(inv, verdicts)...)
	s.Announcements = announcements(inv, plan, verdicts)
	l := newLedger(w, plan)
	l.replay(plan)
	present := l.statuses(func(m *market) []status { return now(m, plan, verdicts) })
	l.move(present)
	l.crowd(present)
	s.Alarms = append(s.Alarms, l.overload()...)
	d := newDigester(s)
	u.maps(s, l, present, d)
	s.Alarms = append(s.Alarms, openAlarms(s)...)
	s.Digest = d.sum()
	return s, nil
}

// checkInputs refuses to unfold from anything but what the plan was made from.
func checkInputs(inv *placement.Inventory, classes *placement.ClassTable, plan *placement.Plan) error {
	digest := ""
	if classes != nil {
		digest = classes.Digest
	}
	switch in := plan.Inputs; {
	case !slices.Contains(placement.Algorithms(), in.Algorithm):
		return fmt.Errorf("decide: unfold plan %d: algorithm %d, this binary runs %v", plan.Revision, in.Algorithm, placement.Algorithms())
	case in.Inventory != inv.Revision:
		return fmt.Errorf("decide: unfold plan %d: inventory %d, have %d", plan.Revision, in.Inventory, inv.Revision)
	case in.ClassTable != digest:
		return fmt.Errorf("decide: unfold plan %d: class table %.12s, have %.12s", plan.Revision, in.ClassTable, digest)
	}
	return nil
}

func (u *Unfolder) worldOf(inv *placement.Inventory, classes *placement.ClassTable, algorithm int) *world {
	if u.world == nil || u.world.inv != inv || u.world.classes != classes || u.world.algorithm != algorithm {
		u.world = newWorld(inv, classes, algorithm)
	}
	return u.world
}

// replay brings the ledger to where the plan left it: policy under the plan's
// own status, but for the classes that the plan splits.
func (l *ledger) replay(plan *placement.Plan) {
	st := l.statuses(func(m *market) []status { return planned(m, plan) })
	defaults := make(map[*market][][]part)
	for _, sv := range l.services {
		if defaults[sv.m] == nil {
			defaults[sv.m] = l.w.defaults(sv.m, st[sv.m])
		}
		sv.parts, sv.own = defaults[sv.m], false
		for _, split := range servicePlan(plan, sv.service.Name).Splits {
			if parts := sv.partsOf(split); parts != nil && int(min(int(split.Class), l.w.known)) < len(sv.parts) {
				sv.set(min(int(split.Class), l.w.known), parts)
			}
		}
	}
}

// partsOf reads a split; clusters that the service no longer has are left out,
// and the others bear their part.
func (sv *serving) partsOf(split placement.Split) []part {
	var parts []part
	var weights []int64
	for _, s := range split.Shares {
		if i, ok := slices.BinarySearchFunc(sv.m.clusters, s.Cluster, placement.ClusterID.Compare); ok {
			parts = append(parts, part{cluster: uint16(i)})
			weights = append(weights, int64(s.PerMille))
		}
	}
	if len(parts) == 0 {
		return nil
	}
	return rounded(sv.m, parts, weights)
}

// overload says loudly when clusters carry more than they should.
func (l *ledger) overload() []placement.Alarm {
	load := l.expected()
	ids := make([]placement.ClusterID, len(l.capacity))
	for id, i := range l.clusters {
		ids[i] = id
	}
	var out []placement.Alarm
	for i, q := range load {
		if q*100 > l.capacity[i]*101 { // rounding aside
			out = append(out, placement.Alarm{Kind: AlarmOverload, Object: ids[i].String(),
				Text: fmt.Sprintf("expects %d qps, and may carry %d", q/whole, l.capacity[i]/whole)})
		}
	}
	return out
}

// maps builds the map of every service that is steered.
func (u *Unfolder) maps(s *placement.Snapshot, l *ledger, st statuses, d *digester) {
	if u.blocks == nil {
		u.blocks = make(map[string]labelled)
	}
	done := make(map[*[]part]*built)
	for _, sv := range l.services {
		m := placement.ServiceMap{Service: sv.service, Policy: sv.m.policy, Clusters: sv.m.clusters}
		b := done[&sv.parts[0]]
		if b == nil || b.m != sv.m {
			b = l.rows(sv, st[sv.m])
			b.digest = d.rows(b.rows)
			done[&sv.parts[0]] = b
		}
		m.Rows = b.rows
		if m.Policy.Answers.Set() {
			m.Keys = placement.ClusterKeys(m.Clusters)
		}
		if sv.service.Mapped() {
			m.Blocks = u.fold(s, &m, b)
		}
		s.Maps = append(s.Maps, m)
		d.service(&m, b.digest)
	}
	slices.SortFunc(s.Maps, func(a, b placement.ServiceMap) int { return strings.Compare(a.Service.Name, b.Service.Name) })
}

// fold colours the client space by what is answered, so that a cache may keep
// one answer for as large a block as possible.
func (u *Unfolder) fold(s *placement.Snapshot, m *placement.ServiceMap, b *built) *lpm.Blocks {
	if s.Classes == nil || s.Classes.Prefixes == nil {
		return nil
	}
	labels := b.labels
	if m.Service.IsNameServer() {
		labels = referralLabels(s, m)
	} else if b.blocks != nil {
		return b.blocks
	}
	old := u.blocks[m.Service.Name]
	if old.classes != s.Classes || !slices.Equal(old.labels, labels) {
		n := len(labels) - 1
		old = labelled{s.Classes, labels, s.Classes.Prefixes.Fold(labels[:n:n], labels[n])}
		u.blocks[m.Service.Name] = old
	}
	if !m.Service.IsNameServer() {
		b.blocks = old.blocks
	}
	return old.blocks
}
