package detect

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const ms = time.Millisecond

// score is what a detector made of a trace.
type score struct {
	crashes, missed, late   int
	times                   []time.Duration // from crash to verdict
	falseDown, wrong, paths int
	peerDays                float64
}

func (s *score) add(o score) {
	s.crashes, s.missed, s.late = s.crashes+o.crashes, s.missed+o.missed, s.late+o.late
	s.falseDown, s.wrong, s.paths = s.falseDown+o.falseDown, s.wrong+o.wrong, s.paths+o.paths
	s.times, s.peerDays = append(s.times, o.times...), s.peerDays+o.peerDays
}

func (s *score) mean() time.Duration {
	var sum time.Duration
	for _, t := range s.times {
		sum += t
	}
	return sum / time.Duration(max(len(s.times), 1))
}

func (s *score) p99() time.Duration {
	slices.Sort(s.times)
	if len(s.times) == 0 {
		return 0
	}
	return s.times[len(s.times)*99/100]
}

func (s *score) perDay(n int) float64 { return float64(n) / s.peerDays }

func (s *score) String() string {
	return fmt.Sprintf("%d crashes, TD mean %d p99 %d ms, FP %.1f wrong %.3f path %.0f a day and peer, missed %d, late rows %d", s.crashes,
		s.mean().Milliseconds(), s.p99().Milliseconds(), s.perDay(s.falseDown), s.perDay(s.wrong), s.perDay(s.paths), s.missed, s.late)
}

// with runs any detector over a trace and judges its rows.
func with(tb testing.TB, tr Trace, detector func(io.Reader, io.Writer) error) score {
	tb.Helper()
	in, out := io.Pipe()
	truth := make(chan *Truth, 1)
	go func() {
		t, err := Generate(out, tr)
		out.CloseWithError(err)
		truth <- t
	}()
	var rows bytes.Buffer
	if err := detector(in, &rows); err != nil {
		tb.Fatal(err)
	}
	io.Copy(io.Discard, in)
	return judge(tb, tr, <-truth, &rows)
}

// judge compares rows with the truth.
func judge(tb testing.TB, tr Trace, truth *Truth, rows io.Reader) score {
	s := score{peerDays: tr.Length.Hours() / 24 * float64(tr.Targets)}
	downs := make([][]time.Duration, tr.Targets)
	var synced int64
	for sc := bufio.NewScanner(rows); sc.Scan(); {
		f := strings.Split(sc.Text(), ",")
		if f[0] == "sync" {
			synced, _ = strconv.ParseInt(f[1], 10, 64)
			continue
		}
		target, terr := strconv.Atoi(f[0])
		at, err := strconv.ParseInt(f[1], 10, 64)
		if len(f) != 3 || terr != nil || err != nil {
			tb.Fatalf("row %q", sc.Text())
		}
		if at < synced {
			s.late++
		}
		switch f[2] {
		case "path":
			s.paths++
		case "down":
			downs[target] = append(downs[target], time.Duration(at)*ms)
		}
	}
	crashed := make([][]Span, tr.Targets)
	for _, c := range truth.Crashes {
		crashed[c.Target] = append(crashed[c.Target], c)
	}
	for target := range tr.Targets {
		s.judge(tr, truth, target, crashed[target], downs[target])
	}
	return s
}

func (s *score) judge(tr Trace, truth *Truth, target int, crashes []Span, downs []time.Duration) {
	for _, c := range crashes {
		s.crashes++
		i := slices.IndexFunc(downs, func(at time.Duration) bool { return c.has(at) })
		switch {
		case i >= 0:
			s.times = append(s.times, downs[i]-c.From)
		case slices.ContainsFunc(downs, func(at time.Duration) bool { return at < c.From && at > c.From-30*time.Second }): // was dark already
		default:
			s.missed++
		}
	}
	for _, at := range downs {
		if slices.ContainsFunc(crashes, func(c Span) bool { return c.From <= at && at < c.Till+time.Second }) {
			continue
		}
		s.falseDown++
		if truth.wrong(tr, target, at) {
			s.wrong++
		}
	}
}

// wrong tells whether a path worked just before a verdict, or the observer was sick.
func (t *Truth) wrong(tr Trace, target int, at time.Duration) bool {
	for _, o := range t.sick {
		if o.From <= at && at < o.Till+2*time.Second {
			return true
		}
	}
	// The newest beat of which the fastest path should have brought a copy by now.
	phase := tr.Interval * time.Duration(target) / time.Duration(tr.Targets)
	roads := t.base[target*tr.Paths:][:tr.Paths]
	sent := (at-slices.Min(roads)-10*ms-phase)/tr.Interval*tr.Interval + phase
	dark := func(o Span) bool { return o.has(sent) }
	if slices.ContainsFunc(t.shared[target], dark) {
		return false
	}
	for via := range tr.Paths {
		if !slices.ContainsFunc(t.private[target*tr.Paths+via], dark) {
			return true
		}
	}
	return false
}

func fixed(interval, timeout time.Duration) Config {
	c := Defaults(interval)
	c.Early = 0
	for i := range c.Timeouts {
		c.Timeouts[i] = timeout
	}
	return c
}

// plain is the simplest detector there is: down when no beat of a target has
// arrived for a timeout, by whatever path. The published figures are about it, so
// that it calibrates the generator.
func plain(in io.Reader, out io.Writer, timeout time.Duration) error {
	last := make(map[uint32]time.Duration)
	look := func(id uint32, now time.Duration) {
		if due := last[id] + timeout; last[id] > 0 && due < now {
			fmt.Fprintf(out, "%d,%d,down\n", id, due.Milliseconds())
		}
	}
	for sc := bufio.NewScanner(in); sc.Scan(); {
		r, err := parseRow(sc.Bytes())
		switch {
		case err != nil:
			return err
		case r.kind == rowBeat:
			look(r.target, r.at)
			last[r.target] = r.at
		case r.kind == rowEnd:
			for id := range last {
				look(id, r.at)
			}
		}
	}
	return nil
}
