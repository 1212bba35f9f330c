package netlab

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// keeper is a locked thread inside namespaces of its own, which runs what it is
// handed, one at a time. Work that may block does not belong here.
type keeper struct {
	work  chan func()
	done  chan struct{} // closed when the thread has left
	net   *os.File      // the network namespace
	outer *os.File      // the one this process was in before
}

// newKeeper makes a network and a mount namespace and runs setup inside them.
func newKeeper(setup func() error) (*keeper, error) {
	k := &keeper{work: make(chan func()), done: make(chan struct{})}
	ready := make(chan error)
	go onFreshThread(func() {
		defer close(k.done)
		err := k.enter(setup)
		ready <- err
		if err != nil {
			return
		}
		for f := range k.work {
			f()
		}
	})
	if err := <-ready; err != nil {
		<-k.done
		k.closeFiles()
		return nil, err
	}
	return k, nil
}

// onFreshThread runs f on a thread that is not the process's first and that ends
// with f: the first one answers for the whole process in /proc and cannot end.
func onFreshThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return // still locked, so the runtime ends the thread
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		onFreshThread(f)
	}()
	<-done
	runtime.UnlockOSThread()
}

// enter moves this thread into new namespaces. Mounts are made private first of
// all: from a shared "/" a bind mount would show up on the machine.
func (k *keeper) enter(setup func() error) (err error) {
	if k.outer, err = openNetNS(); err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return fmt.Errorf("netlab: new namespaces: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("netlab: make mounts private: %w", err)
	}
	if k.net, err = openNetNS(); err != nil {
		return err
	}
	return setup()
}

// openNetNS opens the calling thread's network namespace. /proc/self would name
// the first thread's, which is another.
func openNetNS() (*os.File, error) {
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("netlab: open network namespace: %w", err)
	}
	return f, nil
}

// do runs f on the keeper's thread and waits for it.
func (k *keeper) do(f func() error) error {
	err := make(chan error, 1)
	k.work <- func() { err <- f() }
	return <-err
}

// close ends the thread. The namespace lives on while a process or socket is in it.
func (k *keeper) close() {
	close(k.work)
	<-k.done
	k.closeFiles()
}

// closeFiles lets go of the namespaces, as far as they were opened.
func (k *keeper) closeFiles() {
	for _, f := range []*os.File{k.net, k.outer} {
		if f != nil {
			f.Close()
		}
	}
}
