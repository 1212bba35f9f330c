package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"rhumb/internal/config"
	"rhumb/internal/netlab"
	"rhumb/placement"
)

// TestLabFiles: every file of a new lab loads, and a second start keeps what the
// operator may have changed.
func TestLabFiles(t *testing.T) {
	dir, topo := labDir(t.TempDir()), netlab.Lab(netlab.LabOptions{})
	if err := dir.write(topo); err != nil {
		t.Fatal(err)
	}
	for _, site := range labSites(topo) {
		cfg, err := config.LoadNode(dir.nodeFile(site))
		if err != nil {
			t.Fatal(err)
		}
		if cfg.Node.Site != site || len(cfg.BGP.Peers) != 2 || cfg.BGP.ASN != labASN(topo, site) || len(endpoints(cfg)) != len(labSites(topo)) {
			t.Errorf("%s: %+v, peers %+v, etcd %v", site, cfg.Node, cfg.BGP.Peers, endpoints(cfg))
		}
	}
	for _, file := range []string{dir.console(), dir.path("root", "node.yaml")} {
		if _, err := config.LoadNode(file); err != nil {
			t.Error(err)
		}
	}
	fleet, err := config.LoadFleet(dir.fleetFile(), readZone)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range fleet.Fleet.Sites {
		if s.Identity == "" {
			t.Errorf("%s has no identity in the fleet", s.Name)
		}
	}
	edited := []byte("# mine\n")
	if err := os.WriteFile(dir.fleetFile(), edited, 0o644); err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(dir.path("sites", "ams1", "data"), "x")
	if err := writeFile(old, "of the last run"); err != nil {
		t.Fatal(err)
	}
	if err := dir.write(topo); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(dir.fleetFile()); !bytes.Equal(b, edited) {
		t.Error("the second start has overwritten the fleet")
	}
	if _, err := os.Stat(old); err == nil {
		t.Error("the etcd data of the last run is still there")
	}
}

// TestLabTopology: the numbers are those of documentation (RFC 5398), no two nodes
// share one, and both ends of a session know each other by the same.
func TestLabTopology(t *testing.T) {
	topo := netlab.Lab(netlab.LabOptions{})
	seen := make(map[uint32]string)
	for _, n := range append(labSites(topo), nodesOf(topo, netlab.Router)...) {
		asn := labASN(topo, n)
		if asn < 64496 || asn > 64511 || asn == labMarkerASN || seen[asn] != "" {
			t.Errorf("%s has AS %d, as %q", n, asn, seen[asn])
		}
		seen[asn] = n
	}
	for _, r := range nodesOf(topo, netlab.Router) {
		for _, p := range labRouterConfig(topo, r).Peers {
			if seen[p.ASN] == "" {
				t.Errorf("%s peers with %s of AS %d, which nobody has", r, p.Addr, p.ASN)
			}
		}
	}
	for _, s := range labSites(topo) {
		if p := sitePeers(topo, s, nil); len(p) != 2 || p[0].Addr.Is4() == p[1].Addr.Is4() {
			t.Errorf("%s: %v, want a peer of each family", s, p)
		}
		for _, p := range sitePeers(topo, s, nodesOf(topo, netlab.Router)) {
			if p.BFDPort != frrBFDPort {
				t.Errorf("%s: BFD with an FRR at port %d, want %d", s, p.BFDPort, frrBFDPort)
			}
		}
		if own := ownAddresses(topo, s); len(own) != 2 || !own[0].Is4() || !own[1].Is6() {
			t.Errorf("%s has %v", s, own)
		}
	}
}

