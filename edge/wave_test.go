package edge

import (
	"context"
	"testing"
	"time"

	"rhumb/edge/frame"
	"rhumb/edge/tcprepair"
)

// TestSpread: what the bucket gives at once is asked at once, more at the rate of restores,
// and none later than spreadMost.
func TestSpread(t *testing.T) {
	for sessions, want := range map[int]time.Duration{1: 0, 2000: 0, 2020: time.Millisecond, 6000: 200 * time.Millisecond, 100_000: spreadMost} {
		if got := spreadOf(sessions, 20_000); got != want {
			t.Errorf("%d sessions are asked within %v, want %v", sessions, got, want)
		}
	}
}

// waveOf is a wave of n rounds, none of which is asked by itself.
func waveOf(t *testing.T, n int) (*Agent, *wave) {
	t.Helper()
	a := testAgent(t)
	w := newWave(a.revival, time.Now(), time.Hour, n)
	claimed := make([]stored, n)
	for i := range claimed {
		claimed[i] = stored{rec: frame.Record{Key: testKey(i), Epoch: 7}, from: "a"}
	}
	w.begin(claimed)
	if len(w.rounds) != n {
		t.Fatalf("%d rounds of %d sessions", len(w.rounds), n)
	}
	return a, w
}

// TestWaveOrder: who restores is given each round once, in the order in which their clients
// were heard; such a round is not asked any more, nor does it go on by itself.
func TestWaveOrder(t *testing.T) {
	a, w := waveOf(t, 3)
	packet := func(i int) []byte {
		k := testKey(i)
		return tcprepair.Segment{Src: k.Client, Dst: k.VIP, Flags: tcprepair.ACK}.Append(nil)
	}
	for _, i := range []int{2, 0, 2, 0} {
		a.Heard(testKey(i), packet(i))
	}
	if len(w.ready) != 2 {
		t.Fatalf("%d rounds are to be restored, want 2", len(w.ready))
	}
	for _, i := range []int{2, 0} {
		rd := <-w.ready
		if rd.rec.Key != testKey(i) || rd.told.IsZero() || len(rd.heard) != 2 {
			t.Errorf("%v is next with %d segments, want %v with 2", rd.rec.Key, len(rd.heard), testKey(i))
		}
		w.ask(rd)
		if rd.probes != 0 {
			t.Error("a client was asked that had spoken")
		}
		if !w.outlasts(t.Context(), rd) {
			t.Error("a round whose client was heard is waited for")
		}
	}
	last := w.rounds[1]
	if last.taken || w.outlasts(t.Context(), last) {
		t.Error("a client that nobody has asked is waited for no longer")
	}
	last.asked = time.Now()
	if w.outlasts(t.Context(), last) {
		t.Error("a client is waited for no longer that was just asked")
	}
}

// TestWaveEnds: with its context a wave ends, and each of its rounds.
func TestWaveEnds(t *testing.T) {
	a, w := waveOf(t, 3)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.start(ctx)
	w.run(ctx)
	a.wg.Wait()
	for _, rd := range w.rounds {
		<-rd.done
	}
	if n := len(a.revival.rounds); n != 0 {
		t.Errorf("%d rounds are left", n)
	}
}

// TestWaveSpared: a round whose owner speaks in the meantime is not restored, though its
// client was heard.
func TestWaveSpared(t *testing.T) {
	a, w := waveOf(t, 1)
	rd := w.rounds[0]
	rd.heard <- tcprepair.Segment{Flags: tcprepair.ACK}
	rd.told = time.Now()
	a.revival.spare(rd.rec.Key, "a")
	if s := w.restore(t.Context(), rd); s != nil {
		t.Error("a session was restored whose owner lives")
	}
	<-rd.done
	if !a.replica.has(rd.rec.Key) {
		t.Error("its record is gone")
	}
}

// TestWaveGone: a client that says where it stands and then that it has no such connection any
// more is not answered by a session.
func TestWaveGone(t *testing.T) {
	for name, flags := range map[string]uint8{"reset": tcprepair.RST, "another connection": tcprepair.SYN} {
		t.Run(name, func(t *testing.T) {
			a, w := waveOf(t, 1)
			rd := w.rounds[0]
			rd.heard <- tcprepair.Segment{Flags: tcprepair.ACK}
			rd.heard <- tcprepair.Segment{Flags: flags}
			rd.told = time.Now()
			if s := w.restore(t.Context(), rd); s != nil {
				t.Error("a session was restored whose client has none")
			}
			a.wg.Wait()
			<-rd.done
			if n := revivals(t, a, reviveGone); n != 1 {
				t.Errorf("%v rounds ended with the client gone", n)
			}
		})
	}
}

// TestWaveYields: rounds that are to end do so at once, be their clients asked or not; nobody
// asks them then.
func TestWaveYields(t *testing.T) {
	for name, asked := range map[string]time.Time{"not asked": {}, "asked": time.Now().Add(time.Hour)} {
		t.Run(name, func(t *testing.T) {
			a, w := waveOf(t, 2)
			for _, rd := range w.rounds {
				rd.asked = asked
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				a.revival.yield("a")
			}()
			for _, rd := range w.rounds {
				<-rd.over
				probes := rd.probes
				if w.ask(rd); rd.probes != probes {
					t.Error("a client is asked though its owner lives")
				}
				if !w.outlasts(t.Context(), rd) {
					t.Fatal("a round whose owner lives is waited for")
				}
			}
			<-done
			a.wg.Wait()
		})
	}
}
