package main

import (
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rhumb/internal/api"
	"rhumb/placement"
)

// listing fetches a list and prints it: a name per item, and a row each.
func listing[T any](a *app, cmd *cobra.Command, path string, name func(*T) string, draw func(s style, items []T) *table, empty string) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	var list api.List[T]
	raw, err := c.get(cmd.Context(), path, &list)
	if err != nil {
		return err
	}
	names := make([]string, 0, len(list.Items))
	for i := range list.Items {
		names = append(names, name(&list.Items[i]))
	}
	return a.show(result{raw: raw, names: names, text: func(w io.Writer, s style) {
		if len(list.Items) == 0 {
			fmt.Fprintln(w, empty)
			return
		}
		draw(s, list.Items).write(w)
	}})
}

func (a *app) nodesCommand() *cobra.Command {
	return &cobra.Command{Use: "nodes", Short: "Units as they report themselves", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return listing(a, cmd, "/nodes", func(n *placement.Node) string { return n.Name + "/" + n.Unit }, nodeTable, "no unit reports yet; start one with: rhumb serve")
		}}
}

func nodeTable(s style, items []placement.Node) *table {
	t := newTable(s, "SITE", "NODE", "UNIT", "ROLES", "SNAPSHOT", "VERSION", ">REPORTED", ">UP", "", "ALARMS")
	now := time.Now()
	for _, n := range items {
		var alarms []string
		for _, al := range n.Alarms {
			alarms = append(alarms, al.Kind)
		}
		t.add(n.Site, n.Name, n.Unit, strings.Join(n.Roles, ","), n.Snapshot, n.Version, since(n.At, now), since(n.Started, now), yes(n.Leader, "leader"), strings.Join(alarms, " "))
	}
	return t
}

func (a *app) peersCommand() *cobra.Command {
	return &cobra.Command{Use: "peers [SITE [routes]]", Aliases: []string{"neighbor", "neighbors"},
		Short: "BGP neighbours; with routes: what a site announces",
		Args:  args(cobra.MaximumNArgs(2)), ValidArgsFunction: a.completeSites,
		RunE: func(cmd *cobra.Command, names []string) error {
			path := "/peers"
			if len(names) > 0 {
				path += "/" + url.PathEscape(names[0])
			}
			if len(names) < 2 {
				return listing(a, cmd, path, func(p *api.Peer) string { return p.Name }, peerTable, "no BGP neighbour is configured on any reporting node")
			}
			if names[1] != "routes" {
				return withCode(exitUsage, fmt.Errorf("%q is not routes; usage: %s", names[1], cmd.UseLine()))
			}
			return listing(a, cmd, path+"/routes", func(r *api.NodeRoute) string { return r.Node + "/" + r.Prefix.String() }, routeTable, "no route is announced there")
		}}
}

func peerTable(s style, items []api.Peer) *table {
	t := newTable(s, "STATE", "SITE", "NODE", "PEER", ">ASN", ">SINCE", "BFD", "")
	for _, p := range items {
		state := cell{p.State, yellow}
		if p.Established {
			state.color = ""
		}
		watched := cell{or(p.BFD, "off"), ""}
		if p.BFD != "" && p.BFD != "up" {
			watched.color = yellow
		}
		t.add(state, p.Site, p.Node, p.Address, p.ASN, since(p.Since, time.Now()), watched, p.Error)
	}
	return t
}

func routeTable(s style, items []api.NodeRoute) *table {
	t := newTable(s, "PREFIX", "SITE", "NODE", "ANNOUNCED", "WANT", "MODE", ">MED", "ANCHOR", "SLOT", ">SINCE", "")
	for _, r := range items {
		t.add(r.Prefix, r.Site, r.Node, r.Announced, r.Want, string(r.Mode), med(r.MED), yes(r.Anchor, "anchor"), slot(r.Slot), since(r.Since, time.Now()), why(r.Cause, r.Refusal))
	}
	return t
}

func (a *app) zonesCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "zones [NAME]", Short: "Zones and who serves them", Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, names []string) error {
			if len(names) == 1 {
				return a.showZone(cmd, names[0])
			}
			return listing(a, cmd, "/zones", func(z *api.Zone) string { return z.Name }, zoneTable, "no zones yet; name them in the fleet file and say: rhumb apply FILE")
		}}
	cmd.AddCommand(append(a.keyCommands(), a.delegationCommand())...)
	return cmd
}

func serials(z *api.Zone) string {
	out := make([]string, 0, len(z.Serials))
	for _, n := range z.Serials {
		out = append(out, strconv.FormatUint(uint64(n), 10))
	}
	return strings.Join(out, " ")
}

