package main

import (
	"fmt"
	"testing"

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
		row("ping", "icmp", "closed", true), row("ping", "icmp", "closed", true), row("fine", "tls", "ok", false)}}
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
