package detect

import (
	"testing"
	"time"
)

// TestDoubtSteps: a suspicion begins with the first look that finds a reason, and ends
// when for calmFor none has found any; a gap in between begins that time anew.
func TestDoubtSteps(t *testing.T) {
	type look struct {
		at       time.Duration
		doubtful bool
		since    time.Duration // want
	}
	for name, looks := range map[string][]look{
		"nothing":               {{ms, false, 0}, {5000 * ms, false, 0}},
		"stands":                {{100 * ms, true, 100 * ms}, {200 * ms, true, 100 * ms}, {9000 * ms, true, 100 * ms}},
		"heard again":           {{100 * ms, true, 100 * ms}, {200 * ms, false, 100 * ms}, {3199 * ms, false, 100 * ms}, {3200 * ms, false, 0}},
		"a gap while it calms":  {{100 * ms, true, 100 * ms}, {200 * ms, false, 100 * ms}, {3100 * ms, true, 100 * ms}, {3300 * ms, false, 100 * ms}, {6200 * ms, false, 100 * ms}, {6300 * ms, false, 0}},
		"begins anew when over": {{100 * ms, true, 100 * ms}, {200 * ms, false, 100 * ms}, {3200 * ms, false, 0}, {3300 * ms, true, 3300 * ms}},
	} {
		var d doubt
		for _, l := range looks {
			if d = d.step(l.at, l.doubtful); d.since != l.since {
				t.Errorf("%s: at %v since %v, want %v", name, l.at, d.since, l.since)
			}
		}
	}
	// A site that falls silent for half a second in each is suspected once, not each time.
	var d doubt
	rises := 0
	for at := 100 * ms; at < time.Minute; at += 25 * ms {
		before := d.since
		if d = d.step(at, at%time.Second < 500*ms); before == 0 && d.since > 0 {
			rises++
		}
	}
	if rises != 1 {
		t.Errorf("a site that flaps each second was suspected %d times, want once", rises)
	}
}

// TestDoubtful: suspicion comes before the verdict by half of the timeout, and not for
// one beat that is lost, for a broken path, for who said goodbye or was never heard.
func TestDoubtful(t *testing.T) {
	const interval = 100 * ms
	for _, tc := range []struct {
		name   string
		relays int                          // that speak of the subject
		last   int                          // slot of its last beat, of 40
		path   bool                         // the direct path alone ends there
		leaves bool                         // it says goodbye
		others int                          // that are heard to the end
		want   func(c Config) time.Duration // silence when it is suspected; 0: never
	}{
		// Two beats are missing before half of two seconds is over.
		{"one path", 0, 30, false, false, 3, func(Config) time.Duration { return 2 * interval }},
		{"two paths", 1, 30, false, false, 3, func(Config) time.Duration { return 2 * interval }},
		{"five paths", 4, 30, false, false, 3, func(c Config) time.Duration { return c.Timeouts[4] / 2 }},
		{"path alone", 3, 30, true, false, 3, nil},
		{"goodbye", 0, 30, false, true, 3, nil},
		{"never heard", 0, -1, false, false, 3, nil},
	} {
		d := New(Defaults(interval))
		ids := []uint32{2}
		for i := range tc.others {
			ids = append(ids, uint32(3+i))
		}
		d.Watch(ids)
		var doubted, verdict, heard time.Duration
		for now := ms; now <= 6*time.Second; now += ms {
			slot := uint64(now / interval)
			if now%interval == 10*ms {
				for _, id := range ids[1:] {
					d.Hear(id, 0, slot, now)
				}
				lives := int(slot) <= tc.last
				if lives {
					d.Hear(2, 0, slot, now)
					heard = now
				}
				if lives || tc.path && tc.last > 0 {
					for r := range tc.relays {
						d.Report(2, uint32(r)+1, slot, now-20*ms, now)
					}
				}
				if tc.leaves && int(slot) == tc.last {
					d.Leave(2, slot, 10*time.Second, now)
				}
			}
			d.Due(now)
			if doubted == 0 && !d.Held() && d.Doubtful(2, now) {
				doubted = now
			}
			if verdict == 0 && d.State(2) == Down {
				verdict = now
			}
		}
		if tc.want == nil {
			if doubted != 0 || verdict != 0 {
				t.Errorf("%s: suspected at %v, down at %v, want neither", tc.name, doubted, verdict)
			}
			continue
		}
		want := heard + tc.want(d.cfg)
		if doubted < want || doubted > want+interval/2 || doubted >= verdict {
			t.Errorf("%s: suspected at %v, down at %v, want about %v, and before it is down", tc.name, doubted, verdict, want)
		}
		if !d.Doubtful(2, d.now) {
			t.Errorf("%s: not doubtful once it is down", tc.name)
		}
	}
}

