package decide

import (
	"slices"

	"rhumb/placement"
)

// Patch lays votes heard ahead of the store over those of the store. patched
// tells whether any of them was newer and says something else than the store's:
// a beat that repeats a vote makes no new state.
func Patch(stored, heard []placement.Vote) (votes []placement.Vote, patched bool) {
	votes = slices.Clone(stored)
	for _, h := range newest(heard) {
		i := slices.IndexFunc(votes, func(v placement.Vote) bool { return v.Object == h.Object && v.Vantage == h.Vantage && v.Site == h.Site })
		switch {
		case i < 0:
			votes, patched = append(votes, h), true
		case h.Newer(&votes[i]):
			patched = patched || differs(&votes[i], &h)
			votes[i] = h
		}
	}
	if !patched {
		return stored, false
	}
	return votes, true
}

func differs(a, b *placement.Vote) bool {
	return a.State != b.State || a.Fault != b.Fault || a.Hold != b.Hold
}
