package detect

import (
	"fmt"
	"testing"
	"time"
)

// heardOf draws what the link told of two nodes.
func heardOf(list []Hearing, nodes ...uint16) string {
	out := ""
	for _, h := range list {
		for _, n := range nodes {
			if h.Node == n {
				out += fmt.Sprintf("%d %s by %v not %v; ", n, h.State, h.By, h.Silent)
			}
		}
	}
	return out
}

// TestHearing: what is heard by whom is told when it changes and only then, from the first
// beat over a broken path to its end.
func TestHearing(t *testing.T) {
	l := idle(t, 4, 100*ms)
	slot := uint64(0)
	// direct beats come from 3, 4 and 5 always, from 2 only if it is heard directly; 3 and
	// 4 speak of 2, unless they are silent about it.
	turn := func(direct bool, relays ...uint16) (told []Hearing) {
		slot++
		l.now += 100 * ms
		for node := uint32(2); node <= 5; node++ {
			if node > 2 || direct {
				l.d.Hear(node, 0, slot, l.now)
			}
		}
		for _, r := range relays {
			l.d.Report(2, uint32(r)+1, slot, l.now-20*ms, l.now)
		}
		l.d.Due(l.now)
		l.d.Changes()
		l.tellHearing()
		for _, e := range l.Take() {
			told = e.Heard
		}
		return told
	}
	until := func(want string, direct bool, relays ...uint16) {
		t.Helper()
		var last string
		for range 100 {
			if told := turn(direct, relays...); told != nil {
				last = heardOf(told, 2, 5)
			}
			if last == want {
				return
			}
		}
		t.Fatalf("told %q, want %q", last, want)
	}
	l.tellHearing()
	if told := l.Take(); len(told) != 1 || heardOf(told[0].Heard, 2) != "2 unknown by [] not []; " {
		t.Errorf("before anything was heard: %+v", told)
	}
	until("2 up by [3 4] not []; 5 up by [] not []; ", true, 4, 3)
	for range 10 {
		if told := turn(true, 3, 4); told != nil {
			t.Errorf("told %q though nothing has changed", heardOf(told, 2))
		}
	}
	until("2 path by [3 4] not []; 5 up by [] not []; ", false, 3, 4)
	until("2 path by [3] not [4]; 5 up by [] not []; ", false, 3)
	until("2 down by [] not [3 4]; 5 up by [] not []; ", false)
	until("2 up by [3 4] not []; 5 up by [] not []; ", true, 3, 4)
	l.d.Watch(l.roster.set(nil))
	l.tellHearing()
	if told := l.Take(); len(told) != 1 || len(told[0].Heard) != 0 {
		t.Errorf("without peers: %+v", told)
	}
}

// TestHearingOfMany: where a subject has very many paths they are looked through once our
// own path to it is broken, not before.
func TestHearingOfMany(t *testing.T) {
	d := New(Defaults(100 * ms))
	d.Watch([]uint32{2})
	var now time.Duration
	said := func() int { by, _ := d.paths(2, nil, nil); return len(by) }
	turn := func(slot uint64, direct bool) {
		now += 100 * ms
		if direct {
			d.Hear(2, 0, slot, now)
		}
		for r := range uint32(fewPaths + 8) {
			d.Report(2, 100+r, slot, now, now)
		}
		d.Due(now)
	}
	for slot := range uint64(20) {
		turn(slot+1, true)
	}
	if said() != 0 || d.State(2) != Up {
		t.Errorf("%d relays of a subject that is %s", said(), d.State(2))
	}
	for slot := range uint64(30) {
		turn(slot+21, false)
	}
	if said() != fewPaths+8 || d.State(2) != Path {
		t.Errorf("%d relays of a subject that is %s, want %d", said(), d.State(2), fewPaths+8)
	}
}
