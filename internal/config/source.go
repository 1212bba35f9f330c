package config

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"rhumb/placement"
)

// Error is a mistake in a file: where it is, what it is, and the line itself.
type Error struct {
	File    string
	Line    int
	Column  int
	Reason  string
	Excerpt string // the line with a caret under the column; may be empty
	// Rule is set when one of the table's rules refuses the file.
	Rule placement.RuleName
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", e.Line, e.Column)
	}
	b.WriteString(": " + e.Reason)
	if e.Rule != "" {
		fmt.Fprintf(&b, " (rule %s)", e.Rule)
	}
	if e.Excerpt != "" {
		b.WriteString("\n" + e.Excerpt)
	}
	return b.String()
}

// source is one parsed file; it turns a path within the document into a position.
type source struct {
	file    string
	data    []byte
	tree    *ast.File
	anchors anchors
	errs    []error // in the order found
}

// anchors are the named nodes of a document. Who looks for a key must see through
// an alias, or an empty selector behind one would pass for none.
type anchors map[string]ast.Node

// Visit collects, as ast.Walk goes.
func (a anchors) Visit(n ast.Node) ast.Visitor {
	if m, ok := n.(*ast.AnchorNode); ok && m.Name != nil {
		a[m.Name.GetToken().Value] = m.Value
	}
	return a
}

// deref returns what a node stands for. An alias may name itself; a few steps
// are more than anybody needs.
func (a anchors) deref(n ast.Node) ast.Node {
	for range 8 {
		switch m := n.(type) {
		case *ast.AnchorNode:
			n = m.Value
		case *ast.AliasNode:
			if m.Value == nil {
				return nil
			}
			n = a[m.Value.GetToken().Value]
		default:
			return n
		}
	}
	return nil
}

// openSource reads a file.
func openSource(file string) (*source, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, &Error{File: file, Reason: "cannot be read: " + rootCause(err)}
	}
	return newSource(file, data)
}

// newSource parses bytes that came from a file; what they mean is not looked at.
func newSource(file string, data []byte) (*source, error) {
	tree, err := parser.ParseBytes(data, 0)
	if err != nil {
		return nil, syntaxError(file, data, err)
	}
	if len(tree.Docs) > 1 {
		e := &Error{File: file, Reason: "a second document: nothing below would be read"}
		if start := tree.Docs[1].Start; start != nil {
			e.place(data, start.Position)
		} else {
			e.place(data, nil)
		}
		return nil, e
	}
	s := &source{file: file, data: data, tree: tree, anchors: make(anchors)}
	for _, d := range tree.Docs {
		if d.Body != nil {
			ast.Walk(s.anchors, d.Body)
		}
	}
	return s, nil
}

// decode fills v strictly.
func (s *source) decode(v any) error {
	if len(bytes.TrimSpace(s.data)) == 0 {
		return &Error{File: s.file, Line: 1, Column: 1, Reason: "the file is empty"}
	}
	err := yaml.NewDecoder(bytes.NewReader(s.data), yaml.Strict()).Decode(v)
	if err == nil {
		return nil
	}
	var positioned yaml.Error
	if !errors.As(err, &positioned) {
		return s.valueError(err)
	}
	return syntaxError(s.file, s.data, err)
}

// valueError finds the value that a type refused. The library loses its position,
// but the type's error quotes it; of several equal ones the first whose key may
// hold such a value is meant.
func (s *source) valueError(err error) error {
	out := &Error{File: s.file, Line: 1, Column: 1, Reason: rootCause(err)}
	var keys []string
	match := func(string) bool { return false }
	if quoted := quotedText.FindStringSubmatch(out.Reason); quoted != nil {
		match = func(text string) bool { return text == quoted[1] }
	}
	switch {
	case strings.HasPrefix(out.Reason, "mode "):
		keys = []string{"mode"}
	case strings.HasPrefix(out.Reason, "duration "):
		keys = []string{"every", "timeout", "ttl", "hold", "slow", "warn", "alarm", "max_age"}
	case strings.Contains(out.Reason, "port"): // of netip, which does not always quote
		keys = []string{"top", "low", "addresses", "beat", "edge", "beats", "vips"}
		match = func(text string) bool { _, err := netip.ParseAddrPort(text); return err != nil }
	}
	if len(s.tree.Docs) == 0 {
		return out
	}
	if at := findValue(s.tree.Docs[0].Body, "", match, keys); at != nil {
		out.place(s.data, at.GetToken().Position)
	}
	return out
}

var quotedText = regexp.MustCompile(`"([^"]*)"`)

