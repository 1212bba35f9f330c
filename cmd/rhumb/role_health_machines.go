package main

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"rhumb/health"
	"rhumb/internal/config"
	"rhumb/placement"
)

// hearMachines lets the health role hear the other machines of its site; nil where none
// is to be heard.
func (u *unit) hearMachines() (*health.Machines, error) {
	m := u.cfg.Machines
	if m == nil || len(m.Listen) == 0 {
		return nil, nil
	}
	key, err := u.siteKey()
	if err != nil {
		return nil, err
	}
	return health.ListenMachines(m.Listen, key, u.log)
}

// addPulse tells the site's health role, on another machine, that this one is there.
// One unit of the machine does: the first of those which serve.
func addPulse(u *unit) {
	m := u.cfg.Machines
	if m == nil || len(m.Watchers) == 0 || !u.has(pulseRole(u.cfg.Node.Roles)) {
		return
	}
	u.add("pulse", func(ctx context.Context) error {
		key, err := u.siteKey()
		if err != nil {
			return err
		}
		incarnation, err := nextIncarnation(filepath.Join(u.cfg.Node.DataDir, "incarnation-machine"), time.Now())
		if err != nil {
			return err
		}
		p := health.Pulse{Node: u.cfg.Node.Name, Incarnation: incarnation, Key: key, To: m.Watchers, Every: m.Interval.D(),
			Listen: (&onMachine{serves: serves{u: u, roles: u.cfg.Node.Roles}}).addresses, Log: u.log}
		return p.Run(ctx)
	})
}

// addVantage tells the health role on the site's second machine, which watches, that this
// one judges, and what has ended here.
func addVantage(u *unit, ended func() []netip.AddrPort) {
	m := u.cfg.Machines
	if m == nil || len(m.Watchers) == 0 {
		return
	}
	u.add("vantage", func(ctx context.Context) error {
		key, err := u.siteKey()
		if err != nil {
			return err
		}
		incarnation, err := nextIncarnation(filepath.Join(u.cfg.Node.DataDir, "incarnation-vantage"), time.Now())
		if err != nil {
			return err
		}
		p := health.Pulse{Node: u.cfg.Node.Name, Incarnation: incarnation, Key: key, To: m.Watchers, Every: m.Interval.D(), Listen: ended, Vantage: true, Log: u.log}
		return p.Run(ctx)
	})
}

// misses returns which vantage another one of this site says to hear no more.
func (u *unit) misses(vantage string) string {
	for _, v := range u.views.view().Votes {
		if v.Vantage == vantage && v.Object == placement.SiteID(u.cfg.Node.Site) {
			return v.Without
		}
	}
	return ""
}

// beatsAs is where this machine hears the heartbeats of other sites, and by which number
// it is known there. The second machine of a site has both of its own.
func (u *unit) beatsAs(site *placement.Site) placement.BeatNode {
	nodes := site.BeatNodes()
	second := u.cfg.Machines != nil && u.cfg.Machines.Second
	switch {
	case second && len(nodes) == 2:
		return nodes[1]
	case second:
		u.log.Warn("the fleet names no second_beat of this site: this machine is not heard by other sites, which take the site for dead with its first one")
		return placement.BeatNode{Number: site.Number}
	}
	return placement.BeatNode{Number: site.Number, Addr: site.Beat}
}

// pulseRole is the role whose unit beats for the machine.
func pulseRole(roles []string) string {
	for _, r := range []string{config.RoleAuthDNS, config.RoleEdge, config.RoleBGP, config.RolePlacement} {
		if slices.Contains(roles, r) {
			return r
		}
	}
	return ""
}

// siteKey is known to the machines of this site alone: what they have by the site's pair
// key with itself.
func (u *unit) siteKey() (key [32]byte, err error) {
	if u.identity == nil {
		return key, errors.New("machines: no identity")
	}
	own := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: u.identity.Cert.Certificate[0]})
	if key, err = u.identity.PairKey(u.identity.Site, string(own), "machine"); err != nil {
		return key, fmt.Errorf("machines: %w", err)
	}
	return key, nil
}

// onMachine tells which addresses are served on this machine: by our own units, and by
// other servers at those of its interfaces.
type onMachine struct {
	serves
	looked time.Time
	inv    *placement.Inventory
	last   []netip.AddrPort
}

// interfacesEvery is how soon a change of the interfaces is seen.
const interfacesEvery = 5 * time.Second

// addresses is asked at every beat, from one goroutine.
func (m *onMachine) addresses() []netip.AddrPort {
	var inv *placement.Inventory
	if snap := m.u.current.Load(); snap != nil {
		inv = snap.Inventory
	}
	if now := time.Now(); inv != m.inv || now.Sub(m.looked) > interfacesEvery {
		m.inv, m.looked = inv, now
		m.last = append(slices.Clone(m.serves.addresses()), clusterAddresses(inv, m.u.cfg.Node.Site, interfaceAddrs())...)
		slices.SortFunc(m.last, netip.AddrPort.Compare)
		m.last = slices.Compact(m.last)
	}
	return m.last
}

// clusterAddresses are those of a site's clusters which stand on this machine.
func clusterAddresses(inv *placement.Inventory, site string, here map[netip.Addr]bool) (out []netip.AddrPort) {
	if inv == nil || inv.Site(site) == nil {
		return nil
	}
	for _, c := range inv.Site(site).Clusters {
		for _, a := range c.Addresses {
			if here[a.Addr()] {
				out = append(out, a)
			}
		}
	}
	return out
}

// interfaceAddrs are the addresses of this machine.
func interfaceAddrs() map[netip.Addr]bool {
	out := make(map[netip.Addr]bool)
	all, _ := net.InterfaceAddrs() // none: the units' own addresses are told all the same
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out[p.Addr()] = true
		}
	}
	return out
}
