package vip

import (
	"time"

	"golang.org/x/sys/unix"
)

// kernel is what a lease does to its host.
type kernel interface {
	// start silences the addresses, whatever an earlier process left.
	start() error
	// permit lets the host answer until a moment of the clock.
	permit(until time.Duration) error
	// forbid silences it at once.
	forbid() error
	// tell tells the neighbours where the addresses are.
	tell() error
	// up tells whether the device has a link.
	up() bool
	// close leaves everything as it is.
	close()
}

// host is the kernel of this machine.
type host struct {
	fence *fence
	addrs addresses
}

// newHost touches nothing yet.
func newHost(c *Config, l Lease, k clock) *host {
	return &host{fence: &fence{name: tablePrefix + l.Name, device: c.Device, addrs: l.Addrs, clock: k},
		addrs: addresses{device: c.Device, addrs: l.Addrs}}
}

// start puts the rules there first: what is on the device is silent from then on.
func (h *host) start() error {
	if err := h.fence.load(); err != nil {
		return err
	}
	h.addrs.on = true // perhaps
	return h.addrs.drop()
}

// permit puts the addresses there first: the fence opens last, and by its own time.
func (h *host) permit(until time.Duration) error {
	if err := h.addrs.hold(h.fence.clock.now()); err != nil {
		return err
	}
	err := h.fence.permit(until)
	if err != nil { // perhaps the rules had been flushed: they are there again
		err = h.fence.permit(until)
	}
	return err
}

// forbid drops the addresses too. If only that fails the host is silent all the same, and the
// addresses end by themselves.
func (h *host) forbid() error {
	err := h.fence.forbid()
	if err != nil {
		err = h.fence.forbid()
	}
	if dropped := h.addrs.drop(); err == nil && dropped != nil {
		h.addrs.on = false
	}
	return err
}

func (h *host) tell() error { return announce(h.addrs.device, h.addrs.addrs) }
func (h *host) up() bool    { return carrier(h.addrs.device) }
func (h *host) close()      { h.fence.close() }

// hostClock reads the clocks of this machine.
type hostClock struct{}

// now is CLOCK_BOOTTIME: unlike the monotonic clock it counts the time in which the machine
// was suspended.
func (hostClock) now() time.Duration { return read(unix.CLOCK_BOOTTIME) }

// wall is CLOCK_REALTIME.
func (hostClock) wall() int64 { return int64(read(unix.CLOCK_REALTIME)) }

// read reads a clock of the kernel; the time package has neither of the two.
func read(id int32) time.Duration {
	var t unix.Timespec
	// It fails for clocks which the kernel does not have; both are older than nftables.
	_ = unix.ClockGettime(id, &t)
	return time.Duration(t.Nano())
}
