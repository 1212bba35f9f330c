package main

import (
	"slices"
	"strings"

	"rhumb/placement"
)

// leaving is where this edge lets its sessions go: "" nowhere, "*" to any other site, else
// to some nodes of its site.
type leaving string

const leavingSite leaving = "*"

// node reports whether one node leaves, and the site stays.
func (l leaving) node() bool { return l != "" && l != leavingSite }

// to are the names for the agent; none: all of the other sites.
func (l leaving) to() []string {
	if l.node() {
		return strings.Fields(string(l))
	}
	return nil
}

// leavingOf is what a snapshot says of an edge: with its site when its packets arrive
// elsewhere, from gshut on, or by itself, to the nodes next door that stay.
func leavingOf(s *placement.Snapshot, self placement.Member) leaving {
	if d := s.Plan.Drain(self.Site); d != nil && slices.Contains(leavingPhases(), d.Phase) {
		return leavingSite
	}
	site := s.Inventory.Site(self.Site)
	if self.Name == self.Site || site == nil || s.Inventory.Drained(self.Name) == nil {
		return ""
	}
	var to []string
	for _, m := range site.Members() {
		if m.Name != self.Name && s.Inventory.Drained(m.Name) == nil {
			to = append(to, m.Name)
		}
	}
	return leaving(strings.Join(to, " "))
}

// drain follows a drain of this site, or of this node alone.
func (e *edgeRole) drain(s *placement.Snapshot) {
	now := leavingOf(s, e.self)
	switch {
	case now == e.leaving:
		return
	case now == "":
		e.agent.Undrain()
	default:
		if err := e.agent.Drain(now.to()); err != nil {
			e.unit.log.Error("edge: drain", "err", err)
			return // tried again with the next snapshot
		}
	}
	e.leaving = now
}
