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
	// Rule makes the findings at one address its state; the zero value is the one
	// check of the targets.
	Rule Rule
	// Fault is what a failure of the whole rule proves; of a rule without one the
	// first target's check says it.
	Fault placement.Fault
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
	for i := range s.Clusters {
		c := &s.Clusters[i]
		check, hosts := checkOf(inv, site, c)
		if check == nil || check.Disabled {
			continue
		}
		p := Probe{Object: placement.ClusterID{Site: site, Name: c.Name}, Fault: check.Fault, HalfLife: inv.Comeback().HalfLife.D()}
		leaves := make(map[string]bool)
		p.Rule = ruleOf(inv, check, 0)
		for _, leaf := range p.Rule.leaves(nil) {
			if !leaves[leaf.Name] {
				leaves[leaf.Name] = true
				p.Targets = append(p.Targets, targets(p.Object, c, leaf, hosts)...)
			}
		}
		if len(p.Targets) > 0 { // else every child is disabled
			out = append(out, p)
		}
	}
	return out
}

func targets(object placement.ClusterID, c *placement.Cluster, check *placement.Check, hosts []string) []Target {
	out := make([]Target, 0, len(c.Addresses))
	for _, a := range c.Addresses {
		t := Target{Object: object, Address: a, Check: *check}
		if len(hosts) > 0 {
			t.Host, t.Hosts = hosts[0], hosts
		}
		out = append(out, t)
	}
	return out
}

// hostOf is a service's name as clients write it (RFC 9110, 7.2); of a wildcard it is
// one of the names for which that stands (RFC 4592, 2.1.1).
func hostOf(name string) string {
	host := strings.TrimSuffix(name, ".")
	if below, ok := strings.CutPrefix(host, "*."); ok {
		return "rhumb-health." + below
	}
	return host
}

// checkOf returns the check of a cluster and the names that are served there.
func checkOf(inv *placement.Inventory, site string, c *placement.Cluster) (check *placement.Check, hosts []string) {
	if c.Check != "" {
		check = inv.Check(c.Check)
	}
	for i := range inv.Services {
		s := &inv.Services[i]
		if !slices.Contains(s.Clusters, c.Name) || len(s.Sites) > 0 && !slices.Contains(s.Sites, site) {
			continue
		}
		for _, n := range s.Names {
			hosts = append(hosts, hostOf(n))
		}
		if check == nil && s.Check != "" {
			check = inv.Check(s.Check)
		}
	}
	return check, hosts
}
