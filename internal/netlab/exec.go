package netlab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ExecHandler returns the handler for the verb "exec": it runs Argv inside Node
// with the client's own stdin, stdout and stderr, passed as three files. Signals
// go to the whole process group of the program; a client that leaves takes it
// along. The code is the program's, or 126 and 127 as a shell has them when it
// could not be started, or 128 and the signal's number.
func (n *Net) ExecHandler() Handler {
	return func(ctx context.Context, c *Call) (int, error) {
		host, err := n.Host(c.Node)
		if err != nil {
			return 2, err
		}
		if len(c.Argv) == 0 || len(c.Files) != 3 {
			return 2, fmt.Errorf("netlab: exec in %s: want a program and three files, have %d words and %d files", c.Node, len(c.Argv), len(c.Files))
		}
		return host.exec(ctx, c)
	}
}

func (h *Host) exec(ctx context.Context, c *Call) (int, error) {
	path, err := lookPath(c.Argv[0], c.Env)
	if err != nil {
		return 127, fmt.Errorf("netlab: exec in %s: %w", h.Name, err)
	}
	cmd := &exec.Cmd{
		Path: path, Args: c.Argv, Env: c.Env, Dir: c.Dir,
		Stdin: c.Files[0], Stdout: c.Files[1], Stderr: c.Files[2],
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
	}
	if err := h.Start(cmd); err != nil {
		return 126, err
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		for {
			select {
			case s, ok := <-c.Signals:
				if ok {
					unix.Kill(-cmd.Process.Pid, s)
					continue
				}
				unix.Kill(-cmd.Process.Pid, unix.SIGKILL) // the client left
				return
			case <-ctx.Done():
				unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
				return
			case <-ended:
				return
			}
		}
	}()
	return exitCode(cmd.Wait())
}

// exitCode turns the result of Wait into a shell's status.
func exitCode(err error) (int, error) {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case !errors.As(err, &exit):
		return 126, fmt.Errorf("netlab: wait for program: %w", err)
	}
	status := exit.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return status.ExitStatus(), nil
}

// lookPath finds a program as the client's shell would, by the client's PATH.
func lookPath(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	path := os.Getenv("PATH")
	for _, e := range env {
		if value, ok := strings.CutPrefix(e, "PATH="); ok {
			path = value
		}
	}
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(dir, name)
		if st, err := os.Stat(file); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
}
