package main

import (
	"context"
	"log/slog"
	"time"

	"rhumb/bgp"
)

// A site that dies while its link stays up is noticed by BFD alone, in 900 ms;
// the hold time would take 3 s.
const labBFDInterval = bgp.DefaultBFDInterval

// watchSites runs BFD with those of a router's peers which ask for it, until the
// context ends; the returned function waits for that. The router is alive as long
// as its engine answers.
func watchSites(ctx context.Context, engine *bgp.GoBGP, peers []bgp.Peer, log *slog.Logger) (wait func(), err error) {
	b, err := bgp.NewBFD(bgp.BFDConfig{Peers: peers, Engine: engine, Logger: log})
	if err != nil {
		return nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := b.Run(ctx); err != nil {
			log.Error("bfd", "err", err)
		}
	}()
	go keepAlive(ctx, engine, b)
	return func() { <-done }, nil
}

// keepAlive renews the promise that the router works; it ends with the context.
func keepAlive(ctx context.Context, engine *bgp.GoBGP, b *bgp.BFD) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		if _, err := engine.PeerState(ctx); err == nil {
			b.Alive(time.Second)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}
