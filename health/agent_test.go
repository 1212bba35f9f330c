package health

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/health/detect"
	"rhumb/placement"
)

const beatInterval = 100 * time.Millisecond

// TestSilentSiteIsVotedDown: without a goodbye a site is down after the timeout,
// and up again when the penalty of its departure is gone; what is steady makes no
// votes. One that flaps comes back when it has stopped, and not before.
func TestSilentSiteIsVotedDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		a, b := start(t, e, 1, 3, 1, nil), start(t, e, 2, 3, 1, nil)
		start(t, e, 3, 3, 1, nil)
		time.Sleep(time.Minute)
		if a.on(2).State != placement.Up || a.on(3).State != placement.Up || b.on(1).State != placement.Up || a.votes() != 3 {
			t.Fatalf("after a quiet minute: %+v", a.cast)
		}
		began := time.Now()
		e.lose(silent(3))
		for a.on(3).State == placement.Up && time.Since(began) < time.Minute {
			time.Sleep(10 * time.Millisecond)
		}
		limit := detect.Defaults(beatInterval).Timeouts[1] // two paths: direct, and by site 2
		if took := time.Since(began); took < limit-beatInterval || took > limit+2*beatInterval {
			t.Errorf("voted %v after %v, want some %v", a.on(3).State, took, limit)
		}
		if v := a.on(3); v.State != placement.Down || v.Hold || v.Cause == "" || b.on(1).State != placement.Up {
			t.Errorf("%+v", v)
		}
		e.lose(nil)
		for a.on(3).State != placement.Up && time.Since(began) < time.Minute {
			time.Sleep(10 * time.Millisecond)
		}
		if took := time.Since(began) - limit; took < 24*time.Second || took > 26*time.Second {
			t.Errorf("voted up %v after it was voted down, want some 25 s", took)
		}
		for range 30 {
			e.lose(silent(3))
			time.Sleep(2 * time.Second)
			e.lose(nil)
			time.Sleep(2 * time.Second)
		}
		if n := a.votes(); n != 6 || a.on(3).State != placement.Down {
			t.Errorf("after two minutes of flapping: %d votes, the last %+v; want one more", n, a.on(3))
		}
		time.Sleep(74 * time.Second)
		if v := a.on(3); v.State != placement.Up {
			t.Errorf("74 s after the last flap: %+v", v)
		}
	})
}

// TestGoodbye: a clean stop is told to all peers, and is no loss.
func TestGoodbye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		a, b := start(t, e, 1, 3, 1, nil), start(t, e, 2, 3, 1, nil)
		start(t, e, 3, 3, 1, nil)
		time.Sleep(10*time.Second + 30*time.Millisecond) // in the middle of a slot
		b.stop()
		time.Sleep(time.Second)
		if v := a.on(2); v.State != placement.Unknown || v.Cause != "said goodbye" {
			t.Errorf("a second after the goodbye: %+v", v)
		}
		time.Sleep(8 * time.Second)
		if v := a.on(2); v.State != placement.Unknown {
			t.Errorf("nine seconds after the goodbye: %+v", v)
		}
		again := start(t, e, 2, 3, 2, nil)
		time.Sleep(time.Second)
		if v := a.on(2); v.State != placement.Up {
			t.Errorf("restarted: %+v", v)
		}
		again.stop()
		time.Sleep(40 * time.Second)
		if v := a.on(2); v.State != placement.Down {
			t.Errorf("gone for good: %+v", v)
		}
	})
}

// TestHold: who hears nobody doubts itself: it votes nobody down; what it had
// voted down before counts for nobody until it hears the others again; and what
// it votes of those who come back counts at once.
func TestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		e := newEther()
		a := start(t, e, 1, 4, 1, func(c *Config) { c.Metric = reg })
		for i := 2; i <= 4; i++ {
			start(t, e, i, 4, 1, nil)
		}
		time.Sleep(5 * time.Second)
		e.lose(silent(4))
		time.Sleep(5 * time.Second)
		if v := a.on(4); v.State != placement.Down || v.Hold {
			t.Fatalf("%+v", v)
		}
		e.lose(func(from, to netip.AddrPort) bool { return true })
		time.Sleep(5 * time.Second)
		for i := 2; i <= 3; i++ {
			if v := a.on(i); v.State != placement.Up || !v.Hold {
				t.Errorf("cut off, its old word on site %d still counts: %+v", i, v)
			}
		}
		if v := a.on(4); v.State != placement.Down || !v.Hold {
			t.Errorf("cut off, its old word on site 4 still counts: %+v", v)
		}
		e.lose(nil)
		time.Sleep(2 * time.Second)
		if v := a.on(4); v.State != placement.Down || v.Hold {
			t.Errorf("site 4 left 11 s ago, and comes back before its penalty is gone: %+v", v)
		}
		time.Sleep(15 * time.Second)
		for i := 2; i <= 4; i++ {
			if v := a.on(i); v.State != placement.Up || v.Hold {
				t.Errorf("heard again, it says of site %d: %+v", i, v)
			}
		}
		if held, _, _ := sample(t, reg, "rhumb_health_hold_seconds_total"); held < 4.5 || held > 5.5 {
			t.Errorf("held for %v s, want some 5", held)
		}
	})
}

