package decide

import (
	"cmp"
	"slices"

	"rhumb/placement"
)

// What measurement may keep out at once: a count a pool, and a part of the
// whole capacity. A count, not a rate: broken probers stay broken for hours.
const (
	capOfPool     = 5  // one in five, at least one
	capOfCapacity = 30 // per cent of all capacity
)

// removalCap marks as Capped the clusters which are measured down and stay in
// service all the same. First to go are those which the plan was solved without,
// then the oldest, ties by id. One whole site always may go, and what a second
// class of evidence speaks for goes in any case; both count against the others.
// Where more than half of the rest of a pool looks dead, the monitor is taken for
// broken and what the plan was solved without is all that stays out.
// The operator's word is not measured, and a drained site serves
// nobody: both are left out of the count.
func removalCap(inv *placement.Inventory, verdicts []placement.Verdict, solvedDown map[placement.ClusterID]bool) {
	c := newCensus(inv, verdicts, solvedDown)
	for _, v := range c.dead {
		id := v.Object
		switch {
		case v.Agreed, id.Site == c.whole:
		case c.broken(id):
			v.Capped = !solvedDown[id]
		case id.Site != c.free && !c.room(id):
			v.Capped = true
		}
		if !v.Capped {
			c.remove(id)
		}
	}
	capSites(verdicts)
}

// capSites marks a dead site as kept where all of its clusters are.
func capSites(verdicts []placement.Verdict) {
	for i := range verdicts {
		site := &verdicts[i]
		if !site.Object.IsSite() || site.State != placement.Down {
			continue
		}
		kept, out := 0, 0
		for k := range verdicts {
			if v := &verdicts[k]; v.Object.Site == site.Object.Site && !v.Object.IsSite() {
				if v.Capped {
					kept++
				} else {
					out++
				}
			}
		}
		site.Capped = kept > 0 && out == 0
	}
}

// census counts the dead of each pool.
type census struct {
	inv      *placement.Inventory
	dead     []*placement.Verdict // measured down, oldest first
	free     string               // the one site that always may go
	whole    string               // the same, where it is down as a whole
	pools    []pool
	capacity int64
	removed  int64
}

// pool is the clusters of one service.
type pool struct {
	service *placement.Service
	members []placement.ClusterID
	gone    int // of the dead, those about whom there is no doubt
	dead    int // the others
	sites   int // among the members
	deadIn  int // sites among these dead
	removed int
}

func newCensus(inv *placement.Inventory, verdicts []placement.Verdict, solvedDown map[placement.ClusterID]bool) *census {
	c := &census{inv: inv}
	byID := make(map[placement.ClusterID]*placement.Verdict)
	for i := range verdicts {
		v := &verdicts[i]
		if !measured(inv, v) {
			continue
		}
		byID[v.Object] = v
		c.capacity += capacityOf(inv, v.Object)
		if v.State == placement.Down {
			c.dead = append(c.dead, v)
		}
	}
	first := func(a, b *placement.Verdict) int {
		return cmp.Or(compareBools(b.Agreed, a.Agreed), compareBools(solvedDown[b.Object], solvedDown[a.Object]), a.Since.Compare(b.Since))
	}
	slices.SortStableFunc(c.dead, first)
	if len(c.dead) > 0 {
		c.whole = wholeSite(inv, verdicts, first)
		c.free = cmp.Or(c.whole, c.dead[0].Object.Site)
	}
	for i := range inv.Services {
		c.pools = append(c.pools, newPool(inv, &inv.Services[i], c.whole, byID))
	}
	return c
}

// measured tells whether the state of a cluster is for measurement to decide.
func measured(inv *placement.Inventory, v *placement.Verdict) bool {
	return !v.Object.IsSite() && v.Force == placement.NoForce && inv.Drained(v.Object.Site) == nil
}

func capacityOf(inv *placement.Inventory, id placement.ClusterID) int64 {
	if c := inv.Cluster(id); c != nil {
		return c.Capacity
	}
	return 0
}

// wholeSite is the site that went first of those which are down as a whole, if any.
func wholeSite(inv *placement.Inventory, verdicts []placement.Verdict, first func(a, b *placement.Verdict) int) string {
	var best *placement.Verdict
	for i := range verdicts {
		v := &verdicts[i]
		if v.Object.IsSite() && v.State == placement.Down && v.Force == placement.NoForce && inv.Drained(v.Object.Site) == nil && (best == nil || first(v, best) < 0) {
			best = v
		}
	}
	if best == nil {
		return ""
	}
	return best.Object.Site
}

func newPool(inv *placement.Inventory, s *placement.Service, whole string, byID map[placement.ClusterID]*placement.Verdict) pool {
	p := pool{service: s}
	sites, deadIn := make(map[string]bool), make(map[string]bool)
	for _, id := range inv.Eligible(s) {
		v := byID[id]
		if v == nil {
			continue
		}
		p.members = append(p.members, id)
		sites[id.Site] = true
		switch {
		case v.State != placement.Down:
		case v.Agreed, id.Site == whole:
			p.gone++
		default:
			p.dead++
			deadIn[id.Site] = true
		}
	}
	p.sites, p.deadIn = len(sites), len(deadIn)
	return p
}

// broken tells whether the monitor is taken for broken in a pool of the
// cluster. The loss of one site of several is never that.
func (c *census) broken(id placement.ClusterID) bool {
	return slices.ContainsFunc(c.pools, func(p pool) bool {
		return p.broken() && slices.Contains(p.members, id)
	})
}

func (p *pool) broken() bool {
	return p.dead*2 > len(p.members)-p.gone && !(p.deadIn == 1 && p.sites > 1)
}

// room tells whether each pool of the cluster, and the fleet, bear its loss.
func (c *census) room(id placement.ClusterID) bool {
	for i := range c.pools {
		p := &c.pools[i]
		if slices.Contains(p.members, id) && p.removed+1 > max(1, len(p.members)/capOfPool) {
			return false
		}
	}
	return (c.removed+capacityOf(c.inv, id))*100 <= c.capacity*capOfCapacity || c.capacity == 0
}

func (c *census) remove(id placement.ClusterID) {
	c.removed += capacityOf(c.inv, id)
	for i := range c.pools {
		if p := &c.pools[i]; slices.Contains(p.members, id) {
			p.removed++
		}
	}
}

// capAlarms says loudly where measurement is not followed.
func capAlarms(inv *placement.Inventory, verdicts []placement.Verdict) []placement.Alarm {
	c := newCensus(inv, verdicts, nil)
	var out []placement.Alarm
	for i := range c.pools {
		p := &c.pools[i]
		kept := 0
		for _, v := range c.dead {
			if v.Capped && slices.Contains(p.members, v.Object) {
				kept++
			}
		}
		if kept == 0 {
			continue
		}
		out = append(out, p.alarm(inv.Policy(p.service.Policy), kept))
	}
	return out
}
