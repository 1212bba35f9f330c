package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"rhumb/internal/netlab"
)

// labControl serves the lab's control socket: the network's own verbs, and those
// that concern processes.
type labControl struct {
	world *world
	sock  *netlab.Control
	// ready closes when the start is complete, over when the lab ends.
	ready, over chan struct{}
	// replaying is held by the one replay that may run.
	replaying sync.Mutex
}

// newControl opens the socket; a second lab in the same directory is refused here.
func newControl(w *world) (*labControl, error) {
	c := &labControl{world: w, ready: make(chan struct{}), over: make(chan struct{})}
	verbs := w.net.Handlers()
	verbs["kill"], verbs["heal"], verbs["wait"], verbs["replay"] = c.kill, c.heal, c.wait, c.replay
	for _, v := range []string{"kill", "heal", "slow", "flap", "cut", "exec"} {
		verbs[v] = c.atNode(v, verbs[v])
	}
	sock, err := netlab.ListenControl(w.dir.control(), verbs, w.log)
	if err != nil {
		return nil, err
	}
	c.sock = sock
	return c, nil
}

func (c *labControl) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { close(c.over) })
	defer stop()
	return c.sock.Run(ctx)
}

// wait returns when the start is complete, or with the lab.
func (c *labControl) wait(ctx context.Context, _ *netlab.Call) (int, error) {
	select {
	case <-c.ready:
		return exitOK, nil
	case <-ctx.Done():
		return exitFailed, errors.New("the lab ended before it was ready")
	}
}

// atNode lets a verb through to nodes that there are. Only heal may name none: it
// means all of them then.
func (c *labControl) atNode(verb string, do netlab.Handler) netlab.Handler {
	return func(ctx context.Context, call *netlab.Call) (int, error) {
		if call.Node != "" || verb != "heal" {
			if err := c.known(call.Node); err != nil {
				return exitNotFound, err
			}
		}
		return do(ctx, call)
	}
}

// kill is the lab's own, since only the lab knows which process is which unit.
func (c *labControl) kill(_ context.Context, call *netlab.Call) (int, error) {
	if unit := call.Args["unit"]; unit != "" && len(c.world.of(call.Node, unit)) == 0 {
		return exitNotFound, fmt.Errorf("lab: %s has no unit %q; a site's units are %s", call.Node, unit, strings.Join(siteUnits(), ", "))
	}
	if err := c.world.kill(call.Node, call.Args["unit"]); err != nil {
		return exitFailed, err
	}
	return exitOK, nil
}

// heal undoes the network's faults and starts what was killed.
func (c *labControl) heal(_ context.Context, call *netlab.Call) (int, error) {
	if err := c.world.heal(call.Node, call.Args["unit"]); err != nil {
		return exitFailed, err
	}
	return exitOK, nil
}

func (c *labControl) known(node string) error {
	for _, n := range c.world.topo.Nodes {
		if n.Name == node {
			return nil
		}
	}
	return fmt.Errorf("lab: there is no node %q; sites are %s; all of them: rhumb lab nodes", node, strings.Join(labSites(c.world.topo), ", "))
}
