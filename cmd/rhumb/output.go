package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// style says how to write for whoever reads.
type style struct {
	color bool
	ascii bool // symbols within ASCII only
	wide  bool
}

// style looks at where out goes and what the environment asks for.
func (a *app) style() style {
	tty := isTerminal(a.out)
	s := style{wide: a.global.output == "wide", ascii: !tty || plainLocale()}
	switch a.global.color {
	case "always":
		s.color = true
	case "auto":
		s.color = tty && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	}
	return s
}

func plainLocale() bool {
	if os.Getenv("TERM") == "dumb" {
		return true
	}
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := os.Getenv(name); v != "" {
			return v == "C" || v == "POSIX"
		}
	}
	return false
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// pick returns the text in Unicode or in ASCII.
func (s style) pick(unicode, ascii string) string {
	if s.ascii {
		return ascii
	}
	return unicode
}

// The colours, as ANSI says them; words and shapes say the same without.
const (
	red    = "31"
	green  = "32"
	yellow = "33"
	blue   = "34"
	grey   = "90"
	bold   = "1"
)

func (s style) paint(color, text string) string {
	if !s.color || color == "" || text == "" {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

// result is what a command found: the server's own document, and how people
// and scripts read it.
type result struct {
	raw   json.RawMessage
	names []string
	// text writes it for people.
	text func(w io.Writer, s style)
}

// show prints a result as -o asks.
func (a *app) show(r result) error {
	switch a.global.output {
	case "json":
		var b bytes.Buffer
		if err := json.Indent(&b, bytes.TrimSpace(r.raw), "", "  "); err != nil {
			return err
		}
		_, err := fmt.Fprintln(a.out, b.String())
		return err
	case "ndjson":
		return a.showLines(r.raw)
	case "name":
		_, err := io.WriteString(a.out, lines(r.names))
		return err
	}
	var b bytes.Buffer
	r.text(&b, a.style())
	_, err := a.out.Write(b.Bytes())
	return err
}

func lines(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return strings.Join(list, "\n") + "\n"
}

// showLines prints the items of a list a line each; any other document is one line.
func (a *app) showLines(raw json.RawMessage) error {
	var l struct {
		Items []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(raw, &l); err != nil {
		return err
	}
	if l.Items == nil {
		l.Items = []json.RawMessage{raw}
	}
	for _, item := range l.Items {
		var b bytes.Buffer
		if err := json.Compact(&b, item); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(a.out, b.String()); err != nil {
			return err
		}
	}
	return nil
}

// say tells people something beside the results; -q silences it.
func (a *app) say(format string, args ...any) {
	if !a.global.quiet {
		fmt.Fprintf(a.err, format+"\n", args...)
	}
}
