package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"rhumb/internal/netlab"
	"rhumb/internal/timeline"
)

// labReplay plays a known outage in the running lab. The lab plays; this side tells
// it and draws.
func labReplay(a *app, dir *labDir) *cobra.Command {
	var o replayOptions
	cmd := &cobra.Command{
		Use: "replay [NAME]", Short: "Play a known outage; without a name, list them",
		Long: `Play a known outage in the running lab, with the real units, routers and clients, and
tell step by step what is done and seen. It ends with 0 when that is what should
be seen: with the guard the prefixes stay announced, with --naive they are gone.`,
		Example: "  rhumb lab replay facebook-2021 --naive\n  rhumb lab replay facebook-2021",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			if len(given) == 0 {
				return a.listTales()
			}
			t := findTale(given[0])
			if t == nil {
				return withCode(exitUsage, fmt.Errorf("lab: there is no replay %q; there are %s", given[0], taleNames()))
			}
			return a.replay(cmd.Context(), *dir, t, &o)
		},
	}
	cmd.Flags().BoolVar(&o.naive, "naive", false, "without the guard: routes follow each site's own checks and configuration at once")
	cmd.Flags().DurationVar(&o.watch, "watch", 0, "watch at least so long after the blow; 0: as the replay says")
	return cmd
}

// replayOptions are how a tale is played.
type replayOptions struct {
	naive bool
	watch time.Duration
}

// args are the options for the lab's side.
func (o *replayOptions) args(name string) map[string]string {
	out := map[string]string{"name": name}
	if o.naive {
		out["naive"] = "yes"
	}
	if o.watch > 0 {
		out["watch"] = o.watch.String()
	}
	return out
}

// listTales prints what there is to play.
func (a *app) listTales() error {
	w := tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0)
	for _, t := range tales() {
		fmt.Fprintf(w, "%s\t%s\n\t%s\n", t.name, t.title, t.url)
	}
	fmt.Fprintln(w, "\nplay one: rhumb lab replay NAME [--naive]")
	return w.Flush()
}

// replay asks the lab to play a tale, prints what comes, and draws it at the end,
// whatever the end is.
func (a *app) replay(ctx context.Context, dir labDir, t *tale, o *replayOptions) error {
	p := &player{out: a.out, style: a.style(), lanes: map[string]*timeline.Lane{}, told: map[string]time.Time{}, now: map[string]string{}, json: a.global.output == "json" || a.global.output == "ndjson"}
	p.head(t, o.naive)
	p.began = time.Now()
	err := ask(ctx, dir, netlab.Request{Verb: "replay", Args: o.args(t.name)}, p.line)
	p.ended = time.Now()
	if ctx.Err() != nil {
		err = withCode(exitInterrupted, errors.New("lab: interrupted; the lab undoes the replay by itself"))
	}
	if len(p.order) == 0 {
		return err
	}
	return errors.Join(err, p.draw(dir, t, o.naive))
}

// player prints a replay as it comes and keeps it for the drawing.
type player struct {
	out    io.Writer
	style  style
	json   bool
	began  time.Time
	ended  time.Time
	order  []string // lanes in order of appearance
	lanes  map[string]*timeline.Lane
	events []timeline.Mark
	told   map[string]time.Time // lane and state: when it was last told
	now    map[string]string    // lane: its state
}

// mode is how the second line of a replay calls it.
func mode(naive bool) string {
	if naive {
		return "naive: routes follow each site's own checks and configuration, at once, and nobody is asked"
	}
	return "guarded: as rhumb serves"
}

func (p *player) head(t *tale, naive bool) {
	if p.json {
		return
	}
	fmt.Fprintf(p.out, "%s\n  %s\n  %s\n", t.title, t.url, mode(naive))
	for _, line := range t.then {
		fmt.Fprintf(p.out, "   then   %s\n", line)
	}
}

// line takes one line from the lab.
func (p *player) line(raw json.RawMessage) error {
	if p.json {
		fmt.Fprintf(p.out, "%s\n", raw)
	}
	var l replayLine
	if err := json.Unmarshal(raw, &l); err != nil {
		return err
	}
	if l.Lane == "" {
		if l.Kind != "here" {
			p.events = append(p.events, timeline.Mark{At: l.At, Text: l.Text})
		}
		p.print(&l)
		return nil
	}
	lane := p.lanes[l.Lane]
	if lane == nil {
		lane = &timeline.Lane{Name: l.Lane}
		p.lanes[l.Lane], p.order = lane, append(p.order, l.Lane)
	}
	lane.Set(l.At, l.Text)
	if p.worthTelling(&l) {
		p.print(&l)
	}
	return nil
}

// toldAgain is when a state of a lane is news again: clients whose packets are
// spread over equal routes change their site with every question.
const toldAgain = 10 * time.Second

// worthTelling leaves out what is drawn only: what is seen aside, and states to
// which a lane has come back and forth.
func (p *player) worthTelling(l *replayLine) bool {
	key := l.Lane + "\x00" + l.Text
	last, before := p.told[key]
	recovered := isBad(p.now[l.Lane])
	p.now[l.Lane] = l.Text
	if l.Aside || before && l.At.Sub(last) < toldAgain && !isBad(l.Text) && !recovered {
		return false
	}
	p.told[key] = l.At
	return true
}

// print writes a line for a reader: when, what kind, what.
func (p *player) print(l *replayLine) {
	if p.json {
		return
	}
	text, kind := l.Text, or(l.Kind, "see")
	if l.Lane != "" {
		text = fmt.Sprintf("%-30s %s", l.Lane, l.Text)
	}
	color := map[string]string{"do": blue, "mark": yellow, "end": green}[kind]
	if strings.HasPrefix(text, "NOT") || l.Lane != "" && isBad(l.Text) {
		color = red
	}
	if kind == "here" {
		fmt.Fprintf(p.out, "   here   %s\n", text)
		return
	}
	fmt.Fprintf(p.out, "%6.1f s  %s  %s\n", l.At.Sub(p.began).Seconds(), p.style.paint(color, fmt.Sprintf("%-4s", kind)), text)
}

// badStates are what a reader should see first.
func badStates() []string { return []string{noRoute, nowhere, noAnswer, "0 up"} }

func isBad(state string) bool { return slices.Contains(badStates(), state) }

// laneOrder puts what sites say before what routers do of it, and that before what
// clients get of it.
func laneOrder(lanes []string) []string {
	rank := func(lane string) int {
		for i, word := range []string{"announced at", "fib ", "clients "} {
			if strings.Contains(lane, word) {
				return i
			}
		}
		return 9
	}
	out := slices.Clone(lanes)
	slices.SortFunc(out, func(a, b string) int { return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a, b)) })
	return out
}

// draw prints the timeline, and writes it as a picture into the lab's directory.
func (p *player) draw(dir labDir, t *tale, naive bool) error {
	name := t.name
	if naive {
		name += "-naive"
	}
	c := &timeline.Chart{Title: t.title, Notes: []string{t.url, mode(naive)}, Began: p.began, Ended: p.ended, Events: p.events, Bad: badStates()}
	for _, lane := range laneOrder(p.order) {
		c.Lanes = append(c.Lanes, *p.lanes[lane])
	}
	file := dir.path("replays", name+".svg")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(file, c.SVG(), 0o644); err != nil {
		return err
	}
	if p.json {
		return nil
	}
	_, err := fmt.Fprintf(p.out, "\n%s\n  a star: announced, but asking to be avoided (RFC 8326)\n  drawn in %s\n", c.Rows(), file)
	return err
}
