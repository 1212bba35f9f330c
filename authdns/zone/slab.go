package zone

import (
	"strings"
)

// slab hands out values from arrays of many: a zone of a million names is made of ten
// million small things, which cost as separate objects more to make, and at each round
// of the collector more to look at, than they are worth. An array stays as long as any
// of its values is used, so they are for what goes together, as a version of a zone does.
// The zero value is ready.
type slab[T any] struct {
	free []T
	size int // of the newest array
}

// Arrays double from few values, since most zones are small, up to many.
const (
	firstSlab = 4
	mostSlab  = 128
)

// one returns a zero value alone in a slice, which append moves elsewhere.
func (s *slab[T]) one() []T {
	if len(s.free) == 0 {
		s.size = min(max(2*s.size, firstSlab), mostSlab)
		s.free = make([]T, s.size)
	}
	out := s.free[:1:1]
	s.free = s.free[1:]
	return out
}

// put returns the place of a value.
func (s *slab[T]) put(v T) *T {
	p := &s.one()[0]
	*p = v
	return p
}

// strs is a slab of strings.
type strs struct {
	b    *strings.Builder
	size int
}

// mostOctets is how many octets of strings stay together.
const mostOctets = 4096

// keep returns octets as a string.
func (s *strs) keep(octets []byte) string {
	if s.b == nil || s.b.Cap()-s.b.Len() < len(octets) {
		s.size = min(max(2*s.size, 128), mostOctets)
		s.b = new(strings.Builder)
		s.b.Grow(max(s.size, len(octets)))
	}
	at := s.b.Len()
	s.b.Write(octets)
	return s.b.String()[at:]
}
