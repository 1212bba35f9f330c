package forward

// windowSize is how far, in packets, one may overtake another of its pair.
const windowSize = 4096

// window refuses packets seen before, and those too old to know (RFC 4303
// section 3.4.3, with the ring of RFC 6479). One goroutine uses it. The zero
// value has seen nothing; number 0 is never used.
type window struct {
	top  uint64
	seen [windowSize / 64]uint64
}

// accept tells whether seq is new, and marks it as seen.
func (w *window) accept(seq uint64) bool {
	if seq == 0 || w.top >= windowSize && seq <= w.top-windowSize {
		return false
	}
	if seq > w.top {
		w.advance(seq)
	}
	word, bit := &w.seen[seq/64%uint64(len(w.seen))], uint64(1)<<(seq%64)
	if *word&bit != 0 {
		return false
	}
	*word |= bit
	return true
}

// advance moves the top up and clears the numbers that enter the window.
func (w *window) advance(seq uint64) {
	// A restarted peer leaps: its clock has gone on by more than it sent.
	if seq-w.top >= windowSize {
		clear(w.seen[:])
		w.top = seq
		return
	}
	for n := w.top + 1; n <= seq; n++ {
		w.seen[n/64%uint64(len(w.seen))] &^= 1 << (n % 64)
	}
	w.top = seq
}
