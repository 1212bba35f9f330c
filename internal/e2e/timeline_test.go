//go:build e2e

package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	draw "rhumb/internal/timeline"
)

// timeline records what happened when, and lanes of states over the same time.
// It is written to bin/e2e when its test ends.
type timeline struct {
	mu     sync.Mutex
	began  time.Time
	events []mark
	lanes  map[string][]mark
}

// mark is a word at a time: an event, or a state that begins.
type mark struct {
	at   time.Time
	text string
}

func newTimeline(t testing.TB) *timeline {
	tl := &timeline{began: time.Now(), lanes: map[string][]mark{}}
	t.Cleanup(func() {
		leave(t, tl.chart(t.Name()), "")
	})
	return tl
}

// leave writes a chart beside the binary, as text and as picture, and into the log.
func leave(t testing.TB, c *draw.Chart, suffix string) {
	text := c.Title + "\n" + c.Log() + c.Rows()
	t.Log("\n" + text)
	if err := os.WriteFile(outputFile(t, suffix+".txt"), []byte(text), 0o644); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(outputFile(t, suffix+".svg"), c.SVG(), 0o644); err != nil {
		t.Error(err)
	}
}

// outputFile is where a test leaves something, beside the binary.
func outputFile(t testing.TB, suffix string) string {
	dir := filepath.Join("..", "..", "bin", "e2e")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Error(err)
	}
	return filepath.Join(dir, strings.ReplaceAll(t.Name(), "/", "-")+suffix)
}

func (tl *timeline) event(at time.Time, text string) {
	tl.mu.Lock()
	defer tl.mu.Unlock()
	tl.events = append(tl.events, mark{at, text})
}

func (tl *timeline) eventf(format string, args ...any) {
	tl.event(time.Now(), fmt.Sprintf(format, args...))
}

// set says that a lane is in a state from now on; only changes are kept.
func (tl *timeline) set(lane string, at time.Time, state string) {
	tl.mu.Lock()
	defer tl.mu.Unlock()
	if marks := tl.lanes[lane]; len(marks) > 0 && marks[len(marks)-1].text == state {
		return
	}
	tl.lanes[lane] = append(tl.lanes[lane], mark{at, state})
}

// chart is what was recorded until now, with lanes in order of name.
func (tl *timeline) chart(title string) *draw.Chart {
	tl.mu.Lock()
	defer tl.mu.Unlock()
	c := &draw.Chart{Title: title, Began: tl.began, Ended: time.Now(), Bad: []string{"silent", "none", "no answer", "SERVFAIL", "REFUSED"}}
	for _, m := range tl.events {
		c.Events = append(c.Events, draw.Mark{At: m.at, Text: m.text})
	}
	slices.SortStableFunc(c.Events, func(a, b draw.Mark) int { return a.At.Compare(b.At) })
	for _, name := range slices.Sorted(maps.Keys(tl.lanes)) {
		l := draw.Lane{Name: name}
		for _, m := range tl.lanes[name] {
			l.Set(m.at, m.text)
		}
		c.Lanes = append(c.Lanes, l)
	}
	return c
}
