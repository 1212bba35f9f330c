package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rhumb/internal/api"
	"rhumb/placement"
)

// drainPhases in their order; each gets a line of progress.
func drainPhases() []placement.Phase {
	return []placement.Phase{placement.PhasePlan, placement.PhaseDNS, placement.PhaseTTL, placement.PhaseGShut,
		placement.PhaseSessions, placement.PhaseWithdraw, placement.PhaseDrained}
}

func (a *app) drainCommand() *cobra.Command {
	var req api.DrainRequest
	var until string
	var length, patience time.Duration
	var wait bool
	cmd := &cobra.Command{
		Use:   "drain SITE[/NODE]",
		Short: "Take a site out: answers, then sessions, then routes",
		Long: `Take a site out in phases: plan, dns (answers move away), ttl (caches run out),
gshut (routes are de-preferred), sessions (handed over), withdraw, drained.
When its time runs out it stays drained and pages, unless --return auto.
SITE/NODE is one of several edges of a site: its sessions go to the others there.`,
		Example: `  rhumb drain ams1 --reason "CHG-2231 fibre" --for 45m --wait`,
		Args:    args(cobra.ExactArgs(1)), ValidArgsFunction: a.completeSites,
		RunE: func(cmd *cobra.Command, given []string) error {
			var err error
			if req.For = placement.Duration(length); until != "" {
				if req.Until, err = parseUntil(until, time.Now()); err != nil {
					return withCode(exitUsage, err)
				}
			}
			if err := needReason(cmd, req.Reason); err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			out, err := a.send(cmd, c, "POST", sitePath(given[0], "drain"), req, "drain of "+given[0], "rhumb simulate --drain "+given[0])
			if err != nil {
				return err
			}
			if err := a.tell(out); err != nil || !wait || req.DryRun {
				return err
			}
			if strings.Contains(given[0], "/") {
				return a.waitNode(cmd.Context(), c, given[0], patience)
			}
			return a.waitDrained(cmd.Context(), c, given[0], patience)
		},
	}
	f := cmd.Flags()
	f.StringVar(&req.Reason, "reason", "", "why; the next shift will read it (required)")
	f.DurationVar(&length, "for", 0, "how long, as 45m; then it pages")
	f.StringVar(&until, "until", "", "until when: 15:04 (UTC) or RFC 3339")
	f.StringVar(&req.Return, "return", "", "auto: come back by itself when the time runs out, on green checks")
	f.BoolVar(&wait, "wait", false, "follow the phases until drained")
	f.DurationVar(&patience, "wait-timeout", 0, "stop following after this time and end with 7; the drain goes on")
	overrideFlags(cmd, &req.Override, &req.DryRun)
	return cmd
}

// parseUntil reads an instant, or a time of day in UTC, which means its next occurrence.
func parseUntil(text string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	t, err := time.Parse("15:04", strings.TrimSuffix(text, "Z"))
	if err != nil {
		return time.Time{}, fmt.Errorf("--until %q is neither 15:04 (UTC) nor RFC 3339", text)
	}
	now = now.UTC()
	at := time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), 0, 0, time.UTC)
	if !at.After(now) {
		at = at.AddDate(0, 0, 1)
	}
	return at, nil
}

func (a *app) undrainCommand() *cobra.Command {
	var req api.Undrain
	var ramp time.Duration
	cmd := &cobra.Command{Use: "undrain SITE[/NODE]", Short: "Bring a site back, or a node of one", Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.completeSites,
		RunE: func(cmd *cobra.Command, given []string) error {
			req.Ramp = placement.Duration(ramp)
			c, err := a.connect()
			if err != nil {
				return err
			}
			out, err := a.send(cmd, c, "POST", sitePath(given[0], "undrain"), req, "undrain of "+given[0], "")
			if err != nil {
				return err
			}
			return a.tell(out)
		}}
	cmd.Flags().DurationVar(&ramp, "ramp", 0, "how long its share grows (default: the fleet's own)")
	cmd.Flags().StringVar(&req.Reason, "reason", "", "why, if it is not plain")
	return cmd
}

// drainPoll is how often --wait looks.
const drainPoll = 300 * time.Millisecond

// drainSeenIn is how long a unit may take to hear from the store of a drain that
// it has just written.
const drainSeenIn = 5 * time.Second

// waitDrained follows a drain until it is done. An interrupt detaches: the drain
// goes on, and the way back is told.
func (a *app) waitDrained(ctx context.Context, c *client, site string, patience time.Duration) error {
	p := &drainProgress{app: a, site: site, start: time.Now(), tty: isTerminal(a.err)}
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	var limit <-chan time.Time
	if patience > 0 {
		limit = time.After(patience)
	}
	for {
		done, err := p.look(ctx, c)
		if done || err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			p.end()
			a.say("detached; the drain of %s goes on. To reverse it: rhumb undrain %s", site, site)
			return &exitError{code: exitInterrupted, err: errors.New("interrupted"), quiet: true}
		case <-limit:
			p.end()
			return withCode(exitTimeout, fmt.Errorf("%s is at phase %s after %s; the drain goes on. See: rhumb sites %s; to reverse it: rhumb undrain %s", site, p.phase, patience, site, site))
		case <-tick.C:
		}
	}
}

