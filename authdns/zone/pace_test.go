package zone

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPacer holds that a pause comes with the first look at the clock after a stint, and
// none before.
func TestPacer(t *testing.T) {
	for _, c := range []struct {
		name  string
		since time.Time
		steps int
		want  int
	}{
		{"no stint began yet", time.Time{}, stepsPerLook, 0},
		{"the stint is young", time.Now().Add(time.Hour), 10 * stepsPerLook, 0},
		{"the stint is over, nobody looks", time.Now().Add(-time.Hour), stepsPerLook - 1, 0},
		{"the stint is over", time.Now().Add(-time.Hour), stepsPerLook, 1},
	} {
		p := pacer{since: c.since}
		for range c.steps {
			p.step()
		}
		if p.pauses != c.want {
			t.Errorf("%s: %d pauses after %d steps, want %d", c.name, p.pauses, c.steps, c.want)
		}
		if began := time.Since(p.since); c.want > 0 && began > time.Minute {
			t.Errorf("%s: the next stint began %v ago", c.name, began)
		}
	}
}

// TestLongWorkPauses counts how often the thread gives its core back by itself while a
// zone of many names is read, walked through and compared: about once for each
// millisecond of it that the work took.
func TestLongWorkPauses(t *testing.T) {
	var text strings.Builder
	text.WriteString("@ 3600 SOA ns hostmaster 1 7200 900 1209600 60\n@ NS ns\nns A 192.0.2.1\n")
	for i := range 60_000 {
		fmt.Fprintf(&text, "h%d A 198.51.100.%d\n", i, i%254+1)
	}
	read := func() *Zone {
		z, err := Parse("big", "big.test.", strings.NewReader(text.String()))
		if err != nil {
			t.Fatal(err)
		}
		return z
	}
	z, other := read(), read()
	for _, c := range []struct {
		name string
		run  func()
	}{
		{"read", func() { read() }},
		{"visit", func() {
			z.Visit(func(name string, _ []uint16, _ any, _ Shape) {
				for range 10 {
					z.Lookup(name, 1)
				}
			})
		}},
		{"compare", func() { Diff(z, other) }},
		{"compare records", func() { Changes(z, other) }},
	} {
		pauses, took := given(c.run)
		t.Logf("%s: %d pauses in %v", c.name, pauses, took)
		if want := int64(took / stint / 3); pauses < want {
			t.Errorf("%s: the thread gave its core back %d times in %v of work, want %d at least", c.name, pauses, took, want)
		}
	}
}

// given runs f on one thread and tells how often that slept, and what it had of a core.
// Garbage is left alone, since collecting puts threads to sleep as well.
func given(f func()) (sleeps int64, took time.Duration) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, after unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_THREAD, &before)
	f()
	_ = unix.Getrusage(unix.RUSAGE_THREAD, &after)
	return after.Nvcsw - before.Nvcsw, time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
}
