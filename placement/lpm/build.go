package lpm

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// Entry is one prefix of a table and what its addresses are worth.
type Entry struct {
	// Prefix may have host bits, which are ignored. An IPv4-mapped IPv6 prefix
	// of at least 96 bits is the IPv4 prefix it maps.
	Prefix netip.Prefix
	// Value means what the caller likes: a class, as a rule.
	Value uint16
}

// item is an entry in the form that sorting and sweeping want.
type item struct {
	first key
	word  uint32
	v4    bool
}

// Build makes a table of the entries, which it neither keeps nor changes. Of
// entries with equal prefixes the last one wins. An invalid prefix is an error.
// Entries already in address order (shorter before longer) are not sorted again.
func Build(entries []Entry) (*Table, error) {
	sorted, last := true, item{v4: true}
	for i, e := range entries {
		it, ok := newItem(e)
		if !ok {
			return nil, fmt.Errorf("lpm: build: entry %d: invalid prefix %q", i, e.Prefix)
		}
		sorted = sorted && compareItems(last, it) <= 0
		last = it
	}
	if !sorted {
		entries = sortedCopy(entries)
	}
	b := NewBuilder()
	for _, e := range entries {
		if err := b.Add(e); err != nil {
			return nil, err
		}
	}
	return b.Table(nil), nil
}

// Builder makes a table of entries as they come, in address order (IPv4 first, and
// of prefixes with one address the shorter first), in little more memory than the
// table's. It belongs to one goroutine, and ends with Table.
type Builder struct {
	v4, v6 sweep
	last   item // what came last waits, since an equal one would replace it
	any    bool
}

// NewBuilder makes an empty Builder.
func NewBuilder() *Builder {
	return &Builder{v4: newSweep(true), v6: newSweep(false)}
}

// Add takes the next entry. Of entries with equal prefixes the last one wins. One that
// is invalid or out of order is an error.
func (b *Builder) Add(e Entry) error {
	it, ok := newItem(e)
	if !ok {
		return fmt.Errorf("lpm: build: invalid prefix %q", e.Prefix)
	}
	if b.any {
		switch order := compareItems(b.last, it); {
		case order > 0:
			return fmt.Errorf("lpm: build: %s is not in address order", e.Prefix)
		case order < 0:
			b.flush()
		}
	}
	b.last, b.any = it, true
	return nil
}

func (b *Builder) flush() {
	if b.last.v4 {
		b.v4.open(b.last)
		return
	}
	b.v6.open(b.last)
}

// Table ends the Builder. A rename, if any, gives the values that the table has in
// place of those that were added, each another one.
func (b *Builder) Table(rename []uint16) *Table {
	if b.any {
		b.flush()
	}
	return &Table{v4: b.v4.end(rename), v6: b.v6.end(rename)}
}

func newItem(e Entry) (item, bool) {
	if !e.Prefix.IsValid() {
		return item{}, false
	}
	p := e.Prefix.Masked()
	a, n := p.Addr(), p.Bits()
	if a.Is4In6() { // the mask left ::ffff standing, so n is at least 96
		n -= 96
	}
	k, v4 := keyOf(a)
	return item{first: k, word: pack(uint8(n), e.Value), v4: v4}, true
}

// compareItems orders IPv4 before IPv6, then by first address, then the shorter
// (outer) prefix before the longer one. Values do not count, so that a stable
// sort keeps equal prefixes in the caller's order.
func compareItems(a, b item) int {
	switch {
	case a.v4 != b.v4:
		if a.v4 {
			return -1
		}
		return 1
	case a.first != b.first:
		if a.first.less(b.first) {
			return -1
		}
		return 1
	}
	return cmp.Compare(a.word>>16, b.word>>16)
}

// sortedCopy sorts items rather than entries: comparing those is what costs.
func sortedCopy(entries []Entry) []Entry {
	items := make([]item, len(entries))
	for i, e := range entries {
		items[i], _ = newItem(e)
	}
	slices.SortStableFunc(items, compareItems)
	list := make([]Entry, len(items))
	for i, it := range items {
		n, value := unpack(it.word)
		list[i] = Entry{it.first.block(it.v4, n), value}
	}
	return list
}

// sweep walks over sorted prefixes, keeps those it stands in on a stack (at most
// 129 deep, since each one is longer than the one below it), and notes where
// the longest match changes.
type sweep struct {
	space
	stack []open
}

func newSweep(v4 bool) sweep {
	s := sweep{space: space{v4: v4, ranges: column{v4: v4}}}
	s.ranges.push(key{}, 0)
	return s
}

// end leaves all that is open, and makes the search structure.
func (s *sweep) end(rename []uint16) space {
	for len(s.stack) > 0 {
		s.close()
	}
	slices.SortFunc(s.broken, compareItems) // they were left inside out
	if rename != nil {
		s.rename(rename)
	}
	s.ranges.fit()
	s.index = newIndex(&s.ranges)
	return s.space
}

func (s *sweep) rename(to []uint16) {
	for i := range s.broken {
		n, value := unpack(s.broken[i].word)
		s.broken[i].word = pack(n, to[value])
	}
	for i, w := range s.ranges.words {
		if w[2] != noLength {
			s.ranges.words[i] = narrowed(pack(w[2], to[w.value()]))
		}
	}
}

// open is a prefix that the sweep stands in.
type open struct {
	item
	broken bool // something lies inside it
}

// open ends the prefixes that lie wholly before it, and enters it.
func (s *sweep) open(it item) {
	for len(s.stack) > 0 {
		top := s.stack[len(s.stack)-1]
		if n, _ := unpack(top.word); it.first.inside(top.first, n) {
			break
		}
		s.close()
	}
	if n := len(s.stack); n > 0 {
		s.stack[n-1].broken = true
	}
	s.stack = append(s.stack, open{item: it})
	s.entries++
	s.note(it.first, it.word)
}

// close leaves the innermost prefix: behind it the one around it matches again.
func (s *sweep) close() {
	top := s.stack[len(s.stack)-1]
	s.stack = s.stack[:len(s.stack)-1]
	if top.broken {
		s.broken = append(s.broken, top.item)
	}
	n, _ := unpack(top.word)
	next, ok := top.first.after(n)
	if !ok {
		return
	}
	word := uint32(0)
	if len(s.stack) > 0 {
		word = s.stack[len(s.stack)-1].word
	}
	s.note(next, word)
}

// note starts a range at k, or corrects the one which starts there already.
// Ranges with equal words become one: the match is computed from the address
// asked for, so nothing is lost.
func (s *sweep) note(k key, word uint32) {
	last := s.ranges.len() - 1
	if s.ranges.tail() == k {
		s.ranges.pop()
		last--
	}
	if last < 0 || s.ranges.word(last) != word {
		s.ranges.push(k, word)
	}
}
