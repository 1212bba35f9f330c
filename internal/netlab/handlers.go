package netlab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Handlers returns the verbs that need nothing but the Net: exec, nodes, heal, lift, and
// every kind of fault. The caller adds its own, and may wrap these.
func (n *Net) Handlers() map[string]Handler {
	all := map[string]Handler{"exec": n.ExecHandler(), "nodes": n.nodes, "heal": n.heal, "lift": n.lift}
	for _, kind := range []FaultKind{Kill, Cut, Slow, Flap, Lossy, Mute, Blackhole} {
		all[string(kind)] = func(_ context.Context, c *Call) (int, error) { return n.breakBy(kind, c) }
	}
	return all
}

// NodeView is what the verb "nodes" replies for each node.
type NodeView struct {
	Name      string       `json:"name"`
	Role      Role         `json:"role"`
	Region    string       `json:"region"`
	Addresses []netip.Addr `json:"addresses"`
	Faults    []Fault      `json:"faults,omitempty"`
}

// Nodes lists the nodes in order of declaration.
func (n *Net) Nodes() []NodeView {
	faults := n.Faults()
	var all []NodeView
	for _, node := range n.Topology.Nodes {
		v := NodeView{Name: node.Name, Role: node.Role, Region: node.Region, Addresses: n.Topology.Addresses(node.Name)}
		for _, f := range faults {
			if f.Node == node.Name {
				v.Faults = append(v.Faults, f)
			}
		}
		all = append(all, v)
	}
	return all
}

// nodes replies one message for each node, so that no limit on a message bounds
// how many there may be.
func (n *Net) nodes(_ context.Context, c *Call) (int, error) {
	for _, v := range n.Nodes() {
		if err := c.Reply(v); err != nil {
			return 1, err
		}
	}
	return 0, nil
}

// heal undoes the faults of the request's node, or all without one.
func (n *Net) heal(_ context.Context, c *Call) (int, error) {
	if err := n.Heal(c.Node); err != nil {
		return 1, err
	}
	return 0, nil
}

// lift undoes the one fault of the request's node that its arguments name.
func (n *Net) lift(_ context.Context, c *Call) (int, error) {
	if err := n.Lift(FaultKind(c.Args["kind"]), c.Node, c.Args["towards"]); err != nil {
		return 1, err
	}
	return 0, nil
}

// breakBy reads a fault from a request: arguments towards, delay (a duration),
// share (0 to 1) and prefixes (separated by commas).
func (n *Net) breakBy(kind FaultKind, c *Call) (int, error) {
	f, err := faultOf(kind, c.Request)
	if err != nil {
		return 2, err
	}
	if err := n.Break(f); err != nil {
		return 1, err
	}
	return 0, nil
}

// faultOf reads the arguments of a request; whether the fault fits is for Break.
func faultOf(kind FaultKind, r Request) (f Fault, err error) {
	f = Fault{Kind: kind, Node: r.Node, Towards: r.Args["towards"]}
	if s := r.Args["delay"]; s != "" {
		if f.Delay, err = time.ParseDuration(s); err != nil {
			return f, fmt.Errorf("netlab: %s %s: %w", kind, r.Node, err)
		}
	}
	if s := r.Args["share"]; s != "" {
		if f.Share, err = strconv.ParseFloat(s, 64); err != nil {
			return f, fmt.Errorf("netlab: %s %s: share: %w", kind, r.Node, err)
		}
	}
	for s := range strings.SplitSeq(r.Args["prefixes"], ",") {
		if s == "" {
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return f, fmt.Errorf("netlab: %s %s: %w", kind, r.Node, err)
		}
		f.Prefixes = append(f.Prefixes, p)
	}
	return f, nil
}

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

// workDir is the client's directory, or the root where the lab's user may not
// enter it: root may give an order to a lab that nobody runs.
func workDir(dir string) string {
	if unix.Access(dir, unix.X_OK) != nil {
		return "/"
	}
	return dir
}

// exec runs the program and watches its client meanwhile.
func (h *Host) exec(ctx context.Context, c *Call) (int, error) {
	path, err := lookPath(c.Argv[0], c.Env)
	if err != nil {
		return 127, fmt.Errorf("netlab: exec in %s: %w", h.Name, err)
	}
	cmd := &exec.Cmd{
		Path: path, Args: c.Argv, Env: c.Env, Dir: workDir(c.Dir),
		Stdin: c.Files[0], Stdout: c.Files[1], Stderr: c.Files[2],
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
	}
	if c.Args[argTTY] != "" {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true} // of file 0
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
