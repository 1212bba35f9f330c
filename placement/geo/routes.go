package geo

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Cluster is what a routing table says of the clients in one prefix: they are
// administered together, so they are near to each other more often than not.
type Cluster struct {
	// Origin is the AS which announces the prefix, 0 if the path is empty.
	Origin uint32
	// Via is the AS before it on most paths, 0 if there is none.
	Via uint32
}

// Routes finds the routed prefix of an address. It is immutable and safe for
// concurrent use. OpenRoutes makes it.
type Routes struct {
	v4       spans4
	v6       spans6
	clusters []Cluster // by the lower 24 bits of a word; interned
	count    int
	time     time.Time
	digest   func() string // once
}

// spans4 is IPv4 as stretches of one longest match each, from the first address
// to the last.
type spans4 struct {
	list []span4
	root root
}

// span4 is where a stretch begins; the word holds prefix length and cluster, 0 for
// no match. Both lie on one cache line.
type span4 struct{ first, word uint32 }

// spans6 is the same for IPv6. The lower halves exist only if one is not zero:
// tables that stop at /64 have none.
type spans6 struct {
	list []span6
	low  []uint64
	root root
}

type span6 struct {
	first uint64
	word  uint32
}

// Lookup returns the cluster of an address and the prefix that says so; ok is
// false if no route covers it. A default route covers nothing. An IPv4-mapped
// address is looked up as IPv4. It does not allocate.
func (r *Routes) Lookup(a netip.Addr) (c Cluster, match netip.Prefix, ok bool) {
	if !a.IsValid() {
		return Cluster{}, netip.Prefix{}, false
	}
	a = a.Unmap()
	p := pointOf(a)
	word := uint32(0)
	if a.Is4() {
		word = r.v4.find(uint32(p.hi >> 32))
	} else {
		word = r.v6.find(p)
	}
	if word == 0 {
		return Cluster{}, netip.Prefix{}, false
	}
	bits, id := unpackWord(word)
	return r.clusters[id], p.prefix(bits, a.Is4()), true
}

// find narrows the stretches down by halves without a branch on the outcome,
// which no predictor could guess.
func (s *spans4) find(x uint32) uint32 {
	at, n := s.root.bounds(uint64(x) << 32)
	for n = n - at + 1; n > 1; {
		half := n / 2
		if s.list[at+half].first <= x {
			at += half
		}
		n -= half
	}
	return s.list[at].word
}

func (s *spans6) find(p point) uint32 {
	at, n := s.root.bounds(p.hi)
	for n = n - at + 1; n > 1; {
		half := n / 2
		if first := s.list[at+half].first; first < p.hi || first == p.hi && (s.low == nil || s.low[at+half] <= p.lo) {
			at += half
		}
		n -= half
	}
	return s.list[at].word
}

// root narrows a search: the space is divided by its first 16 bits, and each part
// again by as many bits as it holds stretches to tell apart. IPv6 needs that, since
// all of it lies in some hundred parts, and there densely.
type root struct {
	branch []branch // 1<<16
	start  []uint32 // the last stretch before each part, and one more
}

type branch struct {
	first uint32 // of its parts
	bits  uint8  // it has 1<<bits
}

// part is the part of an address by its upper half.
func (r *root) part(hi uint64) uint32 {
	b := r.branch[hi>>48]
	return b.first + uint32(hi<<16>>(64-b.bits))
}

// bounds are the first and the last stretch in which an address may lie.
func (r *root) bounds(hi uint64) (first, last uint32) {
	p := r.part(hi)
	return r.start[p], r.start[p+1]
}

// newRoot makes the root of n stretches: some four of them a part on the average.
func newRoot(n int, first func(i int) uint64) root {
	count := make([]int, 1<<16)
	for i := range n {
		count[first(i)>>48]++
	}
	r := root{branch: make([]branch, 1<<16)}
	parts := uint32(0)
	for i, c := range count {
		r.branch[i] = branch{parts, uint8(min(16, max(0, bits.Len(uint(c))-2)))}
		parts += 1 << r.branch[i].bits
	}
	r.start = make([]uint32, parts+1)
	next := 0
	for p := range r.start {
		for next < n && r.part(first(next)) < uint32(p) {
			next++
		}
		r.start[p] = uint32(max(0, next-1))
	}
	return r
}

