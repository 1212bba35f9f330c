package node

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"rhumb/placement"
)

// speaker is a vantage on an object.
type speaker struct {
	object  placement.ClusterID
	vantage string
}

// hearing is the newest vote of each vantage on each object, and when it came.
type hearing map[speaker]said

type said struct {
	vote placement.Vote
	at   time.Time
}

// add notes a vote; true when it says something new. A repeated vote only shows
// that it still holds.
func (h hearing) add(v placement.Vote, now time.Time) bool {
	k := speaker{v.Object, v.Vantage}
	old, ok := h[k]
	if ok && !v.Newer(&old.vote) {
		if !old.vote.Newer(&v) {
			h[k] = said{old.vote, now}
		}
		return false
	}
	h[k] = said{v, now}
	return true
}

// forget drops what other sites said too long ago; true when it dropped something.
func (h hearing) forget(site string, now time.Time) bool {
	before := len(h)
	for k, s := range h {
		if s.vote.Site != site && now.Sub(s.at) > hearsay {
			delete(h, k)
		}
	}
	return len(h) < before
}

// votes lists what is heard, in order of object and vantage.
func (h hearing) votes() []placement.Vote {
	out := make([]placement.Vote, 0, len(h))
	for _, s := range h {
		out = append(out, s.vote)
	}
	slices.SortFunc(out, func(a, b placement.Vote) int {
		return cmp.Or(a.Object.Compare(b.Object), strings.Compare(a.Vantage, b.Vantage))
	})
	return out
}
