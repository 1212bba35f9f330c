package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"rhumb/internal/config"
)

func identityCommands(a *app) []*cobra.Command {
	var group, out string
	cmd := &cobra.Command{
		Use:   "identity",
		Short: "Make the keys by which sites know each other",
		Long: `The group key signs the identity of every site and stays offline. A site's
certificate goes into the fleet (sites.NAME.identity), its keys stay on the site.`,
	}
	initCmd := &cobra.Command{
		Use: "init", Short: "Make the group key", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := config.InitGroup(group, time.Now()); err != nil {
				return err
			}
			fmt.Fprintf(a.err, "group key made in %s; keep it offline, every site's identity hangs on it\n", group)
			return nil
		},
	}
	join := &cobra.Command{
		Use: "join SITE", Short: "Make and sign the identity of a site", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if out == "" {
				out = args[0]
			}
			if err := config.JoinGroup(group, args[0], out, time.Now()); err != nil {
				return err
			}
			fmt.Fprintf(a.err, "identity of %s made in %s; copy it to the site, and name %s/site.crt in the fleet file\n", args[0], out, out)
			return nil
		},
	}
	for _, c := range []*cobra.Command{initCmd, join} {
		c.Flags().StringVar(&group, "group", "group", "directory of the group key")
	}
	join.Flags().StringVar(&out, "out", "", "directory to make (default SITE)")
	cmd.AddCommand(initCmd, join)
	return []*cobra.Command{cmd}
}