// drainProgress draws a line per phase: rewritten on a terminal, else one line each
// time a phase begins.
type drainProgress struct {
	app   *app
	site  string
	start time.Time
	tty   bool
	phase placement.Phase
	most  int // sessions to be moved when that phase began
	drawn bool
	seen  bool // the drain was there
}

// look asks once and draws; it is done when the last phase is reached.
func (p *drainProgress) look(ctx context.Context, c *client) (bool, error) {
	var row api.Site
	if _, err := c.get(ctx, "/sites/"+url.PathEscape(p.site), &row); err != nil {
		if codeOf(err) == exitUnreachable || codeOf(err) == exitTimeout {
			return false, nil // the unit may be restarting; the drain is in the store
		}
		return false, err
	}
	if row.Intents.Drain == nil && !p.seen && time.Since(p.start) < drainSeenIn {
		return false, nil // this unit has not heard of it yet
	}
	p.seen = true
	if row.Intents.Drain == nil {
		p.end()
		return true, fmt.Errorf("the drain of %s was taken back by somebody", p.site)
	}
	now := placement.Phase(row.Phase)
	p.most = max(p.most, row.Edge.Own)
	if now != p.phase {
		p.begin(now, &row)
	} else if p.tty {
		p.draw(&row)
	}
	if now != placement.PhaseDrained {
		return false, nil
	}
	p.end()
	p.app.say("%s is drained after %s%s", p.site, time.Since(p.start).Round(time.Second), pages(row.Intents.Drain))
	if row.Sessions > 0 {
		p.app.say("%d sessions still go on there through the tunnel; it may be switched off when rhumb sessions --site %s shows none", row.Sessions, p.site)
	}
	return true, nil
}

func pages(d *placement.Drain) string {
	if d.Until.IsZero() {
		return ""
	}
	if d.Return == "auto" {
		return "; comes back by itself at " + d.Until.UTC().Format("15:04Z")
	}
	return "; pages at " + d.Until.UTC().Format("15:04Z")
}

// begin closes the lines of the phases before, which may have passed unseen.
func (p *drainProgress) begin(now placement.Phase, row *api.Site) {
	s := p.app.style()
	order := drainPhases()
	for _, ph := range order[slices.Index(order, p.phase)+1:] {
		if slices.Index(order, ph) >= slices.Index(order, now) {
			break
		}
		if p.phase != ph {
			p.line(ph, s.pick("✓", "done"), "")
		}
	}
	p.phase = now
	p.draw(row)
}

func (p *drainProgress) draw(row *api.Site) {
	s := p.app.style()
	detail := p.detail(row)
	if p.phase == placement.PhaseDrained {
		p.line(p.phase, s.pick("✓", "done"), "")
		return
	}
	if !p.tty {
		p.line(p.phase, "...", detail)
		return
	}
	p.app.sayRaw("\r\x1b[K%s", p.text(p.phase, s.pick("▸", ">"), detail))
	p.drawn = true
}

// detail says what a phase waits for.
func (p *drainProgress) detail(row *api.Site) string {
	s := p.app.style()
	age := span(time.Since(row.Since))
	switch p.phase {
	case placement.PhaseDNS, placement.PhaseTTL:
		return fmt.Sprintf("%s of the answers left, %s/s measured, %s", percent(row.DNS.Share), count(row.DNS.Answers), age)
	case placement.PhaseSessions:
		part := 0.0
		if p.most > 0 {
			part = 1 - float64(row.Edge.Own)/float64(p.most)
		}
		return fmt.Sprintf("%s %d -> %d, %d moving, %d failed; %d of other servers go on", s.bar(part, 10), p.most, row.Edge.Own, row.Edge.Moving, row.Edge.Failed, row.Edge.Foreign)
	case placement.PhaseGShut, placement.PhaseWithdraw:
		out := "routes: " + orNone(routesCell(row.Routes)) + ", " + age
		for _, r := range row.Routes {
			if r.Refusal != nil {
				out += "; " + r.Refusal.Error()
				break
			}
		}
		return out
	}
	return age
}

func (p *drainProgress) text(ph placement.Phase, sign, detail string) string {
	return strings.TrimRight(fmt.Sprintf("  %-9s %s %s", ph, sign, oneLine(detail)), " ")
}

// line writes a line that stays.
func (p *drainProgress) line(ph placement.Phase, sign, detail string) {
	clear := ""
	if p.drawn {
		clear = "\r\x1b[K"
	}
	p.drawn = false
	p.app.sayRaw("%s%s\n", clear, p.text(ph, sign, detail))
}

// end leaves the cursor on a line of its own.
func (p *drainProgress) end() {
	if p.drawn {
		p.app.sayRaw("\n")
		p.drawn = false
	}
}

// sayRaw is say without the line's end.
func (a *app) sayRaw(format string, args ...any) {
	if !a.global.quiet {
		fmt.Fprintf(a.err, format, args...)
	}
}
