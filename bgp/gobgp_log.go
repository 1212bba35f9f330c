package bgp

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/osrg/gobgp/v3/pkg/log"
)

// logAdapter writes the library's log into ours. What it calls info is detail
// to us: peers and routes are reported by the speaker.
type logAdapter struct{ to *slog.Logger }

var _ log.Logger = (*logAdapter)(nil)

// Panic logs; a library does not end our process.
func (l *logAdapter) Panic(msg string, f log.Fields) { l.write(slog.LevelError, msg, f) }

// Fatal logs; a library does not end our process.
func (l *logAdapter) Fatal(msg string, f log.Fields) { l.write(slog.LevelError, msg, f) }

// Error logs an error.
func (l *logAdapter) Error(msg string, f log.Fields) { l.write(slog.LevelError, msg, f) }

// Warn logs a warning.
func (l *logAdapter) Warn(msg string, f log.Fields) { l.write(slog.LevelWarn, msg, f) }

// Info logs detail.
func (l *logAdapter) Info(msg string, f log.Fields) { l.write(slog.LevelDebug, msg, f) }

// Debug is per packet, and dropped.
func (l *logAdapter) Debug(string, log.Fields) {}

// SetLevel does nothing: the level is our handler's.
func (l *logAdapter) SetLevel(log.LogLevel) {}

// GetLevel keeps the library from formatting what would be dropped.
func (l *logAdapter) GetLevel() log.LogLevel { return log.InfoLevel }

// write sorts the fields: the library hands them over as a map.
func (l *logAdapter) write(level slog.Level, msg string, f log.Fields) {
	if !l.to.Enabled(context.Background(), level) {
		return
	}
	attrs := make([]slog.Attr, 0, len(f))
	for k, v := range f {
		switch k {
		case "Topic":
			continue
		case "Key":
			k = "peer"
		case "Error", "Err":
			k = "err"
		}
		attrs = append(attrs, slog.String(strings.ToLower(k), text(v)))
	}
	slices.SortFunc(attrs, func(a, b slog.Attr) int { return strings.Compare(a.Key, b.Key) })
	l.to.LogAttrs(context.Background(), level, "bgp: "+msg, attrs...)
}

// text prints a field; errors and states of the library know how to print.
func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case int:
		return strconv.Itoa(v)
	}
	return fmt.Sprint(v)
}
