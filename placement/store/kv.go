package store

import (
	"context"
	"errors"
	"time"
)

// pair is one key with its value. mod is the revision which wrote it last.
type pair struct {
	key   string
	value []byte
	mod   int64
	lease int64
}

// span is the range of keys [from, to).
type span struct{ from, to string }

// under returns the span of all keys which begin with a prefix.
func under(prefix string) span {
	end := []byte(prefix)
	end[len(end)-1]++ // prefixes are ASCII, so the last byte never wraps
	return span{prefix, string(end)}
}

// only returns the span of a single key.
func only(key string) span { return span{key, key + "\x00"} }

func (s span) holds(key string) bool { return s.from <= key && key < s.to }

// query is a span, and how much of it.
type query struct {
	span
	limit    int  // 0: all
	desc     bool // in descending order of key
	keysOnly bool
}

// cond demands that a key's last revision is mod; 0 demands that it is absent.
type cond struct {
	key string
	mod int64
}

// op puts a value, or deletes a key or a span of keys.
type op struct {
	key   string
	value []byte
	lease int64
	del   bool
	to    string // with del: delete [key, to)
}

func put(key string, value []byte) op { return op{key: key, value: value} }

func remove(s span) op { return op{key: s.from, to: s.to, del: true} }

// change is one put or deletion as a watch reports it.
type change struct {
	pair
	deleted bool
}

// batch is what a watch reports at once: whole revisions, never a part of one.
// A batch with err is the last; the channel closes after it.
type batch struct {
	rev     int64
	changes []change
	err     error
}

// errCompacted ends a watch whose next revision is no longer kept: list again.
var errCompacted = errors.New("revision compacted")

// errLease says that a lease is gone, and every key with it.
var errLease = errors.New("lease is gone")

// kv is what a Store needs of its ground. Reads are linearizable and all queries
// of one read see one revision; a write happens whole or not at all.
type kv interface {
	read(ctx context.Context, queries ...query) ([][]pair, int64, error)
	// readAt returns what a span held at a past revision, in order of key;
	// errCompacted if that is no longer kept.
	readAt(ctx context.Context, rev int64, s span) ([]pair, error)
	// write applies ops if every cond holds; ok tells whether they did.
	write(ctx context.Context, conds []cond, ops []op) (rev int64, ok bool, err error)
	// watch reports changes from a revision on; within one span in order and
	// none left out. The channel closes when ctx ends or after an error.
	watch(ctx context.Context, from int64, spans ...span) <-chan batch
	grant(ctx context.Context, ttl time.Duration) (lease int64, err error)
	keep(ctx context.Context, lease int64) error
	revoke(ctx context.Context, lease int64) error
	close() error
}
