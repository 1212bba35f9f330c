package main

import (
	"bytes"
	"testing"
	"time"
	"unicode/utf8"
)

func TestTableAligns(t *testing.T) {
	tb := newTable(style{color: true}, "NAME", ">N", "EMPTY", "")
	tb.add("Zürich", 7, "", "x\x1b[2J")
	tb.add(cell{"a", red}, 1234, "", "")
	var b bytes.Buffer
	tb.write(&b)
	want := "\x1b[1mNAME\x1b[0m        \x1b[1mN\x1b[0m\n" + "Zürich      7   x [2J\n" + "\x1b[31ma\x1b[0m        1234\n"
	if got := b.String(); got != want {
		t.Errorf("\n%q, want\n%q", got, want)
	}
}

func TestBarsHaveOneWidth(t *testing.T) {
	for _, s := range []style{{}, {ascii: true}} {
		for part := -0.5; part <= 1.5; part += 0.01 {
			if got := s.bar(part, 6); utf8.RuneCountInString(got) != 6 {
				t.Fatalf("%v of 1 is drawn as %q", part, got)
			}
		}
	}
	if got := (style{}).bar(0.5, 6); got != "███░░░" {
		t.Errorf("half of six: %q", got)
	}
}

func TestNumbersForPeople(t *testing.T) {
	for n, want := range map[float64]string{0: "0", 3.25: "3.2", 51: "51", 9999: "9999", 60300: "60.3 k", 1.2e6: "1.2 M"} {
		if got := count(n); got != want {
			t.Errorf("count(%v) = %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{-time.Second: "0 s", 59 * time.Second: "59 s", 6 * time.Minute: "6 m", 47 * time.Hour: "47 h", 49 * time.Hour: "2 d"} {
		if got := span(d); got != want {
			t.Errorf("span(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestUntilMeansTheNextTime(t *testing.T) {
	now := time.Date(2026, 11, 21, 22, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{"23:00": "2026-11-21T23:00:00Z", "21:00Z": "2026-11-22T21:00:00Z", "22:00": "2026-11-22T22:00:00Z", "2026-12-01T00:00:00Z": "2026-12-01T00:00:00Z", "soon": ""} {
		got, err := parseUntil(text, now)
		if want == "" != (err != nil) || err == nil && got.Format(time.RFC3339) != want {
			t.Errorf("until %q is %v %v, want %q", text, got, err, want)
		}
	}
}

func TestQuotedWordsCanBeTypedAgain(t *testing.T) {
	for in, want := range map[string]string{"ams1": "ams1", "the fibre": "'the fibre'", "it's": `'it'\''s'`, "": "''", "$HOME": "'$HOME'"} {
		if got := quote(in); got != want {
			t.Errorf("quote(%q) = %s, want %s", in, got, want)
		}
	}
}

func TestEveryFlagHasAVariable(t *testing.T) {
	startUnit(t)
	t.Setenv("RHUMB_OUTPUT", "name")
	if code, out, _ := cli(t.Context(), "sites"); code != exitOK || out != "nyc1\nams1\n" {
		t.Errorf("exit %d %q", code, out)
	}
	if _, out, _ := cli(t.Context(), "sites", "-o", "ndjson"); len(out) == 0 || out[0] != '{' {
		t.Errorf("the command line must win: %q", out)
	}
	t.Setenv("RHUMB_TIMEOUT", "soon")
	if code, _, errs := cli(t.Context(), "sites"); code != exitUsage || !bytes.Contains([]byte(errs), []byte("RHUMB_TIMEOUT")) {
		t.Errorf("exit %d %q", code, errs)
	}
}
