package timeline

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Mark is a word at a time: an event, or a state which begins.
type Mark struct {
	At   time.Time
	Text string
}

// Lane is a row of states, in order of time. A state lasts until the next begins.
type Lane struct {
	Name  string
	Marks []Mark
}

// Set appends a state, unless it is the one already in force.
func (l *Lane) Set(at time.Time, state string) {
	if n := len(l.Marks); n > 0 && l.Marks[n-1].Text == state {
		return
	}
	l.Marks = append(l.Marks, Mark{at, state})
}

// Chart is everything that is drawn over the same seconds, from Began to Ended.
type Chart struct {
	Title string
	Notes []string // lines below the title
	Began time.Time
	Ended time.Time
	// Events are drawn as lines across all lanes, and listed with their numbers.
	Events []Mark
	Lanes  []Lane
	Areas  []Area
	// Bad are the states which a reader should see first: no route, no answer.
	Bad []string
}

// Columns is how wide the drawing on a terminal is, without names and legend.
const Columns = 100

// listed is how many changes of one lane are listed: what changes more often was
// flows hashed to and fro over equal routes, and is drawn only.
const listed = 30

// span is the time drawn; never zero.
func (c *Chart) span() time.Duration { return max(c.Ended.Sub(c.Began), time.Nanosecond) }

// Log lists events and changes of lanes in order of time, a line each.
func (c *Chart) Log() string {
	all := slices.Clone(c.Events)
	for _, l := range c.Lanes {
		if len(l.Marks) > listed {
			continue
		}
		for _, m := range l.Marks {
			all = append(all, Mark{m.At, "  " + l.Name + " = " + m.Text})
		}
	}
	slices.SortStableFunc(all, func(a, b Mark) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Text, b.Text)) })
	var b strings.Builder
	for _, m := range all {
		fmt.Fprintf(&b, "%9.3f s  %s\n", m.At.Sub(c.Began).Seconds(), m.Text)
	}
	return b.String()
}

// Rows draws the lanes and areas for a terminal: every state has a letter,
// explained at the end of its row; bad ones are drawn as "!".
func (c *Chart) Rows() string {
	var b strings.Builder
	wide := 24
	for _, l := range c.Lanes {
		wide = max(wide, len([]rune(l.Name)))
	}
	for _, l := range c.Lanes {
		fmt.Fprintf(&b, "%-*s %s\n", wide, l.Name, c.row(l))
	}
	for _, a := range c.Areas {
		b.WriteString(a.rows(wide))
	}
	fmt.Fprintf(&b, "%-*s %s\n", wide, "", c.scale())
	return b.String()
}

// row is one lane as text.
func (c *Chart) row(l Lane) string {
	letters, legend := map[string]rune{}, []string{}
	row := []rune(strings.Repeat(" ", Columns))
	next := 'A'
	for i, m := range l.Marks {
		if _, ok := letters[m.Text]; !ok {
			if slices.Contains(c.Bad, m.Text) {
				letters[m.Text] = '!'
			} else {
				letters[m.Text] = next
				next = 'A' + (next-'A'+1)%26
			}
			legend = append(legend, fmt.Sprintf("%c=%s", letters[m.Text], m.Text))
		}
		end := c.Ended
		if i+1 < len(l.Marks) {
			end = l.Marks[i+1].At
		}
		from := min(c.column(m.At), Columns-1)
		for k := from; k < max(from+1, c.column(end)) && k < Columns; k++ {
			row[k] = letters[m.Text]
		}
	}
	return "|" + string(row) + "| " + strings.Join(legend, " ")
}

// column is where a moment lies on the terminal.
func (c *Chart) column(at time.Time) int {
	return max(0, int(int64(at.Sub(c.Began))*Columns/int64(c.span())))
}

// scale marks every tenth of the width with its second.
func (c *Chart) scale() string {
	row := []byte(strings.Repeat(" ", Columns+8))
	for k := 0; k <= Columns; k += Columns / 10 {
		copy(row[k+1:], fmt.Sprintf("%.0f s", c.span().Seconds()*float64(k)/Columns))
	}
	return strings.TrimRight(string(row), " ")
}
