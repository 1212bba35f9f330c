package bgp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"rhumb/placement"
)

// The metrics of the ladder. They are a contract with the filters in etc/bird
// and etc/frr, which turn them into attributes; no route is the last rung.
const (
	metricAnnounce = 100
	metricPrepend  = 200
	metricGShut    = 300
)

// The defaults of KernelConfig: the main table, since FRR learns IPv6 from no other.
const (
	DefaultKernelTable    = 254
	DefaultKernelProtocol = 77
)

// KernelConfig is what the engine of kernel routes needs.
type KernelConfig struct {
	Table    int   // 0 is DefaultKernelTable
	Protocol uint8 // marks our routes, and ours alone; 0 is DefaultKernelProtocol
	// Pulse is the file which tells the watchdog that this process lives; empty
	// means none. It also keeps a second process from writing the same routes.
	Pulse string
	// Reader tells what the local daemon sees; nil is none. It is given no route.
	Reader Engine
}

// Kernel is the engine for a host whose BIRD or FRR owns the BGP sessions: it
// keeps one blackhole route a prefix in a table, with the rung of the ladder as
// its metric, and the daemon redistributes it. The blackhole attracts nothing
// here: the addresses served are on lo, which the kernel looks up first.
//
// Its routes outlive the process. What a dead speaker leaves is announced as it
// was, and Watchdog moves it to gshut.
type Kernel struct {
	fib    fib
	reader Engine
	pulse  *pulse
}

var _ Engine = (*Kernel)(nil)

// fib is the one table, seen through our protocol number: routes of others do
// not exist in it.
type fib interface {
	list() ([]fibRoute, error)
	// add returns errTaken where another protocol has the prefix at that metric.
	add(fibRoute) error
	// del of a route which is not there is no error.
	del(fibRoute) error
}

// fibRoute is a route of the table: all that we set.
type fibRoute struct {
	prefix netip.Prefix
	metric int
}

// errTaken means that a route of somebody else stands where ours should.
var errTaken = errors.New("a route of another protocol has this metric")

// StartKernel returns an engine which goes on from the routes that stand in
// the table. It fails where another process holds the pulse.
func StartKernel(c KernelConfig) (*Kernel, error) {
	f, err := openTable(cmp.Or(c.Table, DefaultKernelTable), cmp.Or(c.Protocol, DefaultKernelProtocol))
	if err != nil {
		return nil, err
	}
	return startKernel(c, f)
}

// startKernel is StartKernel on any table.
func startKernel(c KernelConfig, f fib) (*Kernel, error) {
	k := &Kernel{fib: f, reader: c.Reader}
	if c.Pulse != "" {
		p, err := holdPulse(c.Pulse)
		if err != nil {
			return nil, err
		}
		k.pulse = p
	}
	if err := tidyTable(f); err != nil {
		return nil, errors.Join(fmt.Errorf("bgp: kernel routes: %w", err), k.Close())
	}
	return k, nil
}

// tidyTable leaves each prefix one route, at a metric of the ladder. A death
// between two steps leaves two; the daemon follows the lower, and so do we.
func tidyTable(f fib) error {
	list, err := f.list()
	if err != nil {
		return err
	}
	sortRoutes(list)
	for i, r := range list {
		if i > 0 && list[i-1].prefix == r.prefix {
			continue
		}
		if err := put(f, r.prefix, metricOf(stepOf(r.metric))); err != nil {
			return err
		}
	}
	return nil
}

// Outlives tells that routes stay when the process goes, so that a new one takes
// them over and a clean exit leaves them.
func (k *Kernel) Outlives() bool { return true }

// Announce makes the route's metric that of its step.
func (k *Kernel) Announce(_ context.Context, r Route) error {
	if err := put(k.fib, r.Prefix, metricOf(r.Step)); err != nil {
		return fmt.Errorf("bgp: announce %s: %w", r.Prefix, err)
	}
	return nil
}

