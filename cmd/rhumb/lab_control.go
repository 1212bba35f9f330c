package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"rhumb/internal/netlab"
)

// labControl serves the lab's control socket: the network's own verbs, and those
// that concern processes.
type labControl struct {
	world *world
	sock  *netlab.Control
	// ready closes when the start is complete.
	ready chan struct{}
}

func newControl(w *world) (*labControl, error) {
	c := &labControl{world: w, ready: make(chan struct{})}
	verbs := w.net.Handlers()
	verbs["kill"], verbs["heal"], verbs["wait"] = c.kill, c.heal, c.wait
	sock, err := netlab.ListenControl(w.dir.control(), verbs, w.log)
	if err != nil {
		return nil, err
	}
	c.sock = sock
	return c, nil
}

func (c *labControl) run(ctx context.Context) error { return c.sock.Run(ctx) }

func (c *labControl) wait(ctx context.Context, _ *netlab.Call) (int, error) {
	select {
	case <-c.ready:
		return exitOK, nil
	case <-ctx.Done():
		return exitFailed, errors.New("the lab ended before it was ready")
	}
}

func (c *labControl) kill(_ context.Context, call *netlab.Call) (int, error) {
	if err := c.known(call.Node); err != nil {
		return exitNotFound, err
	}
	if err := c.world.kill(call.Node, call.Args["unit"]); err != nil {
		return exitFailed, err
	}
	return exitOK, nil
}

func (c *labControl) heal(_ context.Context, call *netlab.Call) (int, error) {
	if call.Node != "" {
		if err := c.known(call.Node); err != nil {
			return exitNotFound, err
		}
	}
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
	return fmt.Errorf("lab: there is no node %q; sites are %v", node, slices.Sorted(slices.Values(labSites(c.world.topo))))
}
