package detect

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// replayed runs a whole trace.
func replayed(trace string, interval time.Duration) (string, error) {
	var out strings.Builder
	err := Replay(strings.NewReader(trace), &out, Defaults(interval))
	return out.String(), err
}

// rows writes beats of a target over some paths, a slot each interval.
func rows(b *strings.Builder, target, vias int, from, to, interval int) {
	for ms := from; ms < to; ms += interval {
		for via := range vias {
			fmt.Fprintf(b, "%d,%d,%d,%d\n", target, via, ms+20, ms/interval)
		}
	}
}

// TestReplayContract: the rows of the contract, one after the other.
func TestReplayContract(t *testing.T) {
	var b strings.Builder
	rows(&b, 7, 1, 0, 30000, 300) // the last at 29720; six beats later, and a quarter of one
	dead := b.String()
	for _, c := range []struct{ name, in, want string }{
		{"nothing", "", ""},
		{"end alone", "end,,5000,\n", ""},
		{"sync is answered", "sync,,500,\nsync,,1000,\nend,,1000,\n", "sync,500\nsync,1000\n"},
		{"first heard is no change", "0,0,10,0\nsync,,500,\n", "sync,500\n"},
		{"down at the due time, before the sync", dead + "sync,,40000,\nend,,40000,\n", "7,31595,down\nsync,40000\n"},
		{"due only after the sync", dead + "sync,,31000,\nsync,,31594,\nsync,,31595,\nend,,32000,\n", "sync,31000\nsync,31594\n7,31595,down\nsync,31595\n"},
		{"up again", dead + "7,0,33020,110\nend,,33020,\n", "7,31595,down\n7,33020,up\n"},
		{"without an end the last time counts", dead + "sync,,31595,", "7,31595,down\nsync,31595\n"},
		{"the clock runs out at end", dead + "end,,31595,", "7,31595,down\n"},
		{"a beat at the due time is there", dead + "7,0,31595,105\nend,,31700,\n", ""},
		{"rows behind end are not read", "end,,1,\nnonsense\n", ""},
		{"a goodbye, and it does not come back", "format,,2,\n" + dead + "leave,7,29750,5000\nend,,40000,\n", "7,29750,left\n7,34750,down\n"},
		{"a goodbye, and back in time", "format,,2,\n" + dead + "leave,7,29750,5000\n7,0,33020,110\nend,,33020,\n", "7,29750,left\n7,33020,up\n"},
		{"a goodbye twice is one", "format,,2,\n" + dead + "leave,7,29750,5000\nleave,7,29800,5000\nend,,40000,\n", "7,29750,left\n7,34750,down\n"},
		{"a goodbye of one never heard", "format,,2,\nleave,7,29750,5000\nend,,40000,\n", ""},
		{"the first format may be named", "format,,1,\n" + dead + "end,,31595,", "7,31595,down\n"},
		{"CRLF", "sync,,1,\r\nend,,2,\r\n", "sync,1\n"},
		{"years of silence", dead + "end,,900000000000,\n", "7,31595,down\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if out, err := replayed(c.in, 300*ms); err != nil || out != c.want {
				t.Errorf("%v\n%swant\n%s", err, out, c.want)
			}
		})
	}
}

