package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rhumb/internal/api"
)

func (a *app) statusCommand() *cobra.Command {
	var watch, exit bool
	cmd := &cobra.Command{
		Use: "status", Short: "One screen: what runs, what is loud, how fresh it is",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if watch {
				return a.watchStatus(cmd.Context(), c)
			}
			st, err := a.status(cmd.Context(), c)
			if err != nil {
				return err
			}
			if exit && !st.Healthy {
				return &exitError{code: exitUnhealthy, err: errors.New("unhealthy"), quiet: true}
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "draw it anew each second until interrupted")
	cmd.Flags().BoolVar(&exit, "exit-status", false, "end with 6 when something is unhealthy")
	return cmd
}

// status asks and prints once.
func (a *app) status(ctx context.Context, c *client) (*api.Status, error) {
	var st api.Status
	raw, err := c.get(ctx, "/status", &st)
	if err != nil {
		return nil, err
	}
	var sites api.List[api.Site]
	if a.global.output == "table" || a.global.output == "wide" {
		if _, err := c.get(ctx, "/sites", &sites); err != nil {
			return nil, err
		}
	}
	return &st, a.show(result{raw: raw, names: []string{st.Snapshot.Name}, text: func(w io.Writer, s style) {
		writeStatus(w, s, &st)
		fmt.Fprintln(w)
		writeSites(w, s, sites.Items, st.Now)
	}})
}

func (a *app) watchStatus(ctx context.Context, c *client) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if isTerminal(a.out) && (a.global.output == "table" || a.global.output == "wide") {
			fmt.Fprint(a.out, "\x1b[H\x1b[2J")
		}
		if _, err := a.status(ctx, c); err != nil && ctx.Err() == nil {
			if codeOf(err) != exitUnreachable && codeOf(err) != exitTimeout {
				return err
			}
			a.say("reconnecting: %v", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// writeStatus draws what is loud first, then what is.
func writeStatus(w io.Writer, s style, st *api.Status) {
	if st.Lab {
		fmt.Fprintln(w, s.paint(blue, "lab: this is a small internet on one machine; everybody on it may operate"))
	}
	for _, n := range st.Notices {
		color := map[api.Level]string{api.Page: red, api.Warn: yellow}[n.Level]
		unit := ""
		if n.Unit != "" {
			unit = "  (" + n.Unit + ")"
		}
		fmt.Fprintf(w, "%s %s%s\n", s.paint(color, noticeShape(s, n.Level)+" "+n.Kind+":"), oneLine(n.Text), unit)
	}
	var counts []string
	for _, word := range []string{api.StatusDown, api.StatusUnknown, api.StatusDegraded, api.StatusDraining, api.StatusUp} {
		if n := st.Sites[word]; n > 0 {
			c := s.status(word)
			counts = append(counts, fmt.Sprintf("%d %s", n, s.paint(c.color, c.text)))
		}
	}
	fmt.Fprintf(w, "snapshot   %s  plan made %s ago by %s, configuration %d\n", orNone(st.Snapshot.Name), orNone(since(st.Snapshot.Made, st.Now)), orNone(st.Snapshot.By), st.Snapshot.Inventory)
	fmt.Fprintf(w, "store      %s  leader %s, %d units\n", storeText(s, st), orNone(st.Leader), st.Units)
	fmt.Fprintf(w, "mode       %s%s\n", st.Mode, roleModes(st))
	fmt.Fprintf(w, "sites      %s\n", orNone(strings.Join(counts, "  ")))
	fmt.Fprintf(w, "serving    %d zones, %d services, %d/%d BGP neighbours, %s sessions (%d moving, %d failed)\n", st.Zones, st.Services,
		st.Peers.Established, st.Peers.Configured, count(st.Edge.Own+st.Edge.Foreign), st.Edge.Moving, st.Edge.Failed)
	for _, h := range st.Slots {
		fmt.Fprintf(w, "slot       %d of %s is held by %s: %s\n", h.Number, h.Prefix, h.Site, oneLine(h.Cause))
	}
	for i := range st.Twins {
		fmt.Fprintf(w, "twin       %s: %s\n", st.Twins[i].Node, oneLine(st.Twins[i].String()))
	}
	fmt.Fprintf(w, "answered by %s/%s %s\n", st.Node, st.Unit, st.Version)
}

func noticeShape(s style, l api.Level) string {
	switch l {
	case api.Page:
		return s.pick("✖", "!!")
	case api.Warn:
		return s.pick("▲", "!")
	}
	return s.pick("·", "-")
}

func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}

func storeText(s style, st *api.Status) string {
	if !st.Store.Connected {
		return s.paint(yellow, "does not answer; the last snapshot goes on serving;")
	}
	return fmt.Sprintf("answers, heard %s ago%s;", span(time.Duration(st.Store.Age*float64(time.Second))), encryptedText(s, &st.Store))
}

// encryptedText says whether the store's traffic is encrypted, where units tell.
func encryptedText(s style, st *api.StoreStatus) string {
	switch {
	case st.InClear > 0:
		return ", " + s.paint(yellow, fmt.Sprintf("in clear at %d of %d units", st.InClear, st.InClear+st.Encrypted))
	case st.Encrypted > 0:
		return ", encrypted"
	}
	return ""
}

func roleModes(st *api.Status) string {
	var out []string
	for _, role := range slices.Sorted(maps.Keys(st.Modes)) {
		out = append(out, role+" "+string(st.Modes[role]))
	}
	if len(out) == 0 {
		return ""
	}
	return " (" + strings.Join(out, ", ") + ")"
}
