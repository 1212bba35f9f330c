package health

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// Fitness is whether this machine can do its work at all, beside what its services
// answer: a full disk, no file descriptors, a clock that jumps, no link to a router.
// An unfit node says so of its own site, and the guard leads the routes away as far
// as it may; nothing ends, since a disk that is full everywhere must not end every
// route.
type Fitness struct {
	// Dir is where the node keeps its state; a file in it is written at each look.
	Dir string
	// Routers are the BGP peers; those on a connected network show the state of a link.
	Routers []netip.Addr
}

const (
	fitEvery  = time.Second
	unfitAt   = 2 // bad looks in a row
	fitAt     = 3 // good ones
	clockJump = 2 * time.Second
	// clockCalm is how long a clock must have run evenly after a jump.
	clockCalm = 10 * time.Second
	// stuckAfter is when a look that does not return is one that failed: a disk may
	// hang for ever.
	stuckAfter = 10 * time.Second
)

// clock is the wall and the monotonic time of one moment.
type clock struct {
	wall time.Time
	mono time.Duration
}

// fitness is the state of the looks. It is a value for one goroutine.
type fitness struct {
	bad, good int
	cause     string // why unfit; empty: fit
	last      clock
	jumped    clock // the last jump
}

// judge takes a look and the time, and tells whether the state changed.
func (f *fitness) judge(err error, now clock) bool {
	if jump := f.jump(now); jump != nil {
		err = errors.Join(jump, err)
	}
	if err == nil {
		f.bad, f.good = 0, f.good+1
	} else {
		f.bad, f.good = f.bad+1, 0
	}
	switch {
	case f.bad >= unfitAt && f.cause == "":
		f.cause = err.Error()
		return true
	case f.good >= fitAt && f.cause != "":
		f.cause = ""
		return true
	}
	return false
}

// jump tells whether wall and monotonic clock went different ways lately.
func (f *fitness) jump(now clock) error {
	last := f.last
	f.last = now
	if last.wall.IsZero() {
		return nil
	}
	off := now.wall.Sub(last.wall) - (now.mono - last.mono)
	if off.Abs() > clockJump {
		f.jumped = now
	}
	if !f.jumped.wall.IsZero() && now.mono-f.jumped.mono < clockCalm {
		return fmt.Errorf("the clock jumped %s ago", (now.mono - f.jumped.mono).Round(time.Second))
	}
	return nil
}

// Look asks the machine once; an error says why it is not fit.
func (c *Fitness) Look() error {
	return errors.Join(c.disk(), descriptors(), c.link())
}

// disk writes a few bytes where the state is kept; without a directory there is
// nothing to lose.
func (c *Fitness) disk() error {
	if c.Dir == "" {
		return nil
	}
	file := filepath.Join(c.Dir, "fitness")
	if err := os.WriteFile(file, []byte("ok\n"), 0o600); err != nil {
		return fmt.Errorf("the disk takes no writes: %w", err)
	}
	return nil
}

// descriptors opens a file as everybody must who serves anybody.
func descriptors() error {
	f, err := os.Open(os.DevNull)
	if err != nil {
		return fmt.Errorf("no file descriptor: %w", err)
	}
	return f.Close()
}

// link fails when every interface on which a router is connected has lost its
// carrier. Routers several hops away show nothing of a link.
func (c *Fitness) link() error {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil // no evidence
	}
	known, lost := 0, ""
	for _, r := range c.Routers {
		i := connected(interfaces, r)
		switch {
		case i == nil:
		case i.Flags&net.FlagUp != 0 && i.Flags&net.FlagRunning != 0:
			return nil
		default:
			known, lost = known+1, i.Name
		}
	}
	if known > 0 {
		return fmt.Errorf("no link to a router: %s is down", lost)
	}
	return nil
}

// connected returns the interface on whose network an address is, or nil.
func connected(interfaces []net.Interface, a netip.Addr) *net.Interface {
	for i := range interfaces {
		if interfaces[i].Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := interfaces[i].Addrs()
		if err != nil {
			continue
		}
		for _, n := range addrs {
			if ipn, ok := n.(*net.IPNet); ok && ipn.Contains(a.AsSlice()) {
				return &interfaces[i]
			}
		}
	}
	return nil
}

// watchFit looks every second until ctx ends, and passes every result on.
func watchFit(ctx context.Context, look func() error, out chan<- error) {
	t := time.NewTicker(fitEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		select {
		case out <- look():
		case <-ctx.Done():
			return
		}
	}
}
