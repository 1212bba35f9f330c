package health

import (
	"errors"
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rhumb/placement"
)

// TestFitnessJudges: one bad look is nothing, and a clock that jumps is bad for as
// long as it has not run evenly.
func TestFitnessJudges(t *testing.T) {
	full := errors.New("no space left on device")
	var f fitness
	now := clock{wall: time.Unix(1000, 0), mono: time.Second}
	step := func(err error, jump time.Duration) bool {
		now.wall, now.mono = now.wall.Add(time.Second+jump), now.mono+time.Second
		f.judge(err, now)
		return f.cause == ""
	}
	var have strings.Builder
	for _, x := range "..x.xx.x...J......+........." {
		jump, err := time.Duration(0), error(nil)
		switch x {
		case 'x':
			err = full
		case 'J':
			jump = time.Hour
		case '+':
			jump = -3 * time.Second
		}
		if step(err, jump) {
			have.WriteByte('f')
		} else {
			have.WriteByte('U')
		}
	}
	if want := "fffffUUUUUffUUUUUUUUUUUUUUUU"; have.String() != want {
		t.Errorf("have %s\nwant %s", have.String(), want)
	}
}

func TestFitnessLooks(t *testing.T) {
	dir := t.TempDir()
	if err := (&Fitness{Dir: dir, Routers: []netip.Addr{netip.MustParseAddr("203.0.113.77")}}).Look(); err != nil {
		t.Errorf("a healthy machine, and a router far away: %v", err)
	}
	if err := (&Fitness{Dir: filepath.Join(dir, "gone")}).Look(); err == nil || !strings.Contains(err.Error(), "the disk takes no writes") {
		t.Errorf("nowhere to write: %v", err)
	}
}

// TestUnfitNodeFencesItself: it says so of its own site, doubts what it sees of
// others, goes on, and comes back when its penalty is gone.
func TestUnfitNodeFencesItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sick atomic.Bool
		e := newEther()
		a := start(t, e, 1, 3, 1, func(c *Config) {
			c.Fit = func() error {
				if sick.Load() {
					return errors.New("the disk takes no writes: no space left on device")
				}
				return nil
			}
		})
		start(t, e, 2, 3, 1, nil)
		start(t, e, 3, 3, 1, nil)
		time.Sleep(5 * time.Second)
		unfit := time.Now()
		sick.Store(true)
		time.Sleep(30 * time.Second)
		v := a.on(1)
		if v.State != placement.Down || v.Fault != placement.LocalFault || v.Hold || v.Cause != "unfit: the disk takes no writes: no space left on device" {
			t.Errorf("of itself: %+v", v)
		}
		if v.Since.Sub(unfit) > 2*fitEvery {
			t.Errorf("after %v", v.Since.Sub(unfit))
		}
		if v := a.on(2); v.State != placement.Up || !v.Hold {
			t.Errorf("of others: %+v", v)
		}
		sick.Store(false)
		time.Sleep(5 * time.Second)
		if v := a.on(1); v.State != placement.Up {
			t.Errorf("fit again: %+v", v)
		}
		if v := a.on(2); v.State != placement.Up || v.Hold {
			t.Errorf("fit again, of others: %+v", v)
		}
	})
}
