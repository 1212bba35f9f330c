package zone

import (
	"io"
)

// place is where something stands in a file; both count from 1.
type place struct{ line, column int }

// later returns the place further down: of two records which do not go together
// the second one is the mistake.
func later(a, b place) place {
	if b.line > a.line {
		return b
	}
	return a
}

// lineReader feeds the library's parser one entry of a file, byte by byte, and remembers
// where it began, which the library does not tell. An entry may span lines in
// parentheses; comments and blank lines begin none. What is read before and behind
// belongs to no line.
type lineReader struct {
	before       string
	text         []byte
	off          int // how much of it was read
	line, column int
	entry        place
	shift        int // from lines as the parser counts them to those of the file
	// asking is set where questions are to follow, always behind a directive; asked is how
	// much of them was read.
	asking bool
	asked  int

	open    bool // an entry has begun and has not ended
	ended   bool
	parens  int
	quoted  bool
	escaped bool
	comment bool
}

// ReadByte implements io.ByteReader, which the parser prefers to Read.
func (l *lineReader) ReadByte() (c byte, err error) {
	switch {
	case len(l.before) > 0:
		c, l.before = l.before[0], l.before[1:]
	case !l.ended && l.off < len(l.text):
		c = l.text[l.off]
		l.off++
		l.column++
		l.follow(c)
		if c == '\n' {
			l.line, l.column = l.line+1, 0
		}
	case l.ended && l.asked < len(end):
		c = end[l.asked]
		l.asked++
	case l.ended && l.asking && l.asked < len(end+questions):
		c = questions[l.asked-len(end)]
		l.asked++
	default:
		return 0, io.EOF
	}
	return c, nil
}

// Read implements io.Reader; the parser calls ReadByte.
func (l *lineReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c, err := l.ReadByte()
	if err != nil {
		return 0, err
	}
	p[0] = c
	return 1, nil
}

// follow tracks just enough of the grammar to know where the entry begins and ends:
// quotes, parentheses, escapes and comments.
func (l *lineReader) follow(c byte) {
	switch {
	case c == '\n':
		l.comment, l.escaped = false, false
		l.ended = l.parens == 0 && !l.quoted
		return
	case l.comment || c == ' ' || c == '\t' || c == '\r':
		l.escaped = false
		return
	case l.escaped:
		l.escaped = false
		return
	case c == ';' && !l.quoted:
		l.comment = true
		return
	}
	if !l.open {
		l.open, l.entry = true, place{l.line, l.column}
	}
	switch {
	case c == '$': // a directive, perhaps
		l.asking = true
	case c == '\\':
		l.escaped = true
	case c == '"':
		l.quoted = !l.quoted
	case c == '(' && !l.quoted:
		l.parens++
	case c == ')' && !l.quoted:
		l.parens--
	}
}
