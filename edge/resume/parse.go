package resume

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Event is one of a stream.
type Event struct {
	Type string // "message" if the server gave none
	Data string
	ID   string // the token behind this event
}

// maxLine bounds a line of a stream, and all lines of an event together.
const maxLine = 1 << 20

// parser reads an event stream (HTML standard, section 9.2).
type parser struct {
	lines *bufio.Scanner
	cr    bool // the last line ended with CR: an LF belongs to it
	first bool // no line was read yet
	kind  string
	data  []string
	size  int           // of data
	id    string        // last that was set
	last  string        // the same behind the last whole block: from here on the stream can be resumed
	retry time.Duration // the server's wish; 0: none
}

func newParser(r io.Reader, last string) *parser {
	p := &parser{lines: bufio.NewScanner(r), first: true, id: last, last: last}
	p.lines.Buffer(nil, maxLine)
	p.lines.Split(p.split)
	return p
}

// split finds a line which ends with LF, CR or both. It does not wait for an LF
// behind a CR: it may never come.
func (p *parser) split(b []byte, _ bool) (int, []byte, error) {
	skip := 0
	if p.cr && len(b) > 0 {
		p.cr = false
		if b[0] == '\n' {
			skip, b = 1, b[1:]
		}
	}
	n := bytes.IndexAny(b, "\r\n")
	if n < 0 { // what has no end is no line
		return skip, nil, nil
	}
	p.cr = b[n] == '\r'
	return skip + n + 1, b[:n], nil
}

// step reads one line and tells whether it completed an event.
func (p *parser) step() (e Event, done bool, err error) {
	if !p.lines.Scan() {
		if err := p.lines.Err(); err != nil {
			return e, false, err
		}
		return e, false, io.EOF
	}
	line := p.lines.Text()
	if p.first {
		p.first, line = false, strings.TrimPrefix(line, "\xef\xbb\xbf")
	}
	if line == "" {
		return p.dispatch()
	}
	name, value, _ := strings.Cut(line, ":")
	return e, false, p.field(name, strings.TrimPrefix(value, " "))
}

func (p *parser) field(name, value string) error {
	switch name {
	case "event":
		p.kind = value
	case "data":
		p.data = append(p.data, value)
		if p.size += len(value) + 1; p.size > maxLine {
			return fmt.Errorf("resume: event of more than %d bytes: %w", maxLine, bufio.ErrTooLong)
		}
	case "id":
		if !strings.ContainsRune(value, 0) {
			p.id = value
		}
	case "retry":
		if ms, err := strconv.ParseUint(value, 10, 31); err == nil {
			p.retry = time.Duration(ms) * time.Millisecond
		}
	}
	return nil
}

// dispatch ends a block of lines. One without data is no event, but its id counts.
func (p *parser) dispatch() (Event, bool, error) {
	e, done := Event{Type: or(p.kind, "message"), Data: strings.Join(p.data, "\n"), ID: p.id}, p.data != nil
	p.kind, p.data, p.size, p.last = "", nil, 0, p.id
	return e, done, nil
}