func TestReplayBadInput(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"not a row", "0,0,10,0\nhello\n", "line 2"},
		{"five fields", "0,0,10,0,0\n", "seq"},
		{"a sign", "0,0,-1,0\n", "recv_ms"},
		{"a fraction", "0,0,1.5,0\n", "recv_ms"},
		{"no target", ",0,1,0\n", "target"},
		{"a header", "target,via,recv_ms,seq\n", "line 1"},
		{"time falls", "0,0,10,0\n0,0,9,1\n", "line 2: the time falls"},
		{"time falls behind a sync", "sync,,10,\n0,0,9,1\n", "line 2: the time falls"},
		{"sync with a target", "sync,1,10,\n", "line 1"},
		{"a blank line", "\n", "line 1"},
		{"too large", "0,0,99999999999999999999,0\n", "above"},
		{"a slot that overflows", "0,0,1,999999999999\n", "seq"},
		{"a goodbye in the first format", "leave,7,10,1\n", "format,,2,"},
		{"a format of later", "format,,3,\n", "want 1 to 2"},
		{"a format too late", "0,0,10,0\nformat,,2,\n", "in the first row"},
		{"an endless line", strings.Repeat("1", 1<<17), "line 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := replayed(c.in, time.Minute); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// TestReplayWaits: a writer which waits for the answer to each sync, and gives
// nothing more before, is answered.
func TestReplayWaits(t *testing.T) {
	in, feed := io.Pipe()
	answers, out := io.Pipe()
	go func() { out.CloseWithError(Replay(in, out, Defaults(300*ms))) }()
	lines := bufio.NewScanner(answers)
	for i := range 20 {
		fmt.Fprintf(feed, "0,0,%d,%d\nsync,,%d,\n", i*300+20, i, i*300+100)
		if !lines.Scan() || lines.Text() != fmt.Sprintf("sync,%d", i*300+100) {
			t.Fatalf("sync %d: %q, %v", i, lines.Text(), lines.Err())
		}
	}
	feed.Close()
	if lines.Scan() || lines.Err() != nil {
		t.Errorf("%q %v", lines.Text(), lines.Err())
	}
}

// TestReplayInSteps: how often the clock is told makes no difference.
func TestReplayInSteps(t *testing.T) {
	var trace strings.Builder
	tr := Trace{Seed: 4, Interval: 100 * ms, Length: 20 * time.Minute, Targets: 5, Paths: 3, Sick: true, CrashEvery: 3 * time.Minute}
	if raced {
		tr.Length /= 5
	}
	if _, err := Generate(&trace, tr); err != nil {
		t.Fatal(err)
	}
	some, err := replayed(trace.String(), tr.Interval)
	if err != nil {
		t.Fatal(err)
	}
	var without, often strings.Builder
	last := int64(0)
	for line := range strings.Lines(trace.String()) {
		if r, err := parseRow(trimEnd([]byte(line))); err == nil && r.kind == rowBeat {
			last = max(last, r.at.Milliseconds()-1)
			fmt.Fprintf(&often, "sync,,%d,\n", last)
			last = r.at.Milliseconds()
		}
		if !strings.HasPrefix(line, "sync") {
			without.WriteString(line)
			often.WriteString(line)
		}
	}
	for name, in := range map[string]string{"without": without.String(), "often": often.String()} {
		have, err := replayed(in, tr.Interval)
		if err != nil || changes(have) != changes(some) {
			t.Errorf("%s sync rows: %v, %d bytes, want %d", name, err, len(changes(have)), len(changes(some)))
			a, b := strings.Split(changes(have), "\n"), strings.Split(changes(some), "\n")
			for i := range min(len(a), len(b)) {
				if a[i] != b[i] {
					t.Fatalf("row %d: %s, want %s", i, a[i], b[i])
				}
			}
		}
	}
	if strings.Count(changes(some), "down") < 10 && !raced {
		t.Errorf("little happened:\n%s", changes(some))
	}
}

// TestReplayMemory: a trace ten times as long allocates nothing more.
func TestReplayMemory(t *testing.T) {
	of := func(seconds int) float64 {
		var b strings.Builder
		for ms := 0; ms < seconds*1000; ms += 100 {
			for target := range 3 {
				fmt.Fprintf(&b, "%d,0,%d,%d\n%d,1,%d,%d\n", target, ms+20, ms/100, target, ms+20, ms/100)
			}
			fmt.Fprintf(&b, "sync,,%d,\n", ms+30)
		}
		in := strings.NewReader(b.String())
		return testing.AllocsPerRun(3, func() {
			in.Reset(b.String())
			if err := Replay(in, io.Discard, Defaults(100*ms)); err != nil {
				t.Fatal(err)
			}
		})
	}
	if short, long := of(10), of(100); long > short+2 {
		t.Errorf("%v allocations for 10 s of trace, %v for 100 s", short, long)
	}
}

func changes(out string) string {
	var b strings.Builder
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "sync") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func FuzzParseRow(f *testing.F) {
	for _, s := range []string{"0,0,10,0", "sync,,5,", "end,,5,", "leave,1,5,1000", "format,,2,", "1,2,3", ",,,", "a,b,c,d", "18446744073709551616,0,0,0"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := parseRow(line)
		if err == nil && (r.at < 0 || r.target > maxTarget || r.via > maxVia || r.slot > maxSlot) {
			t.Errorf("%q: %+v", line, r)
		}
	})
}

func FuzzReplay(f *testing.F) {
	f.Add([]byte("format,,2,\n0,0,10,0\nleave,0,20,3000\n0,0,900,8\nend,,9000,\n"))
	f.Add([]byte("0,0,10,0\n0,1,12,0\nsync,,500,\n1,0,600,2\nend,,90000,\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var out strings.Builder
		Replay(strings.NewReader(string(in)), &out, Defaults(100*ms))
		synced := ""
		for line := range strings.Lines(out.String()) {
			if !strings.HasSuffix(line, "\n") || strings.Count(line, ",")+strings.Count(line, "sync") != 2 {
				t.Errorf("row %q behind %q", line, synced)
			}
		}
	})
}

func BenchmarkReplay(b *testing.B) {
	var trace strings.Builder
	tr := Trace{Seed: 1, Interval: 300 * ms, Length: time.Hour, Targets: 12, Paths: 5, Sick: true, CrashEvery: 20 * time.Minute}
	if _, err := Generate(&trace, tr); err != nil {
		b.Fatal(err)
	}
	n := strings.Count(trace.String(), "\n")
	for b.Loop() {
		if err := Replay(strings.NewReader(trace.String()), io.Discard, Defaults(tr.Interval)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

// TestNothingInHindsight: whatever is heard, and however late it says that a path had
// fallen silent, a change never lies before the time that was judged already.
func TestNothingInHindsight(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 1))
		var rows strings.Builder
		var slots [3]int
		at := 0
		for range 20 + r.IntN(20) {
			at += []int{10, 30, 50, 100, 300, 800, 1500}[r.IntN(7)]
			via := r.IntN(len(slots))
			slots[via] = max(slots[via]+1, at/100-r.IntN(12))
			fmt.Fprintf(&rows, "0,%d,%d,%d\nsync,,%d,\n", via, at, slots[via], at)
		}
		fmt.Fprintf(&rows, "end,,%d,\n", at+5000)
		var out strings.Builder
		if err := Replay(strings.NewReader(rows.String()), &out, Defaults(100*ms)); err != nil {
			t.Fatal(err)
		}
		synced := 0
		for line := range strings.Lines(out.String()) {
			var subject, changed int
			if _, err := fmt.Sscanf(line, "sync,%d", &synced); err == nil {
				continue
			}
			if n, _ := fmt.Sscanf(line, "%d,%d,", &subject, &changed); n == 2 && changed < synced {
				t.Fatalf("seed %d: %q behind sync,%d of\n%s", seed, line, synced, rows.String())
			}
		}
	}
}
