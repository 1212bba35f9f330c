package authdns

import (
	"testing"
	"time"
)

// TestFate: who is served, and what the others hear, by what there is.
func TestFate(t *testing.T) {
	const now = int64(1e18)
	for _, c := range []struct {
		name     string
		plea     plea
		debt     int64 // of signatures
		returned int64 // of truncated replies
		pressure int
		made     int
		want     fate
	}{
		{"calm", plea{class: classAttack, absent: true}, 0, 0, 0, 31, fateServe},
		{"a quarter gone: the attacked name", plea{class: classAttack, absent: true}, whole / 4, 0, 0, 0, fateTruncate},
		{"a quarter gone: its other askers", plea{class: classOther, absent: true}, whole / 4, 0, 0, 0, fateServe},
		{"half gone", plea{class: classOther, absent: true}, whole / 2, 0, 0, 0, fateTruncate},
		{"half gone: what exists", plea{class: classAttack}, whole, whole, 0, 0, fateServe},
		{"half gone, and known", plea{class: classKnown, absent: true}, whole / 2, 0, 0, 0, fateServe},
		{"the known ones' gone", plea{class: classKnown, absent: true}, whole * 7 / 8, 0, 0, 0, fateTruncate},
		{"the known ones' gone: a cookie", plea{class: classCookie, cookie: cookieGood, absent: true}, whole * 7 / 8, 0, 0, 0, fateServe},
		{"all gone", plea{class: classCookie, cookie: cookieGood, absent: true}, whole, 0, 0, 0, fateTruncate},
		{"RFC 7873 5.2.3 a client's cookie alone", plea{class: classOther, cookie: cookieClient, absent: true}, whole / 2, 0, 0, 0, fateBadCookie},
		{"RFC 7873 5.2.4 a cookie that is none of ours", plea{class: classOther, cookie: cookieBad, absent: true}, whole / 2, 0, 0, 0, fateBadCookie},
		{"too many sent to TCP", plea{class: classOther, absent: true}, whole / 2, whole / 2, 0, 0, fateDrop},
		{"too many sent to TCP: the attacked name first", plea{class: classAttack, absent: true}, whole / 2, whole / 4, 0, 0, fateDrop},
		{"pressed: within", plea{class: classOther}, 0, 0, 1, batchSize/4 - 1, fateServe},
		{"pressed: beyond", plea{class: classOther}, 0, 0, 1, batchSize / 4, fateTruncate},
		{"pressed: known", plea{class: classKnown}, 0, 0, 1, batchSize / 4, fateServe},
		{"pressed for long", plea{class: classOther}, 0, 0, 99, 1, fateTruncate},
		{"pressed for long: the attacked name", plea{class: classAttack}, 0, 0, 99, 0, fateTruncate},
		{"pressed for long: known, beside others as good", plea{class: classKnown}, 0, 0, 99, 3*batchSize - 1, fateServe},
		{"pressed for long: too many known", plea{class: classKnown}, 0, 0, 99, 3 * batchSize, fateTruncate},
		{"pressed for long: a cookie", plea{class: classCookie, cookie: cookieGood}, 0, 0, 99, 3 * batchSize, fateServe},
		{"pressed for long: too many cookies", plea{class: classCookie, cookie: cookieGood}, 0, 0, 99, 4 * batchSize, fateTruncate},
	} {
		s := supply{signatures: newPurse(1000), returns: newPurse(1000), now: now, pressure: c.pressure, made: c.made}
		s.signatures.paid.Store(now + c.debt)
		s.returns.paid.Store(now + c.returned)
		if got := s.fate(c.plea); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, fateLabels[got], fateLabels[c.want])
		}
	}
}

// TestClassesAreOrdered: in any state whoever is in a better class fares no worse.
func TestClassesAreOrdered(t *testing.T) {
	const now = int64(1e18)
	for debt := int64(0); debt <= whole; debt += whole / 32 {
		for pressure := range 6 {
			for made := range 5 * batchSize {
				served := true
				for c := classCookie; c <= classAttack; c++ {
					s := supply{signatures: newPurse(100), returns: newPurse(100), now: now, pressure: pressure, made: made}
					s.signatures.paid.Store(now + debt)
					is := s.fate(plea{class: c, absent: true}) == fateServe
					if is && !served {
						t.Fatalf("debt %d, pressure %d, %d made: class %s is served and the one above it not", debt, pressure, made, classLabels[c])
					}
					served = is
				}
			}
		}
	}
}

