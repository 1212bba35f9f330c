package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"time"

	"rhumb/internal/config"
	"rhumb/placement"
	"rhumb/placement/director"
	"rhumb/placement/store"
)

// members are the named nodes of the embedded cluster, in order of name.
func members(e *config.Etcd) []store.Member {
	var out []store.Member
	for _, name := range sortedKeys(e.Embedded) {
		addr := e.Embedded[name]
		out = append(out, store.Member{Name: name, PeerURL: httpURL(addr, e.PeerPort), ClientURLs: []string{httpURL(addr, e.ClientPort)}})
	}
	return out
}

// httpURL is a URL of etcd. What is spoken there, the store's TLS says.
func httpURL(a netip.Addr, port uint16) string {
	return "http://" + net.JoinHostPort(a.String(), strconv.Itoa(int(port)))
}

// startEtcd starts this node's member of the embedded cluster, if it carries one.
// It must stand before the store is opened, and end after all else.
func startEtcd(ctx context.Context, cfg *config.Node, u *unit) (*store.Embedded, error) {
	e := cfg.Store.Etcd
	if e == nil {
		return nil, nil
	}
	if _, ours := e.Embedded[cfg.Node.Name]; !ours {
		return nil, nil
	}
	emb, err := store.StartEmbedded(ctx, store.EmbeddedConfig{Name: cfg.Node.Name, Dir: filepath.Join(cfg.Node.DataDir, "etcd"),
		Members: members(e), TLS: u.storeMember(), Logger: u.log.With("part", "etcd"), Registerer: u.metrics})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", u.name, err)
	}
	u.add("etcd", func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case err := <-emb.Failed():
			return err
		}
	})
	return emb, nil
}

// addDirector adds the role placement: a director which leads when it holds the lease.
func addDirector(u *unit) {
	views := newBox[director.View]()
	feed := u.views.subscribe()
	u.add("director-views", func(ctx context.Context) error { return pump(ctx, feed, views, directorView) })
	d := director.New(director.Config{Node: u.cfg.Node.Name, Store: directorStore{u.store}, Views: views,
		Classes: u.classes.of, Log: u.log, Metrics: u.metrics})
	u.add("director", d.Run)
	u.appliers = append(u.appliers, &story{node: u.cfg.Node.Name, tell: u.event, now: time.Now,
		nodes: func() []placement.Node { return u.views.view().Nodes }})
	u.add("leader", u.tellLeader)
	u.reports = append(u.reports, func(n *placement.Node) { n.Leader = u.views.view().Leader == u.cfg.Node.Name })
}

// tellLeader tells the log when this node has taken the lease over. Who takes it
// tells, since who lost it may be dead.
func (u *unit) tellLeader(ctx context.Context) error {
	views := u.views.subscribe()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case v := <-views:
			if v.Leader == u.cfg.Node.Name && last != v.Leader {
				u.event(placement.Event{Kind: "snapshot", Text: u.cfg.Node.Name + " directs the fleet" + because(or(last, "nobody")+" did")})
			}
			if v.Leader != "" {
				last = v.Leader
			}
		}
	}
}
