package api

import (
	"net/netip"
	"testing"

	"rhumb/placement"
)

// checkedState is two vantages with looks and figures.
func checkedState() State {
	row := func(site, check string, s placement.State, cause string) placement.CheckStatus {
		return placement.CheckStatus{Cluster: placement.ClusterID{Site: site, Name: "web"}, Address: netip.MustParseAddrPort("192.0.2.1:80"), Check: check, State: s, Cause: cause}
	}
	return State{Nodes: []placement.Node{
		{Name: "nyc1-a", Site: "nyc1", Unit: "rhumb-bgp", Health: &placement.HealthStats{
			Checks: []placement.CheckStatus{row("nyc1", "web", placement.Up, ""), row("nyc1", "cert", placement.Up, "ends in 6 days")}}},
		{Name: "ams1-a", Site: "ams1", Unit: "rhumb-bgp", Health: &placement.HealthStats{
			Checks: []placement.CheckStatus{row("ams1", "web", placement.Down, "refused")},
			Availability: []placement.Availability{{Figure: placement.ServerFigure, Name: "ams1/web", Seconds: 100, Failed: 25},
				{Figure: placement.SiteFigure, Name: "ams1", Seconds: 50}, {Figure: placement.ServiceFigure, Name: "www", Seconds: 50, Failed: 50, Failing: true}}}},
		{Name: "ams1-a", Site: "ams1", Unit: "rhumb-dns"},
	}}
}

func TestChecksOf(t *testing.T) {
	st := checkedState()
	var have string
	for _, c := range ChecksOf(st, "") {
		have += c.Vantage + ":" + c.Check + " "
	}
	if have != "ams1-a:web nyc1-a:cert nyc1-a:web " {
		t.Errorf("in the order %s", have)
	}
	if n := len(ChecksOf(st, "nyc1")); n != 2 {
		t.Errorf("%d checks of nyc1", n)
	}
	if ChecksOf(State{}, "") == nil || FiguresOf(State{}, "") == nil {
		t.Error("an empty list is null")
	}
}

func TestFiguresOf(t *testing.T) {
	have := FiguresOf(checkedState(), "ams1")
	want := []struct {
		figure placement.Figure
		part   float64
	}{{placement.ServiceFigure, 0}, {placement.SiteFigure, 1}, {placement.ServerFigure, .75}}
	if len(have) != len(want) {
		t.Fatalf("%+v", have)
	}
	for i, w := range want {
		if have[i].Figure != w.figure || have[i].Available != w.part || have[i].Vantage != "ams1-a" {
			t.Errorf("row %d: %+v, want %+v", i, have[i], w)
		}
	}
	if n := len(FiguresOf(checkedState(), "nyc1")); n != 0 {
		t.Errorf("%d figures of nyc1", n)
	}
}