// TestFreshLog: the last run's log stays beside the new one, and no more.
func TestFreshLog(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.log")
	for run := range 3 {
		if err := freshLog(file); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(file); err == nil {
			t.Errorf("run %d appends to the log of another", run)
		}
		if err := os.WriteFile(file, fmt.Append(nil, run), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if b, _ := os.ReadFile(file + ".old"); string(b) != "1" {
		t.Errorf("kept %q, want the log of the run before", b)
	}
}

// TestReap: a process that died by itself is found dead by kill and by stop, and
// both return.
func TestReap(t *testing.T) {
	p := &labProc{unit: "x"}
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command(args[0], args[1:]...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		p.cmd, p.done = cmd, make(chan struct{})
		go p.reap(cmd, p.done)
	}
	run("sleep", "600")
	p.kill()
	if p.cmd != nil {
		t.Error("killed, and still there: a heal would not start it")
	}
	p.kill() // of none
	run("true")
	p.stop(time.Minute)
	run("sh", "-c", "trap '' TERM; echo; while :; do sleep 0.05; done")
	p.stop(50 * time.Millisecond)
	if p.cmd != nil {
		t.Error("stopped, and still there")
	}
}

// TestLabVerbsNeedANode: a verb at a node that there is not ends with 4 and breaks
// nothing; heal without one means all.
func TestLabVerbsNeedANode(t *testing.T) {
	c := &labControl{world: &world{topo: netlab.Lab(netlab.LabOptions{})}}
	for _, k := range []struct {
		verb, node string
		code       int
		reaches    bool
	}{{"slow", "ams1", 0, true}, {"slow", "void", exitNotFound, false}, {"cut", "", exitNotFound, false}, {"heal", "", 0, true}, {"heal", "void", exitNotFound, false}} {
		reached := false
		do := c.atNode(k.verb, func(context.Context, *netlab.Call) (int, error) { reached = true; return 0, nil })
		code, err := do(t.Context(), &netlab.Call{Request: netlab.Request{Verb: k.verb, Node: k.node}})
		if code != k.code || (err != nil) != (code != 0) || reached != k.reaches {
			t.Errorf("%s %q: code %d, %v, reached %v", k.verb, k.node, code, err, reached)
		}
	}
	code, err := c.kill(t.Context(), &netlab.Call{Request: netlab.Request{Node: "ams1", Args: map[string]string{"unit": "x"}}})
	if code != exitNotFound || err == nil || !strings.Contains(err.Error(), "director, origin, dns, bgp, edge") {
		t.Errorf("kill of an unknown unit: %d, %v", code, err)
	}
}

// TestLabWithoutALab: the verbs say that none runs, in time.
func TestLabWithoutALab(t *testing.T) {
	dir := t.TempDir()
	for want, line := range map[string]string{
		"3 no lab is running":    "lab kill ams1",
		"3 no lab":               "lab nodes",
		"7 not ready after 10ms": "lab wait --timeout 10ms",
		"4 no state":             "lab reset",
		"2 want 1qps":            "lab load zero",
	} {
		var out bytes.Buffer
		code := run(t.Context(), append(strings.Fields(line), "--dir", dir), nil, io.Discard, &out)
		wantCode, text, _ := strings.Cut(want, " ")
		if fmt.Sprint(code) != wantCode || !strings.Contains(out.String(), text) {
			t.Errorf("%s: %d %q, want %s", line, code, out.String(), want)
		}
	}
	if err := writeFile(filepath.Join(dir, "group", "group.key"), "x"); err != nil {
		t.Fatal(err)
	}
	if code := run(t.Context(), []string{"lab", "reset", "--dir", dir}, nil, io.Discard, io.Discard); code != exitOK {
		t.Errorf("reset ends with %d", code)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the state is still there")
	}
}

// TestInterrupted: what fails after Ctrl-C was interrupted; what was refused before
// it stays refused.
func TestInterrupted(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	a := &app{err: io.Discard}
	for _, c := range []struct {
		ctx  context.Context
		err  error
		want int
	}{
		{t.Context(), nil, exitOK}, {gone, nil, exitOK},
		{t.Context(), errors.New("x"), exitFailed}, {gone, errors.New("x"), exitInterrupted},
		{gone, withCode(exitUnreachable, errors.New("closed")), exitInterrupted},
		{gone, &placement.Refusal{}, exitRefused}, {gone, withCode(exitTimeout, errors.New("x")), exitTimeout},
	} {
		if got := a.finish(c.ctx, c.err); got != c.want {
			t.Errorf("%v (interrupted %v): %d, want %d", c.err, c.ctx.Err() != nil, got, c.want)
		}
	}
}

// nameServer answers every query over UDP and TCP, or reads it and says nothing.
func nameServer(t *testing.T, silent bool) netip.AddrPort {
	t.Helper()
	pc, l := bothPorts(t)
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		if silent {
			return
		}
		m := new(dns.Msg)
		m.SetReply(q)
		if err := w.WriteMsg(m); err != nil {
			t.Error(err)
		}
	})
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: handler}, {Listener: l, Handler: handler}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		failed := make(chan error, 1)
		go func() { failed <- s.ActivateAndServe() }()
		select {
		case <-started:
			t.Cleanup(func() { s.Shutdown() })
		case err := <-failed:
			t.Fatal(err)
		}
	}
	return netip.MustParseAddrPort(pc.LocalAddr().String())
}

