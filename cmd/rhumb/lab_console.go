package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"

	"github.com/spf13/cobra"

	"rhumb/internal/api"
	"rhumb/internal/config"
)

// labConsoleCommand is the operator's place in the lab, inside the network: it
// applies the lab's fleet once, serves page and API on the host's listeners, and
// passes DNS queries from the host on to the sites.
func labConsoleCommand(a *app) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "console", Short: "Watch the lab's fleet", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runConsole(cmd.Context(), a, labDir(dir)) },
	}
	cmd.Flags().StringVar(&dir, "dir", ".lab", "state of the lab")
	return cmd
}

// The descriptors which the supervisor passes, in this order after stdio.
const (
	fdHTTP = 3 + iota
	fdDNSTCP
	fdDNSUDP
)

// runConsole builds a unit without roles that act: it folds and unfolds like every
// node, so that its page shows what a node would do. The fleet is applied by a task
// of its own, since the store may come later than the console.
func runConsole(ctx context.Context, a *app, dir labDir) error {
	cfg, err := config.LoadNode(dir.console())
	if err != nil {
		return withCode(exitConfig, err)
	}
	u, err := newUnit(ctx, cfg, cfg.Node.Roles, a.logger())
	if err != nil {
		return err
	}
	u.add("fleet", func(ctx context.Context) error { return u.applyOnce(ctx, dir.fleetFile()) })
	u.add("state", u.serveLabState)
	u.buildLoop()
	u.add("report", u.reportLoop)
	page, err := net.FileListener(os.NewFile(fdHTTP, "http"))
	if err != nil {
		return fmt.Errorf("lab: passed listener: %w", err)
	}
	admin, err := api.ListenUnix(dir.path("admin.sock"))
	if err != nil {
		return err
	}
	if err := addAPI(u, true, page, admin); err != nil {
		return err
	}
	relay, err := newRelay(fdDNSTCP, fdDNSUDP, func() []netip.AddrPort { return nameServers(u.current.Load()) })
	if err != nil {
		return err
	}
	u.add("dns-relay", relay.run)
	return u.run(ctx)
}

// applyOnce writes the lab's fleet into a store that holds none yet. It ends when
// somebody has applied one, itself or an operator who was faster; tries that fail
// are repeated, because the members may still be electing.
func (u *unit) applyOnce(ctx context.Context, file string) error {
	fleet, err := config.LoadFleet(file, readZone)
	if err != nil {
		return withCode(exitConfig, err)
	}
	for {
		if v := u.views.view(); v.Connected && v.Inventory != nil {
			return nil
		} else if v.Connected {
			_, err := u.store.PutFleet(ctx, &fleet.Fleet, fleet.Blobs, 0, "lab", "the lab's own fleet")
			if err == nil {
				return nil
			}
			u.log.Warn("the fleet is not applied yet", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// serveLabState tells the supervisor what the console sees, on a socket of its own:
// the API's documents are for people and may be large. It ends with ctx.
func (u *unit) serveLabState(ctx context.Context) error {
	path := u.socket("state.sock")
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	srv := &http.Server{ReadHeaderTimeout: 20 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			u.putUnjudged(w, r)
			return
		}
		v := u.views.view()
		s := labState{Connected: v.Connected, Leader: v.Leader, Nodes: v.Nodes, Announced: v.Announced}
		if v.Inventory != nil {
			s.Inventory = v.Inventory.Revision
		}
		if v.Plan != nil {
			s.Plan = v.Plan.Revision
		}
		if err := json.NewEncoder(w).Encode(s); err != nil {
			u.log.Debug("the supervisor went away", "err", err)
		}
	})}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("lab state: %w", err)
	}
	return nil
}
