package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"rhumb/edge"
	"rhumb/internal/api"
	"rhumb/placement"
)

// suspects are the sites that may be lost, by what the detector of this site hears of
// their machines, in order: a site is suspected while all of them are that were ever
// heard, since the last of them is.
func suspects(list []placement.Hearing) []edge.Suspect {
	since, lives := make(map[string]time.Time), make(map[string]bool)
	for _, h := range list {
		switch {
		case h.State == placement.Unknown: // never heard, or it said goodbye
		case h.Suspected.IsZero():
			lives[h.Site] = true
		case h.Suspected.After(since[h.Site]):
			since[h.Site] = h.Suspected
		}
	}
	var out []edge.Suspect
	for site, at := range since {
		if !lives[site] {
			out = append(out, edge.Suspect{Site: site, Since: at})
		}
	}
	slices.SortFunc(out, func(a, b edge.Suspect) int { return strings.Compare(a.Site, b.Site) })
	return out
}

// prepared tells the log what was made ready at a suspicion, and how that ended.
func (e *edgeRole) prepared(p edge.Preparation) {
	e.unit.event(placement.Event{At: time.Now(), Kind: "session", Site: e.unit.cfg.Node.Site, Text: preparedText(p)})
}

// preparedText says what was done, and that nothing else was.
func preparedText(p edge.Preparation) string {
	switch p.Result {
	case edge.PrepareVerdict:
		return fmt.Sprintf("%s is down: %d of %d sessions were prepared", p.Site, p.Ready, p.Sessions)
	case edge.PrepareCleared:
		return fmt.Sprintf("%s is heard again: its %d sessions stay there", p.Site, p.Sessions)
	case "":
		if p.Sessions == 0 {
			return fmt.Sprintf("%s is suspected: %d sessions would be prepared", p.Site, p.Observed)
		}
		return fmt.Sprintf("%s is suspected: %d of %d sessions are prepared", p.Site, p.Ready, p.Sessions)
	}
	return fmt.Sprintf("%s: preparation ends (%s)", p.Site, p.Result)
}

// prepares fills in for which sites something is made ready.
func (e *edgeRole) prepares(st *placement.EdgeStats) {
	for _, p := range e.agent.Preparations() {
		if p.Result == "" && p.Sessions+p.Observed > 0 {
			st.Prepared = append(st.Prepared, placement.EdgePrepared{Site: p.Site, Since: p.Since.UTC(), Sessions: p.Sessions, Ready: p.Ready, Observed: p.Observed})
		}
	}
}

// writePrepared draws it below a site; mostly nobody is suspected.
func writePrepared(w io.Writer, r *api.Site, now time.Time) {
	for _, p := range r.Edge.Prepared {
		fmt.Fprintf(w, "  suspects  %s for %s: %d of %d sessions prepared\n", p.Site, span(now.Sub(p.Since)), p.Ready, p.Sessions+p.Observed)
	}
}