// sample returns the value of a counter, or count and sum of a histogram.
func sample(t *testing.T, reg *prometheus.Registry, name string) (value float64, count uint64, sum float64) {
	t.Helper()
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetCounter().GetValue(), m.GetHistogram().GetSampleCount(), m.GetHistogram().GetSampleSum()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0, 0, 0
}

// TestCopiesProveNothing: whoever records datagrams and sends them again keeps
// neither a dead site alive nor its votes.
func TestCopiesProveNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		var recorded [][]byte
		e.seen = func(from, to netip.AddrPort, data []byte) {
			if from == stationAddr(3) && to == stationAddr(1) {
				recorded = append(recorded, data)
			}
		}
		a := start(t, e, 1, 3, 1, nil)
		start(t, e, 2, 3, 1, nil)
		start(t, e, 3, 3, 1, nil)
		time.Sleep(10 * time.Second)
		e.lose(silent(3))
		e.mu.Lock()
		copies := slices.Clone(recorded)
		e.mu.Unlock()
		for i := range 300 { // 30 s of copies
			e.mu.Lock()
			to := e.ports[stationAddr(1)]
			e.mu.Unlock()
			to.in <- copies[i%len(copies)]
			time.Sleep(beatInterval)
		}
		if v := a.on(3); v.State != placement.Down {
			t.Errorf("kept alive by copies: %+v", v)
		}
		a.stop()
		for key := range a.ballot.heard {
			if key.vantage == "s3-a" {
				t.Errorf("a vote of a site silent for 30 s counts: %+v", key)
			}
		}
		if len(copies) < 100 {
			t.Errorf("only %d datagrams recorded", len(copies))
		}
	})
}

// TestNumbersRise: no two datagrams of a kind to a peer have one number, and that of
// a beat is its slot.
func TestNumbersRise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		last, kinds := make(map[detect.Kind]uint32), make(map[detect.Kind]int)
		e.seen = func(from, to netip.AddrPort, data []byte) {
			b, err := detect.Open(data, [32]byte{9})
			if from != stationAddr(1) || to != stationAddr(2) {
				return
			}
			if err != nil || b.Seq <= last[b.Kind] {
				t.Errorf("%+v after %d (%v)", b, last[b.Kind], err)
			}
			last[b.Kind] = b.Seq
			kinds[b.Kind]++
		}
		a := start(t, e, 1, 3, 1, nil)
		start(t, e, 2, 3, 1, nil)
		start(t, e, 3, 3, 1, nil)
		time.Sleep(30 * time.Second)
		e.lose(silent(3))
		time.Sleep(5 * time.Second)
		a.stop()
		if n := kinds[detect.KindBeat] + kinds[detect.KindVector]; n < 340 || kinds[detect.KindVotes] < 4 || kinds[detect.KindAsk] < 5 || kinds[detect.KindLeave] != 3 {
			t.Errorf("sent %v", kinds)
		}
		if n := max(last[detect.KindBeat], last[detect.KindVector]); n < 349 || n > 350 {
			t.Errorf("number %d after 350 slots", n)
		}
	})
}

// TestPeersChange: a site that leaves the fleet is voted on no more, and everybody
// is told so; one without a key is left out; the others are not disturbed.
func TestPeersChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		stream := NewStream("", quiet())
		a := start(t, e, 1, 3, 1, func(c *Config) { c.Stream = stream })
		b := start(t, e, 2, 3, 1, func(c *Config) { c.Stream = NewStream("", quiet()) })
		start(t, e, 3, 3, 1, nil)
		time.Sleep(5 * time.Second)
		lines, _ := stream.join()
		defer stream.leave(lines)
		peers := peersOf(1, 2)
		a.Set(append(peers, Peer{Site: "s9", NodeID: 9, Addr: stationAddr(9)}), nil)
		synctest.Wait()
		a.mu.Lock()
		if len(a.ended) != 1 || a.ended[0] != placement.SiteID("s3") {
			t.Errorf("ended %v", a.ended)
		}
		a.mu.Unlock()
		told := false
		for len(lines) > 0 {
			v := <-lines
			told = told || v.Object == placement.SiteID("s3") && v.Vantage == "s1-a" && v.Hold
		}
		if !told {
			t.Error("the stream was not told that the vote on s3 ended")
		}
		time.Sleep(5 * time.Second)
		if v := a.on(2); v.State != placement.Up || v.Hold {
			t.Errorf("%+v", v)
		}
		b.stop()
		if v := b.ballot.heard[heardKey{"s1-a", placement.SiteID("s3")}]; !v.Hold {
			t.Errorf("the peer still counts the vote that ended: %+v", v)
		}
	})
}

