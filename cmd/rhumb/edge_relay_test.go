package main

import (
	"strings"
	"testing"
	"time"

	"rhumb/edge/forward"
	"rhumb/internal/api"
	"rhumb/placement"
)

// TestRelayText: an event says what goes where, and whether that is a way round.
func TestRelayText(t *testing.T) {
	for want, c := range map[string]forward.RelayChange{
		"packets from ams1 to nyc1 go by fra1: the path is broken":                                        {To: "nyc1", Via: "fra1", Broken: true},
		"packets from ams1 to nyc1 go by tyo1 instead of fra1":                                            {To: "nyc1", Via: "tyo1", Was: "fra1", Broken: true},
		"packets from ams1 to nyc1 go directly again":                                                     {To: "nyc1", Was: "fra1"},
		"packets from ams1 to nyc1 go nowhere: the path is broken, and after fra1 no site passes them on": {To: "nyc1", Was: "fra1", Broken: true},
	} {
		if got := relayText("ams1", c); got != want {
			t.Errorf("%+v: %q, want %q", c, got, want)
		}
	}
}

// TestRelayRate: a node that observes passes on nothing, whatever the fleet says.
func TestRelayRate(t *testing.T) {
	for _, e := range []struct {
		site int64
		own  placement.Mode
		want int64
	}{{0, placement.Act, 0}, {1000, "", 1000}, {-1, placement.Act, -1}, {1000, placement.Observe, -1}} {
		if got := relayRate(&placement.Site{Relay: e.site}, e.own); got != e.want {
			t.Errorf("site %d in mode %q: %d, want %d", e.site, e.own, got, e.want)
		}
	}
}

// TestRelaysShown: the rows of sessions and the page of a site name who is reached by
// whom.
func TestRelaysShown(t *testing.T) {
	now := time.Unix(1000, 0)
	list := []placement.EdgeRelay{{To: "nyc1", Via: "fra1", Since: now.Add(-time.Minute), Bytes: 2_500_000}, {To: "tyo1", Via: "fra1", Since: now}}
	if got := relaysCell(list); got != "nyc1 by fra1, tyo1 by fra1" {
		t.Errorf("%q", got)
	}
	var out strings.Builder
	writeRelays(&out, &api.Site{Edge: api.SiteEdge{Relays: list}}, now)
	if got := out.String(); !strings.Contains(got, "to nyc1 by fra1 for 1 m") || !strings.Contains(got, "2.5 MB") || strings.Count(got, "\n") != 2 {
		t.Errorf("%q", got)
	}
}
