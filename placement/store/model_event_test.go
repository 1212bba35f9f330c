package store

import (
	"slices"

	"rhumb/placement"
)

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
	if m.nets[0].MinAnchors(len(m.full)) < 2 {
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
		m.change(func(inv *placement.Inventory) {
			inv.Prefixes, inv.SetAside = slices.Clone(m.nets), placement.Audit{}
			inv.Prefixes[0].Sites = keep
		})
	default:
		m.orderPrefixes(e)
	}
}

// change makes the next configuration.
func (m *model) change(f func(*placement.Inventory)) {
	inv := *m.inv
	inv.Revision++
	f(&inv)
	m.inv = &inv
}

// orderPrefixes deletes and retires. A clean-up which deletes all that there is may have
// been told to set aside whatever stands in its way.
func (m *model) orderPrefixes(e modelEvent) {
	switch e.kind {
	case "delete prefixes":
		m.change(func(inv *placement.Inventory) {
			inv.Prefixes, inv.SetAside = nil, placement.Audit{}
			if e.b%2 == 0 {
				inv.SetAside.Override = []string{"anchors", "slots", "witness", "min-sites", "blast-radius", "retire"}
			}
		})
	case "retire":
		m.change(func(inv *placement.Inventory) {
			inv.Retirements = nil
			for i := range m.nets {
				inv.Retirements = append(inv.Retirements, placement.Retirement{Prefix: m.nets[i].Prefix, Audit: placement.Audit{Who: "op", Reason: "sold", Override: []string{"blast-radius"}}})
			}
		})
	case "unretire": // of what was deleted, only together with an apply which names it again
		if len(m.inv.Retirements) > 0 {
			m.unretired = m.now
			m.change(func(inv *placement.Inventory) {
				inv.Retirements = nil
				if len(inv.Prefixes) == 0 {
					inv.Prefixes, inv.SetAside = slices.Clone(m.nets), placement.Audit{}
				}
			})
		}
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
