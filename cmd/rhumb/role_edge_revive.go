package main

import (
	"fmt"
	"slices"
	"time"

	"rhumb/edge/forward"
	"rhumb/edge/frame"
	"rhumb/placement"
)

// revive tells forwarder and agent which sites are lost. Sessions of a site that
// falls go on where their Backup is. Where no service is revived the forwarder goes
// on with what it believes: the owner's own word is better than a verdict.
func (e *edgeRole) revive(s *placement.Snapshot) {
	own := e.unit.cfg.Node.Site
	down, acts := edgesOf(s.Inventory, downSites(s, own, false)), slices.ContainsFunc(s.Inventory.Services, revives)
	for _, site := range down {
		if acts && !slices.Contains(e.down, site) {
			e.forwarder.Lost(site)
		}
	}
	e.lose(down, edgesOf(s.Inventory, downSites(s, own, true)), e.setDown, e.agent.SetDoubted)
}

// lose tells which edges are lost, and which are down and kept in service. One that goes from
// one list to the other is in one of them at any moment: in none, the revival of its sessions
// would end.
func (e *edgeRole) lose(down, doubted []string, tellDown func(), tellDoubted func([]string)) {
	doubt := func(edges []string) {
		if !slices.Equal(edges, e.doubted) {
			e.doubted = edges
			tellDoubted(edges)
		}
	}
	doubt(either(e.doubted, doubted))
	if !slices.Equal(down, e.down) {
		e.down = down
		tellDown()
	}
	doubt(doubted)
}

// either is what is in one of two ordered lists, in order.
func either(a, b []string) []string {
	out := slices.Concat(a, b)
	slices.Sort(out)
	return slices.Compact(out)
}

// revives tells whether sessions of a service may go on after a crash.
func revives(s placement.Service) bool {
	return s.Edge != nil && s.Edge.Kind == placement.Content && s.Edge.Revival == placement.ReviveAct
}

// downSites are the other sites that are down by the word of several vantages,
// in order. A down that the removal cap holds back may be the monitor's fault: those are
// the others.
func downSites(s *placement.Snapshot, own string, capped bool) []string {
	var out []string
	for _, v := range s.Verdicts {
		if v.Object.IsSite() && v.Object.Site != own && v.State == placement.Down && v.Capped == capped {
			out = append(out, v.Object.Site)
		}
	}
	slices.Sort(out)
	return out
}

// held shows the agent a packet of a session that it revives.
func (e *edgeRole) held(f forward.Flow, packet []byte) {
	select {
	case <-e.ready:
		e.agent.Heard(frame.Key{Client: f.Client, VIP: f.VIP}, packet)
	default:
	}
}

// shadowed tells whether the agent could revive the session of a flow.
func (e *edgeRole) shadowed(f forward.Flow) bool {
	select {
	case <-e.ready:
		return e.agent.Shadowed(frame.Key{Client: f.Client, VIP: f.VIP})
	default:
		return false
	}
}

// keptFor names the site whose session of a flow the agent could revive.
func (e *edgeRole) keptFor(f forward.Flow) string {
	select {
	case <-e.ready:
		return e.agent.KeptFor(frame.Key{Client: f.Client, VIP: f.VIP})
	default:
		return ""
	}
}

// revivedEvents tells how many sessions were revived here since the last time.
func revivedEvents(told *int64, now int64, at time.Time) []placement.Event {
	n := now - *told
	*told = now
	if n == 0 {
		return nil
	}
	return []placement.Event{{At: at, Kind: "session", Text: fmt.Sprintf("%d sessions revived here after a crash", n)}}
}
