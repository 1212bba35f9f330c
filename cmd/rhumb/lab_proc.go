package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"rhumb/internal/netlab"
)

// labProc is one process of the lab: a unit of a site, a router, an origin. It
// is started and killed, never restarted behind the operator's back. However the
// lab ends, its processes end with it: they live in its PID namespace, whose first
// process it is. Safe for concurrent use.
type labProc struct {
	host *netlab.Host
	unit string // as `lab kill --unit` names it: dns, bgp, edge, director, origin, router, root, console
	// program is a stock daemon's file; empty: this binary.
	program string
	args    []string
	log     string
	// files are passed as descriptors 3 and on.
	files []*os.File

	mu   sync.Mutex
	cmd  *exec.Cmd     // nil while it does not run
	done chan struct{} // closed when the process that runs has ended
}

// freshLog makes room for the log of a new run; of the runs before, the last one's
// is kept beside it.
func freshLog(file string) error {
	if err := os.Rename(file, file+".old"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("lab: log of the last run: %w", err)
	}
	return nil
}

// start runs the process unless it runs already. A process that was killed and
// healed goes on in the same log.
func (p *labProc) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		return nil
	}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("lab: start %s of %s: %w", p.unit, p.host.Name, err)
	}
	defer out.Close() // the child has its own copy
	cmd := exec.Command(or(p.program, "/proc/self/exe"), p.args...)
	if p.program == "" {
		cmd.Args[0] = "rhumb"
	}
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = out, out, p.files
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.host.Start(cmd); err != nil {
		return fmt.Errorf("lab: start %s of %s: %w", p.unit, p.host.Name, err)
	}
	p.cmd, p.done = cmd, make(chan struct{})
	go p.reap(cmd, p.done)
	return nil
}

// reap waits for the end of one run of the process; start made it, and it ends
// with the process.
func (p *labProc) reap(cmd *exec.Cmd, done chan struct{}) {
	cmd.Wait() // how it ended stands in its log
	p.mu.Lock()
	p.cmd = nil
	p.mu.Unlock()
	close(done)
}

// signal sends a signal and returns what closes when the process has ended; nil
// when it does not run. To one which has died but was not waited for yet the
// signal is lost, and its end comes all the same.
func (p *labProc) signal(sig syscall.Signal) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return nil
	}
	_ = p.cmd.Process.Signal(sig)
	return p.done
}

// kill ends the process at once and waits until it is gone.
func (p *labProc) kill() {
	if done := p.signal(syscall.SIGKILL); done != nil {
		<-done
	}
}

// stop asks the process to end, and kills it after the grace time.
func (p *labProc) stop(grace time.Duration) {
	done := p.signal(syscall.SIGTERM)
	if done == nil {
		return
	}
	select {
	case <-done:
	case <-time.After(grace):
		p.kill()
	}
}

// ended tells a process that was started and does not run any more.
func (p *labProc) ended() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd == nil && p.done != nil
}