// SetAttrs moves the route to the metric of its step; it is never gone between.
func (k *Kernel) SetAttrs(ctx context.Context, r Route) error { return k.Announce(ctx, r) }

// Withdraw removes the route.
func (k *Kernel) Withdraw(_ context.Context, prefix netip.Prefix) error {
	if err := clearBut(k.fib, prefix, 0); err != nil {
		return fmt.Errorf("bgp: withdraw %s: %w", prefix, err)
	}
	return nil
}

// PeerState lists the routes in the table, and the daemon as the reader sees
// it. What the kernel holds is a step; its attributes are the daemon's matter.
func (k *Kernel) PeerState(ctx context.Context) (State, error) {
	var s State
	if k.reader != nil {
		seen, err := k.reader.PeerState(ctx)
		if err != nil {
			return State{}, err
		}
		s.Peers = seen.Peers
	}
	if err := k.pulse.beat(); err != nil {
		return State{}, err
	}
	list, err := k.fib.list()
	if err != nil {
		return State{}, fmt.Errorf("bgp: list routes: %w", err)
	}
	sortRoutes(list)
	for i, r := range list {
		if i == 0 || list[i-1].prefix != r.prefix { // the lowest metric is the one in force
			s.Routes = append(s.Routes, Route{Prefix: r.prefix, Step: stepOf(r.metric)})
		}
	}
	return s, nil
}

// Watch passes on what the reader hears, or waits for the end.
func (k *Kernel) Watch(ctx context.Context, fn func(Change)) error {
	if k.reader != nil {
		return k.reader.Watch(ctx, fn)
	}
	<-ctx.Done()
	return nil
}

// Close leaves the routes and lets go of the pulse: from now on the watchdog counts.
func (k *Kernel) Close() error { return k.pulse.release() }

// put makes a prefix's metric what it shall be: the new route stands before the
// old one goes, so the daemon never sees the prefix gone (make before break).
func put(f fib, prefix netip.Prefix, metric int) error {
	if err := f.add(fibRoute{prefix, metric}); err != nil {
		return err
	}
	return clearBut(f, prefix, metric)
}

// clearBut removes the routes of a prefix at every other metric.
func clearBut(f fib, prefix netip.Prefix, keep int) error {
	list, err := f.list()
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range list {
		if r.prefix == prefix && r.metric != keep {
			errs = append(errs, f.del(r))
		}
	}
	return errors.Join(errs...)
}

// lift moves every route which is louder to gshut, and tells which prefixes it
// moved. It needs no guard: no route goes, and gshut may be reached by anybody.
func lift(f fib) ([]netip.Prefix, error) {
	list, err := f.list()
	if err != nil {
		return nil, err
	}
	sortRoutes(list)
	var moved []netip.Prefix
	var errs []error
	for _, r := range list {
		if r.metric >= metricGShut || slices.Contains(moved, r.prefix) {
			continue
		}
		if err := put(f, r.prefix, metricGShut); err != nil {
			errs = append(errs, fmt.Errorf("bgp: lift %s: %w", r.prefix, err))
			continue
		}
		moved = append(moved, r.prefix)
	}
	return moved, errors.Join(errs...)
}

// sortRoutes orders by prefix, the louder first.
func sortRoutes(list []fibRoute) {
	slices.SortFunc(list, func(a, b fibRoute) int {
		return cmp.Or(comparePrefix(a.prefix, b.prefix), cmp.Compare(a.metric, b.metric))
	})
}

// metricOf returns the metric of a step which is announced.
func metricOf(s placement.Step) int {
	switch s {
	case placement.Announce:
		return metricAnnounce
	case placement.Prepend:
		return metricPrepend
	}
	return metricGShut
}

// stepOf returns the step which a metric is nearest to from above: a strange one
// counts as the more careful step.
func stepOf(metric int) placement.Step {
	switch {
	case metric <= metricAnnounce:
		return placement.Announce
	case metric <= metricPrepend:
		return placement.Prepend
	}
	return placement.GShut
}
