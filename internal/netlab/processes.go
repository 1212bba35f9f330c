package netlab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Start starts cmd inside the host's network and mount namespaces; wait for it
// as for any other. A Pdeathsig must not be set: the starting thread is the
// host's own, and the PID namespace ends stray processes.
func (h *Host) Start(cmd *exec.Cmd) error {
	if err := h.keeper.do(cmd.Start); err != nil {
		return fmt.Errorf("netlab: start in %s: %w", h.Name, err)
	}
	return nil
}

// Run starts cmd inside the host and waits for it.
func (h *Host) Run(cmd *exec.Cmd) error {
	if err := h.Start(cmd); err != nil {
		return err
	}
	return cmd.Wait()
}

// Processes lists the processes inside the host's network namespace, our own
// excluded, in ascending order of PID.
func (h *Host) Processes() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("netlab: list processes: %w", err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		var st unix.Stat_t // a process which ended meanwhile is not of interest
		if unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &st) == nil && st.Ino == h.inode {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// killWithin bounds the wait for killed processes to be gone.
const killWithin = 5 * time.Second

// Signal sends sig to every process of the host. After SIGKILL it waits until
// they have ended and looks again, for one may have started another meanwhile.
func (h *Host) Signal(sig unix.Signal) error {
	deadline := time.Now().Add(killWithin)
	for {
		pids, err := h.Processes()
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			if err := signalProcess(pid, sig, deadline); err != nil {
				return fmt.Errorf("netlab: signal process %d of %s: %w", pid, h.Name, err)
			}
		}
		if sig != unix.SIGKILL {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("netlab: %s starts processes faster than they can be killed", h.Name)
		}
	}
}

// signalProcess signals one process by a descriptor of it, which cannot come to
// mean another process, and after SIGKILL waits until it has ended.
func signalProcess(pid int, sig unix.Signal, deadline time.Time) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ESRCH {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && err != unix.ESRCH {
		return err
	}
	if sig != unix.SIGKILL {
		return nil
	}
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		left := time.Until(deadline)
		n, err := unix.Poll(poll, int(max(left, 0).Milliseconds()))
		switch {
		case n > 0:
			return nil
		case err != nil && err != unix.EINTR:
			return err
		case left <= 0:
			return errors.New("it does not end")
		}
	}
}
