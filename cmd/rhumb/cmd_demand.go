package main

import (
	"strconv"

	"github.com/spf13/cobra"

	"rhumb/internal/api"
)

// demandCommand lists what clients ask, beside what plans make of it.
func (a *app) demandCommand() *cobra.Command {
	return &cobra.Command{Use: "demand", Short: "What the clients of each region ask of each service, and what plans count", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return listing(a, cmd, "/demand", func(d *api.Demand) string { return d.Service + "/" + d.Region }, demandTable,
				"nothing was asked of any service yet")
		}}
}

func demandTable(s style, items []api.Demand) *table {
	t := newTable(s, "SERVICE", "REGION", ">ASKED/s", ">CLASSES", ">PER QUERY", ">PLANNED/s")
	for i := range items {
		d := &items[i]
		per, planned := cell{"-", grey}, cell{"expected", grey}
		if d.PerQuery > 0 {
			per = plain(strconv.FormatInt(d.PerQuery, 10))
		}
		if d.Planned > 0 {
			planned = plain(strconv.FormatInt(d.Planned, 10))
		}
		t.add(d.Service, or(d.Region, "unknown"), strconv.FormatFloat(d.Asked, 'f', 1, 64), d.Classes, per, planned)
	}
	return t
}
