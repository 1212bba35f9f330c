package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"rhumb/internal/netlab"
)

// The host's own addresses of a lab; a busy port takes the next free one.
const (
	labHTTP   = 8053
	labDNS    = 5300
	portTries = 20
)

// labListeners are opened on the host and passed into the lab: page, and DNS
// over UDP and TCP on one port.
type labListeners struct {
	files []*os.File
	http  netAddr
	dns   netAddr
}

type netAddr string

// openListeners opens them at the first free ports.
func openListeners() (*labListeners, error) {
	out := &labListeners{}
	web, err := firstFree(labHTTP, func(addr string) ([]*os.File, error) {
		return listenFiles(addr, false)
	}, &out.http)
	if err != nil {
		return nil, err
	}
	dns, err := firstFree(labDNS, func(addr string) ([]*os.File, error) {
		return listenFiles(addr, true)
	}, &out.dns)
	if err != nil {
		return nil, err
	}
	out.files = append(web, dns...)
	return out, nil
}

func firstFree(port int, open func(string) ([]*os.File, error), chosen *netAddr) (files []*os.File, err error) {
	for p := port; p < port+portTries; p++ {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(p))
		if files, err = open(addr); err == nil {
			*chosen = netAddr(addr)
			return files, nil
		}
	}
	return nil, fmt.Errorf("lab: no free port from %d on: %w", port, err)
}

// listenFiles opens TCP, and UDP too if wanted, at one address.
func listenFiles(addr string, udp bool) ([]*os.File, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil || !udp {
		return []*os.File{f}, err
	}
	p, err := net.ListenPacket("udp", addr)
	if err != nil {
		f.Close()
		return nil, err
	}
	defer p.Close()
	u, err := p.(*net.UDPConn).File()
	return []*os.File{f, u}, err
}

// startLab is the outer side of `rhumb lab`: it opens the host's listeners and
// runs the lab inside new namespaces, which vanish with it however it ends.
func startLab(ctx context.Context, a *app, dir labDir, foreign *labForeign) error {
	if err := foreign.check(netlab.Lab(netlab.LabOptions{})); err != nil {
		return err
	}
	if err := netlab.Available(); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	if err := os.MkdirAll(string(dir), 0o755); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	l, err := openListeners()
	if err != nil {
		return err
	}
	inside := append([]string{"lab", "inside", "--dir", string(dir), "--http", string(l.http), "--dns", string(l.dns)}, foreign.args()...)
	err = netlab.Reexec{Args: inside, Files: l.files}.Run(ctx)
	if ctx.Err() != nil {
		fmt.Fprintln(a.err, "lab stopped")
		return nil
	}
	return err
}

// runLab is the inner side: it builds the world and keeps it until ctx ends.
func runLab(ctx context.Context, a *app, dir labDir, l *labListeners, foreign *labForeign) error {
	if err := freshLog(dir.log()); err != nil {
		return err
	}
	logFile, err := os.OpenFile(dir.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	defer logFile.Close()
	w := &world{dir: dir, topo: netlab.Lab(netlab.LabOptions{}), log: slog.New(slog.NewTextHandler(logFile, nil)), console: l.files, foreign: foreign}
	p := &labProgress{out: a.out, start: time.Now(), dir: dir, http: l.http, dns: l.dns}
	p.head()
	if err := dir.write(w.topo); err != nil {
		return err
	}
	if w.net, err = netlab.Build(ctx, near(w.topo), w.log); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	defer w.net.Close()
	p.step("namespaces", w.counts())
	if text := foreign.describe(); text != "" {
		p.step("foreign", text)
	}
	if err := w.prepare(); err != nil {
		return err
	}
	defer w.stop()
	ctl, err := newControl(w)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.resolvers(ctx) })
	g.Go(func() error { return ctl.run(ctx) })
	g.Go(func() error {
		if err := w.bringUp(ctx, p); err != nil {
			return err
		}
		p.ready()
		close(ctl.ready)
		return nil
	})
	return g.Wait()
}

func (w *world) counts() string {
	return fmt.Sprintf("%d sites, %d transit routers, %d resolvers, %d clients", len(labSites(w.topo)),
		len(nodesOf(w.topo, netlab.Router)), len(nodesOf(w.topo, netlab.Resolve)), len(nodesOf(w.topo, netlab.Client)))
}

