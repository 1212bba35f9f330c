package api

import (
	"cmp"
	"net/http"
	"slices"
	"strings"

	"rhumb/placement"
)

// Demand is what the clients of one region ask of one service.
type Demand struct {
	Service string `json:"service"`
	// Region is that of the classes, by override, or of the site nearest to them;
	// empty: of clients of whom nothing is known.
	Region string `json:"region"`
	// Asked is what all name servers are asked, in queries per second, smoothed, and
	// Classes by how many classes.
	Asked   float64 `json:"asked_qps"`
	Classes int     `json:"classes"`
	// PerQuery is how many requests a query stands for; 0: what is asked counts for no plan.
	PerQuery int64 `json:"per_query"`
	// Planned is what the plan in force divides, in requests per second; 0 where it
	// goes by the expected demand.
	Planned int64 `json:"planned_rps"`
}

// DemandOf lists what is asked by service and region, in that order.
func DemandOf(s State) []Demand {
	out := []Demand{}
	if s.Snapshot == nil {
		return out
	}
	inv := s.Snapshot.Inventory
	near := &regions{inv: inv, classes: s.Snapshot.Classes, of: make(map[uint16]string)}
	for i := range inv.Services {
		svc := &inv.Services[i]
		if svc.IsNameServer() {
			continue
		}
		rows := make(map[string]*Demand)
		row := func(class uint16) *Demand {
			region := near.region(class)
			if rows[region] == nil {
				rows[region] = &Demand{Service: svc.Name, Region: region, PerQuery: svc.PerQuery}
			}
			return rows[region]
		}
		for class, milli := range s.asked(svc.Name) {
			r := row(class)
			r.Asked, r.Classes = r.Asked+float64(milli)/1000, r.Classes+1
		}
		for class, rps := range demandOf(s.Snapshot.Plan, svc.Name) {
			row(class).Planned += rps
		}
		for _, r := range rows {
			out = append(out, *r)
		}
	}
	slices.SortFunc(out, func(a, b Demand) int {
		return cmp.Or(strings.Compare(a.Service, b.Service), strings.Compare(a.Region, b.Region))
	})
	return out
}

// asked sums what all name servers are asked for a service by class, in thousandths of
// a query per second. Reports in the classes of another table are left out.
func (s *State) asked(service string) map[uint16]int64 {
	table := ""
	if s.Snapshot.Classes != nil {
		table = s.Snapshot.Classes.Digest
	}
	out := make(map[uint16]int64)
	for _, r := range s.Demand {
		for i := range r.Services {
			if r.ClassTable != table || r.Services[i].Service != service {
				continue
			}
			for _, a := range r.Services[i].Asked {
				out[a.Class] += a.Milli
			}
		}
	}
	return out
}

// regions names the region of classes, and remembers them.
type regions struct {
	inv     *placement.Inventory
	classes *placement.ClassTable
	of      map[uint16]string
}

func (r *regions) region(class uint16) string {
	if r.classes == nil || int(class) >= len(r.classes.Locations) {
		return ""
	}
	if name, ok := r.of[class]; ok {
		return name
	}
	at := &r.classes.Locations[class]
	name, least := at.Region, placement.Cost(0)
	for i := range r.inv.Sites {
		cost := placement.DistanceCost(at.At, r.inv.Sites[i].At)
		if at.Region == "" && (i == 0 || cost < least) {
			name, least = r.inv.Sites[i].Region, cost
		}
	}
	r.of[class] = name
	return name
}

func (s *Server) getDemand(*http.Request) (any, error) {
	st := s.cfg.State()
	return list(&st, "DemandList", DemandOf(st)), nil
}

// ClassDemand is what the clients of the explained client's class ask of the service.
type ClassDemand struct {
	Asked   float64 `json:"asked_qps"`
	Planned int64   `json:"planned_rps"` // 0: by the expected demand
}

// classDemand returns nil where nothing is asked and nothing measured is planned with.
func (s *State) classDemand(service string, class int) *ClassDemand {
	c := uint16(placement.NoClass)
	if class >= 0 {
		c = uint16(class)
	}
	out := ClassDemand{Asked: float64(s.asked(service)[c]) / 1000, Planned: demandOf(s.Snapshot.Plan, service)[c]}
	if out.Asked == 0 {
		return nil
	}
	return &out
}
