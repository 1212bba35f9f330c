package main

import (
	"fmt"
	"io"

	"rhumb/edge"
	"rhumb/edge/forward"
	"rhumb/edge/frame"
	"rhumb/placement"
)

// alarmSessionsBare tells that sessions have no Backup, since no site has room for them.
const alarmSessionsBare = "SessionsWithoutBackup"

// ownReserve is what this edge can take over from others.
func ownReserve(self placement.Member, site *placement.Site) edge.Reserve {
	return edge.Reserve{Capacity: self.Sessions, Weight: self.Capacity(), Domains: site.Domains}
}

// reserve follows what a snapshot says of this edge's capacity. What it is a node of stays.
func (e *edgeRole) reserve(s *placement.Snapshot) {
	site := s.Inventory.Site(e.self.Site)
	if site == nil {
		return
	}
	if self, ok := site.Member(e.unit.cfg.Node.Name); ok {
		e.agent.SetReserve(ownReserve(self, site))
	}
}

// first names the sites that are asked first for a session whose owner is lost.
func (e *edgeRole) first(f forward.Flow) []string {
	select {
	case <-e.ready:
		return e.agent.First(frame.Key{Client: f.Client, VIP: f.VIP})
	default:
		return nil
	}
}

// reserves fills in how much of the capacity is spoken for, and raises the alarm.
func (e *edgeRole) reserves(n *placement.Node, st *placement.EdgeStats) {
	r := e.agent.Reserved()
	st.Reserve = &placement.EdgeReserve{Capacity: r.Capacity, Limit: r.Limit, Most: r.Most, Loss: r.Loss, Bare: r.Bare, Recall: r.Recall}
	if r.Bare > 0 {
		n.Alarms = append(n.Alarms, placement.Alarm{Kind: alarmSessionsBare, Object: e.self.Name,
			Text: fmt.Sprintf("%d sessions of %s have no Backup: no site has room for them, and the loss of %s would end them; %d of them outlive a crash of its process", r.Bare, e.self.Name, e.self.Name, r.Recall)})
	}
}

// reservedCell says how many sessions a loss would bring, of how many there may be.
func reservedCell(all []placement.EdgeReserve) cell {
	var most, limit int
	for _, r := range all {
		most, limit = most+r.Most, limit+r.Limit
	}
	if limit == 0 {
		return cell{} // of a version that keeps nothing free
	}
	return plain(fmt.Sprintf("%d/%d", most, limit))
}

// bareCell counts the sessions without a Backup for want of room, and those of them that
// a next process can recall.
func bareCell(all []placement.EdgeReserve) cell {
	bare, recall := 0, 0
	for _, r := range all {
		bare, recall = bare+r.Bare, recall+r.Recall
	}
	c := plain(count(bare))
	if bare > 0 {
		c.color = red
	}
	if recall > 0 {
		c.text += fmt.Sprintf(" (%d recall)", recall)
	}
	return c
}

// writeReserve draws what is kept free at a site's edges.
func writeReserve(w io.Writer, all []placement.EdgeReserve) {
	for _, r := range all {
		fmt.Fprintf(w, "  reserve   %s\n", reserveText(r))
	}
}

// reserveText says it in a line.
func reserveText(r placement.EdgeReserve) string {
	text := fmt.Sprintf("serves %d sessions at most, %d of %d after a loss", r.Capacity, r.Limit, r.Capacity)
	if r.Most > 0 {
		text += fmt.Sprintf("; that of %s would bring %d", r.Loss, r.Most)
	}
	if r.Bare > 0 {
		text += fmt.Sprintf("; %d sessions have no Backup for want of room", r.Bare)
	}
	if r.Recall > 0 {
		text += fmt.Sprintf(", %d of them are kept for a next process of the edge alone", r.Recall)
	}
	return text
}
