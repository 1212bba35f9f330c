package main

import (
	"strings"
	"testing"

	"rhumb/placement"
)

// TestReserveIsTold: sessions without a Backup show in red, and apart from them those that
// a next process goes on with.
func TestReserveIsTold(t *testing.T) {
	all := []placement.EdgeReserve{{Capacity: 100, Limit: 95, Most: 40, Loss: "nyc1", Bare: 7, Recall: 5}, {Capacity: 100, Limit: 95}}
	if c := bareCell(all); c.text != "7 (5 recall)" || c.color != red {
		t.Errorf("cell %+v", c)
	}
	if c := bareCell(all[1:]); c.text != "0" || c.color == red {
		t.Errorf("cell %+v", c)
	}
	if c := reservedCell(all); c.text != "40/190" {
		t.Errorf("cell %+v", c)
	}
	text := reserveText(all[0])
	for _, want := range []string{"that of nyc1 would bring 40", "7 sessions have no Backup", "5 of them are kept for a next process"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q lacks %q", text, want)
		}
	}
}
