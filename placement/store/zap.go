package store

import (
	"context"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// zapTo returns the logger that etcd wants, which writes into ours. It drops
// what is below least: etcd is talkative.
func zapTo(log *slog.Logger, least slog.Level) *zap.Logger {
	return zap.New(&zapCore{log: log.With("component", "etcd"), least: least})
}

// zapCore is a zapcore.Core above a slog.Logger.
type zapCore struct {
	log   *slog.Logger
	least slog.Level
}

func slogLevel(l zapcore.Level) slog.Level {
	switch {
	case l <= zapcore.DebugLevel:
		return slog.LevelDebug
	case l == zapcore.InfoLevel:
		return slog.LevelInfo
	case l == zapcore.WarnLevel:
		return slog.LevelWarn
	}
	return slog.LevelError
}

// Enabled tells whether a level is written at all.
func (c *zapCore) Enabled(l zapcore.Level) bool {
	level := slogLevel(l)
	return level >= c.least && c.log.Enabled(context.Background(), level)
}

// With returns a core which adds fields to all it writes.
func (c *zapCore) With(fields []zapcore.Field) zapcore.Core {
	return &zapCore{log: c.log.With(attrs(fields)...), least: c.least}
}

// Check adds the core to an entry that it will write.
func (c *zapCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

// Write passes one entry on.
func (c *zapCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	c.log.Log(context.Background(), slogLevel(e.Level), "etcd: "+e.Message, attrs(fields)...)
	return nil
}

// Sync has nothing to do: slog does not buffer.
func (c *zapCore) Sync() error { return nil }

func attrs(fields []zapcore.Field) []any {
	m := zapcore.NewMapObjectEncoder()
	var out []any
	for _, f := range fields { // in the order given, which the map would lose
		f.AddTo(m)
		if v, ok := m.Fields[f.Key]; ok {
			out = append(out, f.Key, v)
		}
	}
	return out
}
