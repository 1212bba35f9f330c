package main

import (
	"net/netip"
	"testing"

	"rhumb/bgp"
	"rhumb/placement"
)

// TestTellBFD: what comes and goes is told, the steps between are not.
func TestTellBFD(t *testing.T) {
	peer := netip.MustParseAddr("198.51.100.9")
	for want, e := range map[string]bgp.BFDEvent{
		"BFD with 198.51.100.9: init → up":                                     {Peer: peer, From: "init", To: "up", Diag: "none"},
		"BFD with 198.51.100.9: up → down (expired); its BGP session is reset": {Peer: peer, From: "up", To: "down", Diag: "expired", Failed: true},
		"BFD with 198.51.100.9: up → down (neighbor)":                          {Peer: peer, From: "up", To: "down", Diag: "neighbor"},
		"": {Peer: peer, From: "down", To: "init"},
	} {
		got := ""
		tellBFD(func(e placement.Event) { got = e.Kind + " " + e.Text }, e)
		if want != "" {
			want = "bgp " + want
		}
		if got != want {
			t.Errorf("%+v: told %q, want %q", e, got, want)
		}
	}
}
