package authdns

import "hash/maphash"

// heat finds the names below which very many are asked for that do not exist: the mark
// of a flood with random names. It belongs to one worker and allocates nothing. What it
// holds are names of our own zones, so an attacker cannot fill it with his.
type heat struct {
	seed  maphash.Seed
	step  int64 // nanoseconds of a parent's share that one query takes
	total uint64
	cells []heatCell
}

// heatCell is one name and how far it has gone beyond its share.
type heatCell struct {
	hash  uint64
	paid  int64 // as in a purse
	asked uint64
	n     uint8
	name  [255]byte
}

const (
	heatSets = 64
	heatWays = 4
	// heatShare is the part of the signatures that names below one parent may take
	// before it counts as attacked, heatDebt how far beyond that it has to go.
	heatShare = 4
	heatDebt  = whole / 4
)

// newHeat makes one for a rate of signatures a second.
func newHeat(rate int) heat {
	return heat{seed: maphash.MakeSeed(), step: newPurse(max(rate/heatShare, 1)).step, cells: make([]heatCell, heatSets*heatWays)}
}

// add takes in a query for a name that does not exist, by its closest encloser in wire
// format, and tells whether that is attacked.
func (h *heat) add(parent []byte, now int64) bool {
	h.total++
	hash := maphash.Bytes(h.seed, parent) | 1
	set := h.cells[hash%heatSets*heatWays:][:heatWays]
	c := &set[0]
	for i := range set {
		if set[i].hash == hash {
			c = &set[i]
			break
		}
		if set[i].debt(now) < c.debt(now) || set[i].hash == 0 {
			c = &set[i]
		}
	}
	if c.hash != hash {
		c.hash, c.paid, c.asked = hash, 0, 0
		c.n = uint8(copy(c.name[:], parent))
	}
	c.asked++
	c.paid = now + min(c.debt(now)+h.step, whole)
	return c.debt(now) > heatDebt
}

func (c *heatCell) debt(now int64) int64 { return min(max(c.paid-now, 0), whole) }

// reset begins the counts anew.
func (h *heat) reset() {
	h.total = 0
	for i := range h.cells {
		h.cells[i].asked = 0
	}
}

// worst is the name below which most was asked for since the last reset, in wire
// format, with that count; empty where nothing was.
func (h *heat) worst() (name string, asked uint64) {
	for i := range h.cells {
		if c := &h.cells[i]; c.asked > asked {
			name, asked = string(c.name[:c.n]), c.asked
		}
	}
	return name, asked
}