// TestVotesOfOthers: a site speaks for its own vantages alone.
func TestVotesOfOthers(t *testing.T) {
	stream := NewStream("", quiet())
	a := New(Config{Node: "s1-a", Site: "s1", Sink: func(placement.Vote) {}, Stream: stream, Log: quiet()})
	said := []placement.Vote{
		{Object: placement.SiteID("s1"), Vantage: "s2-a", Site: "s2", Seq: 4, State: placement.Up},
		{Object: placement.SiteID("s1"), Vantage: "s2-a", Site: "s2", Seq: 3, State: placement.Down}, // overtaken
		{Object: placement.SiteID("s1"), Vantage: "s3-a", Site: "s3", Seq: 5},                        // in another's name
		{Object: placement.SiteID("s2"), Vantage: "s1-a", Site: "s2", Seq: 6},                        // in ours
	}
	for _, body := range packVotes(said, 1000) {
		a.hearVotes(2, "s2", body)
	}
	if _, have := stream.join(); len(have) != 1 || have[0] != said[0] {
		t.Errorf("on the stream: %+v", have)
	}
}

// TestBrokenPath: two sites which do not hear each other, while others hear both,
// say that the path is broken, for as long as it is, and never that the site is
// down; a path that breaks for a second is no news.
func TestBrokenPath(t *testing.T) {
	for _, c := range []struct {
		sites int
		pace  time.Duration
	}{{3, 100 * time.Millisecond}, {3, 300 * time.Millisecond}, {6, 300 * time.Millisecond}} {
		synctest.Test(t, func(t *testing.T) {
			e := newEther()
			paced := func(cfg *Config) { cfg.Interval = c.pace }
			a := start(t, e, 1, c.sites, 1, paced)
			b := start(t, e, 2, c.sites, 1, paced)
			for i := 3; i <= c.sites; i++ {
				start(t, e, i, c.sites, 1, paced)
			}
			cut := func(from, to netip.AddrPort) bool {
				return from == stationAddr(1) && to == stationAddr(2) || from == stationAddr(2) && to == stationAddr(1)
			}
			time.Sleep(5 * time.Second)
			quiet := a.votes()
			e.lose(cut)
			time.Sleep(time.Second)
			e.lose(nil)
			time.Sleep(5 * time.Second)
			if a.votes() != quiet {
				t.Errorf("%d sites at %v: a second without a path made %+v", c.sites, c.pace, a.cast[quiet:])
			}
			e.lose(cut)
			time.Sleep(time.Minute)
			if a.votes() != quiet+1 {
				t.Errorf("%d sites at %v: a minute made %+v", c.sites, c.pace, a.cast[quiet:])
			}
			for _, v := range []placement.Vote{a.on(2), b.on(1)} {
				if v.State != placement.Path || v.Hold || !strings.Contains(v.Cause, "direct") {
					t.Errorf("%d sites at %v: %+v", c.sites, c.pace, v)
				}
			}
			e.lose(nil)
			time.Sleep(time.Second)
			if v := a.on(2); v.State != placement.Up {
				t.Errorf("%d sites at %v, healed: %+v", c.sites, c.pace, v)
			}
		})
	}
}

// TestLostVotes: a vote whose first datagram is lost arrives with the next turn.
func TestLostVotes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		stream := NewStream("", quiet())
		start(t, e, 1, 3, 1, func(c *Config) { c.Stream = stream })
		start(t, e, 2, 3, 1, nil)
		start(t, e, 3, 3, 1, nil)
		time.Sleep(10 * time.Second)
		e.lose(func(from, to netip.AddrPort) bool {
			part := time.Now().UnixMilli() % voteEvery.Milliseconds() // the votes are cast about 11 s
			return silent(3)(from, to) || from == stationAddr(2) && to == stationAddr(1) && part > 1700 && part < 2300
		})
		time.Sleep(10 * time.Second)
		_, have := stream.join()
		for _, v := range have {
			if v.Vantage == "s2-a" && v.Object == placement.SiteID("s3") && v.State == placement.Down {
				return
			}
		}
		t.Errorf("site 1 does not know that site 2 voted site 3 down: %+v", have)
	})
}
