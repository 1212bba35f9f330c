package main

import (
	"fmt"
	"testing"

	"rhumb/internal/config"
	"rhumb/placement"
)

// TestHealthAlarms: the worst of each cluster and check, and nothing of what is in
// the votes anyway.
func TestHealthAlarms(t *testing.T) {
	row := func(check, kind, result string, blind bool) placement.CheckStatus {
		return placement.CheckStatus{Cluster: placement.ClusterID{Site: "ams1", Name: "web"}, Check: check, Kind: kind, Result: result, Blind: blind, Cause: result}
	}
	h := &placement.HealthStats{Checks: []placement.CheckStatus{row("web", "https", "expired", false), row("web", "http", "refused", false),
		row("cert", "tls", "warn", false), row("cert", "tls", "alarm", false), row("old", "tls", "expired", false), row("late", "tls", "warn", false),
		row("ping", "icmp", "closed", true), row("ping", "icmp", "closed", true), row("fine", "tls", "ok", false),
		row("drained", "http", placement.LookAway, true)}}
	var have []string
	for _, a := range healthAlarms(h) {
		have = append(have, a.Kind+" "+a.Object)
	}
	want := "[CertificateEndsSoon ams1/web cert CertificateEndsSoon ams1/web old CertificateEnds ams1/web late CheckBlind ams1/web ping]"
	if fmt.Sprint(have) != want {
		t.Errorf("have %v\nwant %v", have, want)
	}
	if healthAlarms(nil) != nil {
		t.Error("a role that has not looked has alarms")
	}
}

// TestAllLooksOfTheUnit: a record holds a few looks, the unit's own API all; the
// view from the store is shared and stays as it was.
func TestAllLooksOfTheUnit(t *testing.T) {
	all := &placement.HealthStats{Checks: make([]placement.CheckStatus, 40), Total: 40}
	u := &unit{cfg: &config.Node{}, name: "rhumb-bgp"}
	u.cfg.Node.Name = "ams1-a"
	nodes := []placement.Node{{Name: "ams1-a", Unit: "rhumb-dns"}, {Name: "ams1-a", Unit: "rhumb-bgp", Health: all.Short()}, {Name: "nyc1-a", Unit: "rhumb-bgp"}}
	if have := u.withLooks(nodes); have[1].Health != nodes[1].Health {
		t.Error("a unit without the role shows looks of its own")
	}
	u.looks = func() *placement.HealthStats { return all }
	have := u.withLooks(nodes)
	if len(have[1].Health.Checks) != 40 || have[0].Health != nil || have[2].Health != nil {
		t.Errorf("%+v", have)
	}
	if len(nodes[1].Health.Checks) != placement.CheckRows {
		t.Error("the shared view was changed")
	}
}
