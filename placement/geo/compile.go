package geo

import (
	"cmp"
	"fmt"
	"iter"
	"net/netip"
	"slices"

	"rhumb/placement/lpm"
)

// maxClasses is bound by the width of a class id; the last id stays unused, so
// that a caller has one to say "none" with.
const maxClasses = 65_535

// Compile makes a table of networks and their Locations. Each source must yield
// its networks in address order, an outer one before those inside it, and
// Locations as Locate or Country give them. Where sources overlap the longer
// prefix wins, and of equal ones the later source. Class ids follow the content,
// not the order of arrival; more than 65,535 different Locations are an error.
func Compile(info Info, sources ...iter.Seq2[netip.Prefix, Location]) (*Table, error) {
	c := compiler{ids: map[Location]uint16{}}
	b, err := gather(c.merged(sources))
	if err = cmp.Or(c.err, err); err != nil {
		return nil, fmt.Errorf("geo: compile: %w", err)
	}
	classes, final := c.renumber()
	return newTable(info, b.Table(final), classes), nil
}

// compiler turns networks into entries as they come: a city database has millions,
// and is never held as a list. Ids are provisional until renumber.
type compiler struct {
	ids     map[Location]uint16
	classes []class
	err     error // what ended a source early
}

// merged brings the entries of all sources into one order.
func (c *compiler) merged(sources []iter.Seq2[netip.Prefix, Location]) iter.Seq[lpm.Entry] {
	if len(sources) == 1 { // for which no coroutine is needed
		return c.entries(sources[0])
	}
	return func(yield func(lpm.Entry) bool) {
		heads := make([]head, len(sources))
		for i, networks := range sources {
			var stop func()
			heads[i].next, stop = iter.Pull(c.entries(networks))
			defer stop()
			heads[i].pull()
		}
		for h := first(heads); h != nil; h = first(heads) {
			if !yield(h.entry) {
				return
			}
			h.pull()
		}
	}
}

// head is the next entry of a source.
type head struct {
	entry lpm.Entry
	more  bool
	next  func() (lpm.Entry, bool)
}

func (h *head) pull() { h.entry, h.more = h.next() }

// first is the head whose turn it is: of equal prefixes that of the earliest source,
// since the Builder keeps what comes last. It is nil when all have ended.
func first(heads []head) (f *head) {
	for i := range heads {
		if h := &heads[i]; h.more && (f == nil || comparePrefixes(h.entry.Prefix, f.entry.Prefix) < 0) {
			f = h
		}
	}
	return f
}

// entries yields the networks of a source with their classes, neighbours of one class
// joined to the block that they make up.
func (c *compiler) entries(networks iter.Seq2[netip.Prefix, Location]) iter.Seq[lpm.Entry] {
	return func(yield func(lpm.Entry) bool) {
		var last netip.Prefix // as it came
		var j joiner
		for p, l := range networks {
			if !p.IsValid() || last.IsValid() && comparePrefixes(last, p) >= 0 {
				c.err = fmt.Errorf("%s after %s: not in address order", p, last)
				return
			}
			last = p
			id, err := c.class(l)
			if err != nil {
				c.err = err
				return
			}
			if !j.add(lpm.Entry{Prefix: p, Value: id}, yield) {
				return
			}
		}
		j.flush(yield)
	}
}

// class is the id of a class, which gets one when it is new.
func (c *compiler) class(l Location) (uint16, error) {
	if id, known := c.ids[l]; known {
		return id, nil
	}
	if len(c.classes) == maxClasses {
		return 0, fmt.Errorf("more than %d locations", maxClasses)
	}
	id := uint16(len(c.classes))
	c.ids[l], c.classes = id, append(c.classes, classOf(l))
	return id, nil
}

// renumber sorts the classes by content; final are the ids by the provisional ones.
func (c *compiler) renumber() (sorted []class, final []uint16) {
	sorted = slices.SortedFunc(slices.Values(c.classes), compareClasses)
	final = make([]uint16, len(sorted))
	for i, cl := range c.classes {
		at, _ := slices.BinarySearchFunc(sorted, cl, compareClasses)
		final[i] = uint16(at)
	}
	return sorted, final
}

// joiner joins the halves of a block that are of one class. It holds lower halves back
// until their upper one is complete or cannot be any more. Each that is held lies in
// the upper half of the one before, so they are at most as many as an address has bits.
//
// What lies inside the lower half would stand between the two, and what lies inside
// the upper one comes later and is longer, so no match changes.
type joiner struct{ held []lpm.Entry }

// add takes the next entry and yields those that stay as they are.
func (j *joiner) add(e lpm.Entry, yield func(lpm.Entry) bool) bool {
	done := len(j.held) // what is before one that stays as it is stays as well
	for done > 0 && inside(e.Prefix, upperHalf(j.held[done-1].Prefix)) {
		done--
	}
	for _, stays := range j.held[:done] {
		if !yield(stays) {
			return false
		}
	}
	j.held = append(slices.Delete(j.held, 0, done), e)
	for j.join() {
	}
	return true
}

// flush yields the rest.
func (j *joiner) flush(yield func(lpm.Entry) bool) {
	for _, e := range j.held {
		if !yield(e) {
			return
		}
	}
}

// join joins the last two entries if they are such halves.
func (j *joiner) join() bool {
	n := len(j.held)
	if n < 2 {
		return false
	}
	low, high := j.held[n-2], j.held[n-1]
	if low.Value != high.Value || upperHalf(low.Prefix) != high.Prefix {
		return false
	}
	j.held = j.held[:n-1]
	j.held[n-2].Prefix = netip.PrefixFrom(low.Prefix.Addr(), low.Prefix.Bits()-1)
	return true
}

// upperHalf is the other half of the block whose lower half is p; the zero Prefix if p
// is none.
func upperHalf(p netip.Prefix) netip.Prefix {
	n := p.Bits()
	if n == 0 || netip.PrefixFrom(p.Addr(), n-1).Masked().Addr() != p.Addr() {
		return netip.Prefix{}
	}
	at, bit := pointOf(p.Addr()), hostMask(n).next()
	return point{at.hi | bit.hi, at.lo | bit.lo}.prefix(n, p.Addr().Is4())
}
