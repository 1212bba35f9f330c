package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"rhumb/internal/netlab"
)

// world is a running lab: the network, and every process in it.
type world struct {
	dir   labDir
	net   *netlab.Net
	topo  netlab.Topology
	log   *slog.Logger
	procs []*labProc // in order of start
	// foreign nodes run a stock daemon in place of ours.
	foreign *labForeign
	// console are the host's listeners, passed on to the console.
	console []*os.File
}

// siteUnits are the processes of a site, in order of start.
func siteUnits() []string { return []string{"director", "origin", "dns", "bgp", "edge"} }

// unitArgs are the command line of a site's process.
func (w *world) unitArgs(site, unit string) []string {
	roles := map[string]string{"director": "placement", "dns": "authdns", "bgp": "bgp,health", "edge": "edge"}
	if unit == "origin" {
		return []string{"lab", "origin", "--listen", ":8080", "--root", w.dir.content(), "--name", site}
	}
	return []string{"serve", "--config", w.dir.nodeFile(site), "--roles", roles[unit]}
}

func (w *world) addProc(node, unit string, args []string, files ...*os.File) (*labProc, error) {
	host, err := w.net.Host(node)
	if err != nil {
		return nil, err
	}
	logFile := w.dir.path("logs", node+"-"+unit+".log")
	if err := errors.Join(os.MkdirAll(filepath.Dir(logFile), 0o755), freshLog(logFile)); err != nil {
		return nil, err
	}
	p := &labProc{host: host, unit: unit, args: args, log: logFile, files: files}
	w.procs = append(w.procs, p)
	return p, nil
}

// prepare declares every process; nothing runs yet.
func (w *world) prepare() error {
	var errs []error
	add := func(node, unit string, args []string, files ...*os.File) {
		_, err := w.addProc(node, unit, args, files...)
		errs = append(errs, err)
	}
	for _, r := range nodesOf(w.topo, netlab.Router) {
		errs = append(errs, w.addRouter(r))
	}
	for _, r := range nodesOf(w.topo, netlab.Resolve) {
		errs = append(errs, w.addResolver(r))
	}
	add(netlab.OpsName, "root", []string{"serve", "--config", w.dir.path("root", "node.yaml"), "--roles", "authdns"})
	for _, unit := range siteUnits() {
		for _, site := range labSites(w.topo) {
			errs = append(errs, w.addUnit(site, unit))
		}
	}
	add(netlab.OpsName, "console", []string{"lab", "console", "--dir", string(w.dir)}, w.console...)
	return errors.Join(errs...)
}

// start starts the processes of some units everywhere.
func (w *world) start(units ...string) error {
	var g errgroup.Group
	for _, p := range w.procs {
		if slices.Contains(units, p.unit) {
			g.Go(p.start)
		}
	}
	return g.Wait()
}

// of returns the processes of a node, all or those of one unit.
func (w *world) of(node, unit string) []*labProc {
	var out []*labProc
	for _, p := range w.procs {
		if p.host.Name == node && (unit == "" || p.unit == unit) {
			out = append(out, p)
		}
	}
	return out
}

// kill takes a node, or one unit of it, down without a clean step before. When it
// returns the processes are gone, so that a heal right after finds them dead.
func (w *world) kill(node, unit string) error {
	if unit == "" {
		if err := w.net.Break(netlab.Fault{Kind: netlab.Kill, Node: node}); err != nil {
			return err
		}
	}
	for _, p := range w.of(node, unit) {
		p.kill()
	}
	return nil
}

// heal undoes every fault at a node and starts what was killed there; of one unit
// alone it starts the process and leaves the network as it is.
func (w *world) heal(node, unit string) error {
	if unit == "" {
		if err := w.net.Heal(node); err != nil {
			return err
		}
	}
	for _, p := range w.procs {
		if node != "" && p.host.Name != node || unit != "" && p.unit != unit {
			continue
		}
		if err := p.start(); err != nil {
			return err
		}
	}
	return nil
}

// fallen names a process that was started and has ended by itself.
func (w *world) fallen() error {
	for _, p := range w.procs {
		if p.ended() {
			return fmt.Errorf("%s of %s has ended: %s", p.unit, p.host.Name, lastLine(p.log))
		}
	}
	return nil
}

// lastLine is the end of what a process said.
func lastLine(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	text := strings.TrimSpace(string(b))
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// stopWithin is the time that processes have for a last word: nothing in the lab
// depends on it, and members of a store which all leave at once never finish.
const stopWithin = time.Second

// stop ends every process, the sites' all at once, and waits.
func (w *world) stop() {
	var wg sync.WaitGroup
	for _, p := range w.procs {
		wg.Go(func() { p.stop(stopWithin) })
	}
	wg.Wait()
}

// resolvers serves the regions' resolvers until the context ends.
func (w *world) resolvers(ctx context.Context) error {
	ops := ownAddresses(w.topo, netlab.OpsName)
	var g errgroup.Group
	for _, name := range nodesOf(w.topo, netlab.Resolve) {
		if w.foreign.resolvers[name] != "" {
			continue
		}
		host, err := w.net.Host(name)
		if err != nil {
			return err
		}
		r, err := netlab.NewResolver(netlab.ResolverConfig{Roots: []netlab.RootServer{{Name: "root-servers.test.", Addrs: ops}},
			Exchange: netlab.HostExchanger{Host: host}, Random: rand.Float64})
		if err != nil {
			return err
		}
		g.Go(func() error { return r.ServeHost(ctx, host, w.topo.Addresses(name), w.log) })
	}
	return g.Wait()
}
