package main

import (
	"fmt"
	"io"
	"net/netip"
	"strings"

	"rhumb/edge"
	"rhumb/edge/forward"
	"rhumb/edge/frame"
	"rhumb/placement"
)

// alarmHandoffServer tells that nobody can be asked for the sessions of a service of
// kind handoff: they are forwarded, and end with their site.
const alarmHandoffServer = "HandoffServerMissing"

// handoffs tells which servers are connected to the hand-off socket.
func (e *edgeRole) handoffs(n *placement.Node, st *placement.EdgeStats) {
	for _, h := range e.agent.Handing() {
		st.Moving += h.Moving
		st.Handoffs = append(st.Handoffs, placement.EdgeHandoff{Service: h.Service, Servers: h.Servers, Moving: h.Moving})
	}
	n.Alarms = append(n.Alarms, handoffAlarms(st.Handoffs)...)
}

func handoffAlarms(all []placement.EdgeHandoff) []placement.Alarm {
	var out []placement.Alarm
	for _, h := range all {
		if h.Servers == 0 {
			out = append(out, placement.Alarm{Kind: alarmHandoffServer, Object: h.Service,
				Text: fmt.Sprintf("no server of %s is connected to the hand-off socket: its sessions stay here and are forwarded", h.Service)})
		}
	}
	return out
}

// handoffServices are those of servers that are not ours and give sessions away.
func handoffServices(inv *placement.Inventory, u *unit) []edge.Service {
	var out []edge.Service
	for _, s := range inv.Services {
		if s.Edge != nil && s.Edge.Kind == placement.Handoff {
			out = append(out, edge.Service{Name: s.Name, Kind: edge.KindHandoff, Mode: string(edgeMode(inv, &s, u.cfg.Mode)), VIPs: s.Edge.VIPs})
		}
	}
	return out
}

// establishedFlows lists the connections of clients, for the agent.
func establishedFlows(vips []netip.AddrPort) ([]frame.Key, error) {
	flows, err := forward.Established(vips)
	out := make([]frame.Key, len(flows))
	for i, f := range flows {
		out[i] = frame.Key{Client: f.Client, VIP: f.VIP}
	}
	return out, err
}

// writeHandoffs draws the services of kind handoff below a site; most have none.
func writeHandoffs(w io.Writer, all []placement.EdgeHandoff) {
	for _, h := range all {
		fmt.Fprintf(w, "  hand-off  %s: %d servers connected, %d sessions on the move\n", h.Service, h.Servers, h.Moving)
	}
}

// handoffsCell names the services of kind handoff and how many servers each has here.
func handoffsCell(all []placement.EdgeHandoff) cell {
	c := cell{}
	var words []string
	for _, h := range all {
		words = append(words, fmt.Sprintf("%s %d", h.Service, h.Servers))
		if h.Servers == 0 {
			c.color = red
		}
	}
	c.text = strings.Join(words, ", ")
	return c
}