// TestJitterIsNoDoubt: where beats come as late as that now and then, two missing ones
// are none.
func TestJitterIsNoDoubt(t *testing.T) {
	d := New(Defaults(100 * ms))
	d.Watch([]uint32{2})
	slot := uint64(0)
	for now := ms; now <= 20*time.Second; now += ms {
		// Half a second of beats comes at once, again and again.
		if now%(500*ms) == 0 {
			for range 5 {
				slot++
				d.Hear(2, 0, slot, now)
			}
		}
		d.Due(now)
		if now > 10*time.Second && d.Doubtful(2, now) {
			t.Fatalf("suspected at %v, %v after the last beat, phi %.1f, though it has always been like that", now, now%(500*ms), d.Suspicion(2, now))
		}
	}
}

// TestLookTellsDoubt: the loop tells since when a peer is suspected, once, and once that
// it no longer is; while most are silent at once it suspects nobody.
func TestLookTellsDoubt(t *testing.T) {
	l := idle(t, 4, 100*ms)
	slot, due := uint64(0), time.Duration(0)
	turn := func(dead ...uint32) (told []Event) {
		slot++
		for range 4 {
			l.now += 25 * ms
			for node := uint32(2); node <= 5 && l.now%(100*ms) == 0; node++ {
				silent := false
				for _, x := range dead {
					silent = silent || x == node
				}
				if !silent {
					l.d.Hear(node, 0, slot, l.now)
				}
			}
			l.d.Due(l.now)
			l.d.Changes()
			due = l.look(due)
		}
		return l.Take()
	}
	suspected := func(events []Event) (out []uint16) {
		for _, e := range events {
			for _, h := range e.Heard {
				if !h.Suspected.IsZero() {
					out = append(out, h.Node)
				}
			}
		}
		return out
	}
	for range 30 {
		turn()
	}
	l.Take()
	var told []Event
	for range 4 {
		told = append(told, turn(3)...)
	}
	if got := suspected(told); len(told) != 1 || len(got) != 1 || got[0] != 3 {
		t.Fatalf("%d events, suspected %v; want one event that suspects 3", len(told), got)
	}
	at := told[0].Heard[1].Suspected
	if since := at.Sub(l.started); since < 3*time.Second || since > l.now {
		t.Errorf("suspected since %v, now is %v", since, l.now)
	}
	told = nil
	for range 40 {
		told = append(told, turn()...)
	}
	if got := suspected(told); len(told) != 1 || len(got) != 0 {
		t.Errorf("%d events when it is heard again, suspected %v; want one, nobody", len(told), got)
	}
	if c := countsOf(l, "s3"); c.Suspected != 1 {
		t.Errorf("counted %d suspicions, want 1", c.Suspected)
	}
	told = nil
	for range 8 {
		told = append(told, turn(2, 3, 4)...)
	}
	if got := suspected(told); len(got) != 0 {
		t.Errorf("suspected %v while most are silent at once, want nobody: the observer is the likelier fault", got)
	}
}
