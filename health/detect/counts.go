package detect

import (
	"math"
	"slices"
	"strings"
	"time"
)

// Result says what became of a datagram.
type Result uint8

// The results. Refused datagrams are of nobody who is known, or not in his hand;
// of another version are those of a node that is newer or older than this one.
const (
	OK Result = iota
	Old
	Refused
	OtherVersion
	BadVector
	BadVotes
	Failed

	results Result = 7
)

func (r Result) String() string {
	return [...]string{"ok", "old", "refused", "other_version", "bad_vector", "bad_votes", "failed"}[r]
}

// Counts are the datagrams of one peer, or of strangers, by what became of them.
type Counts struct {
	Name      string // empty: of nobody who is known
	In, Out   [results]uint64
	Octets    uint64  // sent, without headers of UDP and IP
	Suspicion float64 // phi of the peer as of the last beat sent
	Suspected uint64  // how often the peer was suspected
}

// Counts returns what was counted so far, strangers first and then by name. Safe
// for concurrent use.
func (l *Link) Counts() []Counts {
	out := []Counts{{}}
	for r := range l.strays {
		out[0].In[r] = l.strays[r].Load()
	}
	for _, p := range *l.roster.looks.Load() {
		c := Counts{Name: p.Name, Octets: p.octets.Load(), Suspected: p.doubts.Load(), Suspicion: math.Float64frombits(p.suspicion.Load())}
		for r := range results {
			c.In[r], c.Out[r] = p.in[r].Load(), p.out[r].Load()
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b Counts) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Heard returns when a peer's node was last heard; zero if never. Safe for
// concurrent use once Run has begun.
func (l *Link) Heard(node uint16) time.Time {
	p := (*l.roster.looks.Load())[node]
	if p == nil || p.heard.Load() == 0 {
		return time.Time{}
	}
	return l.started.Add(time.Duration(p.heard.Load()))
}

// BadVotes counts votes of a peer that could not be read.
func (l *Link) BadVotes(node uint16) {
	if p := (*l.roster.looks.Load())[node]; p != nil {
		p.in[BadVotes].Add(1)
	}
}
