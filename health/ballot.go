package health

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"rhumb/placement"
)

// ballot holds a vantage's own votes and those heard from others. It is a value
// for one goroutine.
type ballot struct {
	vantage, site, domain string
	incarnation           uint32
	// seq numbers this vantage's votes, over all objects: of two votes on one
	// object the one with the higher number is the later.
	seq   uint64
	own   map[placement.ClusterID]placement.Vote
	heard map[heardKey]placement.Vote
	// spoke is when a node was last heard; the votes of its vantage end with it. nodes
	// are those which vantages speak from.
	spoke map[uint16]time.Time
	nodes map[string]uint16
	// without is the other vantage of this site, while it is silent; sure, when it does
	// not say the same of us.
	without string
	sure    bool
}

// heardKey is a vantage and what it looks at.
type heardKey struct {
	vantage string
	object  placement.ClusterID
}

func (k heardKey) compare(o heardKey) int {
	return cmp.Or(k.object.Compare(o.object), strings.Compare(k.vantage, o.vantage))
}

func newBallot(c Config) ballot {
	return ballot{vantage: c.Node, site: c.Site, domain: c.Domain, incarnation: c.Incarnation,
		own: make(map[placement.ClusterID]placement.Vote), heard: make(map[heardKey]placement.Vote), spoke: make(map[uint16]time.Time), nodes: make(map[string]uint16)}
}

// cast sets this vantage's word on an object; changed when it differs from the
// last one in anything that matters.
func (b *ballot) cast(v placement.Vote, now time.Time) (placement.Vote, bool) {
	old, known := b.own[v.Object]
	v.Vantage, v.Site, v.Domain, v.Since = b.vantage, b.site, b.domain, now
	if v.Object == placement.SiteID(b.site) {
		v.Without, v.Sure = b.without, b.sure
	}
	if known && old.State == v.State {
		v.Since = old.Since
	}
	if known && old.State == v.State && old.Fault == v.Fault && old.Hold == v.Hold && old.Second == v.Second && old.Cause == v.Cause && old.Without == v.Without && old.Sure == v.Sure {
		return old, false
	}
	b.seq++
	v.Incarnation, v.Seq = b.incarnation, b.seq
	b.own[v.Object] = v
	return v, true
}

// end takes this vantage's word on an object back. What it returns replaces the
// last vote wherever that one was heard, and counts for nobody: whoever missed
// the end would else believe in it for ever. It is unknown as well as held, since
// a vantage that holds what it knows doubts all that it says of others.
func (b *ballot) end(object placement.ClusterID) placement.Vote {
	v := b.own[object]
	delete(b.own, object)
	b.seq++
	v.State, v.Hold, v.Seq = placement.Unknown, true, b.seq
	return v
}

// held tells whether this vantage's last word on an object is held.
func (b *ballot) held(object placement.ClusterID) bool { return b.own[object].Hold }

// hear takes a vote of another vantage; true when it is what that vantage says
// now, be it new or repeated. An overtaken one is not, nor one in our own name.
func (b *ballot) hear(v placement.Vote) bool {
	key := heardKey{v.Vantage, v.Object}
	old, known := b.heard[key]
	if v.Vantage == b.vantage || known && old.Newer(&v) {
		return false
	}
	b.heard[key] = v
	return true
}

// accuses tells whether a vote, about to be heard, says for the first time that this site
// or a cluster of it is down.
func (b *ballot) accuses(v *placement.Vote) bool {
	old := b.heard[heardKey{v.Vantage, v.Object}]
	return v.Object.Site == b.site && v.State == placement.Down && !v.Hold && (old.State != placement.Down || old.Hold) && !old.Newer(v)
}

// silence drops the votes of nodes not heard since the limit, in order. Nothing
// replaces them: a site which is heard again says the same once more, and that
// must count.
func (b *ballot) silence(limit time.Time) (dropped []heardKey) {
	for key, v := range b.heard {
		if b.spoke[b.nodes[v.Vantage]].Before(limit) {
			dropped = append(dropped, key)
			delete(b.heard, key)
		}
	}
	slices.SortFunc(dropped, heardKey.compare)
	return dropped
}

// votes returns this vantage's votes in order of object.
func (b *ballot) votes() []placement.Vote {
	out := make([]placement.Vote, 0, len(b.own))
	for _, v := range b.own {
		out = append(out, v)
	}
	slices.SortFunc(out, func(x, y placement.Vote) int { return x.Object.Compare(y.Object) })
	return out
}

// others returns the votes heard from others, in order of object.
func (b *ballot) others() []placement.Vote {
	out := make([]placement.Vote, 0, len(b.heard))
	for _, v := range b.heard {
		out = append(out, v)
	}
	slices.SortFunc(out, func(x, y placement.Vote) int {
		return cmp.Or(x.Object.Compare(y.Object), strings.Compare(x.Vantage, y.Vantage))
	})
	return out
}

// causeLimit keeps a vote well below the size of a datagram.
const causeLimit = 160 // bytes

// packVotes encodes votes into as few bodies of at most limit bytes as it takes.
func packVotes(votes []placement.Vote, limit int) [][]byte {
	var out [][]byte
	var body []byte
	for _, v := range votes {
		if len(v.Cause) > causeLimit {
			v.Cause = strings.ToValidUTF8(v.Cause[:causeLimit], "") // not half a letter
		}
		one, err := json.Marshal(v)
		if err == nil && len(one)+1 > limit { // escapes in a cause take six bytes each
			v.Cause = ""
			one, err = json.Marshal(v)
		}
		if err != nil || len(one)+1 > limit {
			continue // cannot be: a vote without a cause is a few hundred bytes
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