func zoneTable(s style, items []api.Zone) *table {
	t := newTable(s, "ZONE", "LEVEL", "SERIAL", ">NAMES", ">STEERED", ">SERVED", "NAME SERVERS", "CATALOG", "COPY OF", ">RECEIVED", "")
	for _, z := range items {
		var errs []string
		for _, e := range slices.Concat(z.Errors, z.Warnings, z.Conflicts) {
			errs = append(errs, e.Unit+": "+e.Error)
		}
		catalog := z.Catalog
		if z.Members > 0 {
			catalog = fmt.Sprintf("lists %d", z.Members)
		}
		t.add(z.Name, string(z.Level), serials(&z), z.Names, len(z.Steered), fmt.Sprintf("%d/%d", z.Served, z.Units), z.NameServers, catalog, strings.Join(z.Primaries, " "), since(z.Received, time.Now()), cell{strings.Join(errs, "; "), red})
	}
	return t
}

func (a *app) showZone(cmd *cobra.Command, name string) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	var z api.Zone
	raw, err := c.get(cmd.Context(), "/zones/"+url.PathEscape(name), &z)
	if err != nil {
		return err
	}
	return a.show(result{raw: raw, names: []string{z.Name}, text: func(w io.Writer, s style) {
		zoneTable(s, []api.Zone{z}).write(w)
		for _, n := range z.Steered {
			fmt.Fprintf(w, "  steered  %s\n", n)
		}
		if z.Catalog != "" {
			fmt.Fprintf(w, "  listed by  %s\n", z.Catalog)
		}
		if len(z.Primaries) > 0 || z.Catalog != "" {
			fmt.Fprintf(w, "  copy of  %s\n", strings.Join(z.Primaries, ", "))
			return
		}
		fmt.Fprintf(w, "  file     %d bytes, sha256 %s\n", z.Size, z.SHA256)
	}})
}

func (a *app) sessionsCommand() *cobra.Command {
	var site, state string
	cmd := &cobra.Command{Use: "sessions", Short: "Client sessions by node, moves in flight first", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := url.Values{}
			for k, v := range map[string]string{"site": site, "state": state} {
				if v != "" {
					q.Set(k, v)
				}
			}
			path := "/sessions"
			if len(q) > 0 {
				path += "?" + q.Encode()
			}
			return listing(a, cmd, path, func(s *api.Sessions) string { return s.Site + "/" + s.Node }, sessionTable, "no edge role reports sessions")
		}}
	cmd.Flags().StringVar(&site, "site", "", "this site only")
	cmd.Flags().StringVar(&state, "state", "", "nodes with sessions in this state: own, foreign, forwarded, away, moving")
	return cmd
}

func sessionTable(s style, items []api.Sessions) *table {
	t := newTable(s, "SITE", "NODE", ">TOTAL", ">OWN", ">FOREIGN", ">FORWARDED", ">AWAY", ">OLDEST", ">MB/S", ">MOVING", ">MOVED OUT", ">MOVED IN", ">FAILED", "BACKUPS", ">EPOCH", ">RESERVED", ">NO BACKUP", "RELAYED", "HAND-OFF SERVERS")
	for _, r := range items {
		failed := plain(count(r.Failed))
		if r.Failed > 0 {
			failed.color = red
		}
		t.add(r.Site, r.Node, count(r.Total), count(r.Own), count(r.Foreign), count(r.Forwarded), count(r.Away), since(r.AwaySince, time.Now()), fmt.Sprintf("%.1f", float64(r.AwayRate)/1e6), count(r.Moving), count(r.MovedOut), count(r.MovedIn), failed, strings.Join(r.Backups, " "), r.Epoch, reservedCell(r.Reserves), bareCell(r.Reserves), relaysCell(r.Relays), handoffsCell(r.Handoffs))
	}
	return t
}

func (a *app) slotsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "slots", Short: "Slots and anchors of each prefix", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return listing(a, cmd, "/slots", func(s *api.Slot) string { return s.Prefix.String() + " " + strconv.Itoa(s.Number) }, slotTable, "no anycast prefix is configured")
		}}
	var reason string
	free := &cobra.Command{Use: "free PREFIX SLOT", Short: "Take a slot from a site that cannot give it back itself", Args: args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, given []string) error {
			p, err := netip.ParsePrefix(given[0])
			n, err2 := strconv.Atoi(given[1])
			if err != nil || err2 != nil {
				return withCode(exitUsage, fmt.Errorf("%s %s is not a prefix and the number of a slot", given[0], given[1]))
			}
			req := api.FreeSlot{Prefix: p, Number: n, Reason: reason}
			return a.change(cmd, "POST", "/slots/free", req, reason, "freeing slot "+given[1]+" of "+given[0], "")
		}}
	free.Flags().StringVar(&reason, "reason", "", "why; the next shift will read it (required)")
	cmd.AddCommand(free)
	return cmd
}

func slotTable(s style, items []api.Slot) *table {
	t := newTable(s, "PREFIX", ">SLOT", "HELD BY", "CAUSE", ">FOR", "ANCHORS", "ANNOUNCED BY")
	for _, r := range items {
		holder := cell{r.Site, yellow}
		if r.Free {
			holder = plain("free")
		}
		t.add(r.Prefix, r.Number, holder, r.Cause, since(r.Taken, time.Now()), strings.Join(r.Anchors, " "), strings.Join(r.Announcing, " "))
	}
	return t
}
