package main

import (
	"bytes"
	"strings"
	"testing"

	"rhumb/internal/config"
	"rhumb/placement"
)

// TestHandoffsAreTold: a service without a server raises an alarm, and both show where
// people look.
func TestHandoffsAreTold(t *testing.T) {
	all := []placement.EdgeHandoff{{Service: "chat", Servers: 0}, {Service: "stream", Servers: 2, Moving: 1}}
	alarms := handoffAlarms(all)
	if len(alarms) != 1 || alarms[0].Kind != alarmHandoffServer || alarms[0].Object != "chat" {
		t.Errorf("alarms %+v", alarms)
	}
	if c := handoffsCell(all); c.text != "chat 0, stream 2" || c.color != red {
		t.Errorf("cell %+v", c)
	}
	if c := handoffsCell(all[1:]); c.color == red {
		t.Error("red without a reason")
	}
	var b bytes.Buffer
	writeHandoffs(&b, all)
	if !strings.Contains(b.String(), "stream: 2 servers connected, 1 sessions on the move") {
		t.Errorf("%q", b.String())
	}
}

// TestMovingServices: kinds content and handoff are the agent's, forward is not.
func TestMovingServices(t *testing.T) {
	inv := &placement.Inventory{Fleet: placement.Fleet{Services: []placement.Service{
		{Name: "site", Edge: &placement.Edge{Kind: placement.Forward}}, {Name: "stream", Mode: placement.Act, Edge: &placement.Edge{Kind: placement.Handoff}},
		{Name: "vod", Edge: &placement.Edge{Kind: placement.Content, Root: "/srv"}}, {Name: "none"}}}}
	var names []string
	for _, s := range movingServices(inv, &unit{cfg: &config.Node{}}) {
		names = append(names, s.Name+" "+s.Kind)
	}
	if got := strings.Join(names, ", "); got != "vod content, stream handoff" {
		t.Error(got)
	}
}
