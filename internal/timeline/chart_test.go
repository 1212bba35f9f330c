package timeline

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

var began = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func second(s float64) time.Time { return began.Add(time.Duration(s * float64(time.Second))) }

// sample is a route that goes and comes back, with an event before each.
func sample() *Chart {
	l := Lane{Name: "fib t-eu"}
	l.Set(second(0), "ams1")
	l.Set(second(2), "ams1")
	l.Set(second(5), "none")
	l.Set(second(9), "ams1")
	a := NewArea("queries", []string{"ams1", "nyc1"}, second(0), second(10), time.Second)
	for i := range 10 {
		key := "ams1"
		if i >= 5 {
			key = "nyc1"
		}
		a.Count(began, second(float64(i)), key)
	}
	return &Chart{Title: "a <site> & its fate", Began: began, Ended: second(10), Lanes: []Lane{l}, Areas: []Area{a},
		Events: []Mark{{second(4.9), "cut"}, {second(8.9), "healed"}}, Bad: []string{"none"}}
}

func TestRows(t *testing.T) {
	lines := strings.Split(sample().Rows(), "\n")
	row := lines[0][strings.IndexByte(lines[0], '|')+1:]
	for column, want := range map[int]byte{0: 'A', 49: 'A', 50: '!', 89: '!', 90: 'A', 99: 'A'} {
		if row[column] != want {
			t.Errorf("column %d is %c, want %c: %s", column, row[column], want, row)
		}
	}
	if !strings.HasSuffix(lines[0], "| A=ams1 !=none") {
		t.Errorf("legend: %s", lines[0])
	}
	ams, nyc := []rune(lines[1]), []rune(lines[2])
	at := strings.IndexRune(string(ams), '|') // names hold a rune of three octets
	at = len([]rune(string(ams)[:at])) + 1
	if ams[at+10] != '█' || nyc[at+10] != ' ' || ams[at+80] != ' ' || nyc[at+80] != '█' {
		t.Errorf("shares:\n%s\n%s", string(ams), string(nyc))
	}
	if !strings.Contains(lines[3], "0 s") || !strings.Contains(lines[3], "10 s") {
		t.Errorf("scale: %s", lines[3])
	}
}

func TestLogIsInOrder(t *testing.T) {
	want := []string{"fib t-eu = ams1", "cut", "fib t-eu = none", "healed", "fib t-eu = ams1"}
	lines := strings.Split(strings.TrimSpace(sample().Log()), "\n")
	if len(lines) != len(want) {
		t.Fatalf("%d lines: %q", len(lines), lines)
	}
	for i, w := range want {
		if !strings.HasSuffix(lines[i], w) {
			t.Errorf("line %d: %q, want %q", i, lines[i], w)
		}
	}
}

// TestSVGIsWellFormed: titles are from outside and hold what XML would stumble over.
func TestSVGIsWellFormed(t *testing.T) {
	svg := sample().SVG()
	if !bytes.Equal(svg, sample().SVG()) {
		t.Error("the same chart is drawn in two ways")
	}
	for _, want := range []string{badColour, "a &lt;site&gt; &amp; its fate", "4.90 s", "none from 5.00 s to 9.00 s"} {
		if !bytes.Contains(svg, []byte(want)) {
			t.Errorf("no %q in the picture", want)
		}
	}
	for d := xml.NewDecoder(bytes.NewReader(svg)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestArea(t *testing.T) {
	a := NewArea("x", []string{"a", "b"}, second(0), second(2), time.Second)
	a.Count(began, second(-1), "a")
	a.Count(began, second(2), "a")
	a.Count(began, second(0), "c")
	if _, ok := a.Share(0, 0); ok {
		t.Error("what lies outside was counted")
	}
	a.Count(began, second(1), "a")
	a.Count(began, second(1.5), "b")
	a.Count(began, second(1.9), "b")
	a.Count(began, second(1.99), "b")
	if part, ok := a.Share(1, 0); !ok || part != 0.25 {
		t.Errorf("share %v, %v", part, ok)
	}
}
