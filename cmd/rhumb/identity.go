package main

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"rhumb/internal/config"
)

func identityCommands(a *app) []*cobra.Command {
	cmd := &cobra.Command{
		Use:   "identity",
		Short: "Make the keys by which sites know each other",
		Long: `The group key signs the identity of every site and stays offline. A site's
certificate goes into the fleet (sites.NAME.identity), its keys stay on the site.`,
	}
	var group string // one variable: one of them runs
	cmd.AddCommand(a.identityInit(&group), a.identityJoin(&group), a.identityStore(&group), a.identityRevoke(&group))
	for _, c := range cmd.Commands() {
		c.Flags().StringVar(&group, "group", "group", "directory of the group key")
	}
	return []*cobra.Command{cmd}
}

func (a *app) identityInit(group *string) *cobra.Command {
	return &cobra.Command{
		Use: "init", Short: "Make the group key", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			if err := config.InitGroup(*group, time.Now()); err != nil {
				return err
			}
			fmt.Fprintf(a.err, "group key made in %s; keep it offline, every site's identity hangs on it\n", *group)
			return nil
		},
	}
}

func (a *app) identityJoin(group *string) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "join SITE", Short: "Make and sign the identity of a site", Args: args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			out, now := cmp.Or(out, args[0]), time.Now()
			if err := errors.Join(config.JoinGroup(*group, args[0], out, now), config.JoinStore(*group, args[0], out, now)); err != nil {
				return err
			}
			fmt.Fprintf(a.err, "identity of %s made in %s; copy it to the site, and name %s/site.crt in the fleet file\n", args[0], out, out)
			return nil
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "directory to make (default SITE)")
	return cmd
}

func (a *app) identityStore(group *string) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "store SITE", Short: "Make and sign, into an identity, the pair by which a site carries a member of the store", Args: args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			out := cmp.Or(out, args[0])
			if err := config.JoinStore(*group, args[0], out, time.Now()); err != nil {
				return err
			}
			fmt.Fprintf(a.err, "store.crt and store.key of %s made in %s; copy both into the identity at the site\n", args[0], out)
			return nil
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "directory of the identity (default SITE)")
	return cmd
}

func (a *app) identityRevoke(group *string) *cobra.Command {
	var cert string
	cmd := &cobra.Command{
		Use: "revoke SITE", Short: "Print what to put into the fleet file to revoke a site's certificates", Args: args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			issued, err := issuedTo(*group, cert, args[0])
			if err != nil {
				return err
			}
			fmt.Fprintln(a.out, "revoked:")
			for _, c := range issued {
				fmt.Fprintf(a.out, "  - %q # %s, made %s\n", c.Serial, c.Site, c.Made.UTC().Format(time.DateOnly))
			}
			fmt.Fprintf(a.err, "put this into the fleet file and apply it: %s is cut off then; rhumb identity join %s makes a new identity\n", args[0], args[0])
			return nil
		},
	}
	cmd.Flags().StringVar(&cert, "cert", "", "certificate to revoke, where the group has no record of it (default: all that it signed for SITE)")
	return cmd
}

// issuedTo returns the certificate in a file, or all that the group has signed for
// a site. A certificate of another site is refused: it would cut off the wrong one.
func issuedTo(group, file, site string) ([]config.Issued, error) {
	if file == "" {
		issued, err := config.IssuedTo(group, site)
		if err == nil && len(issued) == 0 {
			err = fmt.Errorf("the group in %s has signed nothing for %s", group, site)
		}
		return issued, err
	}
	one, err := config.ReadIssued(file)
	if err == nil && one.Site != site {
		err = fmt.Errorf("%s is the certificate of %s, not of %s", file, one.Site, site)
	}
	return []config.Issued{one}, err
}
