package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"rhumb/internal/config"
	"rhumb/placement/store"
)

func serveCommands(a *app) []*cobra.Command {
	var file string
	var roles []string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run roles of this node",
		Long: `Run the roles that the node file names, or some of them with --roles: one
process a unit, so that a crash takes nothing with it but its own work.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.LoadNode(file)
			if err != nil {
				return withCode(exitConfig, err)
			}
			chosen, err := chooseRoles(cfg, roles)
			if err != nil {
				return withCode(exitUsage, err)
			}
			return serve(cmd.Context(), file, cfg, chosen, a.logger())
		},
	}
	cmd.Flags().StringVar(&file, "config", "/etc/rhumb/node.yaml", "node file")
	cmd.Flags().StringSliceVar(&roles, "roles", nil, "roles to run (default: all of the node file)")
	return []*cobra.Command{cmd, a.watchdogCommand(), a.fdstoreCommand()}
}

// logger writes to stderr: text, since the journal and the lab's file are read by people.
func (a *app) logger() *slog.Logger {
	level := slog.LevelInfo
	if a.global.verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: level}))
}

// chooseRoles keeps the order of config.Roles, in which they start.
func chooseRoles(cfg *config.Node, wanted []string) ([]string, error) {
	if len(wanted) == 0 {
		wanted = cfg.Node.Roles
	}
	var out []string
	for _, r := range config.Roles() {
		if slices.Contains(wanted, r) && cfg.Has(r) {
			out = append(out, r)
		}
	}
	if len(out) != len(wanted) {
		return nil, fmt.Errorf("roles %s: the node file has %s", strings.Join(wanted, ", "), strings.Join(cfg.Node.Roles, ", "))
	}
	return out, nil
}

// serve builds a unit in reading order and runs it: store, roles, loop, API. It
// is ready when all its listeners are open; a role that needs to know its site
// first (bgp, health, edge) joins with the first snapshot, which a new fleet gets
// only by `rhumb apply`.
func serve(ctx context.Context, file string, cfg *config.Node, roles []string, log *slog.Logger) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	u, err := newUnit(ctx, cfg, roles, log)
	if err != nil {
		return err
	}
	if slices.Equal(roles, []string{config.RoleAuthDNS}) { // no other role's process can be succeeded
		if u.estate, err = inherit(u.log); err != nil {
			return fmt.Errorf("%s: %w", u.name, err)
		}
		if err := addSuccession(u, end); err != nil {
			return err
		}
	}
	var etcd *store.Embedded
	if u.has(config.RolePlacement) {
		if etcd, err = startEtcd(ctx, cfg, u); err != nil {
			return err
		}
		if etcd != nil {
			defer etcd.Close() // after the session and the director's term were given up
		}
		addDirector(u)
	}
	addStoreLink(u, etcd)
	addIdentityEnds(u, etcd != nil && u.identity != nil && u.identity.StorePair() == nil)
	if u.has(config.RoleHealth) {
		addHealth(u)
	}
	if u.has(config.RoleAuthDNS) {
		if err := addDNS(u); err != nil {
			return err
		}
	}
	if u.has(config.RoleBGP) {
		addBGP(u)
	}
	if u.has(config.RoleEdge) {
		addEdge(u)
	}
	addPresence(u)
	addPulse(u)
	u.buildLoop()
	u.add("report", u.reportLoop)
	if err := addAPI(u, false); err != nil {
		return err
	}
	u.log.Info("started", "roles", strings.Join(roles, ","), "version", version)
	u.notify = notifySystemd
	hup := hangups()
	u.add("reload", func(ctx context.Context) error { return u.reload(ctx, file, hup) })
	u.notify(daemon.SdNotifyReady)
	err = u.run(ctx)
	u.log.Info("stopped")
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
