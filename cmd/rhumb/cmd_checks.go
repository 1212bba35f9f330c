package main

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rhumb/internal/api"
	"rhumb/placement"
)

func (a *app) checksCommand() *cobra.Command {
	var now lookNow
	cmd := &cobra.Command{Use: "checks [SITE[/CLUSTER]]", Short: "The last look of each check, failed ones first; with --now, a fresh look", Args: args(cobra.MaximumNArgs(1)), ValidArgsFunction: a.completeSites,
		Long: `The last look of each check, failed ones first. With --now every vantage of the
site, or of all sites, looks at once; SITE/CLUSTER and --check narrow that. Such a
look counts as any other, once. Ends with 0 when all passed, 6 when one did not,
7 when a vantage has not answered.`,
		Example: `  rhumb checks ams1/web --now --check cert --reason "new certificate"`,
		RunE: func(cmd *cobra.Command, names []string) error {
			if now.on {
				return a.lookNow(cmd, names, &now)
			}
			if now.req.Check != "" || now.req.Reason != "" || len(names) == 1 && strings.Contains(names[0], "/") {
				return withCode(exitUsage, errors.New("SITE/CLUSTER, --check and --reason go with --now"))
			}
			return listing(a, cmd, bySite("/checks", names), func(c *api.Check) string { return c.Cluster.String() + " " + c.Address.String() + " " + c.Check }, checkTable,
				"no role health reports a look; name checks in the fleet file")
		}}
	now.flags(cmd)
	return cmd
}

func (a *app) availabilityCommand() *cobra.Command {
	return &cobra.Command{Use: "availability [SITE]", Short: "Servers, sites and services: how much of the time each vantage saw them work", Args: args(cobra.MaximumNArgs(1)), ValidArgsFunction: a.completeSites,
		RunE: func(cmd *cobra.Command, names []string) error {
			return listing(a, cmd, bySite("/availability", names), func(f *api.Figure) string { return string(f.Figure) + " " + f.Name + " " + f.Vantage }, figureTable,
				"no role health has watched anything yet")
		}}
}

func bySite(path string, names []string) string {
	if len(names) == 0 {
		return path
	}
	return path + "?site=" + url.QueryEscape(names[0])
}

func checkTable(s style, items []api.Check) *table {
	t := newTable(s, "STATE", "CLUSTER", "ADDRESS", "CHECK", "KIND", "LAST", ">MS", "PHASES", ">BYTES", ">AGO", "VANTAGE", "")
	now := time.Now()
	for _, c := range items {
		state := cell{c.State.String(), map[placement.State]string{placement.Down: red, placement.Degraded: yellow}[c.State]}
		kind := c.Kind
		if c.Evidence {
			kind += " (evidence)"
		}
		address := ""
		if c.Address.IsValid() { // what clients met belongs to the cluster
			address = c.Address.String()
		}
		t.add(state, c.Cluster, address, c.Check, kind, c.Result, fmt.Sprintf("%.1f", c.TookMS), phases(&c), c.Bytes, since(c.At, now), c.Vantage, c.Cause)
	}
	return t
}

// phases says when the connection stood, TLS stood, and the first byte came, in
// milliseconds from the start.
func phases(c *api.Check) string {
	var out []string
	for _, p := range []struct {
		name string
		ms   float64
	}{{"connect", c.ConnectMS}, {"tls", c.HandshakeMS}, {"first", c.FirstMS}} {
		if p.ms > 0 {
			out = append(out, fmt.Sprintf("%s %.1f", p.name, p.ms))
		}
	}
	return strings.Join(out, " ")
}

func figureTable(s style, items []api.Figure) *table {
	t := newTable(s, "FIGURE", "NAME", "VANTAGE", ">AVAILABLE", ">WATCHED", ">FAILED", "")
	for _, f := range items {
		now := cell{}
		if f.Failing {
			now = cell{"failing", red}
		}
		t.add(string(f.Figure), f.Name, f.Vantage, fmt.Sprintf("%.4f %%", f.Available*100), seconds(f.Seconds), seconds(f.Failed), now)
	}
	return t
}

func seconds(v float64) string {
	return (time.Duration(v*1000) * time.Millisecond).Round(time.Second).String()
}
