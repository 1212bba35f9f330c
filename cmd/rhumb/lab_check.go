package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"

	"github.com/miekg/dns"

	"rhumb/internal/netlab"
	"rhumb/placement"
)

// labState is what the console tells the supervisor of the fleet.
type labState struct {
	Connected bool                  `json:"connected"`
	Leader    string                `json:"leader"`
	Inventory int64                 `json:"inventory"`
	Plan      int64                 `json:"plan"`
	Nodes     []placement.Node      `json:"nodes"`
	Announced []placement.Announced `json:"announced"`
}

// labCheck answers how far a lab has come, from what its console sees and from
// what its clients get. Each check returns what to print, or why it is too early;
// bringUp asks one after the other.
type labCheck struct {
	world  *world
	client http.Client
}

// close lets go of the connection to the console.
func (c *labCheck) close() { c.client.CloseIdleConnections() }

// state asks the console, over a unix socket: files are shared by all namespaces of
// the lab, networks are not. Any error means "not yet".
func (c *labCheck) state(ctx context.Context) (*labState, error) {
	if c.client.Transport == nil {
		c.client.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", c.world.dir.path("console", "run", "state.sock"))
		}}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://console/", nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	s := &labState{}
	return s, json.NewDecoder(resp.Body).Decode(s)
}

// etcd waits for a quorum: the console's reads are linearizable, so that a
// connected one proves it.
func (c *labCheck) etcd(ctx context.Context) (string, error) {
	s, err := c.state(ctx)
	if err != nil || !s.Connected {
		return "", errors.Join(err, errors.New("no quorum yet"))
	}
	return fmt.Sprintf("%d members", len(labSites(c.world.topo))), nil
}

// fleet waits until the configuration was applied and somebody has decided upon it.
func (c *labCheck) fleet(ctx context.Context) (string, error) {
	s, err := c.state(ctx)
	if err != nil || s.Plan == 0 {
		return "", errors.Join(err, errors.New("no plan yet"))
	}
	return fmt.Sprintf("applied at revision %d, plan %d by %s", s.Inventory, s.Plan, s.Leader), nil
}

// units finds the records of a unit at every site.
func (s *labState) units(name string) map[string]placement.Node {
	out := make(map[string]placement.Node)
	for _, n := range s.Nodes {
		if n.Unit == name {
			out[n.Site] = n
		}
	}
	return out
}

// served tells whether every site's name server and edge have what they serve.
func (c *labCheck) served(ctx context.Context) (string, error) {
	s, err := c.state(ctx)
	if err != nil {
		return "", err
	}
	for _, site := range labSites(c.world.topo) {
		if n, ok := s.units("rhumb-edge")[site]; !ok || n.Edge == nil {
			return "", fmt.Errorf("the edge of %s does not serve yet", site)
		}
	}
	text := ""
	for _, site := range labSites(c.world.topo) {
		n, ok := s.units("rhumb-dns")[site]
		if !ok || n.DNS == nil || len(n.DNS.Zones) == 0 {
			return "", fmt.Errorf("%s serves no zone yet", site)
		}
		text = ""
		for _, z := range n.DNS.Zones {
			text += fmt.Sprintf("%s (serial %d, %s)  ", z.Name, z.Serial, z.Level)
		}
	}
	return text, nil
}

// routes waits until each speaker has both sessions, one a family, and every site
// announces both anycast prefixes without a handicap.
func (c *labCheck) routes(ctx context.Context) (string, error) {
	s, err := c.state(ctx)
	if err != nil {
		return "", err
	}
	up := 0
	units := s.units("rhumb-bgp")
	for _, site := range sortedKeys(units) {
		n := units[site]
		if n.BGP == nil {
			return "", fmt.Errorf("the speaker of %s does not run yet", site)
		}
		for _, p := range n.BGP.Peers {
			if p.State != "established" {
				return "", fmt.Errorf("%s: peer %s is %s", n.Site, p.Address, p.State)
			}
			up++
		}
	}
	loud := make(map[netip.Prefix]int)
	for _, a := range s.Announced {
		if a.Step == placement.Announce {
			loud[a.Prefix]++
		}
	}
	sites := len(labSites(c.world.topo))
	if up != 2*sites || loud[netip.MustParsePrefix(netlab.AnycastV4)] != sites || loud[netip.MustParsePrefix(netlab.AnycastV6)] != sites {
		return "", fmt.Errorf("%d sessions up, announced: %v", up, loud)
	}
	return fmt.Sprintf("%d sessions up, %s and %s announced ×%d", up, netlab.AnycastV4, netlab.AnycastV6, sites), nil
}

// sites waits until every unit of every site acts upon a snapshot.
func (c *labCheck) sites(ctx context.Context) (string, error) {
	s, err := c.state(ctx)
	if err != nil {
		return "", err
	}
	text := ""
	for _, site := range labSites(c.world.topo) {
		for _, unit := range []string{"rhumb-dns", "rhumb-bgp", "rhumb-edge", "rhumb-director"} {
			n, ok := s.units(unit)[site]
			if !ok || n.Snapshot == "" {
				return "", fmt.Errorf("%s of %s has no snapshot yet", unit, site)
			}
			if unit == "rhumb-edge" && n.Edge == nil {
				return "", fmt.Errorf("the edge of %s does not serve yet", site)
			}
		}
		text += site + " ● up  "
	}
	return text, nil
}

// clients asks as a client of each region does and wants its own site's address.
func (c *labCheck) clients(ctx context.Context) (string, error) {
	text := ""
	for _, site := range c.world.topo.Nodes {
		if site.Role != netlab.Site {
			continue
		}
		host, err := c.world.net.Host(netlab.ClientName(site.Region, 1))
		if err != nil {
			return "", err
		}
		q := new(dns.Msg)
		q.SetQuestion("www.cdn.demo.test.", dns.TypeA)
		resolver := c.world.topo.Addresses(netlab.ResolverName(site.Region))[0]
		resp, err := netlab.HostExchanger{Host: host}.Exchange(ctx, netip.AddrPortFrom(resolver, 53), q, false)
		if err != nil {
			return "", fmt.Errorf("%s asks its resolver: %w", host.Name, err)
		}
		if !c.answersWith(resp, site.Name) {
			return "", fmt.Errorf("%s is not sent to %s: %v", host.Name, site.Name, resp.Answer)
		}
		text += site.Region + " → " + site.Name + "  "
	}
	return text, nil
}

// answersWith tells whether every address of an answer belongs to a node.
func (c *labCheck) answersWith(resp *dns.Msg, node string) bool {
	own := c.world.topo.Addresses(node)
	n := 0
	for _, rr := range resp.Answer {
		a, ok := rr.(*dns.A)
		if !ok {
			continue
		}
		n++
		if addr, ok := netip.AddrFromSlice(a.A.To4()); !ok || !slices.Contains(own, addr) {
			return false
		}
	}
	return n > 0
}