// TestReadsAreKept: the longer a socket does not run dry, the fewer replies each read of
// it leads to, even for the best; and a burst of the good ones between quiet reads is
// served whole.
func TestReadsAreKept(t *testing.T) {
	const now, reads = int64(1e18), 1000
	for pressure, want := range []int{0: batchSize, 1: batchSize, 2: batchSize / 2, 3: batchSize / 4, 4: batchSize / 8, 9: batchSize / 8} {
		if want == 0 {
			continue
		}
		s := supply{signatures: newPurse(1e6), returns: newPurse(1e6), now: now, pressure: pressure}
		batch := func(c rank, n int) (served int) {
			s.read()
			for range n {
				if s.fate(plea{class: c}) == fateServe {
					s.made++
					served++
				}
			}
			return served
		}
		made := 0
		for range reads {
			made += batch(classCookie, batchSize)
		}
		if over := made - want*reads; over < 0 || over > 4*batchSize {
			t.Errorf("pressure %d: %d made in %d reads, want %d a read and %d at once", pressure, made, reads, want, 4*batchSize)
		}
		for range reads {
			batch(classKnown, 1)
		}
		if got := batch(classCookie, batchSize) + batch(classKnown, batchSize); got != 2*batchSize {
			t.Errorf("pressure %d: %d of a burst of %d made", pressure, got, 2*batchSize)
		}
	}
}

// TestPurse: a second's worth at once, then the rate; no clock holds it up for long.
func TestPurse(t *testing.T) {
	const t0 = int64(1e18)
	p := newPurse(10)
	for _, c := range []struct {
		name  string
		after time.Duration
		want  int
	}{
		{"at once", 0, 10},
		{"none left", 0, 0},
		{"99 ms later", 99 * time.Millisecond, 0},
		{"a tenth of a second later", 100 * time.Millisecond, 1},
		{"half a second later", 600 * time.Millisecond, 5},
		{"a minute later", time.Minute, 10},
		{"a clock set back by an hour", -time.Hour, 0},
		{"a second after that", -time.Hour + time.Second, 0},
	} {
		got := 0
		for range 30 {
			if p.take(t0 + int64(c.after)) {
				got++
			}
		}
		if got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	for rate, want := range map[int]int{0: 1, 1: 1, 3: 3, 1 << 62: 1_000_000} {
		got, p := 0, newPurse(rate)
		for range 1_000_000 {
			if p.take(t0) {
				got++
			}
		}
		if got != want {
			t.Errorf("rate %d: %d at once, want %d", rate, got, want)
		}
	}
}

// TestPressure: it takes both, many full batches and time.
func TestPressure(t *testing.T) {
	var g guard
	t0 := testClock()
	for _, c := range []struct {
		name  string
		n     int
		after time.Duration
		times int
		want  int
	}{
		{"one full batch", batchSize, 0, 1, 0},
		{"long, and few", batchSize, time.Second, pressedAfter - 2, 0},
		{"long, and many", batchSize, time.Second, 1, int(time.Second / pressureStep)},
		{"dry", batchSize - 1, time.Second, 1, 0},
		{"many in no time", batchSize, time.Second, pressedAfter, 0},
		{"a step later", batchSize, time.Second + pressureStep, 1, 1},
	} {
		for range c.times {
			g.begin(nil, t0.Add(c.after), c.n)
		}
		if got := pressure(g.full, g.since, g.now); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

// TestOverloaded: an overload lasts a while, whatever the clock does.
func TestOverloaded(t *testing.T) {
	const now = int64(1e18)
	for _, c := range []struct {
		name string
		shed int64
		want bool
	}{
		{"never", 0, false},
		{"now", now, true},
		{"9 s ago", now - 9e9, true},
		{"10 s ago", now - 10e9, false},
		{"a clock set back by an hour", now + 3600e9, false},
	} {
		if got := overloaded(c.shed, now); got != c.want {
			t.Errorf("%s: %t, want %t", c.name, got, c.want)
		}
	}
}
