package main

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rhumb/internal/api"
)

// prefixesCommand lists anycast prefixes; its verbs take one off the world and back.
func (a *app) prefixesCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "prefixes", Short: "Anycast prefixes: who announces them, and which go for good", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return listing(a, cmd, "/prefixes", func(p *api.Prefix) string { return p.Prefix.String() }, prefixTable, "no anycast prefix is configured")
		}}
	cmd.AddCommand(a.retireCommand(), a.restoreCommand())
	return cmd
}

func (a *app) retireCommand() *cobra.Command {
	var req api.RetireRequest
	cmd := &cobra.Command{Use: "retire PREFIX", Short: "Withdraw a prefix for good, one site after the other", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) (err error) {
			if req.Prefix, err = netip.ParsePrefix(given[0]); err != nil {
				return withCode(exitUsage, fmt.Errorf("%q is no prefix, as 192.0.2.0/24", given[0]))
			}
			return a.change(cmd, "POST", "/prefixes/retire", req, req.Reason, "retirement of "+given[0], "rhumb prefixes")
		}}
	cmd.Flags().StringVar(&req.Reason, "reason", "", "why; the next shift will read it (required)")
	overrideFlags(cmd, &req.Override, &req.DryRun)
	return cmd
}

func (a *app) restoreCommand() *cobra.Command {
	var req api.Restore
	cmd := &cobra.Command{Use: "restore PREFIX", Short: "Take a retirement back: the sites announce the prefix again", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) (err error) {
			if req.Prefix, err = netip.ParsePrefix(given[0]); err != nil {
				return withCode(exitUsage, fmt.Errorf("%q is no prefix, as 192.0.2.0/24", given[0]))
			}
			return a.change(cmd, "POST", "/prefixes/restore", req, req.Reason, "return of "+given[0], "rhumb prefixes")
		}}
	cmd.Flags().StringVar(&req.Reason, "reason", "", "why; the next shift will read it (required)")
	return cmd
}

func prefixTable(s style, items []api.Prefix) *table {
	t := newTable(s, "PREFIX", "STATE", "ANNOUNCED BY", "OF", "RETIRED BY", ">FOR", "REASON", "STILL ANSWERED")
	now := time.Now()
	for i := range items {
		p := &items[i]
		state := plain(string(p.State))
		if p.State != api.PrefixAnnounced {
			state.color = yellow
		}
		who, age, why := "", "", ""
		if p.Retired != nil {
			who, age, why = p.Retired.Who, since(p.Retired.Since, now), p.Retired.Reason
		}
		t.add(p.Prefix, state, strings.Join(p.Announcing, " "), strings.Join(p.Sites, " "), who, age, why, answered(p))
	}
	return t
}

// answered are the names which still lead clients into a prefix that goes.
func answered(p *api.Prefix) cell {
	if p.Retired == nil {
		return plain("")
	}
	return cell{strings.Join(p.Answered, " "), yellow}
}