// TestRelay: queries of the host reach the first site that answers, over UDP and
// TCP, and a site that never answers does not keep the lab from ending.
func TestRelay(t *testing.T) {
	silent, living := nameServer(t, true), nameServer(t, false)
	var servers atomic.Pointer[[]netip.AddrPort]
	servers.Store(&[]netip.AddrPort{silent, living})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{servers: func() []netip.AddrPort { return *servers.Load() }, tcp: l, udp: p}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.run(ctx) }()
	q := new(dns.Msg)
	q.SetQuestion("www.cdn.demo.test.", dns.TypeA)
	udp := &dns.Client{Timeout: 30 * time.Second}
	if m, _, err := udp.Exchange(q, p.LocalAddr().String()); err != nil || m.Id != q.Id {
		t.Errorf("over UDP, past a silent site: %v", err)
	}
	servers.Store(&[]netip.AddrPort{living})
	tcp := &dns.Client{Net: "tcp", Timeout: 30 * time.Second}
	if m, _, err := tcp.Exchange(q, l.Addr().String()); err != nil || m.Id != q.Id {
		t.Errorf("over TCP: %v", err)
	}
	servers.Store(&[]netip.AddrPort{silent})
	hangs, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer hangs.Close()
	if _, err := hangs.Write([]byte{0, 1, 0}); err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the relay does not end while a client hangs")
	}
}

// TestNameServers: the first address of each site's name servers, in order of site.
func TestNameServers(t *testing.T) {
	if got := nameServers(nil); got != nil {
		t.Errorf("before the first snapshot: %v", got)
	}
	inv := sampleFleet(t)
	got := nameServers(&placement.Snapshot{Inventory: inv})
	if len(got) != len(inv.Sites) || !slices.IsSortedFunc(got, netip.AddrPort.Compare) {
		t.Errorf("%v of %d sites", got, len(inv.Sites))
	}
}

// TestLoad: it asks at its rate and says what came back; without a name server it
// says so, and one that is silent does not hang it.
func TestLoad(t *testing.T) {
	for _, c := range []struct {
		name   string
		server string
		want   string
	}{
		{"answers", nameServer(t, false).String(), "answered 1"},
		{"silent", nameServer(t, true).String(), "answered 0 (+0)"},
	} {
		var out logBuffer
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- (&app{out: &out}).load(ctx, c.server, "", 150) }()
		eventually(t, c.name, func() bool { return strings.Contains(out.String(), c.want) })
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	err := (&app{out: io.Discard}).load(t.Context(), freePort(t).String(), "", 100)
	if codeOf(err) != exitUnreachable {
		t.Errorf("nobody listens: %v", err)
	}
}

// TestAnswersWith: every address of an answer must be the node's, and there must be one.
func TestAnswersWith(t *testing.T) {
	topo := netlab.Lab(netlab.LabOptions{})
	c := &labCheck{world: &world{topo: topo, log: slog.New(slog.DiscardHandler)}}
	a := func(node string) dns.RR {
		return &dns.A{Hdr: dns.RR_Header{Rrtype: dns.TypeA}, A: ownAddresses(topo, node)[0].AsSlice()}
	}
	for _, k := range []struct {
		answer []dns.RR
		want   bool
	}{{nil, false}, {[]dns.RR{a("ams1")}, true}, {[]dns.RR{a("ams1"), a("nyc1")}, false}, {[]dns.RR{&dns.CNAME{Target: "x."}}, false}} {
		if got := c.answersWith(&dns.Msg{Answer: k.answer}, "ams1"); got != k.want {
			t.Errorf("%v: %v", k.answer, got)
		}
	}
}

// TestNearAndApart: a lab starts without delays and keeps all else; the declared
// topology is not touched.
func TestNearAndApart(t *testing.T) {
	topo := netlab.Lab(netlab.LabOptions{})
	before := slices.Clone(topo.Links)
	delayed := 0
	for i, l := range near(topo).Links {
		if l.Impair.Delay != 0 || l.A.Node != before[i].A.Node {
			t.Errorf("link %d: %+v", i, l)
		}
		if topo.Links[i].Impair.Delay != 0 {
			delayed++
		}
	}
	if delayed == 0 {
		t.Error("the declared delays are gone")
	}
}