// bringUp starts the processes in the order in which they need each other and
// waits for each stage; what is awaited is what an operator would look at.
func (w *world) bringUp(ctx context.Context, p *labProgress) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	check := &labCheck{world: w}
	defer check.close()
	// Members first: whoever starts beside them waits for them anyway, and takes
	// the processor from them.
	if err := errors.Join(w.applyRoot(ctx), w.start("director", "console")); err != nil {
		return err
	}
	stages := []struct {
		name string
		ok   func(context.Context) (string, error)
		then func() error
	}{
		{"etcd", check.etcd, func() error {
			return errors.Join(w.start(foreignUnits()...), w.start("root", "router", "dns", "edge", "origin"))
		}},
		{"fleet", check.fleet, nil},
		// Health looks once there is something to see: else a slow machine begins with
		// clusters measured down, which come back by ramp for a minute and a half.
		{"zones", check.served, func() error { return w.start("bgp") }},
		{"BGP", check.routes, nil},
		{"sites", check.sites, w.moveApart},
		{"clients", check.clients, nil},
	}
	for _, s := range stages {
		text, err := await(ctx, func(ctx context.Context) (string, error) {
			if err := w.fallen(); err != nil {
				cancel() // waiting on would not bring it back
				return "", err
			}
			return s.ok(ctx)
		})
		if err != nil {
			return fmt.Errorf("lab: %s: %w (logs in %s)", s.name, err, filepath.Join(string(w.dir), "logs"))
		}
		p.step(s.name, text)
		if s.then == nil {
			continue
		}
		if err := s.then(); err != nil {
			return err
		}
	}
	return nil
}

// near is the topology in which a lab starts: all regions side by side, because
// an election and a fleet's first writes would take dozens of round trips
// between continents.
func near(topo netlab.Topology) netlab.Topology {
	links := slices.Clone(topo.Links)
	for i := range links {
		links[i].Impair.Delay = 0
	}
	topo.Links = links
	return topo
}

// moveApart gives every line the delay that the lab declares.
func (w *world) moveApart() error {
	declared := make(map[[2]string]netlab.Impairment)
	for _, l := range w.topo.Links {
		declared[[2]string{l.A.Node, l.B.Node}] = l.Impair
	}
	return w.net.Impair(func(l netlab.Link) netlab.Impairment { return declared[[2]string{l.A.Node, l.B.Node}] })
}

// await asks again and again, briefly, until the answer is yes.
func await(ctx context.Context, ok func(context.Context) (string, error)) (string, error) {
	for {
		text, err := ok(ctx)
		if err == nil {
			return text, nil
		}
		select {
		case <-ctx.Done():
			return "", err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// labProgress prints what a start has come to.
type labProgress struct {
	out   io.Writer
	start time.Time
	dir   labDir
	http  netAddr
	dns   netAddr
}

func (p *labProgress) head() {
	fmt.Fprintf(p.out, "rhumb lab  %s     state in %s (kept; remove with: rhumb lab reset)\n", version, p.dir)
}

func (p *labProgress) step(name, text string) {
	fmt.Fprintf(p.out, " ✓ %-11s %-64s %5.1f s\n", name, text, time.Since(p.start).Seconds())
}

func (p *labProgress) ready() {
	host, port, _ := net.SplitHostPort(string(p.dns))
	fmt.Fprintf(p.out, `   page  http://%[1]s/      metrics  http://%[1]s/metrics
 Try:
   dig @%[2]s -p %[3]s www.cdn.demo.test A +subnet=203.0.113.64/28    # a client near Tokyo
   rhumb explain www.cdn.demo.test --client 203.0.113.67                 # why?
   rhumb lab kill tyo1                                                   # watch answers and routes move
   rhumb lab exec client-eu-1 -- curl --limit-rate 1M -O http://vod.cdn.demo.test/big.bin
   rhumb drain ams1 --reason maintenance --for 10m --wait                # the download goes on
   rhumb lab replay facebook-2021 --naive                                # history; then without --naive
 Ctrl-C stops everything.  Logs: %[4]s
lab ready
`, p.http, host, port, p.dir.path("logs"))
}
