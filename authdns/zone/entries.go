package zone

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/miekg/dns"
)

// read takes the file entry by entry and stops at the first fault.
func (l *loader) read() error {
	for len(l.text) > 0 {
		l.pace.step()
		line, rest, _ := bytes.Cut(l.text, []byte("\n"))
		line, ok := strip(line)
		if ok && len(line) > 0 {
			var rr dns.RR
			if rr, ok = l.plain.read(line); ok {
				p := place{l.line, 1 + len(line) - len(bytes.TrimLeft(line, " \t"))}
				if err := l.add(rr, p); err != nil {
					return err
				}
			}
		}
		if ok {
			l.text, l.line = rest, l.line+1
		} else if err := l.entry(); err != nil {
			return err
		}
	}
	return nil
}

// entry lets the library read one entry, of however many lines, and adds its records:
// none of a directive, or very many of one.
func (l *loader) entry() error {
	c := l.plain.context
	in := &lineReader{text: l.text, line: l.line, asking: !c.known}
	before := 0
	if c.fixed {
		in.before = fmt.Sprintf("$TTL %d\n", c.ttl)
	}
	if b := l.text[0]; c.owner != "" && (b <= ' ' || b == '(') {
		in.before += c.owner + nothing // whose the entry is where it does not say
		before = 1
	}
	in.shift = l.line - 1 - strings.Count(in.before, "\n")
	zp := dns.NewZoneParser(in, c.origin, "")
	if c.known && !c.fixed {
		zp.SetDefaultTTL(c.ttl)
	}
	var after []dns.RR
	for rr, ok := zp.Next(); ok; rr, ok = zp.Next() {
		switch {
		case before > 0:
			before--
		case in.asked > len(end) && answers(rr):
			after = append(after, rr)
		case in.asked > 0: // the library went on behind the entry for what it lacks
			return l.errorf(in.entry, "%s", short)
		default:
			if !in.asking {
				c.follow(rr.Header())
			}
			l.pace.step() // $GENERATE makes very many of one entry
			if err := l.addAny(rr, in.entry); err != nil {
				return err
			}
		}
	}
	if err := zp.Err(); err != nil && len(after) < 2 {
		return l.syntax(err, in)
	}
	if len(after) > 0 {
		c.learn(after)
	}
	l.plain.context, l.text, l.line = c, l.text[in.off:], in.line
	return nil
}

// follow takes over what a record leaves to those after it.
func (c *context) follow(h *dns.RR_Header) {
	c.owner = h.Name
	if !c.fixed {
		c.ttl = h.Ttl
	}
}

// end is an empty line, which an entry finds that ends too early; to the library the end
// of a file would be as good as what it lacks.
const end = "\n"

// nothing is a record whose TTL needs not be known.
const nothing = " IN A 0.0.0.0\n"

// questions are records behind an entry which may be a directive. What becomes of them
// tells what the entries to come take over: the owner, the origin and the TTL; whether
// there is one, else the third is wrong; and whether it outlives a record's own.
const questions = nothing + "@" + nothing + "@ A 0.0.0.0\n" + "@ 4294967295 A 0.0.0.0\n" + "@ A 0.0.0.0\n"

// answers tells whether a record is an answer to a question.
func answers(rr dns.RR) bool {
	a, ok := rr.(*dns.A)
	return ok && a.A.IsUnspecified()
}

// short is what an entry is told that ends before it is whole.
const short = "the entry ends too early"

// learn reads the answers to the questions, the first two at least.
func (c *context) learn(answers []dns.RR) {
	if name := answers[0].Header().Name; name != "" {
		c.owner = name
	}
	h := answers[1].Header()
	c.origin, c.ttl, c.known = h.Name, h.Ttl, len(answers) > 2
	c.fixed = len(answers) > 4 && answers[4].Header().Ttl == c.ttl
}
