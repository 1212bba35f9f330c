package main

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"rhumb/internal/api"
)

// table aligns columns. Numbers stand right, text left; a cell may be painted
// without taking part in the width.
type table struct {
	style  style
	heads  []string
	right  []bool
	rows   [][]cell
	indent string
}

// cell is a text and its colour.
type cell struct {
	text, color string
}

func plain(text string) cell { return cell{text: text} }

// newTable makes a table; a head which begins with '>' makes a column of
// numbers, one with '+' stands only in wide output.
func newTable(s style, heads ...string) *table {
	t := &table{style: s}
	for _, h := range heads {
		right := strings.HasPrefix(h, ">")
		t.heads, t.right = append(t.heads, strings.TrimPrefix(h, ">")), append(t.right, right)
	}
	return t
}

// add adds a row of strings, numbers or cells; missing ones stay empty.
func (t *table) add(values ...any) {
	row := make([]cell, len(t.heads))
	for i, v := range values {
		switch v := v.(type) {
		case cell:
			row[i] = v
		case string:
			row[i] = plain(v)
		default:
			row[i] = plain(fmt.Sprint(v))
		}
		row[i].text = oneLine(row[i].text)
	}
	t.rows = append(t.rows, row)
}

// oneLine keeps what others wrote (reasons, errors) from moving the cursor.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

// write prints heads and rows; columns without any content are left out.
func (t *table) write(w io.Writer) {
	widths := t.widths()
	var heads []cell
	for _, h := range t.heads {
		heads = append(heads, cell{h, bold})
	}
	for _, row := range append([][]cell{heads}, t.rows...) {
		io.WriteString(w, t.line(row, widths)+"\n")
	}
}

// widths measures the columns; -1 hides one.
func (t *table) widths() []int {
	out := make([]int, len(t.heads))
	for i, h := range t.heads {
		used := len(t.rows) == 0
		out[i] = utf8.RuneCountInString(h)
		for _, row := range t.rows {
			used = used || row[i].text != ""
			out[i] = max(out[i], utf8.RuneCountInString(row[i].text))
		}
		if !used {
			out[i] = -1
		}
	}
	return out
}

func (t *table) line(row []cell, widths []int) string {
	var b strings.Builder
	b.WriteString(t.indent)
	gap := ""
	for i, c := range row {
		if widths[i] < 0 {
			continue
		}
		pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text))
		b.WriteString(gap)
		if t.right[i] {
			b.WriteString(pad + t.style.paint(c.color, c.text))
		} else {
			b.WriteString(t.style.paint(c.color, c.text) + pad)
		}
		gap = "   "
	}
	return strings.TrimRight(b.String(), " ")
}

// status is a site's word with its shape and colour.
func (s style) status(word string) cell {
	color := map[string]string{api.StatusUp: green, api.StatusDegraded: yellow, api.StatusDraining: blue, api.StatusDown: red}[word]
	return cell{api.Shape(word, s.ascii) + " " + word, color}
}

// bar draws a part of 0..1 in width places, to an eighth of a place.
func (s style) bar(part float64, width int) string {
	part = min(max(part, 0), 1)
	if s.ascii {
		full := int(math.Round(part * float64(width)))
		return strings.Repeat("#", full) + strings.Repeat(".", width-full)
	}
	eighths := int(math.Round(part * float64(width) * 8))
	out := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		out += string([]rune(" ▏▎▍▌▋▊▉")[rest])
	}
	return out + strings.Repeat("░", width-utf8.RuneCountInString(out))
}

func percent(part float64) string { return strconv.Itoa(int(math.Round(part*100))) + " %" }

// count writes a number for people: 60.3 k, 1.2 M.
func count[T int | int64 | float64](n T) string {
	v := float64(n)
	switch {
	case v >= 1e6:
		return strconv.FormatFloat(v/1e6, 'f', 1, 64) + " M"
	case v >= 1e4:
		return strconv.FormatFloat(v/1e3, 'f', 1, 64) + " k"
	case v > 0 && v < 10 && v != math.Trunc(v):
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}

// since writes how long ago t was, in one unit.
func since(t, now time.Time) string {
	if t.IsZero() || now.IsZero() {
		return ""
	}
	return span(now.Sub(t))
}

func span(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d m", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d d", int(d.Hours()/24))
}
