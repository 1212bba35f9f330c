package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"rhumb/internal/api"
)

func (a *app) simulateCommand() *cobra.Command {
	var req api.SimulateRequest
	var growth string
	var capacity, dials []string
	cmd := &cobra.Command{
		Use:     "simulate --down SITE | --drain SITE | --dial SITE[/CLUSTER]=PERCENT",
		Short:   "Load per site before and after a loss, a drain, a dial or growth; nothing is changed",
		Example: "  rhumb simulate --down ams1\n  rhumb simulate --drain ams1 --growth 20% --capacity nyc1=30000",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if req.Growth, err = parseGrowth(growth); err != nil {
				return withCode(exitUsage, err)
			}
			if req.Capacity, err = parseCapacity(capacity); err != nil {
				return withCode(exitUsage, err)
			}
			if req.Dial, err = parseDials(dials); err != nil {
				return withCode(exitUsage, err)
			}
			// Without a question about one site it is about each.
			req.Alone = req.Alone || len(req.Down)+len(req.Drain)+len(req.Dial) == 0
			c, err := a.connect()
			if err != nil {
				return err
			}
			var f api.Forecast
			raw, err := c.post(cmd.Context(), "/simulate", req, &f)
			if err != nil {
				return err
			}
			if err := a.show(result{raw: raw, names: overloaded(&f), text: func(w io.Writer, s style) { writeForecast(w, s, &f) }}); err != nil {
				return err
			}
			if over := overloaded(&f); len(over) > 0 {
				return &exitError{code: exitRefused, quiet: true, err: errors.New("overloaded: " + strings.Join(over, ", "))}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&req.Down, "down", nil, "sites which fail")
	f.StringSliceVar(&req.Drain, "drain", nil, "sites which are drained")
	f.StringSliceVar(&dials, "dial", nil, "sites or clusters which are dialled, SITE[/CLUSTER]=PERCENT")
	f.StringVar(&growth, "growth", "", "more demand everywhere, as 20%")
	f.StringSliceVar(&capacity, "capacity", nil, "another capacity, SITE=QPS")
	f.BoolVar(&req.Alone, "alone", false, "the loss of each single site as well")
	return cmd
}

func parseGrowth(text string) (float64, error) {
	if text == "" {
		return 0, nil
	}
	p, err := strconv.ParseFloat(strings.TrimSuffix(text, "%"), 64)
	if err != nil || p <= -100 {
		return 0, fmt.Errorf("--growth %q is no percentage, as 20%%", text)
	}
	return 1 + p/100, nil
}

func parseCapacity(list []string) (map[string]int64, error) {
	out := make(map[string]int64)
	for _, item := range list {
		site, text, ok := strings.Cut(item, "=")
		qps, err := strconv.ParseInt(text, 10, 64)
		if !ok || err != nil || qps < 0 {
			return nil, fmt.Errorf("--capacity %q is not SITE=QPS", item)
		}
		out[site] = qps
	}
	return out, nil
}

func parseDials(list []string) (map[string]float64, error) {
	out := make(map[string]float64)
	for _, item := range list {
		object, text, ok := strings.Cut(item, "=")
		p, err := parsePercent(text)
		if !ok || err != nil {
			return nil, fmt.Errorf("--dial %q is not SITE=PERCENT or SITE/CLUSTER=PERCENT", item)
		}
		out[object] = p
	}
	return out, nil
}

// overloaded names the sites which would be asked for more than they can.
func overloaded(f *api.Forecast) []string {
	var out []string
	for i := range f.Sites {
		if f.Sites[i].Over() {
			out = append(out, f.Sites[i].Site)
		}
	}
	return out
}

// writeForecast draws the load before and after.
func writeForecast(w io.Writer, s style, f *api.Forecast) {
	t := newTable(s, "SITE", ">BEFORE", ">AFTER", ">CAPACITY", "LOAD", "")
	for i := range f.Sites {
		site := &f.Sites[i]
		load, note := "", cell{}
		if site.Capacity > 0 {
			before, after := float64(site.Before)/float64(site.Capacity), float64(site.After)/float64(site.Capacity)
			load = fmt.Sprintf("%s %3.0f -> %3.0f %%", s.bar(after, 14), before*100, after*100)
		}
		if site.Over() {
			note = cell{"OVER", red}
		}
		t.add(site.Site, count(site.Before), count(site.After), limitText(site.Capacity), load, note)
	}
	t.write(w)
	fmt.Fprintf(w, "moved %s of the demand, %s had to, %s finds no room; RTT p50 %.1f -> %.1f ms, p95 %.1f -> %.1f ms\n",
		percent(f.Moved), percent(f.Forced), percent(f.Unserved), f.RTT50[0], f.RTT50[1], f.RTT95[0], f.RTT95[1])
	fmt.Fprintf(w, "DNS-steered: computed; anycast: %s\n", orNone(f.Anycast))
	if f.Refusal != nil {
		fmt.Fprintf(w, "%s rule %s, object %s, have %s, limit %s\n", s.paint(yellow, "would be refused:"), f.Refusal.Rule, f.Refusal.Object, f.Refusal.Have, f.Refusal.Limit)
	}
	if len(f.Alone) == 0 {
		return
	}
	fmt.Fprintln(w, "\nthe loss of each single site, worst first:")
	t = newTable(s, "LOST", "FULLEST", "LOAD", ">NO ROOM")
	for _, l := range f.Alone {
		t.add(l.Site, l.Fullest, s.bar(l.Load, 14)+fmt.Sprintf(" %3.0f %%", l.Load*100), percent(l.Unserved))
	}
	t.write(w)
}

func limitText(capacity int64) string {
	if capacity == 0 {
		return "no limit"
	}
	return count(capacity)
}
