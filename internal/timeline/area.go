package timeline

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Area counts by key over equal spans of time, and is drawn as shares of the whole.
type Area struct {
	Name string
	Keys []string // in order of drawing, from the bottom
	Step time.Duration
	// Counts by span, then by key; a span without any is drawn as nothing.
	Counts [][]int
}

// NewArea returns an empty Area over a time, with the keys that will be counted.
func NewArea(name string, keys []string, began, ended time.Time, step time.Duration) Area {
	a := Area{Name: name, Keys: keys, Step: step}
	for at := began; at.Before(ended); at = at.Add(step) {
		a.Counts = append(a.Counts, make([]int, len(keys)))
	}
	return a
}

// Count adds one for a key in the span which contains the moment; what lies
// outside, or has no key here, is left out.
func (a *Area) Count(began, at time.Time, key string) {
	i, k := int(at.Sub(began)/a.Step), slices.Index(a.Keys, key)
	if at.Before(began) || i >= len(a.Counts) || k < 0 {
		return
	}
	a.Counts[i][k]++
}

// Share is the part of a key in a span, and whether anything was counted there.
func (a *Area) Share(span, key int) (part float64, ok bool) {
	sum := 0
	for _, n := range a.Counts[span] {
		sum += n
	}
	if sum == 0 {
		return 0, false
	}
	return float64(a.Counts[span][key]) / float64(sum), true
}

// bars are the eighths of a character cell.
const bars = " ▁▂▃▄▅▆▇█"

// rows draws a row of bars for each key.
func (a *Area) rows(wide int) string {
	var b strings.Builder
	steps := []rune(bars)
	for k, key := range a.Keys {
		row := []rune(strings.Repeat(" ", Columns))
		for c := range row {
			i := c * len(a.Counts) / Columns
			if i >= len(a.Counts) {
				continue
			}
			if part, ok := a.Share(i, k); ok {
				row[c] = steps[int(part*8+0.5)]
			}
		}
		fmt.Fprintf(&b, "%-*s |%s| share\n", wide, a.Name+" → "+key, string(row))
	}
	return b.String()
}
