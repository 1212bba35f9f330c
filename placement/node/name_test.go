package node

import (
	"testing"
	"testing/synctest"

	"rhumb/placement"
)

// TestCommonName: after a list a state has the name by which those know it who saw the
// last vote, and while there are none, the oldest of the lists.
func TestCommonName(t *testing.T) {
	rec := func(snapshot, digest string, listed bool) placement.Node {
		return placement.Node{Snapshot: snapshot, Digest: digest, Listed: listed}
	}
	for _, c := range []struct {
		name  string
		nodes []placement.Node
		want  string
	}{
		{"nobody else", nil, "11.286"},
		{"one who saw the last vote", []placement.Node{rec("11.285", "a", false)}, "11.285"},
		{"one who saw it, and one who has not heard of it yet", []placement.Node{rec("11.280", "a", false), rec("11.285", "a", false)}, "11.285"},
		{"one who has read a list too", []placement.Node{rec("11.285", "a", false), rec("11.284", "a", true)}, "11.285"},
		{"all have read lists", []placement.Node{rec("11.283", "a", true), rec("11.284", "a", true)}, "11.283"},
		{"others are ahead", []placement.Node{rec("11.290", "a", false)}, "11.286"},
		{"another plan", []placement.Node{rec("10.285", "a", false)}, "11.286"},
		{"another digest", []placement.Node{rec("11.285", "b", false)}, "11.286"},
		{"by hand on one node", []placement.Node{rec("11.285+p", "a", false)}, "11.286"},
		{"no snapshot yet", []placement.Node{rec("", "", false)}, "11.286"},
	} {
		s := &placement.Snapshot{Name: placement.Name{Plan: 11, Votes: 286}, Digest: "a"}
		if got := commonName(s, c.nodes); got.Name.String() != c.want || !got.Listed || s.Listed {
			t.Errorf("%s: %s, listed %v; want %s", c.name, got.Name, got.Listed, c.want)
		}
	}
}

// TestNameAfterList: a node that was cut off takes the name of the others once it reads
// their records, and goes on by its own from the next vote.
func TestNameAfterList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, &fakeDisk{})
		b.run()
		defer b.stop()
		v := View{Inventory: b.inv, Plan: b.plan(11, nil, 200), VotesRevision: 286, VotesListed: true, Connected: true}
		b.show(v)
		s := b.want("11.286")
		v.Nodes = []placement.Node{{Name: "nyc1-a", Snapshot: "11.285", Digest: s.Digest}}
		b.show(v)
		b.want("11.285")
		v.VotesRevision, v.VotesListed = 290, false
		b.show(v)
		if s := b.want("11.290"); s.Listed {
			t.Error("11.290 was seen to come, and passes for listed")
		}
	})
}
