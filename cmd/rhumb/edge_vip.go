package main

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sync/errgroup"

	"rhumb/edge/vip"
	"rhumb/internal/config"
	"rhumb/placement"
)

// addLeases adds this node's part in the addresses that its site shares. It votes from the
// start, and is owner of nothing until the rest of the edge is ready, if there is any.
func addLeases(u *unit, ready <-chan struct{}) {
	u.add("vip", func(ctx context.Context) error {
		if u.cfg.VIP == nil {
			if err := vip.Forget(); err != nil {
				// Without nftables there are no rules of an earlier configuration either.
				u.log.Warn("rules of former leases are not looked for", "err", err)
			}
			return nil
		}
		_, site, err := u.awaitSnapshot(ctx)
		if err != nil {
			return err
		}
		c, err := u.leases(site)
		if err != nil {
			return err
		}
		if err := vip.Forget(slices.Collect(maps.Keys(u.cfg.VIP.Leases))...); err != nil {
			return err
		}
		agent, err := vip.New(c)
		if err != nil {
			return err
		}
		agent.Want(false)
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return agent.Run(ctx) })
		g.Go(func() error {
			if u.leasesAlone(site) {
				agent.Want(!u.cfg.VIP.VoteOnly)
				return nil
			}
			select {
			case <-ready:
				agent.Want(!u.cfg.VIP.VoteOnly)
			case <-ctx.Done():
			}
			return nil
		})
		return g.Wait()
	})
}

// leasesAlone tells that this node's edge shares addresses and does nothing else. Tunnel and
// hand-off reach a site at one address, which one of several nodes could have.
func (u *unit) leasesAlone(site *placement.Site) bool {
	_, is := site.Member(u.cfg.Node.Name)
	return u.cfg.VIP != nil && !is
}

// leases makes the agent's configuration of the node file's. All nodes of a site have its
// identity, so the key which the site shares with itself is theirs alone.
func (u *unit) leases(site *placement.Site) (vip.Config, error) {
	key, err := u.identity.PairKey(site.Name, site.Identity, "vip")
	if err != nil {
		return vip.Config{}, fmt.Errorf("vip: the key of the site: %w", err)
	}
	c := leaseConfig(u.cfg.Node.Name, u.cfg.VIP)
	c.Key, c.Logger, c.Registerer = key[:], u.log, u.metrics
	c.OnChange = func(lease string, ours bool) { u.event(leaseEvent(u.cfg, lease, ours)) }
	return c, nil
}

// leaseConfig puts members and leases in order, the same on every node.
func leaseConfig(self string, v *config.VIP) vip.Config {
	c := vip.Config{Self: self, Device: v.Device}
	for _, name := range slices.Sorted(maps.Keys(v.Members)) {
		c.Members = append(c.Members, vip.Member{Name: name, Addrs: v.Members[name]})
	}
	for _, name := range slices.Sorted(maps.Keys(v.Leases)) {
		c.Leases = append(c.Leases, vip.Lease{Name: name, Addrs: slices.SortedFunc(slices.Values(v.Leases[name]), netip.Addr.Compare)})
	}
	return c
}

// leaseEvent tells who answers for shared addresses.
func leaseEvent(cfg *config.Node, lease string, ours bool) placement.Event {
	does := "answers for"
	if !ours {
		does = "answers no longer for"
	}
	return placement.Event{Kind: "session", Site: cfg.Node.Site, Text: fmt.Sprintf("%s %s %v (lease %s)", cfg.Node.Name, does, cfg.VIP.Leases[lease], lease)}
}
