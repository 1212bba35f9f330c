package main

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"rhumb/internal/api"
)

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "What was applied: look at it, compare it, go back to it", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(a.configHistoryCommand(), a.configGetCommand(), a.configDiffCommand(), a.configRollbackCommand())
	return cmd
}

func (a *app) configHistoryCommand() *cobra.Command {
	return &cobra.Command{Use: "history", Short: "The kept configurations, newest first", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return listing(a, cmd, "/config/history", func(v *api.ConfigVersion) string { return strconv.FormatInt(v.Revision, 10) }, historyTable,
				"nothing was applied yet; say: rhumb apply FILE")
		}}
}

func historyTable(s style, items []api.ConfigVersion) *table {
	t := newTable(s, ">REVISION", "", "APPLIED", "WHO", "NOTE")
	for _, v := range items {
		t.add(v.Revision, cell{yes(v.Current, "in force"), green}, v.At.UTC().Format(time.RFC3339), v.Who, v.Note)
	}
	return t
}

func (a *app) configGetCommand() *cobra.Command {
	return &cobra.Command{Use: "get [REV]", Short: "A configuration as it is stored: that of a revision, else the one in force", Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			rev, err := revisions(given)
			if err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			raw, err := c.get(cmd.Context(), "/config/"+strconv.FormatInt(rev[0], 10), nil)
			if err != nil {
				return err
			}
			if a.global.output == "table" || a.global.output == "wide" {
				a.global.output = "json" // it has no other form
			}
			return a.show(result{raw: raw, names: []string{strconv.FormatInt(rev[0], 10)}})
		}}
}

func (a *app) configDiffCommand() *cobra.Command {
	return &cobra.Command{Use: "diff REV [REV]", Short: "What differs between two configurations; without a second one: between REV and the one in force", Args: args(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, given []string) error {
			rev, err := revisions(given)
			if err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			q := url.Values{"from": {strconv.FormatInt(rev[0], 10)}, "to": {strconv.FormatInt(rev[1], 10)}}
			var d api.ConfigDiff
			raw, err := c.get(cmd.Context(), "/config/diff?"+q.Encode(), &d)
			if err != nil {
				return err
			}
			res := api.ApplyResult{Changes: d.Changes, Answers: -1}
			return a.show(result{raw: raw, names: changeNames(&res), text: func(w io.Writer, s style) { writeChanges(w, s, &res) }})
		}}
}

// revisions reads up to two revisions; one not given is 0, what is in force.
func revisions(given []string) (out [2]int64, err error) {
	for i, text := range given {
		if out[i], err = strconv.ParseInt(text, 10, 64); err != nil || out[i] <= 0 {
			return out, withCode(exitUsage, fmt.Errorf("%q is no revision; see: rhumb config history", text))
		}
	}
	return out, nil
}

func (a *app) configRollbackCommand() *cobra.Command {
	var f applyFlags
	var req api.RollbackRequest
	cmd := &cobra.Command{
		Use:   "rollback REV",
		Short: "Apply a kept configuration anew",
		Long: `Apply a kept configuration anew. It is judged by the same rules as any apply, and becomes
a new revision; intents (drains, forces, pins) stay as they are.`,
		Example: "  rhumb config rollback 1042 --reason 'CHG-2231 broke tyo1'",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			rev, err := revisions(given)
			if err != nil {
				return err
			}
			if req.Reason == "" {
				return withCode(exitUsage, errors.New("rollback needs --reason"))
			}
			req.Revision, req.Override = rev[0], f.override
			return a.rollback(cmd, &req, &f)
		},
	}
	cmd.Flags().BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	cmd.Flags().StringVar(&req.Reason, "reason", "", "why; it is what the next shift will read")
	overrideFlags(cmd, &f.override, &f.dryRun)
	return cmd
}

// rollback looks, asks, and acts upon what it saw, as apply does.
func (a *app) rollback(cmd *cobra.Command, req *api.RollbackRequest, f *applyFlags) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	if req.Expect, err = liveRevision(ctx, c); err != nil {
		return err
	}
	refused := func(err error) error {
		return explainRefusal(err, "rollback", fmt.Sprintf("rhumb config diff %d", req.Revision), commandLine(cmd))
	}
	var res api.ApplyResult
	req.DryRun = true
	raw, err := c.post(ctx, "/config/rollback", req, &res)
	if err != nil {
		return refused(err)
	}
	if f.dryRun || len(res.Changes) == 0 {
		return a.showApply(raw, &res)
	}
	if !f.yes {
		writeChanges(a.err, a.style(), &res)
		if err := a.confirm("go back to this?"); err != nil {
			return err
		}
	}
	req.DryRun, res = false, api.ApplyResult{}
	if raw, err = c.post(ctx, "/config/rollback", req, &res); err != nil {
		return refused(err)
	}
	return a.showApply(raw, &res)
}
