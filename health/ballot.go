package health

import (
	"bytes"
	"encoding/json"
	"slices"
	"time"

	"rhumb/placement"
)

// ballot holds a vantage's own votes and those heard from others. It is a value
// for one goroutine.
type ballot struct {
	vantage, site, domain string
	incarnation           uint32
	seq                   uint64
	own                   map[placement.ClusterID]placement.Vote
	heard                 map[heardKey]placement.Vote
	// spoke is when a site's vantage was last heard; its votes end with it.
	spoke map[string]time.Time
}

type heardKey struct {
	vantage string
	object  placement.ClusterID
}

// cast sets this vantage's word on an object; changed when it differs from the
// last one in anything that matters.
func (b *ballot) cast(v placement.Vote, now time.Time) (placement.Vote, bool) {
	old, known := b.own[v.Object]
	v.Vantage, v.Site, v.Domain, v.Since = b.vantage, b.site, b.domain, now
	if known && old.State == v.State {
		v.Since = old.Since
	}
	if known && old.State == v.State && old.Fault == v.Fault && old.Hold == v.Hold && old.Cause == v.Cause {
		return old, false
	}
	b.seq++
	v.Incarnation, v.Seq = b.incarnation, b.seq
	b.own[v.Object] = v
	return v, true
}

// hear takes a vote of another vantage; changed when it replaces what is known.
func (b *ballot) hear(v placement.Vote) bool {
	key := heardKey{v.Vantage, v.Object}
	old, known := b.heard[key]
	if v.Vantage == b.vantage || known && !v.Newer(&old) {
		return false
	}
	b.heard[key] = v
	return true
}

// silence drops the votes of sites not heard since the limit.
func (b *ballot) silence(limit time.Time) (dropped []heardKey) {
	for key, v := range b.heard {
		if b.spoke[v.Site].Before(limit) {
			dropped = append(dropped, key)
			delete(b.heard, key)
		}
	}
	return dropped
}

func (b *ballot) votes() []placement.Vote {
	out := make([]placement.Vote, 0, len(b.own))
	for _, v := range b.own {
		out = append(out, v)
	}
	slices.SortFunc(out, func(x, y placement.Vote) int { return x.Object.Compare(y.Object) })
	return out
}

// causeLimit keeps a vote well below the size of a datagram.
const causeLimit = 160

// packVotes encodes votes into as few bodies of at most limit bytes as it takes.
func packVotes(votes []placement.Vote, limit int) [][]byte {
	var out [][]byte
	var body []byte
	for _, v := range votes {
		if len(v.Cause) > causeLimit {
			v.Cause = v.Cause[:causeLimit]
		}
		one, err := json.Marshal(v)
		if err != nil || len(one)+1 > limit {
			continue // a vote is a few hundred bytes; names are checked by the fleet
		}
		if len(body)+len(one)+1 > limit {
			out, body = append(out, body), nil
		}
		body = append(append(body, one...), '\n')
	}
	if len(body) > 0 {
		out = append(out, body)
	}
	return out
}

// unpackVotes decodes what packVotes made; it stops at the first bad vote.
func unpackVotes(body []byte) ([]placement.Vote, error) {
	var out []placement.Vote
	dec := json.NewDecoder(bytes.NewReader(body))
	for dec.More() {
		var v placement.Vote
		if err := dec.Decode(&v); err != nil {
			return out, err
		}
		out = append(out, v)
	}
	return out, nil
}
