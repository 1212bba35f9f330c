package main

import (
	"strings"
	"testing"
	"time"

	"rhumb/internal/api"
	"rhumb/placement"
)

// TestSilentSiteIsMarked: neighbours, routes and sessions of a site that fell silent are
// shown as its last word, in the row and on its page.
func TestSilentSiteIsMarked(t *testing.T) {
	site := api.Site{Name: "tyo1", Status: "down", Sessions: 7, BGP: api.SiteBGP{Established: 2, Configured: 2},
		Routes: []api.Route{{Reported: true, Announced: placement.Announce}}}
	for _, silent := range []bool{false, true} {
		site.Silent = silent
		var table, page strings.Builder
		writeSites(&table, style{ascii: true}, []api.Site{site}, time.Now())
		writeSite(&page, style{ascii: true}, &site, time.Now())
		for _, word := range []string{" 2/2?", " announce?", " 7?"} {
			if strings.Contains(table.String(), word) != silent {
				t.Errorf("silent %t, %q:\n%s", silent, word, table.String())
			}
		}
		if strings.Contains(page.String(), "last word") != silent {
			t.Errorf("silent %t:\n%s", silent, page.String())
		}
	}
}
