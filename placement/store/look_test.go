package store

import (
	"testing"
	"testing/synctest"
	"time"

	"rhumb/placement"
)

// TestLooksOnDemand: a request reaches the views, its answer too, and both vanish.
func TestLooksOnDemand(t *testing.T) {
	inSession(t, func(t *testing.T, m *Memory, s *Store, session *Session) {
		if err := s.PutLook(t.Context(), placement.LookRequest{ID: "a1", Site: "ams1", Who: "ann"}); err != nil {
			t.Fatal(err)
		}
		session.SetLooked(placement.LookAnswer{Request: "a1", Vantage: "n1", Open: 2})
		time.Sleep(2 * keyEvery)
		session.SetLooked(placement.LookAnswer{Request: "a1", Vantage: "n1", Total: 2})
		synctest.Wait()
		c := newContent(s.log)
		c.load(stored(t, m, root), 1)
		var v View
		c.fill(&v)
		if len(v.Looks) != 1 || v.Looks[0].Who != "ann" || len(v.Looked) != 1 || v.Looked[0].Total != 2 {
			t.Errorf("want ann's request and a whole answer at once, have %+v and %+v", v.Looks, v.Looked)
		}
		time.Sleep(LookFor + time.Second)
		session.DropLooked("a1")
		time.Sleep(2 * keyEvery)
		if left := append(stored(t, m, dirLooks), stored(t, m, dirLooked)...); len(left) > 0 {
			t.Errorf("still there after a minute: %v", keysOf(left))
		}
	})
}
