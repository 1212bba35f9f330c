//go:build e2e

package e2e

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
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
		text := t.Name() + "\n" + tl.draw()
		t.Log("\n" + text)
		file := outputFile(t, ".txt")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Error(err)
		}
	})
	return tl
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

// width of the drawn lanes in columns, and how many changes of one are listed.
const (
	width  = 100
	listed = 30
)

// draw lists events and changes in order of time, then draws the lanes: every
// state has a letter, explained at the end of its line.
func (tl *timeline) draw() string {
	tl.mu.Lock()
	defer tl.mu.Unlock()
	all := slices.Clone(tl.events)
	names := []string{}
	for lane, marks := range tl.lanes {
		names = append(names, lane)
		if len(marks) > listed {
			continue // flows hashed to and fro over equal routes; drawn only
		}
		for _, m := range marks {
			all = append(all, mark{m.at, "  " + lane + " = " + m.text})
		}
	}
	slices.Sort(names)
	slices.SortStableFunc(all, func(a, b mark) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.text, b.text)) })
	var b strings.Builder
	for _, m := range all {
		fmt.Fprintf(&b, "%9.3f s  %s\n", m.at.Sub(tl.began).Seconds(), m.text)
	}
	span := time.Since(tl.began)
	for _, lane := range names {
		fmt.Fprintf(&b, "%-24s %s\n", lane, drawLane(tl.lanes[lane], tl.began, span))
	}
	return b.String()
}

func drawLane(marks []mark, began time.Time, span time.Duration) string {
	letters, legend := map[string]byte{}, []string{}
	row := []byte(strings.Repeat(" ", width))
	for i, m := range marks {
		if _, ok := letters[m.text]; !ok {
			letters[m.text] = byte('A' + len(letters)%26)
			legend = append(legend, fmt.Sprintf("%c=%s", letters[m.text], m.text))
		}
		end := began.Add(span)
		if i+1 < len(marks) {
			end = marks[i+1].at
		}
		for c := column(m.at.Sub(began), span); c < max(column(m.at.Sub(began), span)+1, column(end.Sub(began), span)) && c < width; c++ {
			row[c] = letters[m.text]
		}
	}
	return "|" + string(row) + "| " + strings.Join(legend, " ")
}

func column(d, span time.Duration) int { return max(0, int(int64(d)*width/int64(span+1))) }
