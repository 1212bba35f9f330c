package store

import (
	"testing"

	"rhumb/placement"
)

// BenchmarkVoteToView measures how long a vote takes from one Store's write to
// the View of another, by way of one etcd member on loopback.
func BenchmarkVoteToView(b *testing.B) {
	e := startSingle(b)
	open := func() *Store {
		s, err := Open(b.Context(), Config{Etcd: &Etcd{Endpoints: e.Endpoints()}})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { s.Close() })
		return s
	}
	writer, ch := open(), open().Follow(b.Context())
	<-ch
	seq := uint64(0)
	for b.Loop() {
		seq++
		v := vote("ams1", "n1", placement.Up, seq)
		if _, _, err := writer.write(b.Context(), nil, []op{put(voteKey(v.Object, v.Vantage), seal(v))}); err != nil {
			b.Fatal(err)
		}
		for v := range ch {
			if len(v.Votes) == 1 && v.Votes[0].Seq == seq {
				break
			}
		}
	}
}

// BenchmarkView measures what a change of one vote among 10,000 costs.
func BenchmarkView(b *testing.B) {
	c := newContent(nil)
	var changes []change
	for i := range 10_000 {
		v := vote("ams1", string(rune('a'+i%26))+string(rune('a'+i/26%26))+string(rune('a'+i/676)), placement.Up, 1)
		changes = append(changes, change{pair: pair{key: voteKey(v.Object, v.Vantage), value: seal(v), mod: 1}})
	}
	c.apply(changes)
	for b.Loop() {
		c.apply(changes[:1])
		c.fill(&View{})
	}
}
