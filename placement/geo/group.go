package geo

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"slices"

	"rhumb/placement/lpm"
)

// Grouped returns a table in which clients of one routed prefix are in one place
// where t nearly says so: if one place holds three quarters of a prefix's
// addresses, all of them are there, also those which t puts elsewhere or does not
// know. Addresses inside a longer route count for that one only. Networks that no
// route covers, and routes that are spread over several places, stay as they are:
// a provider's aggregate over half a continent is no cluster.
//
// The order of classes stays. The digest covers the routes too, because overrides
// by AS depend on them.
func (t *Table) Grouped(r *Routes) (*Table, error) {
	g := grouping{routes: r}
	g.places = placesOf(t)
	g.decide()
	b, err := gather(g.entries)
	if err != nil {
		return nil, err
	}
	out := newTable(t.info, b.Table(nil), t.classes)
	out.attach(r)
	return out, nil
}

// attach names the routes that a table was grouped by.
func (t *Table) attach(r *Routes) {
	t.routes = r
	sum := sha256.Sum256([]byte(t.digest + "\n" + r.Digest()))
	t.digest = hex.EncodeToString(sum[:])
}

// area is a stretch of addresses in one place: class + 1, 0 for unknown.
type area struct {
	first point
	place uint32
}

// places are the areas of both families, each from its first address to the last.
type places struct{ v4, v6 []area }

// placesOf flattens a table. Its values are classes.
func placesOf(t *Table) places {
	var p places
	for _, f := range []struct {
		v4  bool
		out *[]area
	}{{true, &p.v4}, {false, &p.v6}} {
		starts(func(s *sweep) {
			for prefix, id := range t.Entries() {
				if prefix.Addr().Is4() == f.v4 {
					s.enter(pointOf(prefix.Addr()), prefix.Bits(), uint32(id)+1)
				}
			}
		}, func(at point, place uint32) { *f.out = append(*f.out, area{at, place}) })
	}
	return p
}

// grouping decides for each route, in the order in which their blocks begin.
type grouping struct {
	routes  *Routes
	places  places
	decided []uint32 // the place that takes all of a route, 0: none
}

// piece is addresses in one stretch of routes and one area, inside one route.
type piece struct {
	first, last point
	place       uint32
	v4          bool
	route       *tally // nil without a route
}

// tally is a route and what the table says of its own addresses, as far as the
// walk has come.
type tally struct {
	number int // of first appearance, the same in every walk
	first  point
	bits   int
	v4     bool
	total  extent
	by     []share
}

type share struct {
	place uint32
	size  extent
}

// extent counts addresses of a family's upper 64 bits: a /64 of IPv6 and a 2^-32nd
// of an IPv4 address are 1, and what is smaller is 1 too.
type extent uint64

// extentOf cannot overflow: only the whole space would, and is one less.
func extentOf(first, last point) extent { return extent(max(1, last.hi-first.hi)) }

// decide walks once and judges each route as the walk leaves it.
func (g *grouping) decide() {
	w := walker{left: func(t *tally) { g.decided[t.number] = t.dominant() }}
	w.entered = func(*tally) { g.decided = append(g.decided, 0) }
	w.walk(g, func(p piece) {
		if p.route != nil {
			p.route.add(p.place, extentOf(p.first, p.last))
		}
	})
}

func (t *tally) add(place uint32, n extent) {
	t.total += n
	i := slices.IndexFunc(t.by, func(s share) bool { return s.place == place })
	if i < 0 {
		i, t.by = len(t.by), append(t.by, share{place: place})
	}
	t.by[i].size += n
}

// dominant is the known place with three quarters of the addresses.
func (t *tally) dominant() uint32 {
	for _, s := range t.by {
		if s.place != 0 && s.size >= t.total-t.total/4 {
			return s.place
		}
	}
	return 0
}

// walker goes over the pieces of both families in address order and keeps the
// routes that it stands in. A route that longer ones interrupt is one route.
type walker struct {
	entered, left func(*tally) // nil: nobody asks
	open          []*tally
	next          int
}

func (w *walker) walk(g *grouping, yield func(piece)) {
	areas, v4, at := g.places.v4, true, 0
	g.routes.each(func(s stretch) {
		if s.v4 != v4 {
			areas, v4, at = g.places.v6, s.v4, 0
		}
		for first := s.first; ; {
			last := s.last
			if s.bits > 0 && first.last(s.bits).less(last) {
				last = first.last(s.bits) // the stretch holds several routes of one length
			}
			for at+1 < len(areas) && !first.less(areas[at+1].first) {
				at++
			}
			if at+1 < len(areas) && !last.less(areas[at+1].first) {
				last = areas[at+1].first.prev()
			}
			yield(piece{first, last, areas[at].place, v4, w.route(first, s)})
			if last == s.last {
				return
			}
			first = last.next()
		}
	})
	for len(w.open) > 0 {
		w.leave()
	}
}

// route is the route of stretch s around first.
func (w *walker) route(first point, s stretch) *tally {
	if s.bits == 0 {
		return nil
	}
	first = first.masked(s.bits)
	for n := len(w.open); n > 0 && !w.open[n-1].covers(first, s); n = len(w.open) {
		w.leave()
	}
	if n := len(w.open); n > 0 && w.open[n-1].bits == s.bits {
		return w.open[n-1]
	}
	t := &tally{number: w.next, first: first, bits: s.bits, v4: s.v4}
	w.open, w.next = append(w.open, t), w.next+1
	if w.entered != nil {
		w.entered(t)
	}
	return t
}

// covers says whether the block of s at first is that of the tally or inside it.
func (t *tally) covers(first point, s stretch) bool {
	return t.v4 == s.v4 && t.bits <= s.bits && first.inside(t.first, t.bits)
}

func (w *walker) leave() {
	top := w.open[len(w.open)-1]
	w.open = w.open[:len(w.open)-1]
	if w.left != nil {
		w.left(top)
	}
}

// entries yields the outcome: what was decided, else what the table said. Equal
// neighbours are joined before they are cut into prefixes.
func (g *grouping) entries(yield func(lpm.Entry) bool) {
	var held piece
	more := true
	flush := func() {
		if held.place != 0 {
			blocks(held.first, held.last, held.v4, func(p netip.Prefix) {
				more = more && yield(lpm.Entry{Prefix: p, Value: uint16(held.place - 1)})
			})
		}
	}
	(&walker{}).walk(g, func(p piece) {
		if p.route != nil && g.decided[p.route.number] != 0 {
			p.place = g.decided[p.route.number]
		}
		if held.place == p.place && held.v4 == p.v4 {
			held.last = p.last
			return
		}
		flush()
		held = p
	})
	flush()
}
