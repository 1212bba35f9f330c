package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rhumb/internal/api"
	"rhumb/placement"
)

// viewCommands list things and change nothing.
func (a *app) viewCommands() []*cobra.Command {
	return []*cobra.Command{a.statusCommand(), a.sitesCommand(), a.nodesCommand(), a.peersCommand(),
		a.zonesCommand(), a.sessionsCommand(), a.slotsCommand(), a.prefixesCommand(), a.demandCommand(), a.checksCommand(), a.availabilityCommand()}
}

func (a *app) sitesCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "sites [NAME]",
		Short: "DNS, routes and sessions of each site in one row, worst first",
		Args:  args(cobra.MaximumNArgs(1)), ValidArgsFunction: a.completeSites,
		RunE: func(cmd *cobra.Command, names []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if len(names) == 1 {
				return a.showSite(cmd, c, names[0])
			}
			var list api.List[api.Site]
			raw, err := c.get(cmd.Context(), "/sites", &list)
			if err != nil {
				return err
			}
			return a.show(result{raw: raw, names: siteNames(list.Items), text: func(w io.Writer, s style) {
				writeSites(w, s, list.Items, time.Now())
			}})
		},
	}
}

func siteNames(rows []api.Site) []string {
	out := make([]string, 0, len(rows))
	for _, r := range rows {
		out = append(out, r.Name)
	}
	return out
}

// writeSites draws the one table that the whole product is about.
func writeSites(w io.Writer, s style, rows []api.Site, now time.Time) {
	if len(rows) == 0 {
		fmt.Fprintln(w, "no sites yet; describe them in a fleet file and say: rhumb apply FILE")
		return
	}
	heads := []string{"STATUS", "SITE", "CITY", ">SHARE", ">ANSWERS/s", "LOAD", ">SESSIONS", ">BGP", "ROUTES", ">SINCE", ""}
	if s.wide {
		heads = append(heads[:10], ">QPS", ">CAPACITY", ">FOREIGN", ">FORWARDED", ">MOVING", ">MOVED OUT", ">FAILED", "NODES", "")
	}
	t := newTable(s, heads...)
	for _, r := range rows {
		cells := []any{s.status(r.Status), r.Name, r.City, percent(r.DNS.Share), count(r.DNS.Answers), loadCell(s, r.Load),
			asTold(sessionsCell(r), r.Silent), asTold(fmt.Sprintf("%d/%d", r.BGP.Established, r.BGP.Configured), r.Silent),
			asTold(routesCell(r.Routes), r.Silent), since(r.Since, now)}
		if s.wide {
			cells = append(cells, count(r.Load.QPS), count(r.Load.Capacity), count(r.Edge.Foreign), count(r.Edge.Forwarded),
				count(r.Edge.Moving), count(r.Edge.MovedOut), count(r.Edge.Failed), strings.Join(r.Nodes, ","))
		}
		t.add(append(cells, r.Reason)...)
	}
	t.write(w)
}

func loadCell(s style, l api.SiteLoad) string {
	if l.Use == nil {
		return ""
	}
	return s.bar(*l.Use, 6) + fmt.Sprintf(" %3.0f %%", *l.Use*100)
}

func sessionsCell(r api.Site) string {
	out := count(r.Sessions)
	if r.Edge.Moving > 0 {
		out += fmt.Sprintf(" (%d moving)", r.Edge.Moving)
	}
	return out
}

// asTold marks what a site told last before it fell silent.
func asTold(text string, silent bool) string {
	if silent && text != "" {
		return text + "?"
	}
	return text
}

// routesCell names the steps of a site's prefixes: one word when all agree.
func routesCell(routes []api.Route) string {
	counts := make(map[placement.Step]int)
	for _, r := range routes {
		if r.Reported {
			counts[r.Announced]++
		}
	}
	var out []string
	for step := placement.Announce; step <= placement.Withdrawn; step++ {
		switch n := counts[step]; {
		case n == 0:
		case n == len(routes):
			return step.String()
		default:
			out = append(out, fmt.Sprintf("%d %s", n, step))
		}
	}
	return strings.Join(out, ", ")
}

func (a *app) showSite(cmd *cobra.Command, c *client, name string) error {
	var site api.Site
	raw, err := c.get(cmd.Context(), "/sites/"+url.PathEscape(name), &site)
	if err != nil {
		return err
	}
	return a.show(result{raw: raw, names: []string{site.Name}, text: func(w io.Writer, s style) {
		writeSite(w, s, &site, time.Now())
	}})
}

