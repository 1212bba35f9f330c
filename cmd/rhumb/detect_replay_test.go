package main

import (
	"bytes"
	"strings"
	"testing"
)

// TestDetectCommand: what is printed where, and how it ends.
func TestDetectCommand(t *testing.T) {
	for _, c := range []struct {
		name, args, in, out, err string
		code                     int
	}{
		{"a trace", "--replay --interval 300ms", "0,0,10,0\nsync,,500,\nend,,9000,\n", "sync,500\n0,2010,down\n", "", exitOK},
		{"bad input", "--replay", "0,0,10,0\nnonsense\n", "", "line 2", exitFailed},
		{"what was right before is printed", "--replay", "sync,,5,\n0,0\n", "sync,5\n", "line 2", exitFailed},
		{"neither", "", "", "", "--replay", exitUsage},
		{"both", "--replay --generate 1h", "", "", "--replay", exitUsage},
		{"a negative interval", "--replay --interval -1s", "", "", "--interval", exitUsage},
		{"no targets", "--generate 1s --targets 0", "", "", "targets", exitUsage},
		{"an argument", "--replay trace.csv", "", "", "trace.csv", exitUsage},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, errw bytes.Buffer
			code := run(t.Context(), append([]string{"detect"}, strings.Fields(c.args)...), strings.NewReader(c.in), &out, &errw)
			if code != c.code || out.String() != c.out || !strings.Contains(errw.String(), c.err) || c.err == "" && errw.Len() > 0 {
				t.Errorf("exit %d, want %d\nout: %swant: %serr: %s", code, c.code, out.String(), c.out, errw.String())
			}
		})
	}
}

// TestGenerateThenReplay: what one prints the other reads; the same seed gives the
// same trace, and the crashes which are told are found.
func TestGenerateThenReplay(t *testing.T) {
	generate := func() (trace, crashes string) {
		var out, errw bytes.Buffer
		args := []string{"detect", "--generate", "20m", "--targets", "4", "--crash-every", "4m", "--sick", "--seed", "3"}
		if code := run(t.Context(), args, strings.NewReader(""), &out, &errw); code != exitOK {
			t.Fatalf("exit %d: %s", code, errw.String())
		}
		return out.String(), errw.String()
	}
	trace, crashes := generate()
	if again, _ := generate(); again != trace {
		t.Error("the same seed gave another trace")
	}
	var out, errw bytes.Buffer
	if code := run(t.Context(), []string{"detect", "--replay"}, strings.NewReader(trace), &out, &errw); code != exitOK {
		t.Fatalf("exit %d: %s", code, errw.String())
	}
	if n := strings.Count(crashes, "away"); n < 3 || strings.Count(out.String(), ",down\n") < n {
		t.Errorf("%d crashes, found:\n%s", n, out.String())
	}
}
