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
	items := make([]item, 0, len(entries))
	for i, e := range entries {
		it, ok := newItem(e)
		if !ok {
			return nil, fmt.Errorf("lpm: build: entry %d: invalid prefix %q", i, e.Prefix)
		}
		items = append(items, it)
	}
	if !slices.IsSortedFunc(items, compareItems) {
		slices.SortStableFunc(items, compareItems)
	}
	items = lastOfEqual(items)
	split := len(items)
	if i := slices.IndexFunc(items, func(it item) bool { return !it.v4 }); i >= 0 {
		split = i
	}
	return &Table{v4: newSpace(items[:split], true), v6: newSpace(items[split:], false)}, nil
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

// lastOfEqual keeps the last one of neighbours with equal prefixes, in place.
func lastOfEqual(items []item) []item {
	kept := items[:0]
	for i, it := range items {
		if i+1 < len(items) && compareItems(it, items[i+1]) == 0 {
			continue
		}
		kept = append(kept, it)
	}
	return kept
}

// newSpace makes the search structure of one family from its sorted items.
func newSpace(items []item, v4 bool) space {
	s := space{entries: makeColumn(len(items)), ranges: makeColumn(len(items) + 1)}
	for _, it := range items {
		s.entries.push(it.first, it.word)
	}
	sw := sweep{ranges: &s.ranges}
	s.ranges.push(key{}, 0)
	for _, it := range items {
		sw.open(it)
	}
	for len(sw.stack) > 0 {
		sw.close()
	}
	s.index = newIndex(&s.ranges, v4)
	return s
}

// sweep walks over sorted prefixes, keeps those it stands in on a stack (at most
// 129 deep, since each one is longer than the one below it), and notes where
// the longest match changes.
type sweep struct {
	stack  []item
	ranges *column
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
	s.stack = append(s.stack, it)
	s.note(it.first, it.word)
}

// close leaves the innermost prefix: behind it the one around it matches again.
func (s *sweep) close() {
	top := s.stack[len(s.stack)-1]
	s.stack = s.stack[:len(s.stack)-1]
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
	if s.ranges.at(last) == k {
		if last > 0 && s.ranges.word[last-1] == word {
			s.ranges.pop()
			return
		}
		s.ranges.word[last] = word
		return
	}
	if s.ranges.word[last] != word {
		s.ranges.push(k, word)
	}
}
