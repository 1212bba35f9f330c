package main

import (
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"rhumb/internal/netlab"
)

// labProc is one process of the lab: a unit of a site, a router, an origin. It
// is started and killed, never restarted behind the operator's back.
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
	cmd  *exec.Cmd
	done chan struct{} // closed when the process that runs has ended
}

// start runs the process unless it runs already.
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

func (p *labProc) reap(cmd *exec.Cmd, done chan struct{}) {
	cmd.Wait() // how it ended stands in its log
	p.mu.Lock()
	p.cmd = nil
	p.mu.Unlock()
	close(done)
}

// signal sends a signal; false when the process does not run.
func (p *labProc) signal(sig syscall.Signal) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return false
	}
	return p.cmd.Process.Signal(sig) == nil
}

// kill ends the process at once and waits until it is gone.
func (p *labProc) kill() {
	p.mu.Lock()
	done := p.done
	p.mu.Unlock()
	if p.signal(syscall.SIGKILL) {
		<-done
	}
}

// stop asks the process to end, and kills it after the grace time.
func (p *labProc) stop(grace time.Duration) {
	p.mu.Lock()
	done := p.done
	p.mu.Unlock()
	if !p.signal(syscall.SIGTERM) {
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
