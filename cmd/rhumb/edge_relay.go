package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"rhumb/edge/forward"
	"rhumb/health"
	"rhumb/internal/api"
	"rhumb/placement"
)

const (
	// hearingSocket is where the health role of a machine tells by which paths the other
	// sites are heard.
	hearingSocket = "hearing.sock"
	// hearAgain is how soon it is asked again when it went, hearingLasts for how long
	// what it said last still counts: it is restarted in less.
	hearAgain    = 500 * time.Millisecond
	hearingLasts = 15 * time.Second

	// alarmPathRelayed tells that what is for a site goes round a broken path.
	alarmPathRelayed = "PathRelayed"
)

// hear tells forwarder and agent what the detector of this site hears, until the context
// ends.
func (e *edgeRole) hear(ctx context.Context) error {
	return follow(ctx, e.unit.socket(hearingSocket), func(list []placement.Hearing) {
		list = hearingOfEdges(e.unit.current.Load().Inventory, list)
		e.forwarder.SetHearing(list)
		e.agent.SetSuspects(suspects(list))
	})
}

// follow hands on what a hearing stream tells, and nil when it has been away for
// hearingLasts: then nobody knows.
func follow(ctx context.Context, socket string, to func([]placement.Hearing)) error {
	last := time.Now()
	for ctx.Err() == nil {
		err := health.Hear(ctx, socket, func(list []placement.Hearing) {
			to(list)
			last = time.Now()
		})
		if err == nil {
			last = time.Now() // it went this very moment
		} else if now := time.Now(); now.Sub(last) >= hearingLasts {
			to(nil)
			last = now
		}
		select {
		case <-ctx.Done():
		case <-time.After(hearAgain):
		}
	}
	return nil
}

// relayRate is what this site passes on for others, as the forwarder wants to know it. A
// node that observes carries nothing.
func relayRate(site *placement.Site, own placement.Mode) int64 {
	if own == placement.Observe {
		return -1
	}
	return site.Relay
}

// relayed tells the log that what is for another site goes another way.
func (e *edgeRole) relayed(c forward.RelayChange) {
	e.unit.event(placement.Event{At: c.At, Kind: "session", Site: e.unit.cfg.Node.Site, Text: relayText(e.unit.cfg.Node.Site, c)})
}

// relayText says who goes where by whom.
func relayText(from string, c forward.RelayChange) string {
	what := fmt.Sprintf("packets from %s to %s", from, c.To)
	switch {
	case c.Via == "" && c.Broken:
		return fmt.Sprintf("%s go nowhere: the path is broken, and after %s no site passes them on", what, c.Was)
	case c.Via == "":
		return what + " go directly again"
	case c.Was != "":
		return fmt.Sprintf("%s go by %s instead of %s", what, c.Via, c.Was)
	}
	return fmt.Sprintf("%s go by %s: the path is broken", what, c.Via)
}

// relays fills in by whom other sites are reached, and raises the alarm.
func (e *edgeRole) relays(n *placement.Node, st *placement.EdgeStats) {
	for _, r := range e.forwarder.Relays() {
		st.Relays = append(st.Relays, placement.EdgeRelay{To: r.To, Via: r.Via, Since: r.Since, Bytes: int64(r.Bytes)})
		n.Alarms = append(n.Alarms, placement.Alarm{Kind: alarmPathRelayed, Object: n.Site + " " + r.To,
			Text: fmt.Sprintf("the path from %s to %s is broken: sessions' packets go by %s", n.Site, r.To, r.Via)})
	}
}

// relaysCell names them in a row.
func relaysCell(list []placement.EdgeRelay) string {
	var out []string
	for _, r := range list {
		out = append(out, r.To+" by "+r.Via)
	}
	return strings.Join(out, ", ")
}

// writeRelays draws them below a site; most sites have none.
func writeRelays(w io.Writer, r *api.Site, now time.Time) {
	for _, relay := range r.Edge.Relays {
		fmt.Fprintf(w, "  relay     to %s by %s for %s, %.1f MB\n", relay.To, relay.Via, span(now.Sub(relay.Since)), float64(relay.Bytes)/1e6)
	}
}
