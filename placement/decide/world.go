package decide

import (
	"cmp"
	"math/bits"
	"slices"

	"rhumb/placement"
)

// maxCandidates is how many clusters a class ranks; beyond them it keeps one
// more in each region that would be missing, as far reserve.
const maxCandidates = 32

// world is what does not change with health: who is where, and how far. It is
// computed once per inventory and class table.
type world struct {
	inv     *placement.Inventory
	classes *placement.ClassTable
	// algorithm is the plan's, by which all nodes decide alike.
	algorithm int
	known     int                // classes with a location; one more row is for NoClass
	costs     []placement.Cost   // class-major, by index of site
	near      []int32            // nearest site of each class
	markets   map[string]*market // by market key
	demand    map[string][]int64 // expected, by service
}

func newWorld(inv *placement.Inventory, classes *placement.ClassTable, algorithm int) *world {
	w := &world{inv: inv, classes: classes, algorithm: algorithm, markets: make(map[string]*market), demand: make(map[string][]int64)}
	if classes != nil {
		w.known = len(classes.Locations)
	}
	n, measured := len(inv.Sites), inv.Measure(classes)
	w.costs, w.near = make([]placement.Cost, w.known*n), make([]int32, w.known)
	for c := range w.known {
		row := w.costs[c*n : (c+1)*n]
		for s := range n {
			row[s] = placement.DistanceCost(classes.Locations[c].At, inv.Sites[s].At)
			if row[s] < row[w.near[c]] {
				w.near[c] = int32(s)
			}
		}
		if len(inv.RTT) > 0 {
			w.measured(measured, c, row)
		}
	}
	return w
}

// measured puts what the operator has measured in place of distances.
func (w *world) measured(m *placement.Measured, class int, row []placement.Cost) {
	if len(row) == 0 {
		return
	}
	near, distance := w.inv.Sites[w.near[class]].Name, row[w.near[class]]
	for s := range row {
		if c, by := m.Cost(uint16(class), w.inv.Sites[s].Name, near, distance); by != "" {
			row[s] = c
		}
	}
}

// rows is how many rows a map has.
func (w *world) rows() int { return w.known + 1 }

// cost of class and site; nothing is far from a client of whom nothing is known.
func (w *world) cost(class, site int) placement.Cost {
	if class >= w.known {
		return 0
	}
	return w.costs[class*len(w.inv.Sites)+site]
}

func (w *world) places(class int) places {
	if class >= w.known || len(w.inv.Sites) == 0 {
		return places{}
	}
	l := &w.classes.Locations[class]
	return places{l.Region, l.Country, l.Continent, w.inv.Sites[w.near[class]].Region}
}

// market is the clusters and the policy that some services have in common.
type market struct {
	policy    *placement.Policy
	algorithm int
	clusters  []placement.ClusterID
	sites     []int // index of site, by cluster
	layouts   []*layout
	layoutOf  []uint16 // by class
	// ranked by class: the candidates in order of preference, none of them judged yet.
	ranked [][]placement.Candidate
	// single is, by cluster, the division that gives it the whole class.
	single [][]part
}

// market returns the market of a service, made on first use.
func (w *world) market(s *placement.Service) *market {
	key := s.Policy
	clusters := w.inv.Eligible(s)
	for _, c := range clusters {
		key += "\x00" + c.String()
	}
	if m := w.markets[key]; m != nil {
		return m
	}
	m := &market{policy: w.inv.Policy(s.Policy), algorithm: w.algorithm, clusters: clusters}
	if m.policy == nil {
		m.policy = &placement.Policy{Name: s.Policy}
	}
	for i, c := range clusters {
		m.single = append(m.single, []part{{uint16(i), whole}})
		m.sites = append(m.sites, slices.IndexFunc(w.inv.Sites, func(s placement.Site) bool { return s.Name == c.Site }))
	}
	w.compile(m)
	w.rank(m)
	w.markets[key] = m
	return m
}

// compile makes a layout for each kind of place, and tells which class has which.
func (w *world) compile(m *market) {
	m.layoutOf = make([]uint16, w.rows())
	seen := make(map[places]uint16)
	geo := hasGeo(&m.policy.Choose)
	for c := range w.rows() {
		var at places
		if geo {
			at = w.places(c)
		}
		i, ok := seen[at]
		if !ok {
			i = uint16(len(m.layouts))
			seen[at] = i
			m.layouts = append(m.layouts, compile(&m.policy.Choose, m.clusters, at))
		}
		m.layoutOf[c] = i
	}
}

func hasGeo(b *placement.Branch) bool {
	return len(b.Geo) > 0 || slices.ContainsFunc(b.Failover, func(b placement.Branch) bool { return hasGeo(&b) }) ||
		slices.ContainsFunc(b.Weighted, func(w placement.Weighted) bool { return hasGeo(&w.Branch) })
}

func (m *market) layout(class int) *layout { return m.layouts[m.layoutOf[class]] }

// rank orders the candidates of every class: tier, cost, id.
func (w *world) rank(m *market) {
	m.ranked = make([][]placement.Candidate, w.rows())
	n := len(m.clusters)
	slab := make([]placement.Candidate, 0, w.rows()*min(n, maxCandidates))
	all := make([]placement.Candidate, n)
	for class := range w.rows() {
		l := m.layout(class)
		for i := range n {
			all[i] = placement.Candidate{Cluster: uint16(i), Tier: l.tierOf[i], Cost: w.cost(class, m.sites[i])}
		}
		slices.SortFunc(all, compareCandidates)
		from := len(slab)
		slab = w.nearest(slab, m, all)
		m.ranked[class] = slab[from:len(slab):len(slab)]
	}
}

func compareCandidates(a, b placement.Candidate) int {
	return cmp.Or(cmp.Compare(a.Tier, b.Tier), cmp.Compare(a.Cost, b.Cost), cmp.Compare(a.Cluster, b.Cluster))
}

// nearest appends the candidates that a class keeps.
func (w *world) nearest(slab []placement.Candidate, m *market, all []placement.Candidate) []placement.Candidate {
	if len(all) <= maxCandidates {
		return append(slab, all...)
	}
	regions := make(map[string]bool)
	for i, c := range all {
		region := w.inv.Sites[m.sites[c.Cluster]].Region
		if i < maxCandidates || !regions[region] {
			slab = append(slab, c)
		}
		regions[region] = true
	}
	return slab
}

// mulDiv returns a*b/c and the remainder; all are non-negative, c positive, and
// the quotient fits.
func mulDiv(a, b, c int64) (q, r int64) {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	uq, ur := bits.Div64(hi, lo, uint64(c))
	return int64(uq), int64(ur)
}
