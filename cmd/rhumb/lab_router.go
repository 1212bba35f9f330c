package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"rhumb/bgp"
	"rhumb/internal/netlab"
)

// labRouterCommand is a transit router of the lab: the BGP engine, and the best
// routes written into the kernel's FIB.
func labRouterCommand(a *app) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "router", Short: "Run a transit router", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			var c routerConfig
			if err := json.Unmarshal(b, &c); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			return runRouter(cmd.Context(), a, c, heardFile(file))
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "file written by the lab")
	return cmd
}

// routerProtocol marks the router's routes in the kernel's table.
const routerProtocol = 192

func runRouter(ctx context.Context, a *app, c routerConfig, heard string) error {
	fib, err := netlab.OpenFIB(routerProtocol)
	if err != nil {
		return err
	}
	defer fib.Close()
	log := a.logger().With("router", c.Name)
	peers := routerPeers(c)
	engine, err := bgp.StartGoBGP(ctx, bgp.GoBGPConfig{ASN: c.ASN, RouterID: c.RouterID, Peers: peers, Logger: log, Transit: true})
	if err != nil {
		return err
	}
	defer func() {
		bye, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		engine.Close(bye)
	}()
	ctx, stop := context.WithCancel(ctx)
	wait, err := watchSites(ctx, engine, peers, log)
	if err != nil {
		stop()
		return err
	}
	defer func() { stop(); wait() }()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return recordHeard(ctx, engine, heard) })
	table := netlab.NewTable(fib, log)
	g.Go(func() error { table.Keep(ctx); return nil })
	g.Go(func() error {
		return engine.WatchBest(ctx, func(b bgp.Best) {
			if err := writeBest(table, b); err != nil {
				log.Error("fib", "prefix", b.Prefix.String(), "err", err)
				return
			}
			log.Info("best", "prefix", b.Prefix.String(), "next_hops", fmt.Sprint(b.NextHops))
		})
	})
	return g.Wait()
}

func writeBest(t *netlab.Table, b bgp.Best) error {
	hops := make([]netlab.NextHop, 0, len(b.NextHops))
	for _, a := range b.NextHops {
		hops = append(hops, netlab.NextHop{Addr: a})
	}
	return t.Set(b.Prefix, hops)
}

// routerPeers are a router's sessions. Of two neighbours the one with the higher AS
// dials, which sites have: the library closes what it accepts while it is idle, for
// 5 s after each failure, and so two of its kind that both dial can put each other
// back into idle for minutes.
func routerPeers(c routerConfig) []bgp.Peer {
	var out []bgp.Peer
	for _, p := range c.Peers {
		peer := bgp.Peer{Address: p.Addr, ASN: p.ASN, GTSM: true, OwnFamily: true, Passive: c.ASN < p.ASN, Hold: 3 * time.Second, Keepalive: time.Second}
		if p.BFD {
			peer.BFD.Interval = labBFDInterval
		}
		out = append(out, peer)
	}
	return out
}
