package main

import (
	"rhumb/health"
	"rhumb/placement"
)

// watching is who watches whom in the fleet. A snapshot comes with each vote, and an
// inventory now and then: the graph of a large fleet is worked out for the latter only.
type watching struct {
	inv     *placement.Inventory
	names   map[string][]string // of the sites with a beat address
	numbers map[string][]uint16 // of their machines that beat
}

// follow takes an inventory.
func (w *watching) follow(inv *placement.Inventory) {
	if w.inv != nil && (w.inv == inv || w.inv.Revision != 0 && w.inv.Revision == inv.Revision) {
		return
	}
	w.inv, w.numbers = inv, make(map[string][]uint16)
	var sites []placement.Site
	for _, s := range inv.Sites {
		if s.Beat.IsValid() {
			sites = append(sites, s)
			for _, n := range s.BeatNodes() {
				w.numbers[s.Name] = append(w.numbers[s.Name], n.Number)
			}
		}
	}
	w.names = health.Watching(sites)
}

// of returns whom a site watches.
func (w *watching) of(site string) []uint16 {
	out := []uint16{}
	for _, name := range w.names[site] {
		out = append(out, w.numbers[name]...)
	}
	return out
}
