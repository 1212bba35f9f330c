package netlab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The stage of a re-executed process travels in the environment, because the
// program is the same and its arguments are the caller's.
const (
	envStage    = "RHUMB_NETLAB_STAGE"
	envFiles    = "RHUMB_NETLAB_FILES"
	stageInit   = "init"
	stageWorker = "worker"
)

// firstFile is the descriptor number of the first passed file, after stdio.
const firstFile = 3

// Reexec starts this program again inside new namespaces.
type Reexec struct {
	Args  []string   // arguments of the inner process, program name not included
	Env   []string   // added to our environment
	Files []*os.File // opened outside, returned by Enter inside, in this order

	Stdin, Stdout, Stderr *os.File // nil: those of this process

	// Grace is how long the inner process may take to end after the context
	// ended and it got SIGTERM; then it is killed. Zero means 10 s.
	Grace time.Duration
}

// Run starts the inner process and waits for it. A status other than zero comes
// back as *exec.ExitError.
//
// The inner process is the first one of a PID namespace and is sent SIGKILL when
// the calling thread ends, hence the locked thread: however this process dies,
// all inside die with it, and with them their namespaces and mounts. It has a
// process group of its own, so that Ctrl-C reaches it once, as SIGTERM by ctx.
func (r Reexec) Run(ctx context.Context) error {
	attr, err := namespaceAttr()
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	cmd := exec.CommandContext(ctx, "/proc/self/exe", r.Args...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), r.Env...)
	cmd.Env = append(cmd.Env, envStage+"="+stageInit, envFiles+"="+strconv.Itoa(len(r.Files)))
	cmd.ExtraFiles = r.Files
	cmd.Stdin, cmd.Stdout, cmd.Stderr = orFile(r.Stdin, os.Stdin), orFile(r.Stdout, os.Stdout), orFile(r.Stderr, os.Stderr)
	cmd.SysProcAttr = attr
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = r.Grace
	if cmd.WaitDelay == 0 {
		cmd.WaitDelay = 10 * time.Second
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("netlab: start inner process: %w", err)
	}
	return cmd.Wait()
}

// orFile is f, or the fallback without one.
func orFile(f, fallback *os.File) *os.File {
	if f != nil {
		return f
	}
	return fallback
}

// Inside reports whether this process was started by Reexec.Run and has not yet
// passed Enter, which takes the mark away so that children do not inherit it.
func Inside() bool { return os.Getenv(envStage) != "" }

// Enter completes the way into the namespaces and returns the passed files. In
// the first process of the PID namespace it never returns: that process mounts
// /proc, starts the program once more as worker, reaps what is left to it and
// exits with the worker's status. Call it before any goroutine or descriptor of
// your own exists.
func Enter() ([]*os.File, error) {
	switch os.Getenv(envStage) {
	case stageInit:
		code, err := runInit()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(code)
	case stageWorker:
	default:
		return nil, errors.New("netlab: enter: this process was not started by Reexec")
	}
	n, err := strconv.Atoi(os.Getenv(envFiles))
	if err != nil {
		return nil, fmt.Errorf("netlab: enter: count of passed files: %w", err)
	}
	for _, name := range []string{envStage, envFiles} {
		if err := os.Unsetenv(name); err != nil {
			return nil, fmt.Errorf("netlab: enter: %w", err)
		}
	}
	if err := baseUp(); err != nil {
		return nil, err
	}
	files := make([]*os.File, n)
	for i := range files {
		unix.CloseOnExec(firstFile + i)
		files[i] = os.NewFile(uintptr(firstFile+i), "passed-"+strconv.Itoa(i))
	}
	return files, nil
}

// baseUp brings up lo of the namespace in which the worker itself lives, so that
// parts of a lab can talk over 127.0.0.1 there.
func baseUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("netlab: enter: find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("netlab: enter: lo up: %w", err)
	}
	return nil
}

