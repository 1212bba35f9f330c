package lpm

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"sort"
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
// Entries already in address order (shorter before longer) are not sorted again,
// and need no memory beside the table's.
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
	split := sort.Search(len(entries), func(i int) bool { it, _ := newItem(entries[i]); return !it.v4 })
	return &Table{v4: newSpace(entries[:split], true), v6: newSpace(entries[split:], false)}, nil
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

// newSpace makes the search structure of one family from its sorted entries.
func newSpace(entries []Entry, v4 bool) space {
	s := space{v4: v4, ranges: makeColumn(len(entries)+1, v4)}
	s.ranges.push(key{}, 0)
	sw := sweep{space: &s}
	var last item
	for i, e := range entries {
		it, _ := newItem(e)
		if i > 0 && compareItems(last, it) != 0 { // of equal ones the last wins
			sw.open(last)
		}
		last = it
	}
	if len(entries) > 0 {
		sw.open(last)
	}
	for len(sw.stack) > 0 {
		sw.close()
	}
	slices.SortFunc(s.broken, compareItems) // they were left inside out
	s.ranges.fit()
	s.index = newIndex(&s.ranges)
	return s
}

// sweep walks over sorted prefixes, keeps those it stands in on a stack (at most
// 129 deep, since each one is longer than the one below it), and notes where
// the longest match changes.
type sweep struct {
	*space
	stack []open
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
