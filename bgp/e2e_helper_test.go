//go:build e2e

package bgp

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/placement"
)

// The library allows one BGP server in a process, and each site of a test
// stands in a namespace of its own; so the test binary runs itself again as the
// speaker, the bare engine or the transit router, told by lines on stdin.

// helperEnv carries the helper's settings as JSON.
const helperEnv = "RHUMB_BGP_E2E"

// helperConfig is what a helper process is to be.
type helperConfig struct {
	Role string // engine, transit, speaker, watchdog, source, sink, or one of the BFD tests
	ASN  uint32
	// MarkerASN where it is not ASN.
	MarkerASN uint32
	RouterID  netip.Addr
	Site      uint16
	Node      string // speaker: n1, and there is no store; else one that lets it leave
	Peers     []Peer
	Port      int
	NextHop4  netip.Addr
	NextHop6  netip.Addr
	Mode      placement.Mode
	Prefixes  []placement.Prefix
	VIPs      []netip.Addr
	Slots     bool
	Live      []placement.Announced // what other sites announce, as the speaker is told
	Kernel    *KernelConfig         // speaker: routes for the daemon of the same host; watchdog: whose
	After     time.Duration         // watchdog
	WarmUp    time.Duration         // speaker; 100 ms
	BFD       bfdHelper
}

func TestMain(m *testing.M) {
	if raw := os.Getenv(helperEnv); raw != "" {
		if err := helper(raw); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func helper(raw string) error {
	var c helperConfig
	if err := json.Unmarshal([]byte(raw), &c); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	switch c.Role {
	case "speaker":
		return runSpeaker(ctx, c)
	case "spin", "reference", "forge":
		return runBFDHelper(ctx, c)
	case "watchdog":
		return runWatchdog(ctx, c)
	case "source":
		return runSource(ctx)
	case "sink":
		return runSink(ctx)
	}
	if c.Kernel != nil {
		return runKernel(ctx, c)
	}
	g, err := StartGoBGP(ctx, GoBGPConfig{ASN: c.ASN, RouterID: c.RouterID, Port: c.Port, Peers: c.Peers,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)), Transit: c.Role == "transit"})
	if err != nil {
		return err
	}
	go g.Watch(ctx, printChange)
	if c.Role == "transit" {
		go g.WatchBest(ctx, func(b Best) { fmt.Println("best", b.Prefix, b.NextHops) })
	}
	fmt.Println("ready")
	go eachLine(func(f []string) {
		if err := command(ctx, g, &c, f); err != nil {
			fmt.Println("error", err)
			return
		}
		fmt.Println("done", strings.Join(f, " "))
	})
	<-ctx.Done()
	return g.Close(context.Background())
}

func printChange(c Change) {
	if c.Peer != nil {
		fmt.Println("peer", c.Peer.Address, c.Peer.State)
		return
	}
	l := c.Learned
	a := l.Route.Attrs
	fmt.Println("learned", l.Peer, l.Route.Prefix, l.Withdrawn, a.LargeCommunities, a.GShut(),
		fmt.Sprintf("path=%d med=%d noexport=%v.", a.Prepend, a.MED, a.NoExport))
}

func eachLine(f func([]string)) {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		if fields := strings.Fields(in.Text()); len(fields) > 0 {
			f(fields)
		}
	}
}

// runKernel is the bare engine of kernel routes.
func runKernel(ctx context.Context, c helperConfig) error {
	k, err := StartKernel(*c.Kernel)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	go eachLine(func(f []string) {
		if err := command(ctx, k, &c, f); err != nil {
			fmt.Println("error", err)
			return
		}
		fmt.Println("done", strings.Join(f, " "))
	})
	<-ctx.Done()
	return k.Close()
}

// command is: announce PREFIX [step=STEP] [prepend=N] [med=N] [gshut] [noexport] | withdraw PREFIX | toward PEER STEP | state
func command(ctx context.Context, g Engine, c *helperConfig, f []string) error {
	if f[0] == "state" {
		st, err := g.PeerState(ctx)
		for _, r := range st.Routes {
			fmt.Printf("route %s %+v\n", r.Prefix, r.Attrs)
		}
		return err
	}
	if f[0] == "toward" {
		var step placement.Step
		if err := step.UnmarshalText([]byte(f[2])); err != nil {
			return err
		}
		return g.(Toward).Toward(ctx, netip.MustParseAddr(f[1]), step)
	}
	prefix := netip.MustParsePrefix(f[1])
	if f[0] == "withdraw" {
		return g.Withdraw(ctx, prefix)
	}
	var step placement.Step
	a := Attrs{LargeCommunities: []LargeCommunity{marker(64500, c.Site)}}
	if prefix.Addr().Is6() {
		a.NextHop = c.NextHop6
	}
	for _, o := range f[2:] {
		name, value, _ := strings.Cut(o, "=")
		n, _ := strconv.Atoi(value)
		switch name {
		case "step":
			if err := step.UnmarshalText([]byte(value)); err != nil {
				return err
			}
		case "prepend":
			a.Prepend = n
		case "med":
			a.MED = uint32(n)
		case "gshut":
			a.Communities = []uint32{GracefulShutdown}
		case "noexport":
			a.NoExport = true
		}
	}
	return g.Announce(ctx, Route{Prefix: prefix, Attrs: a, Step: step})
}

