package netlab

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// keepEvery is how often a Table is compared with the kernel's.
const keepEvery = 250 * time.Millisecond

// Table is what a routing program wants in the kernel's table, and writes again when it has
// gone: the kernel drops a route with its link, of IPv4 in silence, and does not bring it
// back when the link is there again, however short that was. Safe for concurrent use.
type Table struct {
	fib *FIB
	log *slog.Logger

	mu   sync.Mutex
	want map[netip.Prefix][]NextHop
}

// NewTable is an empty table in front of a FIB.
func NewTable(f *FIB, log *slog.Logger) *Table {
	return &Table{fib: f, log: log, want: map[netip.Prefix][]NextHop{}}
}

// Set makes the route to p lead to hops; none removes it.
func (t *Table) Set(p netip.Prefix, hops []NextHop) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(hops) == 0 {
		delete(t.want, p)
		return t.fib.Delete(p)
	}
	t.want[p] = slices.Clone(hops)
	return t.fib.Replace(p, hops)
}

// Keep compares until the context ends.
func (t *Table) Keep(ctx context.Context) {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			t.compare()
		}
	}
}

// compare writes what is not there as it was written. A way out whose link is down is tried
// again at the next turn.
func (t *Table) compare() {
	t.mu.Lock()
	defer t.mu.Unlock()
	now, err := t.fib.List()
	if err != nil {
		t.log.Error("fib", "err", err)
		return
	}
	there := map[netip.Prefix]int{}
	for _, r := range now {
		there[r.Prefix] = len(r.Hops)
	}
	for _, p := range slices.SortedFunc(maps.Keys(t.want), comparePrefix) {
		hops := t.want[p]
		if there[p] == len(hops) {
			continue
		}
		switch err := t.fib.Replace(p, hops); {
		case err == nil:
			t.log.Info("the kernel had dropped a route", "prefix", p.String())
		case !errors.Is(err, unix.ENETUNREACH) && !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.ENETDOWN):
			t.log.Error("fib", "prefix", p.String(), "err", err)
		}
	}
}
