package health

import (
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rhumb/health/detect"
	"rhumb/placement"
)

// downs counts the votes which call a site down.
func (s *station) downs(i int) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.cast {
		if v.Object == placement.SiteID(siteName(i)) && v.State == placement.Down {
			n++
		}
	}
	return n
}

// TestPlannedRestart: a site which leaves in order and is back in time is down for
// nobody, whatever copies of its goodbye are lost and whoever hears of it first; one
// that stays away is down as soon as the time it named has passed.
func TestPlannedRestart(t *testing.T) {
	within := detect.Defaults(beatInterval).BackWithin
	for name, c := range map[string]struct {
		away time.Duration
		down bool
	}{"back at once": {300 * time.Millisecond, false}, "back in time": {within - 2*time.Second, false}, "too late": {within + 2*time.Second, true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEther()
				var goodbyes atomic.Int32
				a := start(t, e, 1, 3, 1, nil)
				b, old := start(t, e, 2, 3, 1, nil), start(t, e, 3, 3, 1, nil)
				time.Sleep(5 * time.Second)
				e.mu.Lock()
				e.seen = func(from, to netip.AddrPort, data []byte) {
					if b, err := detect.Open(data, [32]byte{9}); err == nil && b.Kind == detect.KindLeave && to == stationAddr(1) {
						goodbyes.Add(1)
					}
				}
				e.mu.Unlock()
				e.lose(func(from, to netip.AddrPort) bool { // all but the last copy to site 1
					return from == stationAddr(3) && to == stationAddr(1) && goodbyes.Load() > 0 && goodbyes.Load() < 3
				})
				old.stop()
				time.Sleep(c.away)
				if s := a.on(3).State; !c.down && s != placement.Unknown {
					t.Errorf("while it is away: %v, want unknown", s)
				}
				start(t, e, 3, 3, 2, nil)
				time.Sleep(5 * time.Second)
				for _, s := range []*station{a, b} {
					if n := s.downs(3); (n > 0) != c.down {
						t.Errorf("%s voted it down %d times: %+v", s.site, n, s.cast)
					}
					if v := s.on(3); !c.down && v.State != placement.Up {
						t.Errorf("%s after its return: %+v", s.site, v)
					}
				}
				if n := goodbyes.Load(); n != 3 {
					t.Errorf("%d goodbyes", n)
				}
			})
		})
	}
}

// TestCrashIsNoLeave: a site which goes without a word is down at once, though it said
// goodbye before an earlier restart.
func TestCrashIsNoLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		a := start(t, e, 1, 3, 1, nil)
		start(t, e, 2, 3, 1, nil)
		start(t, e, 3, 3, 1, nil).stop()
		time.Sleep(2 * time.Second)
		start(t, e, 3, 3, 2, nil)
		time.Sleep(5 * time.Second)
		e.lose(silent(3))
		time.Sleep(3 * time.Second)
		if v := a.on(3); v.State != placement.Down {
			t.Errorf("after a crash: %+v", v)
		}
	})
}
