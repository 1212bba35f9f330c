package zone

import (
	"syscall"
	"time"
)

// A large zone is read, compared and walked through for up to seconds, on the cores on
// which queries are answered. Who wakes up to answer one waits until the kernel takes the
// core from whoever computes there: up to a scheduler's slice and a tick, 4 ms and more,
// and a low priority shortens neither (EEVDF keeps a slice whole, whatever it weighs). Real
// idle priority would, but then whoever computes could be stopped with a lock of the runtime in his hands, or
// hold up the collector, which stops all others and waits for him. So long work pauses by itself.
const (
	stint = time.Millisecond      // of work, at most a little longer
	pause = 50 * time.Microsecond // enough for others to be taken first
	// stepsPerLook are made between two looks at the clock; each takes one to some hundred
	// microseconds.
	stepsPerLook = 8
)

// pacer paces a long piece of work. The zero value is ready; it is for one goroutine.
type pacer struct {
	steps, pauses int
	since         time.Time // the last pause
}

// step is called once for each small part of the work.
func (p *pacer) step() {
	if p.steps++; p.steps%stepsPerLook != 0 {
		return
	}
	now := time.Now()
	if p.since.IsZero() {
		p.since = now
	}
	if now.Sub(p.since) < stint {
		return
	}
	// Of the thread, not of the goroutine: the runtime's timers are a millisecond coarse.
	// That a signal ends it early is right as well.
	_ = syscall.Nanosleep(&syscall.Timespec{Nsec: pause.Nanoseconds()}, nil)
	p.pauses++
	p.since = time.Now()
}
