//go:build e2e

package forward

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"rhumb/placement"
)

// agentConfig is what a forwarder's process is told.
type agentConfig struct {
	Site    string
	Local   netip.AddrPort
	Peer    string
	PeerAt  netip.AddrPort
	VIPs    []netip.AddrPort
	Act     bool
	PathMTU int
	QUIC    QUIC
	Others  []Peer // beside Peer, without keys
	Near    bool   // all of them are edges of one site
}

// agentStats is its answer to "stats".
type agentStats struct {
	Metrics map[string]float64
	Flows   []Forwarded
	Owned   map[string]int
	CPU     time.Duration
	Foreign int
	Known   int // flows that the peer announced
	Relays  []Relay
}

// runAgent runs a forwarder until SIGTERM and obeys lines on standard input.
func runAgent(text string) error {
	var c agentConfig
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	mode := Observe
	if c.Act {
		mode = Act
	}
	told := make(chan struct{}, 1<<16)
	key := sha256.Sum256([]byte("the lab's pair key"))
	peers := []Peer{{Site: c.Peer, Near: c.Near, Addr: c.PeerAt, Key: key}}
	for _, p := range c.Others {
		peers = append(peers, Peer{Site: p.Site, Near: c.Near, Addr: p.Addr, Key: key})
	}
	f, err := New(Config{Site: c.Site, Local: c.Local, VIPs: c.VIPs, Mode: mode, Registerer: registry, PathMTU: c.PathMTU,
		Peers:     peers,
		OnForeign: func(Flow, string, time.Time) { told <- struct{}{} },
		Logger:    slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	if err := f.SetQUIC(c.QUIC); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	go obey(f, registry, told)
	return <-done
}

func obey(f *Forwarder, registry *prometheus.Registry, told chan struct{}) {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		command, rest, _ := strings.Cut(lines.Text(), " ")
		switch command {
		case "hears":
			var list []placement.Hearing
			if err := json.Unmarshal([]byte(rest), &list); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
			f.SetHearing(list)
			fmt.Println("{}")
		case "ready":
			for f.ends.Load() == nil {
				time.Sleep(time.Millisecond)
			}
			fmt.Println("{}")
		case "silent":
			f.SetSilent(strings.Fields(rest))
			fmt.Println("{}")
		case "announce-near":
			n, err := f.AnnounceNear()
			fmt.Printf("{\"Foreign\":%d}\n", n)
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		case "announce":
			n, err := f.Announce()
			fmt.Printf("{\"Foreign\":%d}\n", n)
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		case "stats":
			s := agentStats{Metrics: gather(registry), Flows: f.Flows(), Owned: map[string]int{}, Foreign: len(told), Known: f.known(), Relays: f.Relays()}
			owned, err := f.Owned()
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
			for vip, n := range owned {
				s.Owned[vip.String()] = n
			}
			var usage unix.Rusage
			_ = unix.Getrusage(unix.RUSAGE_SELF, &usage)
			s.CPU = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
			b, _ := json.Marshal(s)
			fmt.Println(string(b))
		}
	}
}

// known counts the flows which peers announced.
func (f *Forwarder) known() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, p := range f.peers.Load().bySite {
		n += len(p.digests)
	}
	return n
}

func gather(registry *prometheus.Registry) map[string]float64 {
	values := map[string]float64{}
	families, _ := registry.Gather()
	for _, family := range families {
		for _, m := range family.GetMetric() {
			name := strings.TrimPrefix(family.GetName(), "rhumb_edge_")
			for _, label := range m.GetLabel() {
				name += " " + label.GetValue()
			}
			values[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return values
}

// agent is a forwarder in a process of its own.
type agent struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	site *site
}

// startAgents runs a forwarder at both sites.
func (l *lab) startAgents(t *testing.T, act bool) {
	t.Helper()
	l.a.agent = l.startAgent(t, l.a, l.b, act)
	l.b.agent = l.startAgent(t, l.b, l.a, act)
}

func (l *lab) startAgent(t *testing.T, s, other *site, act bool, others ...*site) *agent {
	t.Helper()
	var more []Peer
	for _, o := range others {
		more = append(more, Peer{Site: o.letter, Addr: o.tunnelAt})
	}
	config, err := json.Marshal(agentConfig{Site: s.letter, Local: s.tunnelAt, Peer: other.letter, PeerAt: other.tunnelAt, VIPs: append(vips(), l.more...), Act: act, PathMTU: l.pathMTU, QUIC: l.quic, Others: more, Near: l.near})
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), agentEnv+"="+string(config))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.start(t, cmd)
	a := &agent{cmd: cmd, in: in, out: bufio.NewReader(out), site: s}
	a.tell(t, "ready")
	return a
}

// tell sends a command and reads the answer. A forwarder that doesn't answer is
// killed: its stack tells why.
func (a *agent) tell(t *testing.T, command string) agentStats {
	t.Helper()
	var s agentStats
	bound := time.AfterFunc(30*time.Second, func() { _ = a.cmd.Process.Signal(syscall.SIGABRT) })
	defer bound.Stop()
	if _, err := fmt.Fprintln(a.in, command); err != nil {
		t.Fatalf("agent of site %s: %v", a.site.letter, err)
	}
	line, err := a.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &s)
	}
	if err != nil {
		t.Fatalf("agent of site %s answers %q: %v", a.site.letter, line, err)
	}
	return s
}
