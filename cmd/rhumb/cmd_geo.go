package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strconv"

	"github.com/spf13/cobra"

	"rhumb/internal/config"
	"rhumb/placement/geo"
)

func (a *app) geoCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:     "geo ADDRESS…",
		Short:   "Say where the data sets of a node file put an address, and by which route",
		Example: "  rhumb geo 203.0.113.9 2001:db8::1 --config node.yaml",
		Args:    args(cobra.MinimumNArgs(1)),
		RunE: func(_ *cobra.Command, given []string) error {
			var asked []netip.Addr
			for _, text := range given {
				addr, err := netip.ParseAddr(text)
				if err != nil {
					return withCode(exitUsage, fmt.Errorf("geo: %q is no address", text))
				}
				asked = append(asked, addr)
			}
			n, err := config.LoadNode(file)
			if err != nil {
				return err
			}
			t, err := geo.Load(n.Geo.Databases, n.Geo.Routes)
			if err != nil {
				return err
			}
			a.say("%s: %d networks, %d places", t.Info().Name, t.Len(), len(t.Locations()))
			if r := t.Routes(); r != nil {
				a.say("routes: %d prefixes, %d clusters, written %s", r.Len(), r.Clusters(), r.Time().Format("2006-01-02 15:04Z"))
			}
			return a.showGeo(t, asked)
		},
	}
	cmd.Flags().StringVar(&file, "config", "/etc/rhumb/node.yaml", "node file")
	return cmd
}

// placed is what the data sets say of one address.
type placed struct {
	Address netip.Addr `json:"address"`
	Country string     `json:"country,omitempty"`
	Lat     float64    `json:"lat"`
	Lon     float64    `json:"lon"`
	Network string     `json:"network,omitempty"`
	Route   string     `json:"route,omitempty"`
	Origin  uint32     `json:"origin,omitempty"`
	Via     uint32     `json:"via,omitempty"`
}

// showGeo prints a row for each address.
func (a *app) showGeo(t *geo.Table, asked []netip.Addr) error {
	var items []placed
	var names []string
	for _, addr := range asked {
		items, names = append(items, placeOf(t, addr)), append(names, addr.String())
	}
	raw, err := json.Marshal(map[string]any{"items": items})
	if err != nil {
		return err
	}
	return a.show(result{raw: raw, names: names, text: func(w io.Writer, s style) {
		out := newTable(s, "ADDRESS", "COUNTRY", ">LAT", ">LON", "NETWORK", "ROUTE", "ORIGIN", "VIA")
		for _, p := range items {
			if p.Network == "" {
				out.add(p.Address, "unknown", "", "", "", p.Route, asName(p.Origin), asName(p.Via))
				continue
			}
			out.add(p.Address, p.Country, p.Lat, p.Lon, p.Network, p.Route, asName(p.Origin), asName(p.Via))
		}
		out.write(w)
	}})
}

// asName is empty for the AS of nobody.
func asName(as uint32) string {
	if as == 0 {
		return ""
	}
	return "AS" + strconv.FormatUint(uint64(as), 10)
}

func placeOf(t *geo.Table, addr netip.Addr) placed {
	p := placed{Address: addr}
	if id, match, ok := t.Class(addr); ok {
		l := t.Locations()[id]
		p.Country, p.Lat, p.Lon, p.Network = l.Country, l.Lat, l.Lon, match.String()
	}
	if r := t.Routes(); r != nil {
		if c, match, ok := r.Lookup(addr); ok {
			p.Route, p.Origin, p.Via = match.String(), c.Origin, c.Via
		}
	}
	return p
}
