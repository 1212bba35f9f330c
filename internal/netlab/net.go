package netlab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Net is a Topology that was built. Its parts are fixed after Build; Hosts and
// Lines may be used from any goroutine.
type Net struct {
	Topology Topology

	hosts map[string]*Host
	links []*builtLink
	wire  *wire // nil when no link has a line
	log   *slog.Logger

	faults faults
	closer sync.Once
}

// builtLink is a Link with what its ends became. Line is nil without a delay
// line.
type builtLink struct {
	Link
	line *Line
}

// Build makes the namespaces, links, addresses and routes of t. Whatever fails,
// what was made by then is gone again.
func Build(ctx context.Context, t Topology, log *slog.Logger) (*Net, error) {
	if err := t.Check(); err != nil {
		return nil, err
	}
	n := &Net{Topology: t, hosts: map[string]*Host{}, log: log}
	n.faults.init()
	steps := []func() error{n.buildHosts, n.buildLinks, n.buildRoutes, n.settleAll}
	for _, step := range steps {
		err := ctx.Err()
		if err == nil {
			err = step()
		}
		if err != nil {
			return nil, errors.Join(err, n.Close())
		}
	}
	return n, nil
}

// parallel bounds the work on the kernel's one lock for network configuration.
const parallel = 4

// buildHosts makes all namespaces, a few at a time.
func (n *Net) buildHosts() error {
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(parallel)
	for _, node := range n.Topology.Nodes {
		g.Go(func() error {
			h, err := newHost(node)
			if err != nil {
				return err
			}
			h.declared = n.Topology.interfaces(node.Name)
			mu.Lock()
			defer mu.Unlock()
			n.hosts[node.Name] = h
			return nil
		})
	}
	return g.Wait()
}

// buildLinks makes all links and brings them up. Each is numbered by its place in
// the declaration, by which faults find it too.
func (n *Net) buildLinks() error {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlab: netlink socket: %w", err)
	}
	defer nl.Close()
	for _, l := range n.Topology.Links {
		b := &builtLink{Link: l}
		if err := n.joinEnds(nl, b); err != nil {
			return err
		}
		n.links = append(n.links, b)
		if err := n.raiseEnds(l); err != nil {
			return err
		}
	}
	return n.startWire()
}

// joinEnds makes the cable of a link: one veth pair, or two that meet in a line.
func (n *Net) joinEnds(nl *netlink.Handle, b *builtLink) error {
	a := n.hosts[b.A.Node].port(b.A.ifName(b.B))
	z := n.hosts[b.B.Node].port(b.B.ifName(b.A))
	if !b.Line {
		return addVeth(nl, a, z)
	}
	if n.wire == nil {
		var err error
		if n.wire, err = newWire(n.log); err != nil {
			return err
		}
	}
	wa, wz := n.wire.ports(len(n.links))
	if err := addVeth(nl, a, wa); err != nil {
		return err
	}
	if err := addVeth(nl, z, wz); err != nil {
		return err
	}
	line, err := n.wire.add(wa.name, wz.name, b.Impair)
	if err != nil {
		return fmt.Errorf("netlab: line %s-%s: %w", b.A.Node, b.B.Node, err)
	}
	b.line = line
	return nil
}

// raiseEnds gives both ends their addresses and brings them up.
func (n *Net) raiseEnds(l Link) error {
	if err := n.hosts[l.A.Node].raise(l.A.ifName(l.B), l.A.Addrs); err != nil {
		return err
	}
	return n.hosts[l.B.Node].raise(l.B.ifName(l.A), l.B.Addrs)
}

// startWire starts the forwarder when there is anything to forward.
func (n *Net) startWire() error {
	if n.wire == nil {
		return nil
	}
	return n.wire.start()
}

// buildRoutes writes static routes last: they need their links up.
func (n *Net) buildRoutes() error {
	for _, node := range n.Topology.Nodes {
		if err := n.hosts[node.Name].addRoutes(node.Routes); err != nil {
			return err
		}
	}
	return nil
}

// settleAll waits for every host, in order of declaration.
func (n *Net) settleAll() error {
	var all []*Host
	for _, node := range n.Topology.Nodes {
		all = append(all, n.hosts[node.Name])
	}
	return settle(all)
}

// Host returns the named host.
func (n *Net) Host(name string) (*Host, error) {
	h := n.hosts[name]
	if h == nil {
		return nil, fmt.Errorf("netlab: no node %q", name)
	}
	return h, nil
}

// Line returns the delay line between two nodes, seen from the first: its
// Impair of direction Forth acts on frames from a to b.
func (n *Net) Line(a, b string) (LineView, error) {
	for _, l := range n.links {
		switch {
		case l.line == nil:
		case l.A.Node == a && l.B.Node == b:
			return LineView{line: l.line}, nil
		case l.A.Node == b && l.B.Node == a:
			return LineView{line: l.line, swapped: true}, nil
		}
	}
	return LineView{}, fmt.Errorf("netlab: no line between %q and %q", a, b)
}

// Close kills every process in the hosts and takes all down. The namespaces go
// with the last process and thread inside them.
func (n *Net) Close() error {
	var errs []error
	n.closer.Do(func() {
		n.faults.stop()
		for _, node := range n.Topology.Nodes {
			if h := n.hosts[node.Name]; h != nil {
				errs = append(errs, h.Signal(unix.SIGKILL))
			}
		}
		if n.wire != nil {
			errs = append(errs, n.wire.close())
		}
		for _, h := range n.hosts {
			h.close()
		}
	})
	return errors.Join(errs...)
}
