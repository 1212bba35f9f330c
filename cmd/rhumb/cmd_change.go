package main

import (
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"rhumb/internal/api"
	"rhumb/placement"
)

// changeCommands set an operator's word.
func (a *app) changeCommands() []*cobra.Command {
	return []*cobra.Command{a.drainCommand(), a.undrainCommand(), a.forceCommand(), a.dialCommand(), a.freezeCommand(), a.thawCommand(), a.pinCommand()}
}

// change asks for one change and tells its outcome. again is the command line
// which an override would be added to.
func (a *app) change(cmd *cobra.Command, method, path string, req any, reason, what, look string) error {
	if err := needReason(cmd, reason); err != nil {
		return err
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	out, err := a.send(cmd, c, method, path, req, what, look)
	if err != nil {
		return err
	}
	return a.tell(out)
}

// outcome is what a change answered, with the document as it came.
type outcome struct {
	api.Outcome
	raw []byte
}

func (a *app) send(cmd *cobra.Command, c *client, method, path string, req any, what, look string) (*outcome, error) {
	var out outcome
	raw, err := c.do(cmd.Context(), method, path, req, &out.Outcome)
	if err != nil {
		return nil, explainRefusal(err, what, look, commandLine(cmd))
	}
	out.raw = raw
	return &out, nil
}

// commandLine is what was typed, quoted so that it can be typed again.
func commandLine(cmd *cobra.Command) string {
	words := strings.Fields(cmd.CommandPath())
	for _, w := range cmd.Flags().Args() {
		words = append(words, quote(w))
	}
	if f := cmd.Flags().Lookup("reason"); f != nil && f.Value.String() != "" {
		words = append(words, "--reason", quote(f.Value.String()))
	}
	return strings.Join(words, " ")
}

func quote(s string) string {
	if s != "" && !strings.ContainsAny(s, " \t\n'\"\\$`!*?[]{}()<>|&;#~") {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func needReason(cmd *cobra.Command, reason string) error {
	if f := cmd.Flags().Lookup("reason"); f == nil || strings.TrimSpace(reason) != "" {
		return nil
	}
	return withCode(exitUsage, fmt.Errorf("%s needs --reason TEXT; the next shift will read it", cmd.CommandPath()))
}

// tell prints an outcome: a sentence, the shift of load, what was overridden,
// and how to go back.
func (a *app) tell(o *outcome) error {
	return a.show(result{raw: o.raw, names: []string{o.Object}, text: func(w io.Writer, s style) {
		prefix := ""
		if o.DryRun {
			prefix = "dry run: "
		}
		fmt.Fprintf(w, "%s%s\n", prefix, oneLine(o.Text))
		for _, r := range o.Overridden {
			fmt.Fprintf(w, "  %s rule %s, object %s, have %s, limit %s\n", s.paint(yellow, "overridden:"), r.Rule, r.Object, r.Have, r.Limit)
		}
		if o.Forecast != nil {
			writeForecast(w, s, o.Forecast)
		}
		if o.Undo != "" && !o.DryRun {
			fmt.Fprintf(w, "  to take it back: %s\n", o.Undo)
		}
	}})
}

func sitePath(site, verb string) string { return "/sites/" + url.PathEscape(site) + "/" + verb }

// siteAndCluster splits SITE[/CLUSTER]. A cluster whose name is empty, as of an unset
// variable in a script, is not the whole site.
func siteAndCluster(text string) (site, cluster string, err error) {
	site, cluster, named := strings.Cut(text, "/")
	if site == "" || named && cluster == "" {
		return "", "", withCode(exitUsage, fmt.Errorf("%q: want SITE or SITE/CLUSTER, and an empty name matches nothing", text))
	}
	return site, cluster, nil
}

func (a *app) forceCommand() *cobra.Command {
	var req api.ForceRequest
	cmd := &cobra.Command{Use: "force SITE[/CLUSTER] up|down|auto", Short: "Set the operator's word beside the measured state",
		Args: args(cobra.ExactArgs(2)), ValidArgsFunction: a.completeSites,
		RunE: func(cmd *cobra.Command, given []string) error {
			site, cluster, err := siteAndCluster(given[0])
			if err != nil {
				return err
			}
			req.Cluster, req.State = cluster, given[1]
			reason := req.Reason
			switch req.State {
			case "auto":
				reason = "auto" // going back to what is measured explains itself
			case "up", "down":
			default:
				return withCode(exitUsage, fmt.Errorf("%q is none of up, down, auto", req.State))
			}
			return a.change(cmd, "POST", sitePath(site, "force"), req, reason, "force of "+given[0]+" "+req.State, "rhumb simulate --down "+site)
		}}
	cmd.Flags().StringVar(&req.Reason, "reason", "", "why; the next shift will read it (required)")
	overrideFlags(cmd, &req.Override, &req.DryRun)
	return cmd
}

func overrideFlags(cmd *cobra.Command, override *[]string, dryRun *bool) {
	cmd.Flags().StringSliceVar(override, "override", nil, "set aside this rule by its name; see rhumb help rules")
	cmd.Flags().BoolVar(dryRun, "dry-run", false, "say what would happen, change nothing")
}

func (a *app) dialCommand() *cobra.Command {
	var req api.DialRequest
	cmd := &cobra.Command{Use: "dial SITE[/CLUSTER] PERCENT", Short: "Limit a site's or a cluster's share of its clients; 100 ends the limit",
		Args: args(cobra.ExactArgs(2)), ValidArgsFunction: a.completeSites,
		RunE: func(cmd *cobra.Command, given []string) error {
			p, err := parsePercent(given[1])
			if err != nil {
				return withCode(exitUsage, err)
			}
			site, cluster, err := siteAndCluster(given[0])
			if err != nil {
				return err
			}
			req.Percent, req.Cluster = p, cluster
			return a.change(cmd, "POST", sitePath(site, "dial"), req, req.Reason, "dial of "+given[0], fmt.Sprintf("rhumb simulate --dial %s=%g", given[0], p))
		}}
	cmd.Flags().StringVar(&req.Reason, "reason", "", "why; the next shift will read it (required)")
	overrideFlags(cmd, &req.Override, &req.DryRun)
	return cmd
}

func parsePercent(text string) (float64, error) {
	p, err := strconv.ParseFloat(strings.TrimSuffix(text, "%"), 64)
	if err != nil || !(p >= 0 && p <= 100) { // not a number is neither
		return 0, fmt.Errorf("%q is no percentage within 0 and 100", text)
	}
	return p, nil
}

func (a *app) freezeCommand() *cobra.Command {
	var req api.ReasonRequest
	cmd := &cobra.Command{Use: "freeze", Short: "Decide nothing by itself any more; manual verbs still work", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.change(cmd, "POST", "/freeze", req, req.Reason, "freeze", "")
		}}
	cmd.Flags().StringVar(&req.Reason, "reason", "", "why; the next shift will read it (required)")
	return cmd
}

func (a *app) thawCommand() *cobra.Command {
	return &cobra.Command{Use: "thaw", Short: "Decide again", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.change(cmd, "POST", "/thaw", nil, "", "thaw", "")
		}}
}

func (a *app) pinCommand() *cobra.Command {
	var release bool
	var req api.PinRequest
	cmd := &cobra.Command{Use: "pin SITE REVISION | pin SITE --release", Short: "Hold a site at a plan; its health goes on",
		Args: args(cobra.RangeArgs(1, 2)), ValidArgsFunction: a.completeSites,
		RunE: func(cmd *cobra.Command, given []string) error {
			reason := req.Reason
			switch {
			case release && len(given) == 1:
				req.Revision, reason = 0, "release"
			case !release && len(given) == 2:
				name, err := placement.ParseName(given[1] + ".0")
				if err != nil || name.Plan == 0 {
					return withCode(exitUsage, fmt.Errorf("%q is no plan revision, as 1042", given[1]))
				}
				req.Revision = name.Plan
			default:
				return withCode(exitUsage, fmt.Errorf("name either a revision or --release; usage: %s", cmd.UseLine()))
			}
			return a.change(cmd, "PUT", "/pins/"+url.PathEscape(given[0]), req, reason, "pin of "+given[0], "")
		}}
	cmd.Flags().StringVar(&req.Reason, "reason", "", "why; the next shift will read it (required)")
	cmd.Flags().BoolVar(&release, "release", false, "let the site follow the newest plan again")
	return cmd
}
