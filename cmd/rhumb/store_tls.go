package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/internal/config"
	"rhumb/placement"
	"rhumb/placement/store"
)

// How often a unit asks the members whether they take TLS alone: often until they do,
// since that ends what it would accept in clear.
const (
	learnSoon  = 5 * time.Second
	learnAgain = time.Minute
)

// storeClient guards this unit's connections to the members; nil where nothing is to
// be encrypted by the group's identities.
func (u *unit) storeClient() *store.ClientTLS {
	mode := store.TLSMode(u.cfg.Store.Etcd.TLS)
	if u.identity == nil || mode == store.TLSOff {
		return nil
	}
	return &store.ClientTLS{Mode: mode, Config: u.identity.StoreClient(), Marker: filepath.Join(u.cfg.Node.DataDir, "store.tls-only")}
}

// storeMember guards the ports of this node's member. A site whose identity holds no
// member's pair, or one that is no good, stays in clear, where the node file leaves the
// choice and the other members are in clear, too.
func (u *unit) storeMember() *store.MemberTLS {
	mode := store.TLSMode(u.cfg.Store.Etcd.TLS)
	if u.identity == nil || mode == store.TLSOff {
		return nil
	}
	cert, key, ca := u.identity.StoreFiles()
	lacks := u.identity.StorePair()
	if lacks != nil {
		lacks = fmt.Errorf("no pair of a member in the identity (rhumb identity store %s makes one): %w", u.identity.Site, lacks)
		u.log.Warn("the embedded store cannot speak TLS", "err", lacks)
	}
	names := sortedKeys(u.cfg.Store.Etcd.Embedded)
	return &store.MemberTLS{Mode: mode, Lacks: lacks, Peers: u.identity.StoreServer(true), Clients: u.identity.StoreServer(false),
		Dial:  store.TLSFiles{Cert: cert, Key: key, CA: ca, Name: config.StoreName},
		Ready: func(toTLS bool) (bool, string) { return storeReady(toTLS, names, u.views.view().Nodes) }}
}

// storeReady tells whether all nodes can follow if the members go over to TLS, or back,
// and else what is missing. A node that is away says nothing and is not waited for, but
// each member must be there.
func storeReady(toTLS bool, members []string, nodes []placement.Node) (ok bool, missing string) {
	var out []string
	for i := range nodes {
		n := &nodes[i]
		switch {
		case !toTLS:
		case n.Store == nil:
			out = append(out, fmt.Sprintf("%s/%s runs a version that knows no TLS", n.Name, n.Unit))
		case !n.Store.Ready:
			out = append(out, fmt.Sprintf("%s/%s: %s", n.Name, n.Unit, n.Store.Missing))
		}
	}
	for _, m := range members {
		i := slices.IndexFunc(nodes, func(n placement.Node) bool { return n.Name == m && n.Store != nil && n.Store.Member })
		switch {
		case i < 0 && len(out) == 0:
			out = append(out, "the member "+m+" has not reported")
		case i >= 0 && !toTLS && nodes[i].Store.TLS != string(store.TLSAllow):
			out = append(out, fmt.Sprintf("%s says %s, not allow", m, nodes[i].Store.TLS))
		}
	}
	if len(out) > 3 {
		out = append(out[:3], fmt.Sprintf("and %d more", len(out)-3))
	}
	return len(out) == 0, strings.Join(out, "; ")
}

// addStoreLink has this unit tell how its connections run, and learn when the members
// take TLS alone. member is this node's own; nil: it carries none.
func addStoreLink(u *unit, member *store.Embedded) {
	if u.alone() {
		return
	}
	u.metrics.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "rhumb_store_clear_connections",
		Help: "Connections of this unit to the store that leave the machine in clear."},
		func() float64 { return float64(u.store.Link().Clear) }))
	u.reports = append(u.reports, func(n *placement.Node) {
		var m *store.MemberLink
		if member != nil {
			l := member.Link()
			m = &l
		}
		n.Store = storeLink(u.cfg.Store.Etcd.TLS, u.store.Link(), m)
	})
}

// storeLink is what a unit reports of its connections.
func storeLink(mode string, l store.Link, member *store.MemberLink) *placement.StoreLink {
	out := &placement.StoreLink{TLS: mode, Encrypted: l.Clear == 0, Ready: true}
	switch mode {
	case config.StoreTLSOff:
		out.Ready, out.Missing = false, "store.etcd.tls is off, or there is no identity"
	case config.StoreTLSAllow:
		out.Ready, out.Missing = false, "store.etcd.tls is allow, which keeps the members in clear"
	}
	if member == nil {
		return out
	}
	out.Member, out.Encrypted = true, out.Encrypted && member.Exposed == 0
	if out.Ready && !member.Reaches {
		out.Ready, out.Missing = false, member.Missing
	} else if out.Missing == "" {
		out.Waits = member.Missing
	}
	return out
}

// learnTLS asks the members how they know each other, until ctx ends.
func (u *unit) learnTLS(ctx context.Context) error {
	for {
		if err := u.store.LearnTLS(ctx); err != nil {
			u.log.Debug("not learned whether the store takes TLS alone", "err", err)
		}
		wait := learnSoon
		if u.store.Link().Closed {
			wait = learnAgain
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}