// Len is the number of routes.
func (r *Routes) Len() int { return r.count }

// Clusters is the number of different clusters.
func (r *Routes) Clusters() int { return len(r.clusters) }

// Time is when the oldest of the tables was written.
func (r *Routes) Time() time.Time { return r.time }

// Digest names the content: SHA-256 in hex over each stretch in address order, as
// start, prefix length and cluster. It is computed when first asked for.
func (r *Routes) Digest() string { return r.digest() }

func (r *Routes) sum() string {
	h := sha256.New()
	w := bufio.NewWriterSize(h, 1<<16)
	var rec [26]byte
	r.each(func(s stretch) {
		rec[0], rec[1] = 6, byte(s.bits)
		if s.v4 {
			rec[0] = 4
		}
		binary.BigEndian.PutUint64(rec[2:], s.first.hi)
		binary.BigEndian.PutUint64(rec[10:], s.first.lo)
		binary.BigEndian.PutUint32(rec[18:], s.cluster.Origin)
		binary.BigEndian.PutUint32(rec[22:], s.cluster.Via)
		_, _ = w.Write(rec[:]) // a hash never fails
	})
	_ = w.Flush()
	return hex.EncodeToString(h.Sum(nil))
}

// stretch is addresses with one longest match; bits is 0 where nothing matches.
// Neighbouring blocks of one length and cluster are one stretch.
type stretch struct {
	first, last point
	bits        int
	cluster     Cluster
	v4          bool
}

// each yields all stretches of both families in address order.
func (r *Routes) each(yield func(stretch)) {
	for i, span := range r.v4.list {
		s := stretch{first: point{hi: uint64(span.first) << 32}, last: end(), v4: true}
		if i+1 < len(r.v4.list) {
			s.last = point{hi: uint64(r.v4.list[i+1].first) << 32}.prev()
		}
		yield(r.named(s, span.word))
	}
	for i, span := range r.v6.list {
		s := stretch{first: r.v6.at(i), last: end()}
		if i+1 < len(r.v6.list) {
			s.last = r.v6.at(i + 1).prev()
		}
		yield(r.named(s, span.word))
	}
}

func (r *Routes) named(s stretch, word uint32) stretch {
	if word != 0 {
		bits, id := unpackWord(word)
		s.bits, s.cluster = bits, r.clusters[id]
	}
	return s
}

func (s *spans6) at(i int) point {
	if s.low == nil {
		return point{hi: s.list[i].first}
	}
	return point{s.list[i].first, s.low[i]}
}

// A word packs a prefix length, never 0, and the number of a cluster.
const maxClusters = 1 << 24

func packWord(bits int, id uint32) uint32          { return uint32(bits)<<24 | id }
func unpackWord(word uint32) (bits int, id uint32) { return int(word >> 24), word & (maxClusters - 1) }

// routesBuilder gathers routes in as few octets as tell them apart: an IPv4 route
// is one number (address, length, cluster) which sorts as the routes do.
type routesBuilder struct {
	v4       []uint64
	v6       []route6
	ids      map[Cluster]uint32
	clusters []Cluster
	time     time.Time
}

type route6 struct {
	point
	word uint32
}

func newRoutesBuilder() *routesBuilder { return &routesBuilder{ids: make(map[Cluster]uint32)} }

func (b *routesBuilder) len() int { return len(b.v4) + len(b.v6) }

// seen keeps the earliest time, which bounds the age of what the table says.
func (b *routesBuilder) seen(t time.Time) {
	if b.time.IsZero() || t.Before(b.time) {
		b.time = t
	}
}

// add takes one route. Bits behind the prefix are cleared (RFC 6396, 4.3.2: their
// value is irrelevant). A default route is no cluster: everybody is in it.
func (b *routesBuilder) add(addr [16]byte, bits int, v4 bool, c Cluster) error {
	if bits == 0 {
		return nil
	}
	id, known := b.ids[c]
	if !known {
		if len(b.clusters) == maxClusters {
			return fmt.Errorf("more than %d clusters", maxClusters)
		}
		id = uint32(len(b.clusters))
		b.ids[c], b.clusters = id, append(b.clusters, c)
	}
	p := point{binary.BigEndian.Uint64(addr[:]), binary.BigEndian.Uint64(addr[8:])}.masked(bits)
	if v4 {
		b.v4 = append(b.v4, p.hi|uint64(packWord(bits, id)))
		return b.bounded(len(b.v4))
	}
	b.v6 = append(b.v6, route6{p, packWord(bits, id)})
	return b.bounded(len(b.v6))
}

