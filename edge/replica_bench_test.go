package edge

import "testing"

// BenchmarkRecord is what a new turn of a session costs until its record is queued.
func BenchmarkRecord(b *testing.B) {
	a, l := testAgent(b), testLink("c")
	a.SetDown([]string{"a"})
	a.links.byOf["c"] = []*link{l}
	const n = 64
	var all []*session
	for i := range n {
		s := &session{key: testKey(i), svc: a.view.Load().services[0]}
		s.changed = a.replica.changed
		s.turn.Store(idleTurn(s.svc.id))
		a.tab.add(s, n)
		all = append(all, s)
	}
	turns := [2]*turn{idleTurn(1), idleTurn(1)}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		all[i%n].setTurn(turns[i/n%2])
		if i%n == n-1 {
			for a.replica.leave(b.Context()) {
			}
			a.replica.out.flush()
			<-l.out
		}
	}
}
