package decide

import (
	"slices"
	"time"

	"rhumb/placement"
)

func (s *stage) fleet(f []string) {
	s.inv, s.ct = fleet(s.number(f[0])), classes(s.t)
	s.votes, s.rev = allUp(s.inv), 1
	s.plan, s.heard, s.at = nil, nil, ""
}

// change makes a new inventory, as a change in the store would.
func (s *stage) change(f func(inv *placement.Inventory)) {
	c := *s.inv
	c.Revision++
	c.Prefixes, c.Retirements = slices.Clone(c.Prefixes), slices.Clone(c.Retirements)
	c.Drains, c.Dials, c.Forces = slices.Clone(c.Drains), slices.Clone(c.Dials), slices.Clone(c.Forces)
	c.Policies, c.Services, c.Sites = slices.Clone(c.Policies), slices.Clone(c.Services), slices.Clone(c.Sites)
	f(&c)
	s.inv = &c
}

// drain SITE [for DURATION] [auto]
func (s *stage) drain(f []string) {
	d := placement.Drain{Site: f[0], Audit: placement.Audit{Who: "op", Reason: "power work", Since: s.now}}
	for i, word := range f {
		switch word {
		case "for":
			length, err := time.ParseDuration(f[i+1])
			if err != nil {
				s.t.Fatal(err)
			}
			d.Until = s.now.Add(length)
		case "auto":
			d.Return = "auto"
		}
	}
	s.change(func(inv *placement.Inventory) { inv.Drains = append(inv.Drains, d) })
}

func (s *stage) undrain(f []string) {
	s.change(func(inv *placement.Inventory) {
		for i := range inv.Drains {
			if inv.Drains[i].Site == f[0] {
				inv.Drains[i].Ended = s.now
			}
		}
	})
}

func (s *stage) dial(f []string) {
	s.change(func(inv *placement.Inventory) {
		inv.Dials = append(inv.Dials, placement.Dial{Site: f[0], PerMille: s.number(f[1]), Audit: placement.Audit{Who: "op"}})
	})
}

func (s *stage) force(f []string) {
	s.change(func(inv *placement.Inventory) {
		inv.Forces = append(inv.Forces, placement.Force{Object: s.object(f[0]), State: placement.ForceState(f[1]), Audit: placement.Audit{Who: "op"}})
	})
}

// skip N: the policy passes over so many choices
func (s *stage) skip(f []string) {
	s.change(func(inv *placement.Inventory) { inv.Policies[0].SkipFirst = s.number(f[0]) })
}

// policy ALLDOWN
func (s *stage) policy(f []string) {
	s.change(func(inv *placement.Inventory) { inv.Policies[0].AllDown = placement.AllDown(f[0]) })
}

// demand REGION QPS …
func (s *stage) demand(f []string) {
	s.change(func(inv *placement.Inventory) {
		d := make(map[string]int64)
		for i := 0; i+1 < len(f); i += 2 {
			d[f[i]] = int64(s.number(f[i+1]))
		}
		inv.Services[1].Demand = d
	})
}

// capacity SITE QPS
func (s *stage) capacity(f []string) {
	s.change(func(inv *placement.Inventory) {
		site := inv.Site(f[0])
		site.Clusters = slices.Clone(site.Clusters)
		site.Clusters[1].Capacity = int64(s.number(f[1]))
	})
}

func (s *stage) setSessions(f []string) { s.sessions[f[0]] = s.number(f[1]) }
