package detect

import (
	"math"
	"time"
)

// never is the due time of a subject of which nothing is expected.
const never = time.Duration(math.MaxInt64)

// queue is a heap of subjects by the time at which each must be looked at next.
// A key may be too early, never too late: a beat moves its subject's due time
// back, and the key follows when its turn comes. Ties go by id, so that the same
// trace gives the same rows.
type queue []*subject

func (q queue) before(i, j int) bool {
	a, b := q[i], q[j]
	return a.key < b.key || a.key == b.key && a.id < b.id
}

func (q queue) swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

// add puts a subject in.
func (q *queue) add(s *subject) {
	s.place = len(*q)
	*q = append(*q, s)
	q.up(s.place)
}

// set moves a subject to a new key.
func (q queue) set(s *subject, key time.Duration) {
	before := s.key
	s.key = key
	if key < before {
		q.up(s.place)
	} else {
		q.down(s.place)
	}
}

func (q queue) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !q.before(i, parent) {
			return
		}
		q.swap(i, parent)
		i = parent
	}
}

func (q queue) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(q) {
			return
		}
		if child+1 < len(q) && q.before(child+1, child) {
			child++
		}
		if !q.before(child, i) {
			return
		}
		q.swap(i, child)
		i = child
	}
}
