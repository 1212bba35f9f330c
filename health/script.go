package health

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"rhumb/placement"
)

// Bounds of a script.
const (
	outputLimit = 4096                   // bytes of output that are kept
	scriptsAt   = 4                      // scripts that run at once
	outputWait  = 100 * time.Millisecond // for output after the end of the script
)

// scriptProber runs programs of one directory. Who may write a fleet file decides
// what is probed; who has the machine decides which programs that may start.
type scriptProber struct {
	dir string // absolute; empty: none may run
}

// probe runs the program of a check with its arguments and nothing else: no shell,
// no environment but the target, the root directory, a process group of its own. At
// the timeout, and at its end, everything in that group is killed. Exit 0 is up, 1
// down, 2 degraded; any other end says nothing of the target. One that is late has
// failed, as everything has that is asked and silent.
func (s scriptProber) probe(ctx context.Context, t Target) Result {
	c := t.Check.Script
	if err := s.permits(c.Command); err != nil {
		return blind("forbidden", err.Error())
	}
	watch := startWatch()
	var out keep
	cmd := &exec.Cmd{Path: c.Command, Args: append([]string{c.Command}, c.Args...), Env: scriptEnv(t), Dir: "/",
		Stdout: &out, Stderr: &out, SysProcAttr: &syscall.SysProcAttr{Setpgid: true}, WaitDelay: outputWait}
	if err := startBare(cmd); err != nil {
		return watch.stamp(blind("own", fmt.Sprintf("%s: %s", c.Command, rootCause(err))))
	}
	late := runGroup(ctx, cmd.Process.Pid)
	err := cmd.Wait()
	r := judgeExit(cmd.ProcessState, err, late)
	r.Bytes = len(out.first)
	if line := out.line(); r.State != placement.Up && line != "" {
		r.Cause += ": " + line
	}
	return watch.stamp(r)
}

// startBare starts a program without the privileges that a unit hands down to
// whatever it starts (capabilities(7), ambient set). The set belongs to a thread, so
// one is used up for it.
func startBare(cmd *exec.Cmd) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
			started <- err
			return
		}
		started <- cmd.Start()
	}()
	return <-started
}

// permits refuses what does not lie in the node's directory for scripts.
func (s scriptProber) permits(command string) error {
	switch {
	case s.dir == "":
		return errors.New("this node runs no scripts: its node file names no directory for them")
	case filepath.Clean(command) != command || !strings.HasPrefix(command, filepath.Clean(s.dir)+"/"):
		return fmt.Errorf("%s does not lie in %s, where this node has its scripts", command, s.dir)
	}
	return nil
}

// scriptEnv is all that a script learns by its environment.
func scriptEnv(t Target) []string {
	return []string{"RHUMB_ADDRESS=" + t.Address.Addr().String(), "RHUMB_PORT=" + strconv.Itoa(int(t.Address.Port())), "RHUMB_HOST=" + t.Host}
}

// runGroup waits for the leader of a process group, and kills the group at its end
// or at the deadline, whichever comes first; late tells which. The leader is not
// reaped here: as long as it is not, no other group can have its number.
func runGroup(ctx context.Context, pid int) (late bool) {
	var killed sync.WaitGroup
	killed.Add(1)
	stop := context.AfterFunc(ctx, func() {
		defer killed.Done()
		syscall.Kill(-pid, syscall.SIGKILL)
	})
	for errors.Is(unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
	}
	if !stop() {
		killed.Wait()
		late = true
	}
	syscall.Kill(-pid, syscall.SIGKILL) // what it left behind
	return late
}

// judgeExit reads the end of a script.
func judgeExit(state *os.ProcessState, err error, late bool) Result {
	switch {
	case late:
		return failed("timeout", "the script did not end in time and was killed")
	case state == nil:
		return blind("own", rootCause(err))
	}
	switch code := state.ExitCode(); code {
	case 0:
		return passed(Result{})
	case 1:
		return failed("script", "the script says down")
	case 2:
		return Result{State: placement.Degraded, Kind: "degraded", Cause: "the script says degraded"}
	default:
		return blind("exit", "the script ended with "+state.String())
	}
}

// keep keeps the first bytes of an output and swallows the rest: a script that
// cannot write would stop, or die.
type keep struct{ first []byte }

func (k *keep) Write(b []byte) (int, error) {
	k.first = append(k.first, b[:min(len(b), outputLimit-len(k.first))]...)
	return len(b), nil
}

// line is the first line, fit for a log.
func (k *keep) line() string {
	s, _, _ := strings.Cut(strings.TrimSpace(strings.ToValidUTF8(string(k.first), "")), "\n")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, s)
}

// rootCause is the innermost error.
func rootCause(err error) string {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err.Error()
		}
		err = next
	}
}