// findValue returns the first scalar that matches under one of the keys (any, if
// none are given).
func findValue(n ast.Node, key string, match func(string) bool, keys []string) ast.Node {
	switch m := n.(type) {
	case nil:
	case *ast.MappingNode:
		for _, v := range m.Values {
			if at := findValue(v, key, match, keys); at != nil {
				return at
			}
		}
	case *ast.MappingValueNode:
		return findValue(m.Value, keyText(m.Key), match, keys)
	case *ast.SequenceNode:
		for _, v := range m.Values {
			if at := findValue(v, key, match, keys); at != nil {
				return at
			}
		}
	default:
		if t := n.GetToken(); t != nil && match(t.Value) && (len(keys) == 0 || slices.Contains(keys, key)) {
			return n
		}
	}
	return nil
}

// syntaxError takes position and message out of the library's error.
func syntaxError(file string, data []byte, err error) error {
	out := &Error{File: file, Line: 1, Column: 1, Reason: firstLine(err.Error())}
	var y yaml.Error
	if errors.As(err, &y) {
		out.Reason = y.GetMessage()
		if t := y.GetToken(); t != nil {
			out.place(data, t.Position)
			return out
		}
	}
	out.place(data, nil)
	return out
}

// fail records a mistake at a path of keys; the deepest key that exists gives the position.
func (s *source) fail(path []string, format string, args ...any) {
	s.errs = append(s.errs, s.at(path, fmt.Sprintf(format, args...)))
}

// refuse records a mistake which breaks a rule of the table.
func (s *source) refuse(rule placement.RuleName, path []string, format string, args ...any) {
	e := s.at(path, fmt.Sprintf(format, args...))
	e.Rule = rule
	s.errs = append(s.errs, e)
}

// at makes the mistake without recording it.
func (s *source) at(path []string, reason string) *Error {
	e := &Error{File: s.file, Line: 1, Column: 1, Reason: strings.Join(path, ".") + ": " + reason}
	if len(s.tree.Docs) == 0 {
		return e
	}
	e.place(s.data, nil)
	node := s.tree.Docs[0].Body
	for _, key := range path {
		next, tok := s.anchors.child(node, key, 0)
		if tok == nil {
			break
		}
		e.place(s.data, tok.GetToken().Position)
		node = next
	}
	return e
}

// child finds a key of a mapping: its value, and the key's node for the position.
// Keys of a mapping that is merged in ("<<") count where it has none of its own.
func (a anchors) child(n ast.Node, key string, depth int) (value, at ast.Node) {
	var values []*ast.MappingValueNode
	switch m := a.deref(n).(type) {
	case *ast.MappingNode:
		values = m.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{m}
	}
	for _, v := range values {
		if keyText(v.Key) == key {
			return v.Value, v.Key
		}
	}
	for _, v := range values {
		if v.Key.IsMergeKey() && depth < 8 {
			if value, at = a.child(v.Value, key, depth+1); at != nil {
				return value, at
			}
		}
	}
	return nil, nil
}

// keyText is a key as a person reads it, without quotes.
func keyText(k ast.MapKeyNode) string { return strings.Trim(k.GetToken().Value, `"'`) }

// has tells whether a path of keys stands in the file, with whatever value.
func (s *source) has(path ...string) bool {
	if len(s.tree.Docs) == 0 {
		return false
	}
	node := s.tree.Docs[0].Body
	for _, key := range path {
		next, at := s.anchors.child(node, key, 0)
		if at == nil {
			return false
		}
		node = next
	}
	return true
}

// place sets position and excerpt of a mistake. The library counts lines by rules
// of its own (a lone carriage return is one) and sees the end of a file behind its
// last line; a position outside the file would help nobody.
func (e *Error) place(data []byte, at *token.Position) {
	if at == nil {
		at = &token.Position{}
	}
	e.Line, e.Column = max(at.Line, 1), max(at.Column, 1)
	if last := bytes.Count(data, []byte("\n")) + 1; e.Line > last {
		e.Line, e.Column = last, 1
	}
	e.Excerpt = excerpt(data, e.Line, e.Column)
}

// excerpt shows a line with a caret; a tab counts as one column, as in positions.
func excerpt(data []byte, line, column int) string {
	lines := strings.Split(string(data), "\n")
	if line < 1 || line > len(lines) {
		return ""
	}
	text := strings.ReplaceAll(lines[line-1], "\t", " ")
	prefix := fmt.Sprintf("%5d | ", line)
	return prefix + text + "\n" + strings.Repeat(" ", len(prefix)+max(column, 1)-1) + "^"
}

// firstLine cuts the drawing which the library appends.
func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

// rootCause strips what the file's name and position say better.
func rootCause(err error) string {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err.Error()
		}
		err = next
	}
}