// writeSite draws everything about one site.
func writeSite(w io.Writer, s style, r *api.Site, now time.Time) {
	word := s.status(r.Status)
	fmt.Fprintf(w, "%s  %s  %s", r.Name, s.paint(word.color, word.text), strings.TrimSpace(r.City+" "+r.Region))
	if age := since(r.Since, now); age != "" {
		fmt.Fprintf(w, "  for %s", age)
	}
	if r.Reason != "" {
		fmt.Fprintf(w, "  %s", oneLine(r.Reason))
	}
	if r.Silent {
		fmt.Fprint(w, "\n  silent    what follows of sessions and routes is its last word")
	}
	fmt.Fprintf(w, "\n  dns       %s of the answers, %s/s measured\n", percent(r.DNS.Share), count(r.DNS.Answers))
	if r.Phase != "" {
		fmt.Fprintf(w, "  drain     phase %s\n", r.Phase)
	}
	fmt.Fprintf(w, "  sessions  %d own, %d foreign, %d forwarded, %d moving; moved %d out, %d in, %d failed\n",
		r.Edge.Own, r.Edge.Foreign, r.Edge.Forwarded, r.Edge.Moving, r.Edge.MovedOut, r.Edge.MovedIn, r.Edge.Failed)
	writeRelays(w, r, now)
	writePrepared(w, r, now)
	writeReserve(w, r.Edge.Reserves)
	writeListeners(w, s, r.Edge.Listeners, now)
	writeHandoffs(w, r.Edge.Handoffs)
	fmt.Fprintf(w, "  bgp       %d of %d neighbours established\n", r.BGP.Established, r.BGP.Configured)
	t := newTable(s, "PREFIX", "ANNOUNCED", "WANT", "MODE", ">MED", "ANCHOR", "SLOT", ">SINCE", "")
	t.indent = "  "
	for _, route := range r.Routes {
		t.add(route.Prefix, announced(route), route.Want, string(route.Mode), med(route.MED), yes(route.Anchor, "anchor"), slot(route.Slot), since(route.Since, now), why(route.Cause, route.Refusal))
	}
	t.write(w)
	t = newTable(s, "CLUSTER", "STATE", "DOWN", ">QPS", ">CAPACITY", ">SESSIONS", "ADDRESSES", ">SINCE", "")
	t.indent = "  "
	for _, cl := range r.Clusters {
		t.add(cl.Name, verdictCell(&cl.Verdict), fmt.Sprintf("%d/%d", cl.Verdict.DownDomains, cl.Verdict.Domains), qpsText(&cl), capacityText(cl.Capacity), capacityText(cl.Sessions),
			cmp.Or(cl.CNAME, joined(cl.Addresses)), since(cl.Verdict.Since, now), cl.Verdict.Cause)
	}
	t.write(w)
}

// qpsText is empty where nobody counts requests.
func qpsText(c *api.Cluster) string {
	if !c.Counted {
		return ""
	}
	return count(c.QPS)
}

func capacityText(qps int64) string {
	if qps == 0 {
		return ""
	}
	return count(qps)
}

func announced(r api.Route) string {
	if !r.Reported {
		return "not reported"
	}
	return r.Announced.String()
}

func med(m uint32) string {
	if m == 0 {
		return ""
	}
	return fmt.Sprint(m)
}

func yes(b bool, word string) string {
	if b {
		return word
	}
	return ""
}

func slot(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("holds %d", n)
}

func why(cause string, r *placement.Refusal) string {
	if r != nil {
		return r.Error()
	}
	return cause
}

func verdictCell(v *placement.Verdict) cell {
	text := v.State.String()
	if v.Force != placement.NoForce {
		text += ", forced " + string(v.Force)
	}
	if v.Capped {
		text += ", kept by the cap"
	}
	if v.Usable() {
		return plain(text)
	}
	return cell{text, red}
}

func joined[T fmt.Stringer](list []T) string {
	out := make([]string, 0, len(list))
	for _, v := range list {
		out = append(out, v.String())
	}
	return strings.Join(out, " ")
}

// completeSites offers the names of the live fleet to the shell.
func (a *app) completeSites(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(given) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	c, err := a.connect()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	c.limit = time.Second
	var list api.List[json.RawMessage]
	if _, err := c.get(cmd.Context(), "/sites", &list); err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, raw := range list.Items {
		var site struct{ Name, City string }
		if json.Unmarshal(raw, &site) == nil {
			out = append(out, site.Name+"\t"+site.City)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
