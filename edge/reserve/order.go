package reserve

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"
)

// Site is one who may be a Backup.
type Site struct {
	Name   string
	Weight int // its capacity; 0: it is none
	// Shares tells that it shares a failure domain with the owner: it comes behind all
	// that don't.
	Shares bool
}

// Chooser orders sites for sessions. It keeps its buffers, so it belongs to one goroutine.
// The zero value is ready.
type Chooser struct {
	text []byte
	all  []ranked
}

// ranked is a site's place among the others.
type ranked struct {
	index  int
	name   string
	shares bool
	score  float64
}

// Order appends to dst the indexes of sites in the order for a session, by its key. Every
// site finds the same, whatever the order of sites; a change of one moves only the sessions
// that it had or gets. Sites without weight are left out.
func (c *Chooser) Order(dst []int, key []byte, sites []Site) []int {
	c.all = c.all[:0]
	for i := range sites {
		if s := &sites[i]; s.Weight > 0 {
			c.all = append(c.all, ranked{i, s.Name, s.Shares, c.score(key, s)})
		}
	}
	slices.SortFunc(c.all, ranked.compare)
	for i := range c.all {
		dst = append(dst, c.all[i].index)
	}
	return dst
}

func (a ranked) compare(b ranked) int {
	if a.shares != b.shares {
		if b.shares {
			return -1
		}
		return 1
	}
	return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.name, b.name))
}

// score is -w / ln(h) with h uniform in (0, 1): a site wins in proportion to its weight.
func (c *Chooser) score(key []byte, s *Site) float64 {
	c.text = append(append(append(c.text[:0], s.Name...), '|'), key...)
	sum := sha256.Sum256(c.text)
	h := (float64(binary.BigEndian.Uint64(sum[:])>>11) + 0.5) / (1 << 53)
	return -float64(s.Weight) / math.Log(h)
}
