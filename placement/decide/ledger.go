package decide

import (
	"slices"

	"rhumb/placement"
	"rhumb/placement/solve"
)

// defaultHeadroom is the part of a capacity that may be used, in per mille.
const defaultHeadroom = 900

// ledger says who carries what: every service's classes, divided among
// clusters, under capacities which all services share.
type ledger struct {
	w        *world
	plan     *placement.Plan
	clusters map[placement.ClusterID]int32
	capacity []int64 // usable, in thousandths of a query per second
	services []*serving
	// beside is, by market, who may stand in answers beside the cluster that serves.
	beside statuses
}

// serving is one service in the ledger.
type serving struct {
	service *placement.Service
	m       *market
	fleet   []int32 // index in the ledger, by cluster of the market
	demand  []int64 // by class; nil when nothing is known
	parts   [][]part
	// own is set when parts are this service's and no longer the market's defaults.
	own bool
}

func newLedger(w *world, plan *placement.Plan) *ledger {
	l := &ledger{w: w, plan: plan, clusters: make(map[placement.ClusterID]int32)}
	for i := range w.inv.Sites {
		site := &w.inv.Sites[i]
		for k := range site.Clusters {
			id := placement.ClusterID{Site: site.Name, Name: site.Clusters[k].Name}
			l.clusters[id] = int32(len(l.capacity))
			l.capacity = append(l.capacity, solve.Unlimited)
		}
	}
	for i := range w.inv.Services {
		l.add(&w.inv.Services[i], servicePlan(plan, w.inv.Services[i].Name))
	}
	return l
}

func servicePlan(plan *placement.Plan, name string) *placement.ServicePlan {
	for i := range plan.Services {
		if plan.Services[i].Service == name {
			return &plan.Services[i]
		}
	}
	return &placement.ServicePlan{Service: name}
}

func (l *ledger) add(s *placement.Service, sp *placement.ServicePlan) {
	sv := &serving{service: s, m: l.w.market(s), demand: l.w.demandOf(s, sp.Demand)}
	headroom := int64(sv.m.policy.Headroom)
	if headroom == 0 {
		headroom = defaultHeadroom
	}
	for _, id := range sv.m.clusters {
		g := l.clusters[id]
		sv.fleet = append(sv.fleet, g)
		if c := l.w.inv.Cluster(id); c.Capacity > 0 {
			l.capacity[g] = min(l.capacity[g], c.Capacity*headroom) // per mille x qps: thousandths
		}
	}
	l.services = append(l.services, sv)
}

// set gives a service its own division of a class.
func (sv *serving) set(class int, parts []part) {
	if !sv.own {
		sv.parts, sv.own = slices.Clone(sv.parts), true
	}
	sv.parts[class] = parts
}

// load is what each cluster carries, without the classes that skip names.
func (l *ledger) load(skip func(sv *serving, class int) bool) []int64 {
	out := make([]int64, len(l.capacity))
	for _, sv := range l.services {
		for class, d := range sv.demand {
			if d == 0 || (skip != nil && skip(sv, class)) {
				continue
			}
			for _, p := range sv.parts[class] {
				out[sv.fleet[p.cluster]] += d * int64(p.perMille) / whole
			}
		}
	}
	return out
}

func (l *ledger) over(load []int64) bool {
	for i := range load {
		if load[i] > l.capacity[i] {
			return true
		}
	}
	return false
}

// statuses gives each market its status.
type statuses map[*market][]status

func (l *ledger) statuses(of func(m *market) []status) statuses {
	out := make(statuses)
	for _, sv := range l.services {
		if out[sv.m] == nil {
			out[sv.m] = of(sv.m)
		}
	}
	return out
}

// open places everybody by policy under st, and within capacity.
func (l *ledger) open(st statuses) {
	defaults := make(map[*market][][]part)
	for _, sv := range l.services {
		if defaults[sv.m] == nil {
			defaults[sv.m] = l.w.defaults(sv.m, st[sv.m])
		}
		sv.parts, sv.own = defaults[sv.m], false
	}
	if l.over(l.load(nil)) {
		l.solve(l.entries(st, nil), l.capacity, nil)
	}
}

// move goes from the assignment at hand to one under st: only what can no
// longer stay moves, to the next cluster with room, and pulls others along only
// if there is room nowhere else.
func (l *ledger) move(st statuses) {
	affected := l.affected(st)
	before := make([][][]part, len(l.services))
	for i, sv := range l.services {
		before[i] = sv.parts
	}
	l.follow(st, affected)
	hit := func(sv *serving, class int) bool { return affected[sv] != nil && affected[sv][class] }
	entries := l.entries(st, hit)
	if len(entries) == 0 {
		return
	}
	room := l.load(func(sv *serving, class int) bool { return hit(sv, class) })
	for i := range room {
		room[i] = max(1, l.capacity[i]-room[i])
	}
	if !l.solve(entries, room, before) {
		l.solve(l.entries(st, nil), l.capacity, before)
	}
}

// affected marks the classes that have a part which may not stay. A class of
// which no demand is known has nothing to be kept together: policy decides it anew.
func (l *ledger) affected(st statuses) map[*serving][]bool {
	out := make(map[*serving][]bool)
	for _, sv := range l.services {
		now := st[sv.m]
		stays := true
		for i := range now {
			stays = stays && now[i].open() && now[i].limit == whole
		}
		if stays {
			continue
		}
		marks := make([]bool, len(sv.parts))
		for class, parts := range sv.parts {
			marks[class] = sv.demand == nil || sv.demand[class] == 0
			for _, p := range parts {
				if s := now[p.cluster]; !s.open() || p.perMille > s.limit+1 { // one for rounding
					marks[class] = true
				}
			}
		}
		out[sv] = marks
	}
	return out
}

// follow gives the affected classes what policy alone says; those with demand
// are then fitted into capacity.
func (l *ledger) follow(st statuses, affected map[*serving][]bool) {
	type key struct {
		m     *market
		parts *[]part
	}
	shared := make(map[key][][]part)
	for _, sv := range l.services {
		marks := affected[sv]
		if marks == nil {
			continue
		}
		k := key{sv.m, &sv.parts[0]}
		if !sv.own && shared[k] != nil {
			sv.parts = shared[k]
			continue
		}
		parts := slices.Clone(sv.parts)
		for class, hit := range marks {
			if hit {
				parts[class] = l.w.parts(sv.m, class, st[sv.m])
			}
		}
		if !sv.own {
			shared[k] = parts
		}
		sv.parts = parts
	}
}