// runInit is the life of the first process. It stays separate from the worker
// because waiting for every orphan would steal the exits os/exec waits for.
func runInit() (code int, err error) {
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return 1, fmt.Errorf("netlab: make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return 1, fmt.Errorf("netlab: mount /proc of the new PID namespace: %w", err)
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2)
	worker, err := startWorker()
	if err != nil {
		return 1, err
	}
	go func() {
		for s := range signals {
			worker.Signal(s)
		}
	}()
	return reap(worker.Pid)
}

// startWorker starts the program once more, with the stage that lets it through.
func startWorker() (*os.Process, error) {
	n, err := strconv.Atoi(os.Getenv(envFiles))
	if err != nil {
		return nil, fmt.Errorf("netlab: count of passed files: %w", err)
	}
	files := []*os.File{os.Stdin, os.Stdout, os.Stderr}
	for i := range n {
		files = append(files, os.NewFile(uintptr(firstFile+i), "passed"))
	}
	if err := os.Setenv(envStage, stageWorker); err != nil {
		return nil, fmt.Errorf("netlab: start worker: %w", err)
	}
	p, err := os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{Files: files})
	if err != nil {
		return nil, fmt.Errorf("netlab: start worker: %w", err)
	}
	for _, f := range files[firstFile:] {
		f.Close() // only the worker may hold the listeners open
	}
	return p, nil
}

// reap waits for every child until the worker is among them, and returns the
// worker's status as a shell would give it.
func reap(worker int) (int, error) {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 1, fmt.Errorf("netlab: wait for worker: %w", err)
		case pid == worker && status.Signaled():
			return 128 + int(status.Signal()), nil
		case pid == worker && status.Exited():
			return status.ExitStatus(), nil
		}
	}
}

const labNamespaces = unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID

// namespaceAttr finds out how the namespaces can be made here: directly when
// privileged, else below a new user namespace in which the caller is root.
func namespaceAttr() (*syscall.SysProcAttr, error) {
	plain := &syscall.SysProcAttr{Cloneflags: labNamespaces, Pdeathsig: unix.SIGKILL, Setpgid: true}
	first := probe(*plain)
	if first == nil {
		return plain, nil
	}
	user := *plain
	user.Cloneflags |= unix.CLONE_NEWUSER
	user.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	user.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	if err := probe(user); err != nil {
		return nil, fmt.Errorf("netlab: no namespaces here: as this user %w; below a user namespace %w%s", first, err, hint())
	}
	return &user, nil
}

// Available reports what keeps the lab's namespaces from being made here, nil
// when nothing does. It makes them and lets them go again.
func Available() error {
	_, err := namespaceAttr()
	return err
}

// probe creates the namespaces for a process whose program does not exist: that
// its execution fails for just this reason proves that all before it worked.
// Unsharing the mounts once more makes the runtime remount "/" private, which
// shows that mounting is permitted too: some systems allow user namespaces and
// then strip their capabilities.
func probe(attr syscall.SysProcAttr) error {
	attr.Cloneflags &^= unix.CLONE_NEWNS
	attr.Unshareflags = unix.CLONE_NEWNS
	p, err := os.StartProcess("/proc/self/no-such-program", []string{"probe"}, &os.ProcAttr{Sys: &attr})
	if err == nil {
		p.Kill()
		p.Wait()
		return errors.New("a program that does not exist was started")
	}
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// hint names the switches which distributions use to forbid user namespaces.
func hint() string {
	for _, s := range []struct{ path, bad, say string }{
		{"/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone is 0"},
		{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns is 1"},
		{"/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces is 0"},
	} {
		b, err := os.ReadFile(s.path)
		if err == nil && strings.TrimSpace(string(b)) == s.bad {
			return " (" + s.say + ")"
		}
	}
	return ""
}

// RunTests is the body of a TestMain whose tests build Nets: it runs them inside
// the namespaces, as any user, so that a test which dies leaves nothing behind.
func RunTests(m interface{ Run() int }) int {
	if !Inside() {
		err := Reexec{Args: os.Args[1:]}.Run(context.Background())
		var exit *exec.ExitError
		switch {
		case errors.As(err, &exit):
			return exit.ExitCode()
		case err != nil:
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	if _, err := Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}
