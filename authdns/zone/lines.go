package zone

import (
	"bufio"
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

// lineReader feeds the library's parser byte by byte and remembers where the
// entry being read began, which the library does not tell. An entry may span
// lines in parentheses; comments and blank lines begin none.
type lineReader struct {
	r            *bufio.Reader
	line, column int
	entry        place
	err          error // other than io.EOF

	open    bool // an entry has begun and has not ended
	parens  int
	quoted  bool
	escaped bool
	comment bool
}

// ReadByte implements io.ByteReader, which the parser prefers to Read.
func (l *lineReader) ReadByte() (byte, error) {
	c, err := l.r.ReadByte()
	if err != nil {
		if err != io.EOF {
			l.err = err
		}
		return 0, err
	}
	l.column++
	l.follow(c)
	if c == '\n' {
		l.line, l.column = l.line+1, 0
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

// follow tracks just enough of the grammar to know where an entry begins:
// quotes, parentheses, escapes and comments.
func (l *lineReader) follow(c byte) {
	switch {
	case c == '\n':
		l.comment, l.escaped = false, false
		if l.parens == 0 && !l.quoted {
			l.open = false
		}
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