// bounded refuses more routes than 32-bit numbers of stretches can index.
func (b *routesBuilder) bounded(n int) error {
	if n > math.MaxInt32/2 {
		return errors.New("too many routes")
	}
	return nil
}

// build sweeps twice, first to count, so that nothing is left to grow into. The
// gathered routes are let go on the way.
func (b *routesBuilder) build() *Routes {
	r := &Routes{clusters: slices.Clip(b.clusters), time: b.time}
	r.digest = sync.OnceValue(r.sum)
	b.ids = nil
	b.order()
	r.count = b.len()
	n := changes(b.sweep4)
	r.v4.list = make([]span4, 0, n)
	starts(b.sweep4, func(at point, word uint32) {
		r.v4.list = append(r.v4.list, span4{uint32(at.hi >> 32), word})
	})
	b.v4 = nil
	r.v4.root = newRoot(n, func(i int) uint64 { return uint64(r.v4.list[i].first) << 32 })
	n = changes(b.sweep6)
	r.v6.list = make([]span6, 0, n)
	if slices.ContainsFunc(b.v6, func(x route6) bool { return x.word>>24 > 64 }) {
		r.v6.low = make([]uint64, 0, n)
	}
	starts(b.sweep6, func(at point, word uint32) {
		r.v6.list = append(r.v6.list, span6{at.hi, word})
		if r.v6.low != nil {
			r.v6.low = append(r.v6.low, at.lo)
		}
	})
	b.v6 = nil
	r.v6.root = newRoot(n, func(i int) uint64 { return r.v6.list[i].first })
	return r
}

// order sorts what did not come in address order, and of equal prefixes keeps the
// last. Collectors write in order, so mostly there is nothing to do.
func (b *routesBuilder) order() {
	compare4 := func(x, y uint64) int { return cmp.Compare(x>>24, y>>24) }
	if !slices.IsSortedFunc(b.v4, compare4) {
		slices.SortStableFunc(b.v4, compare4)
	}
	b.v4 = lastOfEach(b.v4, compare4)
	compare6 := func(x, y route6) int {
		if x.point == y.point {
			return cmp.Compare(x.word>>24, y.word>>24)
		}
		if x.less(y.point) {
			return -1
		}
		return 1
	}
	if !slices.IsSortedFunc(b.v6, compare6) {
		slices.SortStableFunc(b.v6, compare6)
	}
	b.v6 = lastOfEach(b.v6, compare6)
}

// lastOfEach drops, in place, all but the last of equal neighbours.
func lastOfEach[T any](list []T, compare func(x, y T) int) []T {
	n := 0
	for i, x := range list {
		if i+1 < len(list) && compare(x, list[i+1]) == 0 {
			continue
		}
		list[n] = x
		n++
	}
	return list[:n]
}

func (b *routesBuilder) sweep4(s *sweep) {
	for _, x := range b.v4 {
		s.enter(point{hi: x &^ (1<<32 - 1)}, int(uint8(x>>24)), uint32(x))
	}
}

func (b *routesBuilder) sweep6(s *sweep) {
	for _, x := range b.v6 {
		s.enter(x.point, int(x.word>>24), x.word)
	}
}

// starts runs a sweep and yields where the match changes, from zero on: of starts
// at one point only the last, and none that changes nothing.
func starts(run func(*sweep), yield func(at point, word uint32)) {
	var at point
	word, told, any := uint32(0), uint32(0), false
	tell := func() {
		if !any || word != told {
			yield(at, word)
			any, told = true, word
		}
	}
	s := &sweep{note: func(p point, w uint32) {
		if p != at {
			tell()
		}
		at, word = p, w
	}}
	run(s)
	s.finish()
	tell()
}

func changes(run func(*sweep)) int {
	n := 0
	starts(run, func(point, uint32) { n++ })
	return n
}
