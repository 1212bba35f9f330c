package health

import (
	"slices"
	"strings"
	"time"

	"rhumb/placement"
)

// Probe is a cluster which this vantage looks at, with everything it needs.
type Probe struct {
	Object  placement.ClusterID
	Targets []Target
	// HalfLife of the penalty for departures; 0 means the default.
	HalfLife time.Duration
}

// Probes returns what a site's vantage looks at: its own site's clusters, each
// with its own check or the one of the first service (by name) that uses it and
// has one. A cluster without a check is not probed and stays unknown: it serves.
func Probes(inv *placement.Inventory, site string) []Probe {
	s := inv.Site(site)
	if s == nil {
		return nil
	}
	var out []Probe
	for _, c := range s.Clusters {
		check, host := checkOf(inv, site, &c)
		if check == nil {
			continue
		}
		p := Probe{Object: placement.ClusterID{Site: site, Name: c.Name}, HalfLife: inv.Comeback().HalfLife.D()}
		for _, a := range c.Addresses {
			p.Targets = append(p.Targets, Target{Object: p.Object, Address: a, Host: host, Check: *check})
		}
		out = append(out, p)
	}
	return out
}

// checkOf returns the check of a cluster and the host name to ask for.
func checkOf(inv *placement.Inventory, site string, c *placement.Cluster) (check *placement.Check, host string) {
	if c.Check != "" {
		check = inv.Check(c.Check)
	}
	for i := range inv.Services {
		s := &inv.Services[i]
		if !slices.Contains(s.Clusters, c.Name) || len(s.Sites) > 0 && !slices.Contains(s.Sites, site) {
			continue
		}
		if host == "" && len(s.Names) > 0 {
			host = strings.TrimSuffix(s.Names[0], ".") // as clients write it (RFC 9110, 7.2)
		}
		if check == nil && s.Check != "" {
			check = inv.Check(s.Check)
		}
	}
	return check, host
}