// alwaysSlots grants what is asked.
// alwaysSlots grants every Slot but those of a cover, for which its store is away.
type alwaysSlots struct{}

func (alwaysSlots) TakeSlot(_ context.Context, p placement.Prefix, site, cause string, _ []placement.Announced) (placement.Slot, error) {
	if p.Reach == placement.Global {
		return placement.Slot{}, errors.New("store away")
	}
	return placement.Slot{Prefix: p.Prefix, Number: 1, Site: site, Cause: cause}, nil
}

// nodeStore lets a node leave its site's others.
type nodeStore struct{}

func (nodeStore) SetAnnounced(placement.Announced) {}
func (nodeStore) LeaveNode(context.Context, placement.Announced, []placement.Announced) error {
	return nil
}
func (nodeStore) FreeSlot(context.Context, netip.Prefix, string) error { return nil }

func runSpeaker(ctx context.Context, c helperConfig) error {
	site := "site" + strconv.Itoa(int(c.Site))
	cfg := Config{Site: site, SiteNumber: c.Site, Node: site + "n1", ASN: c.ASN, RouterID: c.RouterID, Port: c.Port,
		Peers: c.Peers, NextHop4: c.NextHop4, NextHop6: c.NextHop6, MarkerASN: c.MarkerASN, Host: NewLoopback(), Addresses: c.VIPs,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Events: func(e Event) {
			fmt.Println("event", e.Prefix, e.From, e.To, "rule="+string(e.Rule), "witness="+strconv.FormatBool(e.Witness), "observed="+strconv.FormatBool(e.Observed))
		}}
	metrics := prometheus.NewRegistry()
	cfg.Registerer = metrics
	special := bfdCommands(metrics)
	cfg.Timing.WarmUp = cmp.Or(c.WarmUp, 100*time.Millisecond)
	if c.WarmUp > 0 {
		cfg.Timing.MaxWarmUp = c.WarmUp // flaps are what is measured
	}
	cfg.Kernel = c.Kernel
	if c.Slots {
		cfg.Slots = alwaysSlots{}
	}
	if c.Node != "" {
		cfg.Node, cfg.Announcer = c.Node, nodeStore{}
		cfg.NodeGShut = time.Second
	}
	var applied atomic.Int64
	tell := cfg.Events
	cfg.Events = func(e Event) {
		fmt.Println("reaction", e.To, time.Duration(e.At.UnixNano()-applied.Load()).Microseconds(), "us")
		tell(e)
	}
	s := New(cfg)
	votes := int64(0)
	go eachLine(func(f []string) { // STEP [local|shared|intent [PREFIX]], the other prefixes are to be announced; or a command of the BFD tests
		if special(f) {
			return
		}
		votes++
		applied.Store(time.Now().UnixNano())
		live := c.Live
		if len(f) > 1 && f[1] == "last" {
			live = nil
		}
		s.Apply(ctx, helperSnapshot(&c, site, f, votes), live)
		fmt.Println("done", strings.Join(f, " "))
	})
	fmt.Println("ready")
	return s.Run(ctx)
}

func runWatchdog(ctx context.Context, c helperConfig) error {
	w, err := NewWatchdog(WatchdogConfig{Pulse: c.Kernel.Pulse, After: c.After,
		Logger: slog.New(slog.NewTextHandler(os.Stdout, nil))})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	return w.Run(ctx)
}

func helperSnapshot(c *helperConfig, site string, f []string, votes int64) *placement.Snapshot {
	snap := &placement.Snapshot{Name: placement.Name{Plan: 1, Votes: votes},
		Inventory: &placement.Inventory{Fleet: placement.Fleet{Mode: placement.Act, Prefixes: c.Prefixes}}}
	var step placement.Step
	if err := step.UnmarshalText([]byte(f[0])); err != nil {
		fmt.Println("error", err)
	}
	if len(f) > 1 && (f[1] == "node" || f[1] == "last") { // this node alone is drained, with another one or none beside it
		snap.Inventory.Drains = []placement.Drain{{Site: site + "/" + c.Node, Audit: placement.Audit{Who: "eve", Reason: "memory"}}}
		f = f[:1]
	}
	for _, p := range c.Prefixes {
		a := placement.Announcement{Prefix: p.Prefix, Site: site, Want: step, Cause: "test", Mode: c.Mode}
		switch {
		case len(f) > 2 && f[2] != p.Prefix.String():
			a.Want = placement.Announce
		case len(f) > 1 && f[1] == "intent":
			a.Intent = true
		case len(f) > 1:
			a.Fault = placement.Fault(f[1])
		}
		snap.Announcements = append(snap.Announcements, a)
	}
	for _, o := range c.Live { // what others announce, they are to announce
		if o.Site == site {
			continue
		}
		snap.Announcements = append(snap.Announcements, placement.Announcement{Prefix: o.Prefix, Site: o.Site, Want: placement.Announce, Cause: "test", Mode: c.Mode})
	}
	return snap
}
