package token

import (
	"bytes"
	"strings"
)

// maxIDLine bounds what is kept of a line that sets an id; a longer one is
// left out, and the client resumes at the event before.
const maxIDLine = 4 + MaxPosition

// Rewriter puts other ids into an event stream (HTML standard, section 9.2), as
// it passes, in pieces of any size. Everything but the ids stays as it is.
type Rewriter struct {
	// seal makes the new id of an old one; false leaves the id out.
	seal func(id string) (string, bool)

	line  []byte // beginning of a line of which more has to be seen
	state lineState
	bom   int  // octets seen of a byte order mark
	cr    bool // the last octet was CR: an LF belongs to it
	open  bool // there are fields since the last empty line
	last  string
}

type lineState uint8

const (
	starting lineState = iota // the line may still set an id
	copying                   // it does not
	dropping                  // it does, and is too long
)

const byteOrderMark = "\xef\xbb\xbf"

// NewRewriter begins a stream whose last id, so far, is given.
func NewRewriter(last string, seal func(id string) (string, bool)) *Rewriter {
	return &Rewriter{seal: seal, last: last}
}

// Last is the last id that the origin has set.
func (r *Rewriter) Last() string { return r.last }

// Err is nil: all text is an event stream.
func (r *Rewriter) Err() error { return nil }

// Between tells whether the stream is between two events, so that a block of
// our own would not become part of one.
func (r *Rewriter) Between() bool {
	return !r.open && r.state == starting && len(r.line) == 0
}

// Append appends what becomes of a piece of the stream.
func (r *Rewriter) Append(out, in []byte) []byte {
	in = r.unmark(in)
	for len(in) > 0 {
		if r.cr {
			r.cr = false
			if in[0] == '\n' {
				out, in = append(out, '\n'), in[1:]
				continue
			}
		}
		n := bytes.IndexAny(in, "\r\n")
		if n < 0 {
			return r.more(out, in)
		}
		out = r.end(r.more(out, in[:n]))
		out = append(out, in[n])
		r.cr = in[n] == '\r'
		in = in[n+1:]
	}
	return out
}

// unmark takes the byte order mark off the beginning, which will not be the
// beginning any more.
func (r *Rewriter) unmark(in []byte) []byte {
	for r.bom < len(byteOrderMark) && len(in) > 0 {
		if in[0] != byteOrderMark[r.bom] {
			in = append([]byte(byteOrderMark[:r.bom]), in...)
			r.bom = len(byteOrderMark)
			break
		}
		r.bom++
		in = in[1:]
	}
	return in
}

// more takes a piece of one line, without its end.
func (r *Rewriter) more(out, in []byte) []byte {
	switch {
	case len(in) == 0 || r.state == dropping:
		return out
	case r.state == copying:
		return append(out, in...)
	}
	n := min(len(in), maxIDLine+1-len(r.line))
	r.line, in = append(r.line, in[:n]...), in[n:]
	switch {
	case !maySetID(r.line):
		r.open = r.open || r.line[0] != ':' // a comment is no part of an event
		r.state = copying
		out = append(append(out, r.line...), in...)
	case len(r.line) > maxIDLine:
		r.state = dropping
	}
	return out
}

// maySetID tells whether a line of the field id can begin so.
func maySetID(line []byte) bool {
	return bytes.HasPrefix(line, []byte("id:")) || strings.HasPrefix("id:", string(line))
}

// end ends a line, whose end the caller copies. A line that is left out becomes a
// comment, since an empty one would end the event.
func (r *Rewriter) end(out []byte) []byte {
	state, line := r.state, r.line
	r.state, r.line = starting, r.line[:0]
	switch {
	case state == copying:
		return out
	case state == dropping:
		r.open = true
		return append(out, ':')
	case len(line) == 0:
		r.open = false
		return out
	}
	r.open = true
	if string(line) == "i" {
		return append(out, line...)
	}
	id := strings.TrimPrefix(strings.TrimPrefix(string(line[2:]), ":"), " ")
	if strings.ContainsRune(id, 0) {
		return append(out, ':') // clients ignore it
	}
	text, ok := r.seal(id)
	if !ok {
		return append(out, ':')
	}
	r.last = id
	return append(append(out, "id: "...), text...)
}
