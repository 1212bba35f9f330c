package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rhumb/internal/api"
	"rhumb/placement"
)

// lookNow are the flags of a look on demand.
type lookNow struct {
	on       bool
	req      api.LookNow
	patience time.Duration
}

func (n *lookNow) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&n.on, "now", false, "look at once, and wait for what is found")
	f.StringVar(&n.req.Check, "check", "", "with --now: this check only")
	f.StringVar(&n.req.Reason, "reason", "", "with --now: why, for the log of events")
	f.DurationVar(&n.patience, "wait-timeout", 20*time.Second, "with --now: end with 7 when vantages have not answered by then")
}

// lookPoll is how often the answers are asked for.
const lookPoll = 150 * time.Millisecond

// lookNow asks for looks, follows them, and ends by what they found.
func (a *app) lookNow(cmd *cobra.Command, names []string, n *lookNow) error {
	if len(names) == 1 {
		var err error
		if n.req.Site, n.req.Cluster, err = siteAndCluster(names[0]); err != nil {
			return err
		}
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	var r api.LookReport
	raw, err := c.post(cmd.Context(), "/checks/looks", n.req, &r)
	if err != nil {
		return err
	}
	p := &lookProgress{app: a, start: time.Now(), tty: isTerminal(a.err), told: make(map[string]bool)}
	ctx, cancel := context.WithTimeout(cmd.Context(), n.patience)
	defer cancel()
	for !r.Done {
		select {
		case <-ctx.Done():
		case <-time.After(lookPoll):
		}
		if ctx.Err() != nil {
			break
		}
		var next api.LookReport
		again, err := c.get(ctx, "/checks/looks/"+url.PathEscape(r.ID), &next)
		switch {
		case err == nil:
			raw, r = again, next
		case ctx.Err() == nil && codeOf(err) != exitNotFound: // the unit asked has yet to hear of it from the store
			return err
		}
		p.draw(&r)
	}
	p.end()
	if cmd.Context().Err() != nil {
		return &exitError{code: exitInterrupted, err: errors.New("interrupted"), quiet: true}
	}
	if err := a.show(result{raw: raw, names: lookNames(&r), text: func(w io.Writer, s style) { writeLooks(w, s, &r) }}); err != nil {
		return err
	}
	return lookVerdict(&r)
}

// lookVerdict is the exit code as the looks have it: what failed comes before what is
// not known yet.
func lookVerdict(r *api.LookReport) error {
	total := 0
	for _, answer := range r.Answers {
		total += answer.Total
	}
	switch {
	case r.Failed+r.Blind > 0:
		return &exitError{code: exitUnhealthy, err: fmt.Errorf("%d of %d looks failed, %d could not see", r.Failed, total, r.Blind), quiet: true}
	case !r.Done:
		return withCode(exitTimeout, fmt.Errorf("no answer yet from %s; the looks go on: rhumb checks", strings.Join(r.Awaited, ", ")))
	case total == 0:
		return withCode(exitNotFound, fmt.Errorf("nothing to look at: no check is configured for %s", r.Object()))
	}
	return nil
}

// lookProgress draws who has answered: on a terminal one line that is rewritten, else a
// line for each vantage when it is done.
type lookProgress struct {
	app   *app
	start time.Time
	tty   bool
	drawn bool
	told  map[string]bool
}

func (p *lookProgress) draw(r *api.LookReport) {
	back, open := 0, 0
	for i := range r.Answers {
		answer := &r.Answers[i]
		back, open = back+answer.Total, open+answer.Open
		if !p.tty && answer.Open == 0 && !p.told[answer.Vantage] {
			p.told[answer.Vantage] = true
			p.app.say("  %-12s %s  %.1f s", answer.Vantage, lookSum(answer), time.Since(p.start).Seconds())
		}
	}
	if p.tty {
		vantages := len(r.Answers)
		for _, name := range r.Awaited {
			if !hasAnswered(r, name) {
				vantages++
			}
		}
		p.app.sayRaw("\r\x1b[K  %d of %d looks, %d of %d vantages, %.1f s", back, back+open, vantages-len(r.Awaited), vantages, time.Since(p.start).Seconds())
		p.drawn = true
	}
}

func hasAnswered(r *api.LookReport, vantage string) bool {
	for i := range r.Answers {
		if r.Answers[i].Vantage == vantage {
			return true
		}
	}
	return false
}

// end clears the line.
func (p *lookProgress) end() {
	if p.drawn {
		p.app.sayRaw("\r\x1b[K")
	}
}

// lookSum is what a vantage found, in a few words.
func lookSum(a *placement.LookAnswer) string {
	text := fmt.Sprintf("%d looks", a.Total)
	if a.Failed > 0 {
		text += fmt.Sprintf(", %d failed", a.Failed)
	}
	if a.Blind > 0 {
		text += fmt.Sprintf(", %d could not see", a.Blind)
	}
	return text
}

func lookNames(r *api.LookReport) (out []string) {
	for _, a := range r.Answers {
		for i := range a.Looks {
			c := &a.Looks[i]
			out = append(out, c.Cluster.String()+" "+c.Address.String()+" "+c.Check)
		}
	}
	return out
}

func writeLooks(w io.Writer, s style, r *api.LookReport) {
	t := newTable(s, "FOUND", "STATE", "CLUSTER", "ADDRESS", "CHECK", "KIND", "RESULT", ">MS", "PHASES", ">AT", "VANTAGE", "")
	for _, a := range r.Answers {
		for i := range a.Looks {
			l := &a.Looks[i]
			c := api.Check{Vantage: a.Vantage, CheckStatus: l.CheckStatus}
			found := cell{l.Found.String(), map[placement.State]string{placement.Down: red, placement.Degraded: yellow, placement.Unknown: yellow, placement.Up: green}[l.Found]}
			kind := l.Kind
			if l.Evidence {
				kind += " (evidence)"
			}
			t.add(found, l.State.String(), l.Cluster, l.Address, l.Check, kind, l.Result, fmt.Sprintf("%.1f", l.TookMS), phases(&c), l.At.Format("15:04:05.0Z"), a.Vantage, lookNote(l))
		}
	}
	if r.Done || len(r.Answers) > 0 {
		t.write(w)
	}
	for i := range r.Answers {
		if a := &r.Answers[i]; len(a.Looks) < a.Total {
			fmt.Fprintf(w, "%s: %d more looks, all of them better than these\n", a.Vantage, a.Total-len(a.Looks))
		}
	}
}

// lookNote is why a look found what it found, and what that does to the state.
func lookNote(l *placement.FreshLook) string {
	var out []string
	if l.Cause != "" {
		out = append(out, l.Cause)
	}
	if l.Repeated {
		out = append(out, "looked at on demand a moment ago, not again")
	}
	if l.Needed > 0 {
		to := "to go down"
		if l.State == placement.Down {
			to = "to come back"
		}
		out = append(out, fmt.Sprintf("%d of %d %s", l.InRow, l.Needed, to))
	}
	return strings.Join(out, "; ")
}
