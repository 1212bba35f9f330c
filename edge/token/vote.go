package token

import (
	"bytes"
	"crypto/sha256"
	"slices"
)

// maxKeepers is how many sites remember a session, where there are as many:
// two of three grant, so one may be the site that has just died.
const maxKeepers = 3

// Keepers are the sites that remember a session: those with the highest hash of
// both, in this order. All sites compute the same from the same list.
func Keepers(s Session, sites []string) []string {
	type scored struct {
		site string
		hash [32]byte
	}
	all := make([]scored, len(sites))
	for i, site := range sites {
		all[i] = scored{site, sha256.Sum256(append(s[:], site...))}
	}
	slices.SortFunc(all, func(a, b scored) int { return bytes.Compare(b.hash[:], a.hash[:]) })
	out := make([]string, min(len(all), maxKeepers))
	for i := range out {
		out[i] = all[i].site
	}
	return out
}

// Verdict is what the votes add up to.
type Verdict uint8

// The verdicts.
const (
	// Open: there is no majority yet, and no keeper that knows better.
	Open Verdict = iota
	// Primary: a majority has granted.
	Primary
	// Over: a keeper knows of a newer epoch.
	Over
)

// Count adds up the votes of so many keepers. One that knows better outweighs all.
func Count(votes []Vote, keepers int) Verdict {
	granted := 0
	for _, v := range votes {
		switch v {
		case Stale:
			return Over
		case Granted:
			granted++
		}
	}
	if granted > keepers/2 {
		return Primary
	}
	return Open
}
